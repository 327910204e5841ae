// Empty: a function without a body, as goyield, is allowed only beside assembly.

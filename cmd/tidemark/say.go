package main

import (
	"fmt"
	"io"
)

// say prints for people. What cannot be shown to them cannot be reported to them either, so there is no error.
func say(w io.Writer, format string, args ...any) {
	_, _ = fmt.Fprintf(w, format, args...)
}

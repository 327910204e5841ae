package loop

import _ "unsafe" // for linkname

// goyield is runtime.Gosched, but the goroutine stays where it is, unless another one waits there. Gosched wakes a second thread, which
// takes the loop over, with cold caches and often on another processor, a hundred times a second: where one client has a loop for itself,
// a fifth of all CPU time (measured). The runtime keeps the name for those who link to it.
//
//go:linkname goyield runtime.goyield
func goyield()

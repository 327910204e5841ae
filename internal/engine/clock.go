package engine

import "time"

var started = time.Now()

// Clock is the time since the process started: monotonic, never zero, and cheaper to read than time.Now.
func Clock() time.Duration { return time.Since(started) | 1 }

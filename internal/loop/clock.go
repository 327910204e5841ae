package loop

import "time"

var started = time.Now()

// Clock is the time since the process started: monotonic, never zero, and cheaper to read than time.Now.
func Clock() time.Duration { return time.Since(started) | 1 }

// now is Clock in nanoseconds, which is what loops reckon in.
func now() int64 { return int64(Clock()) }

// Clock is that of the package, read when the task's loop has last slept or got through a round of its tasks: what has become ready
// since then has waited for its turn. It costs nothing.
func (t *Task) Clock() time.Duration {
	if t.routine == nil {
		return t.clockOfLoop()
	}
	return Clock()
}

// sinceStart is a deadline by Clock; 0 for none.
func sinceStart(deadline time.Time) int64 {
	if deadline.IsZero() {
		return 0
	}
	return max(1, int64(deadline.Sub(started)))
}

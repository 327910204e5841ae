package loop

import (
	"runtime"
	"sync/atomic"
	"time"
)

// routine is what a Task needs in the goroutine engine.
//
// A wait registers the task with every source first and looks at readiness then; a stream changes its readiness first and
// looks for a registered task then. So one of the two sees the other, and no signal is lost. Signals that are left over
// from an earlier wait only cost a second look.
type routine struct {
	eng    *goroutines
	signal chan struct{} // capacity 1: "look again"
	timer  *time.Timer   // made at the first wait with a deadline, then reused
}

func (r *routine) notify() {
	select {
	case r.signal <- struct{}{}:
	default:
	}
}

func (r *routine) wait(t *Task, deadline time.Time, set []Source) Cause {
	for _, s := range set {
		if s.Conn != nil {
			s.Conn.stream.join(t)
		}
	}
	cause := r.waitJoined(t, deadline, set)
	if r.timer != nil {
		r.timer.Stop()
	}
	for _, s := range set {
		if s.Conn != nil {
			s.Conn.stream.leave()
		}
	}
	return cause
}

func (r *routine) waitJoined(t *Task, deadline time.Time, set []Source) Cause {
	var expired <-chan time.Time
	for {
		select {
		case <-r.eng.killed:
			runtime.Goexit()
		case <-r.eng.closing:
			runtime.Gosched() // a task that ignores Closing must not starve the others
			return Closing
		default:
		}
		if t.woken.Swap(false) {
			return Woken
		}
		for _, s := range set {
			if s.Conn != nil && s.Conn.stream.ready(s.For) {
				return Ready
			}
		}
		if !deadline.IsZero() && expired == nil {
			d := time.Until(deadline)
			if d <= 0 {
				return Timeout
			}
			if r.timer == nil {
				r.timer = time.NewTimer(d)
			} else {
				r.timer.Reset(d)
			}
			expired = r.timer.C
		}
		select {
		case <-r.signal:
		case <-r.eng.closing:
		case <-expired:
			return Timeout
		}
		r.eng.resumes.Add(1)
	}
}

// waiter names the one task that waits for a stream, if any.
type waiter struct{ task atomic.Pointer[Task] }

// errTwoWaiters is what the second of two tasks that wait for the same Conn panics with.
const errTwoWaiters = "loop: two tasks wait for the same Conn; a Conn has one user at a time"

func (w *waiter) join(t *Task) {
	if !w.task.CompareAndSwap(nil, t) && w.task.Load() != t {
		panic(errTwoWaiters)
	}
}

func (w *waiter) leave() { w.task.Store(nil) }

func (w *waiter) notify() {
	if t := w.task.Load(); t != nil {
		t.routine.notify()
	}
}

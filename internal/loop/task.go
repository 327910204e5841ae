package loop

import (
	"sync/atomic"
	"time"
)

// Task is one session or job that an engine runs. Its methods, except Wake, may be called only from within the task.
type Task struct {
	// woken is the sticky Wake. Set by anyone, taken by the task.
	woken atomic.Bool

	coroutine          // used by the epoll engine
	routine   *routine // used by the goroutine engine, nil otherwise
}

// Wait suspends the task until a source of the set is ready, Wake is called, deadline passes (zero: none), or the engine
// closes. It returns at once when one of the first two already holds; only every few such returns let other tasks run
// first. Conns of the set that live on another loop move here (see Own). It does not allocate.
func (t *Task) Wait(deadline time.Time, set ...Source) Cause {
	if t.routine != nil {
		return t.routine.wait(t, deadline, set)
	}
	return t.waitOnLoop(deadline, set)
}

// Wake makes the task's current Wait, or its next one, return Woken. Several calls before that count as one. It may be
// called from any goroutine or task, also after the task has ended.
func (t *Task) Wake() {
	if t.woken.Swap(true) {
		return
	}
	if t.routine != nil {
		t.routine.notify()
		return
	}
	t.wakeOnLoop()
}

// Rest is Wait without a deadline for a task that has nothing on its stack which it still needs. Where the wait is not over at once,
// over is false and the task's function must return: the task gives its stack back, and goes on with body when it has been waited
// for, with the cause; until then the set must not be changed. So an idle task takes little memory, and those that work share stacks. The goroutine engine waits as ever.
func (t *Task) Rest(body func(*Task, Cause), set ...Source) (cause Cause, over bool) {
	if t.routine != nil {
		return t.routine.wait(t, time.Time{}, set), true
	}
	return t.restOnLoop(body, 0, set)
}

// RestUntil is Rest with a deadline.
func (t *Task) RestUntil(deadline time.Time, body func(*Task, Cause), set ...Source) (cause Cause, over bool) {
	if t.routine != nil {
		return t.routine.wait(t, deadline, set), true
	}
	return t.restOnLoop(body, sinceStart(deadline), set)
}

// Await runs f in an ordinary goroutine and suspends the task until f has returned, so that f may block. A panic in f
// becomes a panic of the task. f must not use the task. A Wake meanwhile stays pending; closing the engine does not
// interrupt f, so f bounds itself.
func (t *Task) Await(f func()) {
	if t.routine != nil {
		f()
		return
	}
	t.awaitOnLoop(f)
}

// Own moves c to the task's loop; no other task may be using c. Readiness that was remembered stays remembered, and what
// becomes ready during the move is reported on the new loop. It does nothing when c is already there, or in the
// goroutine engine. When the move fails, c.Read and c.Write return the reason.
func (t *Task) Own(c *Conn) {
	if t.routine == nil {
		t.ownOnLoop(c)
	}
}

// Keep says that no other task than t ever waits for c until it is closed, which saves some work with each wait, and
// lets a loop read ahead.
func (t *Task) Keep(c *Conn) {
	if t.routine == nil {
		c.keep()
	}
}

// LateWriter is who calls WriteLate.
type LateWriter interface {
	// Unsent gives back the end of a late write that the socket did not take, with what Conn.Write said. p is valid during the call.
	Unsent(p []byte, err error)
}

// WriteLate is Write for a task that is about to wait for what comes of it: a loop sends what its tasks write late together, when
// each of them had its turn. What could not be sent goes to w, and the task's wait is over.
func (t *Task) WriteLate(c *Conn, p []byte, w LateWriter) {
	if t.routine == nil && t.writeLateOnLoop(c, p, w) {
		return
	}
	if n, err := c.Write(p); n < len(p) {
		w.Unsent(p[n:], err)
	}
}

// FlushLate sends what the tasks of t's loop have written late, for a task that has a long turn before it.
func (t *Task) FlushLate() {
	if t.routine == nil {
		t.flushLateOnLoop()
	}
}

// Dropped says that n bytes of memory, which were seldom needed, are garbage: the system gets them back soon where it is much.
func (t *Task) Dropped(n int) {
	if t.routine == nil {
		t.droppedOnLoop(n)
	}
}

// Owns reports whether using c costs the task no move between loops.
func (t *Task) Owns(c *Conn) bool {
	return t.routine != nil || t.ownsOnLoop(c)
}

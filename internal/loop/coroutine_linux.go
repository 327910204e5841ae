package loop

import (
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"time"
)

// coroutine is what a Task needs in the epoll engine. Except for loop, which anyone may read, the fields belong to the
// loop's thread: the loop's goroutine and this coroutine take turns.
type coroutine struct {
	eng      *epoll
	loop     atomic.Pointer[eventLoop] // nil: the task runs detached
	stack    *stack                    // that it keeps since its function first waited; nil: that runs on the loop's, or does not
	body     func(*Task)               // its function, until that begins
	rest     func(*Task, Cause)        // the function that it goes on with when its rest is over; nil: it does not rest
	due      bool                      // ... and its rest is over as soon as it begins
	internal bool                      // part of the engine: does not see Closing

	state    taskState
	cause    Cause    // why it was queued
	turns    uint8    // Waits in a row that did not suspend
	set      []Source // of the current wait: kept, or the caller's at Rest
	kept     []Source
	deadline int64 // of the current wait, in by now; 0: none
	timerAt  int64 // key in the timer heap, at most deadline when both are set
	timerPos int   // index there; -1: not in the heap
	window   int64 // the balancing window in which it last ran

	ahead   ahead
	awaited awaited
}

// taskState says who holds a task. See the table in DESIGN.md.
type taskState uint8

const (
	queued   taskState = iota // in the run queue
	running                   // being resumed
	parked                    // in Wait, or at rest, registered with its sources and the timers
	awaiting                  // in Await
	transit                   // in Wait, on its way to another loop
	ended
)

// maxTurns is how many Waits in a row may return at once. Then the other tasks of the loop get their turn, and new events
// are taken in: a relay that always finds more to do must not keep them waiting.
const maxTurns = 8

// killed is the panic that unwinds a task after Close has given up waiting.
type killed struct{}

// run contains the failure of a task. Beyond it, a panic would cross into the loop and lose its stack.
func (t *Task) run() {
	ended := false
	defer func() {
		if !ended {
			t.failed(recover())
		}
	}()
	if body := t.body; body != nil {
		t.body = nil // what only its beginning needed, as a login, is not kept for as long as the task
		body(t)
	} else {
		body := t.rest
		t.rest = nil
		t.notice(t.cause)
		body(t, t.cause)
	}
	ended = true
}

// failed notes what its function has panicked with; nil: it has called runtime.Goexit.
func (t *Task) failed(v any) {
	if v != nil {
		t.rest = nil // it is over
	}
	if v == nil || v == (killed{}) {
		return
	}
	stack := debug.Stack()
	if len(t.awaited.stack) > 0 {
		stack = append(append(stack, "\nin the function that Await ran:\n"...), t.awaited.stack...)
	}
	t.eng.panics.Add(1)
	t.eng.cfg.Panic(v, stack)
}

// runDetached is for tasks started after the loops have stopped: an ordinary goroutine whose Waits return Closing.
func (t *Task) runDetached() {
	defer t.eng.uncount(t)
	t.run()
}

func (t *Task) clockOfLoop() time.Duration {
	if l := t.loop.Load(); l != nil {
		return time.Duration(l.clock)
	}
	return Clock()
}

func (t *Task) waitOnLoop(deadline time.Time, set []Source) Cause {
	l := t.loop.Load()
	if l == nil {
		runtime.Gosched()
		return Closing
	}
	t.ownAll(l, set)
	cause, now := t.look(set)
	switch {
	case now && cause != Closing && t.turns < maxTurns:
		t.turns++
	case now:
		l.enqueue(t, cause)
		cause = t.suspend()
	default:
		t.kept = append(t.kept[:0], set...)
		t.set = t.kept
		t.deadline = sinceStart(deadline)
		if !l.park(t) {
			panic(errTwoWaiters)
		}
		cause = t.suspend()
	}
	t.notice(cause)
	return cause
}

// ownAll moves the connections of a set to the task's loop.
func (t *Task) ownAll(l *eventLoop, set []Source) {
	for _, s := range set {
		if s.Conn != nil && s.Conn.home.Load() != l {
			t.ownOnLoop(s.Conn)
		}
	}
}

// notice takes note of the end of a wait.
func (t *Task) notice(cause Cause) {
	if cause == Woken {
		t.woken.Swap(false) // not Store: what was written before the latest Wake must be visible
	}
}

// look says whether a wait for set is over already, deadline apart.
func (t *Task) look(set []Source) (Cause, bool) {
	if t.eng.closing.Load() && (!t.internal || t.eng.killed.Load()) {
		return Closing, true
	}
	if t.woken.Load() {
		return Woken, true
	}
	for _, s := range set {
		if s.Conn != nil && s.Conn.readySocket(s.For) {
			return Ready, true
		}
	}
	return Ready, false
}

// suspend gives the thread back to the loop until the run queue gets to t again.
func (t *Task) suspend() Cause {
	t.turns = 0
	t.loop.Load().leave(t)
	if t.eng.killed.Load() && t.cause == Closing {
		panic(killed{})
	}
	return t.cause
}

// park registers t with the sources of its set and with the timers. It reports false, and registers nothing, when another
// task waits for one of them.
func (l *eventLoop) park(t *Task) bool {
	for i, s := range t.set {
		if s.Conn == nil {
			continue
		}
		if !s.Conn.register(t, s.For) {
			l.forget(t.set[:i])
			return false
		}
	}
	if t.deadline != 0 {
		l.setTimer(t)
	}
	t.state = parked
	return true
}

// setTimer has t hear of its deadline.
func (l *eventLoop) setTimer(t *Task) {
	if t.timerPos < 0 || t.timerAt > t.deadline {
		l.timers.set(t, t.deadline) // an earlier key stays: it fires once for nothing, and costs nothing until then
	}
}

// register has t wait for c, on the thread of its loop. It reports false, and does nothing, when another task does.
func (c *Conn) register(t *Task, what Interest) bool {
	switch c.waiter.Load() {
	case nil:
		c.want = what
		c.waiter.Store(t)
	case t:
		c.want |= what
	default:
		return false
	}
	return true
}

// forget takes back the registrations of a wait. Afterwards no event can refer to it.
func (l *eventLoop) forget(set []Source) {
	for i, s := range set {
		if c := s.Conn; c != nil && c.kept {
			c.want = 0
		} else if c != nil {
			c.waiter.Store(nil)
		}
		set[i] = Source{} // do not keep closed connections alive
	}
}

// unpark ends the wait of a parked task and queues it.
func (l *eventLoop) unpark(t *Task, cause Cause) {
	l.forget(t.set)
	l.enqueue(t, cause)
}

// shelf is that of t's loop for a pool; nil: it is on none.
func (t *Task) shelf(slot int) *shelf {
	if l := t.loop.Load(); l != nil {
		return &l.shelves[slot]
	}
	return nil
}

func (t *Task) wakeOnLoop() {
	if l := t.loop.Load(); l != nil {
		l.post(mail{t, mailWake})
	}
}

// awaited is what became of the function that Await ran.
type awaited struct {
	returned bool
	panic    any
	stack    []byte
}

func (t *Task) awaitOnLoop(f func()) {
	l := t.loop.Load()
	if l == nil {
		f()
		return
	}
	t.awaited = awaited{}
	t.state = awaiting
	go func() {
		defer func() {
			if !t.awaited.returned {
				if t.awaited.panic = recover(); t.awaited.panic != nil {
					t.awaited.stack = debug.Stack()
				}
			}
			l.post(mail{t, mailResume}) // only parked tasks move, so the loop is still the same
		}()
		f()
		t.awaited.returned = true
	}()
	t.turns = 0
	l.leave(t)
	switch {
	case t.awaited.panic != nil:
		panic(t.awaited.panic)
	case !t.awaited.returned:
		runtime.Goexit() // as f did
	}
}

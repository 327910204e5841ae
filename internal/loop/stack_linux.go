package loop

import (
	"iter"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"time"
)

// stack is a coroutine. A loop runs on one, and calls on it the functions of tasks whose turn comes. When such a function has to
// wait, and is not at Rest, the task keeps the stack, with the loop's frames at its bottom, and the loop goes on on another one; when
// the function has returned at last, the stack is spare. So a turn that ends in a Rest costs a function call, and there are as many
// stacks, of 4 KB and more, as there are tasks in the middle of something, however many are idle.
type stack struct {
	next  func() (struct{}, bool) // goes on with it; called by eventLoop.drive only
	stop  func()                  // ends it while it is spare
	yield func(struct{}) bool     // gives the thread back to drive
	loop  *eventLoop              // whose turn it runs when it begins the next time
	over  bool                    // it ends instead of becoming spare
}

// How many stacks a loop keeps that nothing uses: where many tasks come and go at a time, as those that wait for a connection of a pool
// do, to make them anew would cost more than a microsecond each. Of those that nothing has used in a window some end, so that a
// crowd leaves nothing behind.
const (
	maxStacks  = 256
	minStacks  = 4
	trimStacks = 8 // the part of those that end, 1/n, in a window
)

func newStack() *stack {
	s := &stack{}
	s.next, s.stop = iter.Pull(func(yield func(struct{}) bool) {
		s.yield = yield
		for {
			s.loop.run(s)
			if s.over || !yield(struct{}{}) {
				return
			}
		}
	})
	return s
}

// drive is the loop's goroutine. It lends its thread to one stack after the other, and does what can be done only when the task that
// has used the last one is off it.
func (l *eventLoop) drive() {
	defer l.survive()
	if l.stack == nil {
		l.stack = l.spareStack()
		l.going = l.stack
	}
	for l.going != nil {
		l.going.next()
		if t := l.left; t != nil {
			l.left = nil
			l.waits(t)
		}
	}
	l.stack.stop()
	for _, s := range l.stacks {
		s.stop()
	}
	l.stacks = nil
	l.closeDescriptors()
	releaseProcs(1)
}

// survive goes on in another goroutine when a task has called runtime.Goexit, which ends the coroutine that it runs on, and which
// iter.Pull passes on to the goroutine that resumed it. Panics do not come here: every task recovers its own.
func (l *eventLoop) survive() {
	t := l.current
	if t == nil {
		return
	}
	l.current = nil
	if t.stack == nil { // it was the loop's
		l.stack = l.spareStack()
	}
	l.end(t)
	l.going = l.stack
	l.eng.running.Go(l.drive)
}

// spareStack is one for l to go on on.
func (l *eventLoop) spareStack() (s *stack) {
	if last := len(l.stacks) - 1; last >= 0 {
		s, l.stacks = l.stacks[last], l.stacks[:last]
		l.unused = min(l.unused, last)
	} else {
		s = newStack()
	}
	s.loop = l
	return s
}

// release makes s spare, on which the caller still runs, but is about to return to its bottom.
func (l *eventLoop) release(s *stack) {
	if len(l.stacks) < maxStacks {
		l.stacks = append(l.stacks, s)
		return
	}
	s.over = true
	l.eng.freed(1)
}

// trim ends a window for the spare stacks.
func (l *eventLoop) trim() {
	if n := (l.unused - minStacks + trimStacks - 1) / trimStacks; n > 0 {
		for _, s := range l.stacks[:n] { // which were used longest ago
			s.stop()
		}
		l.stacks = slices.Delete(l.stacks, 0, n)
		l.eng.freed(1)
	}
	l.unused = len(l.stacks)
}

// leave gives the thread back to the loop, and returns when the run queue has got to t again. What runs t keeps its stack.
func (l *eventLoop) leave(t *Task) {
	if len(t.ahead.got) > 0 {
		t.ahead.keep()
	}
	if t.stack == nil {
		t.stack, l.stack = l.stack, l.spareStack()
	}
	l.current, l.left, l.going = nil, t, l.stack
	t.stack.yield(struct{}{})
}

// restOnLoop is RestUntil; deadline is 0 where there is none.
func (t *Task) restOnLoop(body func(*Task, Cause), deadline int64, set []Source) (Cause, bool) {
	l := t.loop.Load()
	if l == nil || t.eng.closing.Load() {
		return t.waitOnLoop(time.Time{}, set), true // which returns Closing
	}
	ready := false
	for _, s := range set {
		c := s.Conn
		if c == nil {
			continue
		}
		if c.home.Load() != l {
			t.ownOnLoop(c)
		}
		if !c.register(t, s.For) {
			panic(errTwoWaiters)
		}
		ready = ready || c.readySocket(s.For)
	}
	if ready && t.turns < maxTurns && !t.woken.Load() {
		t.turns++
		l.forget(set)
		return Ready, true
	}
	t.rest, t.due = body, ready
	t.set, t.deadline = set, deadline
	if deadline != 0 {
		l.setTimer(t)
	}
	return Ready, false
}

// lieDown parks a task that has called Rest, and so is registered with its sources, and whose function has returned; or queues it
// where it needs not wait.
func (l *eventLoop) lieDown(t *Task) {
	t.turns = 0
	t.state = parked
	if t.woken.Load() || t.eng.closing.Load() {
		if cause, now := t.look(nil); now {
			l.unpark(t, cause)
			return
		}
	}
	if t.due {
		l.unpark(t, Ready)
	}
}

// The runtime keeps memory for as much again as is in use, and gives up what a moment needed only behind several collections, which are minutes
// apart in an idle process. Where thousands of tasks have begun, or have ended a wait that kept their stack, or large buffers were dropped, it is given
// back to the system when they can be expected to be idle, which takes a garbage collection.
const (
	releaseAfter = 1000        // so many of them since the last time
	releaseEvery = time.Minute // at most so often
	releaseDelay = 5 * time.Second
	taskGarbage  = 16 << 10 // bytes that count as one
)

// release is when memory was last given back, and what has happened since.
type release struct {
	count   atomic.Int64
	at      atomic.Int64 // by now; 0: never
	pending atomic.Bool
}

// freed counts what has left garbage. From any thread.
func (e *epoll) freed(n int) {
	r := &e.release
	if r.count.Add(int64(n)) < releaseAfter || !r.pending.CompareAndSwap(false, true) {
		return
	}
	wait := releaseDelay
	if last := r.at.Load(); last != 0 {
		wait = max(wait, releaseEvery-time.Duration(now()-last))
	}
	time.AfterFunc(wait, func() {
		r.at.Store(now())
		r.count.Store(0)
		r.pending.Store(false)
		debug.FreeOSMemory()
	})
}

func (t *Task) droppedOnLoop(n int) {
	if l := t.loop.Load(); l != nil {
		l.eng.freed(n / taskGarbage)
	}
}

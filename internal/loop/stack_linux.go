package loop

import (
	"iter"
	"runtime/debug"
	"sync/atomic"
	"time"
)

// stack is a coroutine that runs the functions of tasks, one after the other. A task has one from when its turn comes until its
// function has returned; what it waits for in between keeps the stack. Behind Rest the next turn begins a function anew, on the
// stack that was used last. So there are as many stacks, of 4 KB and more, as there are tasks in the middle of something, however
// many are idle, and it costs no more than to keep them (measured).
type stack struct {
	next  func() (struct{}, bool) // goes on with the task; called by eventLoop.resume only
	stop  func()                  // ends it between two tasks
	yield func(struct{}) bool     // suspends it
	task  *Task
}

// maxStacks is how many a loop keeps that no task uses: where many tasks come and go at a time, as those that wait for a connection
// of a pool do, to make them anew would cost more than a microsecond each.
const maxStacks = 256

func newStack() *stack {
	s := &stack{}
	s.next, s.stop = iter.Pull(func(yield func(struct{}) bool) {
		s.yield = yield
		for {
			s.task.run()
			if !yield(struct{}{}) {
				return
			}
		}
	})
	return s
}

// lend gives t a stack.
func (l *eventLoop) lend(t *Task) {
	if last := len(l.stacks) - 1; last >= 0 {
		t.stack, l.stacks = l.stacks[last], l.stacks[:last]
	} else {
		t.stack = newStack()
	}
	t.stack.task = t
}

// takeBack takes the stack of a task whose function has returned.
func (l *eventLoop) takeBack(t *Task) {
	s := t.stack
	t.stack, s.task = nil, nil
	if len(l.stacks) < maxStacks {
		l.stacks = append(l.stacks, s)
		return
	}
	s.stop()
	l.eng.freed()
}

// freeStacks ends those that are kept.
func (l *eventLoop) freeStacks() {
	for _, s := range l.stacks {
		s.stop()
	}
	l.stacks = nil
}

// restOnLoop is Rest.
func (t *Task) restOnLoop(body func(*Task, Cause), set []Source) (Cause, bool) {
	l := t.loop.Load()
	if l == nil {
		return t.waitOnLoop(time.Time{}, set), true
	}
	t.ownAll(l, set)
	cause, now := t.look(set)
	switch {
	case cause == Closing:
		return t.waitOnLoop(time.Time{}, set), true
	case now && t.turns < maxTurns:
		t.turns++
		t.notice(cause)
		return cause, true
	}
	for _, s := range set {
		if s.Conn == nil {
			continue
		}
		if w := s.Conn.waiter.Load(); w != nil && w != t {
			panic(errTwoWaiters)
		}
	}
	t.rest = body
	t.set, t.deadline = append(t.set[:0], set...), 0
	return cause, false
}

// lieDown parks a task that has called Rest and whose function has returned, or queues it where it needs not wait.
func (l *eventLoop) lieDown(t *Task) {
	t.turns = 0
	l.rests.Add(1)
	if cause, now := t.look(t.set); now {
		clear(t.set)
		l.enqueue(t, cause)
	} else if !l.park(t) {
		l.enqueue(t, Ready) // a second waiter: let the task's next wait say so
	}
}

// The runtime keeps memory for as much again as is in use. Where thousands of tasks have begun, or have ended a wait that kept their
// stack, it is given back to the system when they can be expected to be idle, which takes a garbage collection.
const (
	releaseAfter = 1000        // so many of them since the last time
	releaseEvery = time.Minute // at most so often
	releaseDelay = 5 * time.Second
)

// release is when memory was last given back, and what has happened since.
type release struct {
	count atomic.Int64
	at    atomic.Int64 // engine time
}

// freed counts what has left garbage. From any thread.
func (e *epoll) freed() {
	if e.release.count.Add(1) < releaseAfter {
		return
	}
	now, last := e.now(), e.release.at.Load()
	if last != 0 && now-last < int64(releaseEvery) || !e.release.at.CompareAndSwap(last, now) {
		return
	}
	e.release.count.Store(0)
	time.AfterFunc(releaseDelay, debug.FreeOSMemory)
}

package loop

import (
	"runtime/debug"
	"sync/atomic"
	"time"
)

// A task that rests has no coroutine: what its stack takes, 4 KB and more, is most of what an idle session does. It stays parked,
// with one connection to wait for, and begins again with the function that it gave to Rest. Tasks are not asked to rest at
// once, because to begin again and grow a new stack costs some microseconds.

// restOnLoop notes what is to be done when the coroutine has ended.
func (t *Task) restOnLoop(c *Conn, body func(*Task)) {
	t.rest, t.body = c, body
}

// lieDown parks a task whose coroutine has ended and that is to begin again.
func (l *eventLoop) lieDown(t *Task) {
	c := t.rest
	t.rest, t.next, t.yield, t.mayRest = nil, nil, nil, false
	t.deadline, t.set = 0, append(t.set[:0], Source{Conn: c, For: Readable})
	l.rests.Add(1)
	l.eng.rested()
	if cause, now := t.look(t.set); now || !l.take(c) || !l.park(t) {
		l.enqueue(t, cause) // its next Wait will find what it is
	}
}

// rouse asks the parked tasks that would rest, and that have not run for RestAfter, to do so; not those that wait for a deadline,
// too, which rest would forget. While there are tasks that have run since, it comes again.
func (l *eventLoop) rouse() {
	if l.restAt == 0 || l.clock < l.restAt {
		return
	}
	after := int64(l.eng.cfg.RestAfter)
	l.restAt = 0
	for t := range l.tasks {
		switch {
		case !t.mayRest || t.state != parked || t.deadline != 0:
		case l.clock-t.window >= after:
			l.unpark(t, Idle)
		case l.restAt == 0:
			l.restAt = l.clock + after
		}
	}
}

// The runtime keeps memory for as much again as is in use. Where thousands of sessions have gone to rest at about the same time
// it is given back to the system, which takes a garbage collection.
const (
	releaseRests = 1000        // so many rests since the last time
	releaseEvery = time.Minute // at most so often
)

// release is when memory was last given back, and what has happened since.
type release struct {
	rests atomic.Int64
	at    atomic.Int64 // engine time
}

// rested counts a rest. From the loops' threads.
func (e *epoll) rested() {
	if e.release.rests.Add(1) < releaseRests {
		return
	}
	now, last := e.now(), e.release.at.Load()
	if last != 0 && now-last < int64(releaseEvery) || !e.release.at.CompareAndSwap(last, now) {
		return
	}
	e.release.rests.Store(0)
	time.AfterFunc(time.Second, debug.FreeOSMemory) // when the others of this time rest, too
}

package backend

import (
	"time"

	"github.com/tidemarkdb/tidemark/internal/loop"
	"github.com/tidemarkdb/tidemark/internal/wire"
)

// waiter is a task in a pool's queue. It is answered under the pool's lock by a connection or an error, taken out of the
// queue by the same step, and then its task is woken. Only the task itself looks at it after that.
type waiter struct {
	task       *loop.Task
	conn       *Conn
	err        *wire.Error
	since      time.Time
	prev, next *waiter
}

// waiters are those that nobody uses: under load every transaction needs one.
var waiters = loop.NewPool(func() *waiter { return new(waiter) })

// free gives back a waiter that is in no queue any more.
func (w *waiter) free() {
	t := w.task
	*w = waiter{}
	waiters.Put(t, w)
}

// waitList is a queue of waiters with removal from the middle.
type waitList struct {
	first, last *waiter
	n           int
}

func (l *waitList) pushBack(w *waiter) {
	w.prev, w.next = l.last, nil
	if l.last != nil {
		l.last.next = w
	} else {
		l.first = w
	}
	l.last = w
	l.n++
}

func (l *waitList) pushFront(w *waiter) {
	w.prev, w.next = nil, l.first
	if l.first != nil {
		l.first.prev = w
	} else {
		l.last = w
	}
	l.first = w
	l.n++
}

func (l *waitList) pop() *waiter {
	w := l.first
	if w != nil {
		l.remove(w)
	}
	return w
}

func (l *waitList) remove(w *waiter) {
	if w.prev != nil {
		w.prev.next = w.next
	} else {
		l.first = w.next
	}
	if w.next != nil {
		w.next.prev = w.prev
	} else {
		l.last = w.prev
	}
	w.prev, w.next = nil, nil
	l.n--
}

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

// wait suspends the task until it was answered, or gives up its place.
func (p *pool) wait(w *waiter, client *loop.Conn, deadline time.Time) error {
	for {
		cause := w.task.Wait(deadline, loop.Source{Conn: client, For: loop.Hangup})
		now := time.Now()
		p.mu.Lock()
		var err *wire.Error
		switch {
		case w.conn != nil:
			w.conn.Waited = now.Sub(w.since)
			p.waited(w.conn.Waited)
			p.mu.Unlock()
			return nil
		case w.err != nil:
			err = w.err
		case cause == loop.Closing:
			err = errClosing()
		case client != nil && client.HungUp():
			err = p.errClientGone()
		case cause == loop.Timeout || !now.Before(deadline):
			err = p.errTimeout(now.Sub(w.since))
			p.stats.Timeouts++
		default: // a Wake for something else
			p.mu.Unlock()
			continue
		}
		p.waited(now.Sub(w.since))
		var next todo
		if w.err == nil {
			p.waiters.remove(w)
			next = p.fill()
		}
		p.mu.Unlock()
		next.run()
		return err
	}
}

func (p *pool) waited(d time.Duration) {
	p.stats.WaitTime += d
	p.stats.LongestWait = max(p.stats.LongestWait, d)
}

// refusal says why nobody should wait now, or nil. Callers hold mu.
func (p *pool) refusal() error {
	if p.closed {
		return errClosing()
	}
	if p.abolished {
		return errAbolished
	}
	if since, cause, open := p.endpoint.breaker.isOpen(); open {
		return p.errDown(since, cause)
	}
	if p.lastErr != nil && p.total.Load() == 0 && time.Now().Before(p.retryAt) {
		return p.lastErr
	}
	return nil
}

// failWaiters answers all who wait. Callers hold mu and wake them afterwards.
func (p *pool) failWaiters(err *wire.Error) (failed []*loop.Task) {
	for w := p.waiters.pop(); w != nil; w = p.waiters.pop() {
		w.err = err
		failed = append(failed, w.task)
	}
	return failed
}

func wake(tasks []*loop.Task) {
	for _, t := range tasks {
		t.Wake()
	}
}

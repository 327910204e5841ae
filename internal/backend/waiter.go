package backend

import (
	"time"

	"github.com/tidemarkdb/tidemark/internal/loop"
	"github.com/tidemarkdb/tidemark/internal/wire"
)

// Waiter is a task in a pool's queue. It is answered under the pool's lock by a connection or an error, taken out of the
// queue by the same step, and then its task is woken. Only the task itself looks at it after that.
type Waiter struct {
	pool       *pool
	task       *loop.Task
	identity   *Identity
	conn       *Conn
	err        *wire.Error
	since      time.Time
	deadline   time.Time
	prev, next *Waiter
}

// waiters are those that nobody uses: under load every transaction needs one.
var waiters = loop.NewPool(func() *Waiter { return new(Waiter) })

// free gives back a waiter that is in no queue any more.
func (w *Waiter) free() {
	t := w.task
	*w = Waiter{}
	waiters.Put(t, w)
}

// Deadline is when the wait is over at the latest.
func (w *Waiter) Deadline() time.Time { return w.deadline }

// Shard is the name of the shard that it waits for.
func (w *Waiter) Shard() string { return w.pool.endpoint.shard.name }

// Answer is what has become of the wait when the task that queued was resumed for cause: the connection, an error of Acquire's, or
// neither, and it waits on. But for that, w must not be used any more. client is Acquire's.
func (w *Waiter) Answer(cause loop.Cause, client *loop.Conn) (*Conn, error) {
	c, err := w.pool.answer(w, cause, client)
	for err == errAbolished { //nolint:errorlint // it is never wrapped
		if w.pool, err = w.pool.endpoint.poolOf(w.identity); err == nil {
			w.pool.mu.Lock()
			err = w.pool.queue(w, true)
		}
	}
	if c == nil && err == nil {
		return nil, nil
	}
	w.free()
	return c, err
}

// leave takes w out of the queue for a task that will not ask for its answer, so that no connection is lost to it. One that it has been given
// already is closed.
func (w *Waiter) leave() {
	p := w.pool
	p.mu.Lock()
	c := w.conn
	if c == nil && w.err == nil {
		p.waiters.remove(w)
	}
	p.mu.Unlock()
	if c != nil {
		c.Close()
	}
}

// waitList is a queue of waiters with removal from the middle.
type waitList struct {
	first, last *Waiter
	n           int
}

func (l *waitList) pushBack(w *Waiter) {
	w.prev, w.next = l.last, nil
	if l.last != nil {
		l.last.next = w
	} else {
		l.first = w
	}
	l.last = w
	l.n++
}

func (l *waitList) pushFront(w *Waiter) {
	w.prev, w.next = nil, l.first
	if l.first != nil {
		l.first.prev = w
	} else {
		l.last = w
	}
	l.first = w
	l.n++
}

func (l *waitList) pop() *Waiter {
	w := l.first
	if w != nil {
		l.remove(w)
	}
	return w
}

func (l *waitList) remove(w *Waiter) {
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

// answer is Waiter.Answer. A connection that has broken meanwhile is none, and w is the first in the queue again.
func (p *pool) answer(w *Waiter, cause loop.Cause, client *loop.Conn) (*Conn, error) {
	now := time.Now()
	p.mu.Lock()
	if c := w.conn; c != nil {
		c.Waited = now.Sub(w.since)
		p.waited(c.Waited)
		p.mu.Unlock()
		w.task.Own(c.IO)
		if c.usable(w.task) {
			return c, nil
		}
		c.Close()
		w.conn = nil
		p.mu.Lock()
		return nil, p.queue(w, false)
	}
	var err *wire.Error
	switch {
	case w.err != nil:
		err = w.err
	case cause == loop.Closing:
		err = errClosing()
	case client != nil && client.HungUp():
		err = p.errClientGone()
	case cause == loop.Timeout || !now.Before(w.deadline):
		err = p.errTimeout(now.Sub(w.since))
		p.stats.Timeouts++
	default: // a Wake for something else
		p.mu.Unlock()
		return nil, nil
	}
	p.waited(now.Sub(w.since))
	var next todo
	if w.err == nil {
		p.waiters.remove(w)
		next = p.fill()
	}
	p.mu.Unlock()
	next.run()
	return nil, err
}

// queue has w wait, for the first time or again, unless nobody should now. Callers hold mu, which it lets go.
func (p *pool) queue(w *Waiter, first bool) error {
	if err := p.refusal(); err != nil {
		p.mu.Unlock()
		return err
	}
	if first {
		p.waiters.pushBack(w)
		p.stats.Waits++
	} else {
		p.waiters.pushFront(w)
	}
	next := p.fill()
	p.mu.Unlock()
	next.run()
	return nil
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

package backend

import (
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tidemarkdb/tidemark/internal/loop"
	"github.com/tidemarkdb/tidemark/internal/wire"
)

// pool holds the server connections of one (database, user, endpoint), for the whole process.
//
// A connection is in one of three places: idle (in the list, nobody's), active (held by a session, or by a task that cleans
// or closes it) or being opened. Every connection and every opening holds a slot of the budget.
type pool struct {
	b        *Backend
	endpoint *Endpoint
	budget   *budget
	size     int
	minIdle  int

	total atomic.Int32 // idle + active + opening, for the budget to look at without the lock

	mu      sync.Mutex // guards the fields below
	idle    []*Conn    // the last one was used last and is used next
	conns   []*Conn    // all open ones
	opening int
	waiters waitList
	closed  bool
	paused  bool // see Pause

	failures int       // attempts to connect that failed in a row
	retryAt  time.Time // no attempt before
	retry    *time.Timer
	lastErr  *wire.Error // of the last attempt

	stats PoolStats // the counters in it
}

func newPool(b *Backend, e *Endpoint) *pool {
	p := &pool{b: b, endpoint: e, budget: b.budget, size: b.cfg.PoolSize, minIdle: b.cfg.MinIdle}
	p.budget.add(p)
	return p
}

// acquire is Endpoint.Acquire.
func (p *pool) acquire(t *loop.Task, client *loop.Conn, deadline time.Time) (*Conn, error) {
	p.mu.Lock()
	if p.waiters.n == 0 { // nobody overtakes those who wait
		for len(p.idle) > 0 && !p.closed {
			c := p.takeIdle(t)
			p.mu.Unlock()
			t.Own(c.IO)
			if c.quiet() {
				return c, nil
			}
			c.Close()
			p.mu.Lock()
		}
	}
	p.mu.Unlock()
	if ok, since, cause := p.endpoint.breaker.allow(); !ok {
		return nil, p.errDown(since, cause)
	}
	p.mu.Lock()
	w := &waiter{task: t, since: time.Now()}
	if deadline.IsZero() {
		deadline = w.since.Add(p.b.cfg.AcquireTimeout)
	}
	for first := true; ; first = false {
		if err := p.refusal(); err != nil {
			p.mu.Unlock()
			return nil, err
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
		if err := p.wait(w, client, deadline); err != nil {
			return nil, err
		}
		c := w.conn
		t.Own(c.IO)
		if c.quiet() {
			return c, nil
		}
		c.Close()
		w.conn = nil
		p.mu.Lock()
	}
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
			p.stats.WaitTime += now.Sub(w.since)
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
		p.stats.WaitTime += now.Sub(w.since)
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

// refusal says why nobody should wait now, or nil. Callers hold mu.
func (p *pool) refusal() error {
	if p.closed {
		return errClosing()
	}
	if since, cause, open := p.endpoint.breaker.isOpen(); open {
		return p.errDown(since, cause)
	}
	if p.lastErr != nil && p.total.Load() == 0 && time.Now().Before(p.retryAt) {
		return p.lastErr
	}
	return nil
}

// takeIdle takes the connection that was used last, or one of the last few that need no move to the task's loop.
// Callers hold mu; there is an idle connection.
func (p *pool) takeIdle(t *loop.Task) *Conn {
	const near = 4
	last := len(p.idle) - 1
	for i := last; i >= 0 && i > last-near; i-- {
		if t.Owns(p.idle[i].IO) {
			return p.lease(i)
		}
	}
	return p.lease(last)
}

// lease takes idle connection i out of the list. Callers hold mu.
func (p *pool) lease(i int) *Conn {
	c := p.idle[i]
	p.idle = slices.Delete(p.idle, i, i+1)
	c.idleSince = time.Time{}
	c.lease++
	return c
}

// put takes back a connection that is idle and clean, from whoever holds it.
func (p *pool) put(c *Conn) {
	p.mu.Lock()
	c.lease++ // cancel keys of the holder are void from here
	if c.cancels > 0 {
		c.parked = true
		p.mu.Unlock()
		return
	}
	w, kept := p.place(c)
	p.mu.Unlock()
	if w != nil {
		w.task.Wake()
	}
	if !kept {
		c.Close()
	}
}

// place gives a connection to the first who waits, to be woken by the caller, or puts it into the idle list. kept is false
// when it must be closed instead. Callers hold mu.
func (p *pool) place(c *Conn) (w *waiter, kept bool) {
	if p.closed || p.paused || c.retire || p.budget.wantsFrom(p, int(p.total.Load()), p.waiters.n > 0) {
		return nil, false
	}
	if w = p.waiters.pop(); w != nil {
		w.conn = c
		return w, true
	}
	p.idle = append(p.idle, c)
	return nil, true
}

// drop forgets a connection that was just closed.
func (p *pool) drop(c *Conn) {
	p.mu.Lock()
	c.lease++
	if i := slices.Index(p.conns, c); i >= 0 {
		p.conns[i] = p.conns[len(p.conns)-1]
		p.conns[len(p.conns)-1] = nil
		p.conns = p.conns[:len(p.conns)-1]
	}
	p.total.Add(-1)
	p.stats.Closed++
	evicted := c.evicted
	p.mu.Unlock()
	p.freed(evicted)
}

// freed gives a slot of the budget back, first to pools that starve, then to this one.
func (p *pool) freed(evicted bool) {
	todo{poke: p.budget.give(evicted)}.run()
	p.poke()
}

// poke opens what the pool needs.
func (p *pool) poke() {
	p.mu.Lock()
	next := p.fill()
	p.mu.Unlock()
	next.run()
}

// todo is what remains to be done when a pool's lock has been let go.
type todo struct {
	poke    *pool // a slot of the budget is free for it
	reclaim *pool // it found none: close idle connections of others
	n       int   // that many
}

func (t todo) run() {
	if t.reclaim != nil {
		t.reclaim.budget.evictFor(t.reclaim, t.n)
	}
	if t.poke != nil {
		t.poke.poke()
	}
}

// fill starts opening connections for those who wait, within the limits of pool, ramp and budget. Callers hold mu and run
// what it returns afterwards.
func (p *pool) fill() todo {
	want := max(p.waiters.n, p.minIdle-len(p.idle)) - p.opening
	want = min(want, p.size-int(p.total.Load()), maxOpenAtOnce-p.opening)
	if want <= 0 || p.closed || p.paused || p.endpoint.breaker.current() == breakerOpen {
		return todo{poke: p.budget.leave(p)}
	}
	if wait := time.Until(p.retryAt); wait > 0 {
		if p.retry == nil {
			p.retry = time.AfterFunc(wait, p.poke)
		} else {
			p.retry.Reset(wait)
		}
		return todo{poke: p.budget.leave(p)}
	}
	for ; want > 0; want-- {
		if !p.budget.take(p) {
			return todo{reclaim: p, n: want}
		}
		p.opening++
		p.total.Add(1)
		p.b.openers.Add(1)
		go p.open()
	}
	return todo{}
}

// open is the goroutine that opens one connection; Backend.Close waits for it.
func (p *pool) open() {
	defer p.b.openers.Done()
	c, err := p.endpoint.open(p.b.ctx)
	if err != nil {
		p.openFailed(err)
		return
	}
	p.mu.Lock()
	p.opening--
	p.failures, p.lastErr, p.retryAt = 0, nil, time.Time{}
	p.conns = append(p.conns, c)
	p.stats.Opened++
	w, kept := p.place(c) // in the same step, or a second connection would be opened for the same waiter
	next := p.fill()      // the ramp has room for the next one
	p.mu.Unlock()
	if w != nil {
		w.task.Wake()
	}
	if !kept {
		p.end([]*Conn{c})
	}
	p.endpoint.breaker.success()
	next.run()
}

// openFailed counts a failed attempt, lets the next one wait, and tells those who wait when there is nothing left to
// wait for: no connection that could come free, and no attempt under way.
func (p *pool) openFailed(err error) {
	e := p.endpoint.connectError(err)
	if p.b.ctx.Err() == nil && e.Code != wire.TooManyConnections {
		p.endpoint.breaker.failure(e)
	}
	p.mu.Lock()
	p.opening--
	p.total.Add(-1)
	p.stats.Failures++
	p.lastErr = e
	p.retryAt = time.Now().Add(backoff(p.failures))
	p.failures++
	var failed waitList
	if p.total.Load() == 0 {
		failed = p.failWaiters(e)
	}
	p.mu.Unlock()
	failed.wake()
	p.freed(false)
}

// backoff grows from minBackoff to maxBackoff with the number of failures before; jitter keeps pools and proxies apart.
func backoff(failures int) time.Duration {
	d := min(minBackoff<<min(failures, 10), maxBackoff)
	return d/2 + rand.N(d/2)
}

// failWaiters answers all who wait. Callers hold mu and wake them afterwards.
func (p *pool) failWaiters(err *wire.Error) (failed waitList) {
	failed = p.waiters
	p.waiters = waitList{}
	for w := failed.first; w != nil; w = w.next {
		w.err = err
	}
	return failed
}

// wake wakes everybody in a list that no pool holds any more.
func (l waitList) wake() {
	for w := l.first; w != nil; {
		next := w.next // w is its task's own again once woken
		w.task.Wake()
		w = next
	}
}

// breakerChanged ends all waits when the endpoint is found down, and lets it be tried at once when it is back.
func (p *pool) breakerChanged(to breakerState) {
	var failed waitList
	var ended []*Conn
	p.mu.Lock()
	if to == breakerOpen {
		since, cause, _ := p.endpoint.breaker.isOpen()
		failed = p.failWaiters(p.errDown(since, cause))
		ended = p.takeAllIdle() // a server that hangs leaves them open, and whoever got one would hang too
	} else {
		p.retryAt, p.lastErr = time.Time{}, nil
	}
	next := p.fill()
	p.mu.Unlock()
	failed.wake()
	p.end(ended)
	next.run()
}

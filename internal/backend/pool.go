package backend

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tidemarkdb/tidemark/internal/loop"
	"github.com/tidemarkdb/tidemark/internal/wire"
)

// pool holds the server connections of one (database, user, endpoint), for the whole process. The shared pool of an
// endpoint, whose identity is nil, is there from the start; others come with their users and go, see pools.go.
//
// A connection is in one of three places: idle (in the list, nobody's), active (held by a session, or by a task that cleans
// or closes it) or being opened. Every connection and every opening holds a slot of the budget.
type pool struct {
	b        *Backend
	endpoint *Endpoint
	budget   *budget
	bounds   []*bound // that its connections count against, the narrowest first
	user     string   // whose pool it is: the shared role, or an identity's user

	listening bool // see AcquireListening

	total atomic.Int32 // idle + active + opening, for the budget to look at without the lock

	mu        sync.Mutex // guards the fields below
	set       *live      // the settings that the next four, and the connections' ages, follow: see adopt
	mode      Mode
	size      int
	reserve   int // connections beyond size, for sessions that have waited for Config.ReserveTimeout
	minIdle   int
	identity  *Identity // the newest of its user; nil in the shared pool
	idle      []*Conn   // the last one was used last and is used next
	conns     []*Conn   // all open ones
	opening   int
	waiters   waitList
	closed    bool
	abolished bool // see abolish

	failures int         // attempts to connect that failed in a row
	retryAt  time.Time   // no attempt before
	lastErr  *wire.Error // of the last attempt, nil if it succeeded
	timer    *time.Timer // has fill called at alarmAt
	alarmAt  time.Time   // zero: not set

	usedAt time.Time // when the janitor last found that it had been used
	seen   uint64    // stats.Acquired then

	stats PoolStats // the counters in it
}

func newPool(b *Backend, e *Endpoint, id *Identity, listening bool) *pool {
	p := &pool{
		b: b, endpoint: e, budget: b.budget, identity: id, user: e.login().user, bounds: []*bound{e.bound, b.budget.all}, listening: listening,
	}
	if id != nil {
		p.user = id.User
	}
	p.budget.add(p)
	p.adopt() // once every reload sees it
	return p
}

// errAbolished is acquire's answer where the pool was found abolished: there is, or will be, another one.
var errAbolished = errors.New("pool was abolished")

// acquire is Endpoint.Acquire, of one pool.
func (p *pool) acquire(t *loop.Task, id *Identity, client *loop.Conn, deadline time.Time) (*Conn, error) {
	if c := p.atHand(t, id); c != nil {
		return c, nil
	}
	c, w, err := p.enqueue(t, id, deadline)
	if w == nil {
		return c, err
	}
	answered := false
	defer func() {
		if !answered { // the engine, or a panic, has unwound the task
			w.leave()
		}
	}()
	for {
		cause := t.Wait(w.deadline, loop.Source{Conn: client, For: loop.Hangup})
		if c, err := w.Answer(cause, client); c != nil || err != nil {
			answered = true
			return c, err
		}
	}
}

// enqueue is Endpoint.Enqueue, of one pool.
func (p *pool) enqueue(t *loop.Task, id *Identity, deadline time.Time) (*Conn, *Waiter, error) {
	p.mu.Lock()
	if id != p.identity {
		if ended := p.admit(id); ended != nil {
			p.mu.Unlock()
			p.end(ended)
			p.mu.Lock()
		}
	}
	p.stats.Acquired++
	if p.waiters.n == 0 { // nobody overtakes those who wait
		for len(p.idle) > 0 && !p.closed {
			c := p.takeIdle(t)
			p.mu.Unlock()
			t.Own(c.IO)
			if c.usable(t) {
				return c, nil, nil
			}
			c.Close()
			p.mu.Lock()
		}
	}
	w := waiters.Get(t)
	w.pool, w.task, w.identity, w.since, w.deadline = p, t, id, time.Now(), deadline
	if deadline.IsZero() {
		w.deadline = w.since.Add(p.b.cfg().AcquireTimeout)
	}
	if err := p.queue(w, true); err != nil {
		w.free()
		return nil, nil, err
	}
	return nil, w, nil
}

// atHand is acquire for the most frequent case: the connection that was used last is on the task's loop, and there is nothing to
// be found out about it. nil: acquire has to look further.
func (p *pool) atHand(t *loop.Task, id *Identity) (c *Conn) {
	p.mu.Lock()
	if last := len(p.idle) - 1; last >= 0 && id == p.identity && p.waiters.n == 0 && !p.closed {
		if x := p.idle[last]; !x.unproven && x.IO.Quiet() && t.Owns(x.IO) {
			p.stats.Acquired++
			c = p.lease(last)
		}
	}
	p.mu.Unlock()
	return c
}

// admit lets a newer identity of the pool's user replace the older one, whose password may have been changed. Connections in
// use stay until they are released, as PostgreSQL's sessions do. Idle ones are the caller's to end without mu: the role may
// have been dropped and made anew, and they would still be the old one's. Callers hold mu.
func (p *pool) admit(id *Identity) (ended []*Conn) {
	if p.b.orderOf(id) <= p.b.orderOf(p.identity) {
		return nil
	}
	old := p.identity
	p.identity = id
	if id.same(old) {
		return nil
	}
	p.failures, p.lastErr, p.retryAt = 0, nil, time.Time{}
	if (id.Keys == nil) != (old.Keys == nil) { // as by rules of different methods, one login after the other
		return nil
	}
	for _, c := range p.conns {
		c.retire = true
	}
	return p.takeAllIdle()
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
	last := len(p.idle) - 1
	if i < last {
		copy(p.idle[i:], p.idle[i+1:])
	}
	p.idle[last] = nil
	p.idle = p.idle[:last]
	if !c.idleSince.IsZero() {
		c.idleSince = time.Time{}
	}
	c.Waited = 0
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
	next, kept := p.place(c)
	p.mu.Unlock()
	if next != nil {
		next.Wake()
	}
	if !kept {
		c.Close()
	}
}

// place gives a connection to the first who waits, to be woken by the caller, or puts it into the idle list. kept is false
// when it must be closed instead. Callers hold mu.
func (p *pool) place(c *Conn) (next *loop.Task, kept bool) {
	if p.closed || c.retire || p.endpoint.paused.Load() || int(p.total.Load()) > p.size+p.reserve { // the latter after a reload
		return nil, false
	}
	if c.evicted = p.budget.wantedFrom(p, int(p.total.Load()), p.waiters.n > 0); c.evicted != nil {
		p.stats.Evicted++
		return nil, false
	}
	if w := p.waiters.pop(); w != nil {
		w.conn = c
		return w.task, true
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
func (p *pool) freed(evicted *bound) {
	todo{poke: p.budget.give(p, evicted)}.run()
	p.poke()
}

// breakerChanged ends all waits when the endpoint is found down, and lets it be tried at once when it is back.
func (p *pool) breakerChanged(to breakerState) {
	var failed []*loop.Task
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
	wake(failed)
	p.end(ended)
	next.run()
}

package backend

import (
	"errors"
	"math/rand/v2"
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
	w := waiters.Get(t)
	w.task, w.since = t, time.Now()
	defer w.free()
	if deadline.IsZero() {
		deadline = w.since.Add(p.b.cfg().AcquireTimeout)
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
		if c.usable(t) {
			return c, nil
		}
		c.Close()
		w.conn = nil
		p.mu.Lock()
	}
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
	want := max(p.waiters.n, p.least()-len(p.idle)) - p.opening
	want = min(want, p.room(), maxOpenAtOnce-p.opening)
	if want <= 0 || p.closed || p.abolished || p.endpoint.paused.Load() || p.endpoint.breaker.current() == breakerOpen {
		return todo{poke: p.budget.leave(p)}
	}
	if time.Until(p.retryAt) > 0 {
		p.alarm(p.retryAt)
		return todo{poke: p.budget.leave(p)}
	}
	for ; want > 0; want-- {
		if !p.budget.take(p) {
			return todo{reclaim: p, n: want}
		}
		p.opening++
		p.total.Add(1)
		p.b.openers.Add(1)
		go p.open(p.identity)
	}
	return todo{}
}

// room is how many connections may be added, the reserve included when somebody has waited for that long. When nobody has,
// but will, it has fill called then. Callers hold mu.
func (p *pool) room() int {
	room := p.size - int(p.total.Load())
	if p.reserve == 0 || p.waiters.n == 0 || room > 0 {
		return room
	}
	if due := p.waiters.first.since.Add(p.b.cfg().ReserveTimeout); time.Until(due) > 0 {
		p.alarm(due)
		return room
	}
	return min(room+p.reserve, 1) // one at a time: the next for the next who has waited long enough
}

// least is how many idle connections the pool keeps: none for an identity whose sessions have not used it for a while.
// Callers hold mu.
func (p *pool) least() int {
	if p.identity != nil && p.dormant() {
		return 0
	}
	return p.minIdle
}

// dormant says that the pool was not used for IdleTime, as the janitor saw it. Callers hold mu.
func (p *pool) dormant() bool {
	return !p.usedAt.IsZero() && p.seen == p.stats.Acquired && time.Since(p.usedAt) > p.b.cfg().IdleTime
}

// alarm has fill called at that time, or before. Callers hold mu.
func (p *pool) alarm(at time.Time) {
	if !p.alarmAt.IsZero() && !at.Before(p.alarmAt) {
		return
	}
	p.alarmAt = at
	if p.timer == nil {
		p.timer = time.AfterFunc(time.Until(at), p.ring)
	} else {
		p.timer.Reset(time.Until(at))
	}
}

// ring is the alarm.
func (p *pool) ring() {
	p.mu.Lock()
	p.alarmAt = time.Time{}
	next := p.fill()
	p.mu.Unlock()
	next.run()
}

// open is the goroutine that opens one connection; Backend.Close waits for it.
func (p *pool) open(id *Identity) {
	defer p.b.openers.Done()
	c, err := p.endpoint.open(p.b.ctx, p, id)
	if err != nil {
		p.openFailed(id, err)
		return
	}
	p.mu.Lock()
	p.opening--
	p.failures, p.lastErr, p.retryAt = 0, nil, time.Time{}
	p.conns = append(p.conns, c)
	p.stats.Opened++
	waiting, kept := p.place(c) // in the same step, or a second connection would be opened for the same waiter
	next := p.fill()            // the ramp has room for the next one
	p.mu.Unlock()
	if waiting != nil {
		waiting.Wake()
	}
	if !kept {
		p.end([]*Conn{c})
	}
	p.endpoint.breaker.success()
	next.run()
}

// openFailed counts a failed attempt, lets the next one wait, and tells those who wait when there is nothing left to
// wait for: no connection that could come free, and no attempt under way. A user whose credentials the server refuses is
// told at once.
func (p *pool) openFailed(id *Identity, err error) {
	e := p.endpoint.connectError(err, p.user)
	if p.b.ctx.Err() == nil && !(e.Code == wire.TooManyConnections || id != nil && concernsRole(e)) {
		p.endpoint.breaker.failure(e)
	}
	p.mu.Lock()
	p.opening--
	p.total.Add(-1)
	p.stats.Failures++
	var failed []*loop.Task
	if id == p.identity { // or newer credentials have come meanwhile, and nothing is known of these
		p.lastErr = e
		p.retryAt = time.Now().Add(backoff(p.failures))
		p.failures++
		if p.total.Load() == 0 || id != nil && concernsRole(e) {
			failed = p.failWaiters(e)
		}
	}
	p.mu.Unlock()
	wake(failed)
	p.freed(nil)
}

// concernsRole says whether a server's answer to a login is about who logs in, and says nothing of the server's health.
func concernsRole(e *wire.Error) bool {
	switch e.Code {
	case wire.InvalidPassword, wire.InvalidAuthorizationSpecification, wire.InvalidCatalogName, wire.InsufficientPrivilege, errcodeRoleNotFound:
		return true
	}
	return false
}

// backoff grows from minBackoff to maxBackoff with the number of failures before; jitter keeps pools and proxies apart.
func backoff(failures int) time.Duration {
	d := min(minBackoff<<min(failures, 10), maxBackoff)
	return d/2 + rand.N(d/2)
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

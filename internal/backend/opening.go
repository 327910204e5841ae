package backend

import (
	"math/rand/v2"
	"time"

	"github.com/tidemarkdb/tidemark/internal/loop"
	"github.com/tidemarkdb/tidemark/internal/wire"
)

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

// fill starts opening connections for those who wait and for the minimum, within the limits of pool, ramp and budget. The
// minimum takes slots that are free, and none from others: minimums that are together more than the budget would never come to
// rest. Callers hold mu and run what it returns afterwards.
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
		awaited := p.waiters.n - p.opening
		if !p.budget.take(p, awaited > 0) {
			if awaited <= 0 {
				return todo{poke: p.budget.leave(p)}
			}
			return todo{reclaim: p, n: min(want, awaited)}
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

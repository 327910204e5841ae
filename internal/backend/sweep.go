package backend

import (
	"errors"
	"slices"
	"time"

	"github.com/tidemarkdb/tidemark/internal/loop"
	"github.com/tidemarkdb/tidemark/internal/wire"
)

// sweep is the janitor's look at one pool: it closes idle connections that are unused for too long (down to the minimum),
// too old, broken, or of the reserve, marks active ones that are too old and idle ones that are to be proven before their
// next use, and opens what the minimum lacks.
func (p *pool) sweep(now time.Time) {
	check := p.b.cfg().CheckDelay
	p.mu.Lock()
	if p.usedAt.IsZero() || p.seen != p.stats.Acquired {
		p.usedAt, p.seen = now, p.stats.Acquired
	}
	for _, c := range p.conns {
		c.retire = c.retire || now.After(c.expires)
	}
	var ended []*Conn
	for i := 0; i < len(p.idle); {
		c := p.idle[i]
		spare := !c.idleSince.IsZero() && int(p.total.Load())-len(ended) > p.size // it was not used since the last sweep
		if c.idleSince.IsZero() {
			c.idleSince = now
		}
		c.unproven = c.unproven || check > 0 && now.Sub(c.idleSince) > check
		unused := now.Sub(c.idleSince) > c.idleTime && len(p.idle) > p.least()
		if unused || spare || c.retire || c.IO.HungUp() {
			ended = append(ended, p.lease(i))
			continue
		}
		i++
	}
	next := p.fill()
	p.mu.Unlock()
	next.run()
	p.end(ended)
}

// close refuses everybody who waits or comes, and closes what is idle. Connections in use end when they are released.
func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	failed := p.failWaiters(errClosing())
	ended := p.takeAllIdle()
	if p.timer != nil {
		p.timer.Stop()
	}
	p.mu.Unlock()
	wake(failed)
	p.end(ended)
}

func (p *pool) takeAllIdle() []*Conn {
	var all []*Conn
	for len(p.idle) > 0 {
		all = append(all, p.lease(len(p.idle)-1))
	}
	return all
}

// dropUnproven closes the idle connections that were not used for long.
func (p *pool) dropUnproven() {
	p.mu.Lock()
	var ended []*Conn
	for i := len(p.idle) - 1; i >= 0; i-- {
		if p.idle[i].unproven {
			ended = append(ended, p.lease(i))
		}
	}
	p.stats.Broken += uint64(len(ended)) + 1
	p.mu.Unlock()
	p.end(ended)
}

// end closes connections that were taken from the idle list by somebody who is no task.
func (p *pool) end(cs []*Conn) {
	for _, c := range cs {
		p.b.eng.Go(func(t *loop.Task) {
			t.Own(c.IO)
			c.Close()
		})
	}
}

// evict closes the idle connection that was unused longest, for the sake of a bound; false when there is none.
func (p *pool) evict(x *bound) bool {
	p.mu.Lock()
	if len(p.idle) == 0 {
		p.mu.Unlock()
		return false
	}
	c := p.lease(0)
	c.evicted = x
	p.stats.Evicted++
	p.mu.Unlock()
	p.end([]*Conn{c})
	return true
}

// evictFor closes idle connections of pools other than p, always one of the pool that has most among those that count
// against the bound that p lacks, until n slots are about to be free or nobody has an idle connection.
func (b *budget) evictFor(p *pool, n int) {
	for {
		b.mu.Lock()
		x := b.lacks(p)
		enough := x == nil || x.evicting >= x.used-x.limit+n
		if !enough {
			x.evicting++ // taken back below when there is nothing to evict, and by give
		}
		b.mu.Unlock()
		if enough {
			return
		}
		if !b.evictIdle(p, x) {
			return
		}
	}
}

// evictIdle closes an idle connection for the sake of x, which counts it as being evicted already; false when there is
// none but p's: then it counts it no more.
func (b *budget) evictIdle(p *pool, x *bound) bool {
	richest, most := (*pool)(nil), 0
	for _, q := range b.every() {
		if q == p || !slices.Contains(q.bounds, x) {
			continue
		}
		q.mu.Lock()
		idle := len(q.idle)
		q.mu.Unlock()
		if idle > most {
			richest, most = q, idle
		}
	}
	if richest != nil && richest.evict(x) {
		return true
	}
	b.mu.Lock()
	x.evicting--
	b.mu.Unlock()
	return false
}

func (p *pool) errDown(since time.Time, cause error) *wire.Error {
	e := wire.Errorf(wire.CannotConnectNow, "%s is down", p.endpoint)
	if cause != nil {
		if told := (*wire.Error)(nil); errors.As(cause, &told) {
			cause = connectFailure{told.Message, cause}
		}
		e = wire.Errorf(wire.CannotConnectNow, "%s is down: %w", p.endpoint, cause)
	}
	return e.WithDetail("It has been down for %s.", time.Since(since).Round(100*time.Millisecond)).
		WithHint("It is checked every %s and used again as soon as it answers.", p.b.cfg().HealthInterval)
}

package backend

import (
	"time"

	"github.com/tidemarkdb/tidemark/internal/loop"
	"github.com/tidemarkdb/tidemark/internal/wire"
)

// sweep is the janitor's look at one pool: it closes idle connections that are unused for too long (down to the minimum),
// too old or broken, marks active ones that are too old, and opens what the minimum lacks.
func (p *pool) sweep(now time.Time) {
	p.mu.Lock()
	for _, c := range p.conns {
		c.retire = c.retire || now.After(c.expires)
	}
	var ended []*Conn
	for i := 0; i < len(p.idle); {
		c := p.idle[i]
		if c.idleSince.IsZero() {
			c.idleSince = now
		}
		unused := now.Sub(c.idleSince) > c.idleTime && len(p.idle) > p.minIdle
		if unused || c.retire || c.IO.HungUp() {
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
	if p.retry != nil {
		p.retry.Stop()
	}
	p.mu.Unlock()
	failed.wake()
	p.end(ended)
}

func (p *pool) takeAllIdle() []*Conn {
	var all []*Conn
	for len(p.idle) > 0 {
		all = append(all, p.lease(len(p.idle)-1))
	}
	return all
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

// evict closes the idle connection that was unused longest; false when there is none.
func (p *pool) evict() bool {
	p.mu.Lock()
	if len(p.idle) == 0 {
		p.mu.Unlock()
		return false
	}
	c := p.lease(0)
	c.evicted = true
	p.stats.Evicted++
	p.mu.Unlock()
	p.end([]*Conn{c})
	return true
}

// evictFor closes idle connections of pools other than p, always one of the pool that has most, until n slots are about to
// be free or nobody has an idle connection.
func (b *budget) evictFor(p *pool, n int) {
	for {
		b.mu.Lock()
		enough := b.evicting >= n
		if !enough {
			b.evicting++ // taken back below when there is nothing to evict, and by give
		}
		b.mu.Unlock()
		if enough {
			return
		}
		richest, most := (*pool)(nil), 0
		for _, q := range b.all() {
			if q == p {
				continue
			}
			q.mu.Lock()
			idle := len(q.idle)
			q.mu.Unlock()
			if idle > most {
				richest, most = q, idle
			}
		}
		if richest == nil || !richest.evict() {
			b.mu.Lock()
			b.evicting--
			b.mu.Unlock()
			return
		}
	}
}

func (p *pool) errDown(since time.Time, cause error) *wire.Error {
	e := wire.Errorf(wire.CannotConnectNow, "%s is down", p.endpoint)
	if cause != nil {
		e = wire.Errorf(wire.CannotConnectNow, "%s is down: %w", p.endpoint, cause)
	}
	return e.WithDetail("It has been down for %s.", time.Since(since).Round(100*time.Millisecond)).
		WithHint("It is checked every %s and used again as soon as it answers.", p.b.cfg.HealthInterval)
}

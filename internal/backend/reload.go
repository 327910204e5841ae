package backend

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"time"
)

// live is all that a new configuration replaces, in one step: the Config with its defaults, and what is made of it once.
// It is never changed in place.
type live struct {
	Config
	shared map[string]*Identity // see SharedAs
}

// newLive keeps the identities of old, which sessions and pools have.
func newLive(cfg Config, old *live) *live {
	l := &live{Config: cfg, shared: map[string]*Identity{}}
	for name, u := range cfg.Users {
		if u.MaxConnections == 0 && u.PoolSize == 0 {
			continue
		}
		if old != nil && old.shared[name] != nil {
			l.shared[name] = old.shared[name]
		} else {
			l.shared[name] = &Identity{User: name, Shared: true}
		}
	}
	return l
}

// cfg is the configuration now. It must not be changed.
func (b *Backend) cfg() *Config { return &b.live.Load().Config }

// limitOf is the limit of a bound; 0 stands for none.
func limitOf(n int) int {
	if n == 0 {
		return math.MaxInt
	}
	return n
}

// Prepare checks a new configuration and returns what puts it into force. Nothing can fail then, and it must not run twice
// at the same time.
//
// Where a limit falls, idle connections beyond it are closed at once and those in use when they are released; where it
// rises, who waits is served. New credentials are those of connections opened from then on, as a PostgreSQL session outlives
// a change of its password. A session keeps its pool mode, and whether it has pools of its user's own. Shards, their
// servers, the database and the role that logs in, and Rise and Fall cannot change.
func (b *Backend) Prepare(cfg Config) (apply func(), err error) {
	cfg, err = cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	old := b.cfg()
	var errs []error
	for _, x := range []struct {
		what string
		same bool
	}{
		{"shards and servers", reflect.DeepEqual(cfg.Shards, old.Shards)},
		{"the database", cfg.Database == old.Database},
		{"the role that logs in", cfg.User == old.User},
		{"rise and fall", cfg.Rise == old.Rise && cfg.Fall == old.Fall},
	} {
		if !x.same {
			errs = append(errs, fmt.Errorf("backend: %s cannot change while the process runs", x.what))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	logins := map[*Endpoint]*login{}
	for i, s := range b.shards {
		for j, e := range s.endpoints {
			if logins[e], err = newLogin(&cfg, b.eng, cfg.Shards[i].Database, cfg.Shards[i].Endpoints[j]); err != nil {
				return nil, fmt.Errorf("backend: %s: %w", e, err)
			}
		}
	}
	return func() {
		for e, in := range logins {
			e.in.Store(in)
		}
		b.live.Store(newLive(cfg, b.live.Load())) // pools made from here on follow it
		b.bind()
		for _, p := range b.budget.every() {
			p.adopt()
		}
	}, nil
}

// bind gives the bounds their limits, closes idle connections beyond them, and offers new room to who stands in the queue.
func (b *Backend) bind() {
	u := b.budget
	u.mu.Lock()
	cfg := b.cfg()
	u.all.limit = cfg.Budget
	for _, s := range b.shards {
		for _, e := range s.endpoints {
			e.bound.limit = limitOf(cfg.MaxConnections)
		}
	}
	for name, x := range u.users {
		x.limit = limitOf(cfg.Users[name].MaxConnections)
	}
	u.over.Store(u.exceeded() != nil)
	starving := slices.Clone(u.starving)
	u.mu.Unlock()
	u.shrink()
	for _, s := range starving {
		s.p.poke()
	}
}

// exceeded is a bound that more counts against than its limit, even when all that is being closed for it has gone or, when
// there is none such, before; nil when there is none at all. Callers hold mu.
func (b *budget) exceeded() (over *bound) {
	for _, p := range b.pools {
		for _, x := range p.bounds {
			if x.used-x.evicting > x.limit {
				return x
			}
			if x.used > x.limit {
				over = x
			}
		}
	}
	return over
}

// shrink closes idle connections beyond the limits.
func (b *budget) shrink() {
	full := map[*bound]bool{} // of connections in use only
	for {
		b.mu.Lock()
		var over *bound
		for _, p := range b.pools {
			for _, x := range p.bounds {
				if x.used-x.evicting > x.limit && !full[x] {
					over = x
				}
			}
		}
		if over != nil {
			over.evicting++
		}
		b.mu.Unlock()
		if over == nil {
			return
		}
		if !b.evictIdle(nil, over) {
			full[over] = true
		}
	}
}

// adopt has the pool follow the settings in force.
func (p *pool) adopt() {
	p.mu.Lock()
	old := p.set
	p.set = p.b.live.Load() // with the lock held: the last to come sees the newest
	set := p.set
	p.mode, p.size, p.reserve, p.minIdle = set.Mode, set.PoolSize, set.ReserveSize, set.MinIdle
	if p.identity != nil {
		u := set.Users[p.user]
		if u.Mode != "" {
			p.mode = u.Mode
		}
		if u.PoolSize > 0 {
			p.size, p.minIdle = u.PoolSize, min(p.minIdle, u.PoolSize)
		}
	}
	if p.listening {
		p.mode, p.size, p.reserve, p.minIdle = Listening, 1, 0, 0
	}
	if old == nil {
		p.mu.Unlock()
		return
	}
	for _, c := range p.conns {
		if set.IdleTime != old.IdleTime {
			c.idleTime = jitter(set.IdleTime)
		}
		if set.Lifetime != old.Lifetime {
			c.expires = c.opened.Add(jitter(set.Lifetime))
		}
	}
	p.failures, p.lastErr, p.retryAt = 0, nil, time.Time{} // other credentials may succeed
	var ended []*Conn
	for len(p.idle) > 0 && int(p.total.Load())-len(ended) > p.size {
		ended = append(ended, p.lease(0))
	}
	next := p.fill()
	p.mu.Unlock()
	p.end(ended)
	next.run()
}

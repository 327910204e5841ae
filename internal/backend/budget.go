package backend

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// bound is one limit on server connections and what counts against it: those of the process, of one endpoint, or of one
// user on all endpoints. Its counts are guarded by the budget's lock.
type bound struct {
	what     string // for people: the limit's name in the configuration
	limit    int
	used     int
	evicting int // of used: connections being closed for pools that starve of this bound
	pools    int // that count against it
}

// budget keeps all bounds. A pool takes a slot, of each bound that it counts against, before it opens a connection, and
// gives it back when that is closed. Pools that found no slot stand in a queue; a freed slot is offered to the first that it
// suffices for, before anybody else's, and a pool that gets a connection back which it has no use for, or more than its
// share of, closes it in their favour.
//
// Locks: a pool's lock may be held when budget's is taken, never the other way round, and no two pools' at once.
type budget struct {
	all    *bound       // the process's
	hungry atomic.Int32 // len(starving), to look at without the lock
	over   atomic.Bool  // a reload has put a limit below what is used

	mu       sync.Mutex        // guards the fields below, and every bound
	pools    []*pool           // replaced, never changed in place
	users    map[string]*bound // of all users that have pools of their own
	starving []starver         // first come, first served; each pool once
	empty    chan struct{}
}

// starver is a pool in the queue.
type starver struct {
	p     *pool
	since time.Time
}

// starveLimit is how long a pool may be without any connection while others of the same bound have theirs: then one of
// those gives way even if its own sessions wait. So where users are more than connections, each has its turns.
const starveLimit = 500 * time.Millisecond

func newBudget(limit int) *budget {
	return &budget{all: &bound{what: "the budget", limit: limit}, users: map[string]*bound{}}
}

func (b *budget) add(p *pool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p.identity != nil {
		p.bounds = append([]*bound{b.userBound(p)}, p.bounds...)
	}
	b.pools = append(slices.Clip(b.pools), p)
	for _, x := range p.bounds {
		x.pools++
	}
}

// userBound is the bound of p's user on all endpoints. Callers hold mu.
func (b *budget) userBound(p *pool) *bound {
	x := b.users[p.user]
	if x == nil {
		x = &bound{what: fmt.Sprintf("max_connections of user %q", p.user), limit: limitOf(p.b.cfg().Users[p.user].MaxConnections)}
		b.users[p.user] = x
	}
	return x
}

func (b *budget) remove(p *pool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pools = slices.DeleteFunc(slices.Clone(b.pools), func(q *pool) bool { return q == p })
	for _, x := range p.bounds {
		x.pools--
	}
	if x := b.users[p.user]; x != nil && x.pools == 0 {
		delete(b.users, p.user)
	}
	b.leaveLocked(p)
}

func (b *budget) every() []*pool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.pools
}

// lacks is the narrowest bound that has no slot left for p, or nil. Callers hold mu.
func (b *budget) lacks(p *pool) *bound {
	for _, x := range p.bounds {
		if x.used >= x.limit {
			return x
		}
	}
	return nil
}

// take takes a slot for p, or puts it into the queue if it is to wait for one.
func (b *budget) take(p *pool, wait bool) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.lacks(p) == nil {
		if first := b.next(); first == nil || first == p {
			for _, x := range p.bounds {
				x.used++
			}
			b.leaveLocked(p)
			return true
		}
	}
	if !wait || slices.ContainsFunc(b.starving, func(q starver) bool { return q.p == p }) {
		return false
	}
	b.starving = append(b.starving, starver{p, time.Now()})
	b.hungry.Store(int32(len(b.starving)))
	return false
}

// leave takes p out of the queue; next is the pool to poke when a free slot is another's now.
func (b *budget) leave(p *pool) (next *pool) {
	if b.hungry.Load() == 0 {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.leaveLocked(p)
	return b.next()
}

func (b *budget) leaveLocked(p *pool) {
	for i, q := range b.starving {
		if q.p == p {
			b.starving = slices.Delete(b.starving, i, i+1)
			b.hungry.Store(int32(len(b.starving)))
			return
		}
	}
}

// next is the pool that a free slot belongs to, or nil. Callers hold mu.
func (b *budget) next() *pool {
	for _, q := range b.starving {
		if b.lacks(q.p) == nil {
			return q.p
		}
	}
	return nil
}

// give returns a slot of p; evicted is the bound for whose sake the connection was closed, or nil. next is the pool to poke.
func (b *budget) give(p *pool, evicted *bound) (next *pool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, x := range p.bounds {
		x.used--
	}
	if evicted != nil {
		evicted.evicting--
	}
	if b.over.Load() {
		b.over.Store(b.exceeded() != nil)
	}
	if b.all.used == 0 && b.empty != nil {
		close(b.empty)
		b.empty = nil
	}
	return b.next()
}

// wantedFrom says whether a pool with that many connections, that has just got one back, should close it in favour of a
// starving one: when it has nobody waiting itself, when it has more than its share and the starving one less, or when
// that one has had nothing for too long; and in nobody's favour when a reload has put a limit below what is used. The result is the bound that the slot is freed for, counted as being evicted;
// nil: keep it.
func (b *budget) wantedFrom(p *pool, total int, waiting bool) *bound {
	if b.hungry.Load() == 0 && !b.over.Load() {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, x := range p.bounds {
		if x.used-x.evicting > x.limit {
			x.evicting++
			return x
		}
	}
	for _, q := range b.starving {
		x := b.lacks(q.p)
		if q.p == p || x == nil || !slices.Contains(p.bounds, x) {
			continue
		}
		have := int(q.p.total.Load())
		share := max(1, x.limit/x.pools)
		if !waiting || total > share && have < share || have == 0 && x.evicting == 0 && time.Since(q.since) > starveLimit {
			x.evicting++
			return x
		}
	}
	return nil
}

// whatLacks names the limit that p has reached, for people; empty for none.
func (b *budget) whatLacks(p *pool) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if x := b.lacks(p); x != nil {
		return fmt.Sprintf("%s of %d", x.what, x.limit)
	}
	return ""
}

// drained waits until every slot has been given back.
func (b *budget) drained(ctx context.Context) error {
	b.mu.Lock()
	if b.all.used == 0 {
		b.mu.Unlock()
		return nil
	}
	if b.empty == nil {
		b.empty = make(chan struct{})
	}
	empty := b.empty
	b.mu.Unlock()
	select {
	case <-empty:
		return nil
	case <-ctx.Done():
		b.mu.Lock()
		defer b.mu.Unlock()
		return fmt.Errorf("close backend: %d server connections are still in use: %w", b.all.used, ctx.Err())
	}
}

package backend

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
)

// budget bounds the server connections of the whole process. A pool takes a slot before it opens a connection and gives it
// back when that is closed. Pools that found no slot stand in a queue; freed slots are theirs before anybody else's, and a
// pool that gets a connection back which it has no use for closes it in their favour.
//
// Locks: a pool's lock may be held when budget's is taken, never the other way round, and no two pools' at once.
type budget struct {
	limit  int
	hungry atomic.Int32 // len(starving), to look at without the lock

	mu       sync.Mutex // guards the fields below
	used     int
	evicting int // of used: idle connections being closed for starving pools
	pools    []*pool
	starving []*pool // first come, first served; each once
	empty    chan struct{}
}

func newBudget(limit int) *budget { return &budget{limit: limit} }

func (b *budget) add(p *pool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pools = append(b.pools, p)
}

func (b *budget) all() []*pool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.pools
}

// take takes a slot for p, or puts it into the queue.
func (b *budget) take(p *pool) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.used < b.limit && (len(b.starving) == 0 || b.starving[0] == p) {
		b.used++
		b.leaveLocked(p)
		return true
	}
	for _, q := range b.starving {
		if q == p {
			return false
		}
	}
	b.starving = append(b.starving, p)
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
		if q == p {
			b.starving = append(b.starving[:i:i], b.starving[i+1:]...)
			b.hungry.Store(int32(len(b.starving)))
			return
		}
	}
}

// next is the pool that a free slot belongs to, or nil.
func (b *budget) next() *pool {
	if b.used < b.limit && len(b.starving) > 0 {
		return b.starving[0]
	}
	return nil
}

// give returns a slot, of an evicted connection or another; next is the pool to poke.
func (b *budget) give(evicted bool) (next *pool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used--
	if evicted {
		b.evicting--
	}
	if b.used == 0 && b.empty != nil {
		close(b.empty)
		b.empty = nil
	}
	return b.next()
}

// wantsFrom says whether a pool with that many connections, that has just got one back, should close it in favour of a
// starving one: when it has nobody waiting itself, or when it has more than its share and the starving one less.
func (b *budget) wantsFrom(p *pool, total int, waiting bool) bool {
	if b.hungry.Load() == 0 {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.starving) == 0 || b.starving[0] == p {
		return false
	}
	if !waiting {
		return true
	}
	share := max(1, b.limit/len(b.pools))
	return total > share && int(b.starving[0].total.Load()) < share
}

// drained waits until every slot has been given back.
func (b *budget) drained(ctx context.Context) error {
	b.mu.Lock()
	if b.used == 0 {
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
		return fmt.Errorf("close backend: %d server connections are still in use: %w", b.used, ctx.Err())
	}
}

package router

import (
	"sync"
	"sync/atomic"

	"github.com/tidemarkdb/tidemark/internal/sql"
)

// cache holds planned statements, by key, within a bound in bytes. Who is used survives: the hand passes over entries
// and takes those that were not used since it last came by (the clock algorithm). It is safe for concurrent use.
type cache struct {
	limit int64

	mu    sync.RWMutex // guards the fields below
	items map[string]*item
	ring  []*item
	hand  int
	bytes int64
}

// item is either the statements of a shape, or a template of a text, or, for a shape whose meaning hangs on literals,
// only which ones: their values are then part of a second key.
type item struct {
	key        string
	cost       int64
	used       atomic.Bool
	stmts      []*compiled
	structural []int
	template   *Template
	pattern    sql.Pattern // of the shape; empty where it is not all of the key
}

// itemOverhead is about what the maps and the item itself take.
const itemOverhead = 250

func newCache(limit int64) *cache { return &cache{limit: limit, items: map[string]*item{}} }

func (c *cache) get(key []byte) *item {
	c.mu.RLock()
	it := c.items[string(key)]
	c.mu.RUnlock()
	if it != nil {
		it.use()
	}
	return it
}

func (it *item) use() {
	if !it.used.Load() {
		it.used.Store(true)
	}
}

// put adds an item, unless it alone would take more than an eighth of the cache. The key is in it already.
func (c *cache) put(it *item) {
	it.cost += int64(2*len(it.key)) + itemOverhead
	if it.cost > c.limit/8 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.items[it.key]; ok {
		return // another session was faster; its plans are the same
	}
	for c.bytes+it.cost > c.limit && len(c.ring) > 0 {
		c.evict()
	}
	c.items[it.key] = it
	c.ring = append(c.ring, it)
	c.bytes += it.cost
}

func (c *cache) evict() {
	for {
		if c.hand >= len(c.ring) {
			c.hand = 0
		}
		it := c.ring[c.hand]
		if it.used.CompareAndSwap(true, false) {
			c.hand++
			continue
		}
		last := len(c.ring) - 1
		c.ring[c.hand] = c.ring[last]
		c.ring[last] = nil
		c.ring = c.ring[:last]
		delete(c.items, it.key)
		c.bytes -= it.cost
		return
	}
}

// CacheStats says how full the plan cache is.
type CacheStats struct {
	Entries int
	Bytes   int64
	Limit   int64
}

// CacheStats is for SHOW and metrics.
func (r *Router) CacheStats() CacheStats {
	r.cache.mu.RLock()
	defer r.cache.mu.RUnlock()
	return CacheStats{len(r.cache.items), r.cache.bytes, r.cache.limit}
}

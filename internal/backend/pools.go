package backend

import (
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tidemarkdb/tidemark/internal/wire"
)

// maxPools bounds the pools of one endpoint besides the shared one, and so what many users who come once can take.
const maxPools = 1000

// ownPools are an endpoint's pools of identities, and those that listen, made when a user's first session needs a connection. Readers take no
// lock: the map is replaced, never changed.
type ownPools struct {
	mu sync.Mutex // orders changes
	by atomic.Pointer[map[poolKey]*pool]
}

// poolKey tells pools of one endpoint apart. A user who logs in to the server itself and one of the same name who has a
// pool of the shared role are two.
type poolKey struct {
	user      string
	shared    bool
	listening bool // see AcquireListening; of the shared role if user is empty
}

func (o *ownPools) get(k poolKey) *pool {
	if m := o.by.Load(); m != nil {
		return (*m)[k]
	}
	return nil
}

// poolOf is the pool that id's connections come from; the error is a *wire.Error.
func (e *Endpoint) poolOf(id *Identity) (*pool, error) {
	if id == nil {
		return e.pool, nil
	}
	return e.poolBy(poolKey{user: id.User, shared: id.Shared}, id)
}

func (e *Endpoint) poolBy(k poolKey, id *Identity) (*pool, error) {
	if p := e.own.get(k); p != nil {
		return p, nil
	}
	return e.makePool(k, id)
}

func (e *Endpoint) makePool(k poolKey, id *Identity) (*pool, error) {
	e.own.mu.Lock()
	defer e.own.mu.Unlock()
	if p := e.own.get(k); p != nil {
		return p, nil
	}
	now := map[poolKey]*pool{}
	if m := e.own.by.Load(); m != nil {
		now = maps.Clone(*m)
	}
	if len(now) >= maxPools && !dropEmpty(now) {
		return nil, wire.Errorf(wire.TooManyConnections, "too many users have connections to %s", e).
			WithHint("At most %d users can have a pool on one server. Connections of users who have left end after idle_timeout.", maxPools)
	}
	p := newPool(e.b, e, id, k.listening)
	now[k] = p
	e.own.by.Store(&now)
	if e.b.ctx.Err() != nil { // Close has looked through the pools already, or will see this one
		p.close()
	}
	return p, nil
}

// dropEmpty takes one pool without connections out of m.
func dropEmpty(m map[poolKey]*pool) bool {
	for k, p := range m {
		if p.abolish(time.Time{}) {
			delete(m, k)
			return true
		}
	}
	return false
}

// sweepPools forgets the pools that have been empty and unused for a while, and with them their credentials.
func (e *Endpoint) sweepPools(now time.Time) {
	m := e.own.by.Load()
	if m == nil {
		return
	}
	var gone []poolKey
	e.own.mu.Lock()
	defer e.own.mu.Unlock()
	for k, p := range *e.own.by.Load() {
		if p.abolish(now.Add(-poolKeep)) {
			gone = append(gone, k)
		}
	}
	if len(gone) == 0 {
		return
	}
	left := maps.Clone(*e.own.by.Load())
	for _, k := range gone {
		delete(left, k)
	}
	e.own.by.Store(&left)
}

// pools yields all pools of the endpoint, the shared one first.
func (e *Endpoint) pools(yield func(*pool) bool) {
	if !yield(e.pool) {
		return
	}
	m := e.own.by.Load()
	if m == nil {
		return
	}
	for _, p := range *m {
		if !yield(p) {
			return
		}
	}
}

// abolish ends a pool of an identity if nothing is in it, nobody waits, and it was not used since then (zero: any time).
// Acquire finds it abolished and makes a new one.
func (p *pool) abolish(since time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.total.Load() != 0 || p.waiters.n != 0 || !since.IsZero() && (p.usedAt.IsZero() || p.usedAt.After(since)) {
		return false
	}
	p.abolished = true
	if p.timer != nil {
		p.timer.Stop()
	}
	p.budget.remove(p)
	return true
}

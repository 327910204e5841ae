package backend

import (
	"slices"
	"time"

	"github.com/tidemarkdb/tidemark/internal/loop"
	"github.com/tidemarkdb/tidemark/internal/wire"
)

// Listening is the mode of a pool whose one connection listens to channels for all sessions of its user. Such a pool is apart
// from the user's others, so that it takes nothing of their size; it counts against the same bounds as they do.
const Listening Mode = "listening"

// AcquireListening is Acquire for the connection that listens for all sessions of id. Its holder keeps it as long as somebody
// listens. All such connections together take half of any bound at most, or nothing would be left to run statements with:
// beyond that the error is 53300.
func (e *Endpoint) AcquireListening(t *loop.Task, id *Identity) (*Conn, error) {
	k := poolKey{listening: true}
	if id != nil {
		k.user, k.shared = id.User, id.Shared
	}
	for {
		p, err := e.poolBy(k, id)
		if err != nil {
			return nil, err
		}
		if err := e.b.budget.mayListen(p); err != nil {
			return nil, err
		}
		c, err := p.acquire(t, id, nil, time.Time{})
		if err != errAbolished { //nolint:errorlint // it is never wrapped
			return c, err
		}
	}
}

// mayListen is the error for one more listening connection than a bound has room for, or nil.
func (b *budget) mayListen(p *pool) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, x := range p.bounds {
		n := 1
		for _, q := range b.pools {
			if q != p && q.listening && q.total.Load() > 0 && slices.Contains(q.bounds, x) {
				n++
			}
		}
		if n > x.limit/2 {
			return wire.Errorf(wire.TooManyConnections, "no server connection may be opened to listen").
				WithDetail("Connections that listen take half of %s of %d at most.", x.what, x.limit).
				WithHint("Raise it. Each user that logs in to the servers as itself, or has limits of its own, needs one connection to listen.")
		}
	}
	return nil
}

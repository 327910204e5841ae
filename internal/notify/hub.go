// Package notify has one server connection listen to channels for many sessions: PostgreSQL's LISTEN without a server
// connection for each client that listens. docs/decisions/2026-11-28-shared-listening-connections.md says what it promises.
//
// A Subscriber is one session. It asks for channels, and for fences: what had been committed before a fence was asked for
// has been heard when it is answered, because a server sends its notifications before it says ReadyForQuery. The connection
// answers all requests that came meanwhile by one round trip, so that any number of sessions cost it little more than one.
//
// What a subscriber hears waits for it in bounded memory, and is shared between all who hear it. Nothing is ever dropped in
// silence: who cannot be given everything is given an error, for good.
package notify

import (
	"cmp"
	"log/slog"
	"slices"
	"sync"

	"github.com/tidemarkdb/tidemark/internal/backend"
	"github.com/tidemarkdb/tidemark/internal/loop"
)

// Hub has the shared listening connections to one shard: one for the shared role, and one for each identity that has pools
// of its own. It is safe for concurrent use.
//
// Locks: Hub.mu before listener.mu before Subscriber.mu.
type Hub struct {
	eng   loop.Engine
	shard *backend.Shard
	limit func() int
	log   *slog.Logger

	mu sync.Mutex
	by map[who]*listener // those that run
}

// who is whose connection it is; the zero value is the shared role.
type who struct {
	user   string
	shared bool
}

func whoIs(id *backend.Identity) who {
	if id == nil {
		return who{}
	}
	return who{id.User, id.Shared}
}

// New makes a hub that listens on the shard's primary, where LISTEN and NOTIFY meet. limit bounds, in bytes, what waits for
// one subscriber; it is asked each time.
func New(eng loop.Engine, shard *backend.Shard, limit func() int, log *slog.Logger) *Hub {
	return &Hub{eng: eng, shard: shard, limit: limit, log: log, by: map[who]*listener{}}
}

// Subscribe makes a subscriber of the session that runs as t, which was told pid. It costs nothing before it asks for
// something; Close ends it.
func (h *Hub) Subscribe(t *loop.Task, id *backend.Identity, pid uint32) *Subscriber {
	return &Subscriber{hub: h, id: id, pid: pid, task: t, channels: map[string]struct{}{}}
}

// Channel is a channel that somebody listens to.
type Channel struct {
	Name, User  string // whose connection listens; empty for the shared role
	PID         uint32 // the server process
	Subscribers int
}

// Channels lists them by user and name.
func (h *Hub) Channels() (all []Channel) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for w, l := range h.by {
		l.mu.Lock()
		for name, subs := range l.members {
			if len(subs) > 0 {
				all = append(all, Channel{Name: name, User: w.user, PID: l.pid, Subscribers: len(subs)})
			}
		}
		l.mu.Unlock()
	}
	slices.SortFunc(all, func(a, b Channel) int { return cmp.Or(cmp.Compare(a.User, b.User), cmp.Compare(a.Name, b.Name)) })
	return all
}

// send gives a request to the connection that is the subscriber's, which is begun if there is none.
func (h *Hub) send(r *Request) {
	s := r.sub
	h.mu.Lock()
	if err := s.Err(); err != nil {
		h.mu.Unlock()
		r.answer(err)
		return
	}
	l := h.by[whoIs(s.id)]
	begin := l == nil
	if begin {
		l = newListener(h, s.id)
		h.by[whoIs(s.id)] = l
	}
	l.mu.Lock()
	l.requests = append(l.requests, r)
	l.mu.Unlock()
	h.mu.Unlock()
	if begin {
		h.eng.Go(l.run)
	} else {
		l.wake()
	}
}

// listenerOf is the connection of a subscriber, or nil.
func (h *Hub) listenerOf(s *Subscriber) *listener {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.by[whoIs(s.id)]
}

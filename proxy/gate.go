package proxy

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tidemarkdb/tidemark/internal/engine"
	"github.com/tidemarkdb/tidemark/internal/loop"
	"github.com/tidemarkdb/tidemark/internal/wire"
)

// gate is where sessions wait that want a server connection of a shard which is paused, while they hold none. Those that
// hold one pass, or a statement over several shards would wait for a pause that waits for it.
type gate struct {
	any    atomic.Bool // some shard is paused: the only thing that is looked at per transaction
	mu     sync.Mutex
	shards map[string]bool
}

// shut and open change the gate of the shards.
func (g *gate) shut(shards []string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shards == nil {
		g.shards = map[string]bool{}
	}
	for _, s := range shards {
		g.shards[s] = true
	}
	g.any.Store(true)
}

func (g *gate) open(shards []string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, s := range shards {
		delete(g.shards, s)
	}
	g.any.Store(len(g.shards) > 0)
}

// closed says whether a shard is paused.
func (g *gate) closed(shard string) bool {
	if !g.any.Load() {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.shards[shard]
}

// Paused says whether a shard is paused.
func (p *Proxy) Paused(shard string) bool { return p.gate.closed(shard) }

// awaitResume holds a session up while the shard is paused, for as long as it may wait for a connection.
func (s *session) awaitResume(shard string) error {
	if s.client.holds() {
		return nil
	}
	since := time.Now()
	deadline := since.Add(s.p.backend.AcquireTimeout())
	s.client.waiting.Store(true)
	defer s.client.waiting.Store(false)
	var cancelled atomic.Bool
	s.client.interruptible(func() { cancelled.Store(true); s.Task.Wake() })
	defer s.client.interruptible(nil)
	for s.p.gate.closed(shard) {
		cause := s.Task.Wait(deadline, loop.Source{Conn: s.Client, For: loop.Hangup})
		switch {
		case cause == loop.Closing:
			return engine.ErrClosing
		case s.Stopped():
			return engine.ErrStopped
		case s.Client.HungUp():
			return engine.ErrClientGone
		case cancelled.Load():
			return errCancelled()
		case cause == loop.Timeout && s.p.gate.closed(shard):
			return wire.Errorf(wire.CannotConnectNow, "shard %q is paused", shard).
				WithDetail("The statement waited for %s.", time.Since(since).Round(time.Millisecond)).
				WithHint("An administrator has paused it; it goes on with RESUME in the admin database.")
		}
	}
	return nil
}

// pausePoll is how often PAUSE looks whether transactions have ended.
const pausePoll = 10 * time.Millisecond

// pause has sessions wait that want to begin a transaction on the shards, and waits until those under way have ended and
// every server connection there is closed. When ctx ends first, all goes on as before.
func (p *Proxy) pause(ctx context.Context, shards []string) error {
	p.gate.shut(shards)
	// A session between the gate and the pool is in neither count for a moment; it is in the second one.
	for quiet := 0; quiet < 2; {
		if err := ctx.Err(); err != nil {
			p.resume(shards)
			return err
		}
		if quiet++; p.backend.Busy(shards...) > 0 {
			quiet = 0
		}
		sleep(ctx, pausePoll)
	}
	p.backend.Pause(shards...)
	return nil
}

// resume ends pause.
func (p *Proxy) resume(shards []string) {
	p.backend.Resume(shards...)
	p.gate.open(shards)
	p.clients.wakeAll()
}

// sleep waits for d, or until ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

package backend

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tidemarkdb/tidemark/internal/loop"
)

// Backend is all shards of one process. It is safe for concurrent use.
type Backend struct {
	live   atomic.Pointer[live]
	eng    loop.Engine
	log    *slog.Logger
	shards []*Shard
	byName map[string]*Shard
	budget *budget

	admitted atomic.Uint64                            // orders identities, see Admit
	paths    atomic.Pointer[func(user string) string] // see SearchPaths

	ctx     context.Context // ends with Close: connecting stops
	cancel  context.CancelFunc
	openers sync.WaitGroup // goroutines that open connections or send cancel requests
}

// New checks cfg and prepares shards and pools; it connects to nothing. Server connections are adopted by eng. The error
// names everything that is wrong with cfg.
func New(cfg Config, eng loop.Engine, log *slog.Logger) (*Backend, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	b := &Backend{eng: eng, log: log, byName: map[string]*Shard{}, budget: newBudget(cfg.Budget)}
	b.live.Store(newLive(cfg, nil))
	b.ctx, b.cancel = context.WithCancel(context.Background())
	for _, sc := range cfg.Shards {
		s, err := newShard(b, sc)
		if err != nil {
			return nil, fmt.Errorf("backend: shard %q: %w", sc.Name, err)
		}
		b.shards = append(b.shards, s)
		b.byName[s.name] = s
	}
	return b, nil
}

// Run checks the health, role and level of every endpoint and looks after idle connections, until ctx ends or the
// Backend is closed. It returns nil then. Without it roles are those configured and broken endpoints are noticed by use.
func (b *Backend) Run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	defer context.AfterFunc(b.ctx, stop)()
	g, ctx := errgroup.WithContext(ctx)
	for _, s := range b.shards {
		for _, e := range s.endpoints {
			g.Go(func() error { e.health.run(ctx); return nil })
		}
	}
	g.Go(func() error { b.janitor(ctx); return nil })
	return g.Wait()
}

// Ready waits until every endpoint has been checked once, reachable or not, so that roles are known. It needs Run.
func (b *Backend) Ready(ctx context.Context) error {
	for _, s := range b.shards {
		for _, e := range s.endpoints {
			select {
			case <-e.health.checked:
			case <-b.ctx.Done():
				return ErrClosed
			case <-ctx.Done():
				return fmt.Errorf("wait for the first health check of %s: %w", e, ctx.Err())
			}
		}
	}
	return nil
}

// Shard returns the shard of that name, or nil.
func (b *Backend) Shard(name string) *Shard {
	if len(b.shards) > 4 {
		return b.byName[name]
	}
	for _, s := range b.shards { // every transaction asks: a tenth of a map's instructions
		if s.name == name {
			return s
		}
	}
	return nil
}

// Shards returns all shards in the order of the configuration. The slice must not be changed.
func (b *Backend) Shards() []*Shard { return b.shards }

// Close refuses waiting and new sessions (57P01), closes idle connections, and waits until connections in use have been
// released, or ctx ends: then it returns an error that says how many are left. Close the Backend before the engine.
func (b *Backend) Close(ctx context.Context) error {
	b.cancel()
	for _, p := range b.budget.every() {
		p.close()
	}
	done := make(chan struct{})
	go func() { // ends when the openers have seen the cancelled context
		b.openers.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		return fmt.Errorf("close backend: connections are still being opened: %w", ctx.Err())
	}
	return b.budget.drained(ctx)
}

// janitor closes connections that were idle or alive for too long, and keeps each pool's minimum.
func (b *Backend) janitor(ctx context.Context) {
	tick := time.NewTicker(janitorInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			for _, p := range b.budget.every() {
				p.sweep(now)
			}
			for _, s := range b.shards {
				for _, e := range s.endpoints {
					e.sweepPools(now)
				}
			}
		}
	}
}

package cqrs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// Follower feeds a Levels from the bus's system topics, record by record as they are written. The bus answers a fetch
// as soon as there is a record, so that nothing is polled.
type Follower struct {
	bus    Bus
	names  Names
	levels *Levels
	log    *slog.Logger

	mu       sync.Mutex
	behind   int // topics that are not read to their end yet
	once     sync.Once
	caughtUp chan struct{}
}

const (
	// followWait is how long one fetch may wait at the bus for a record.
	followWait = 500 * time.Millisecond
	// followBytes is how much one fetch asks for.
	followBytes = 1 << 20
)

// NewFollower makes a follower; Run makes it work.
func NewFollower(bus Bus, names Names, levels *Levels, log *slog.Logger) *Follower {
	if log == nil {
		log = slog.Default()
	}
	return &Follower{bus: bus, names: names, levels: levels, log: log, caughtUp: make(chan struct{})}
}

// CaughtUp is closed when what was in the topics at the start has been read. Before, levels are lower than they could
// be, never higher.
func (f *Follower) CaughtUp() <-chan struct{} { return f.caughtUp }

// Run follows until ctx ends. It outlives a bus that is away.
func (f *Follower) Run(ctx context.Context) error {
	err := retry(ctx, f.log, "creating topics", func() error { return f.bus.Ensure(ctx, f.names.System()...) })
	if err != nil {
		return ended(ctx, err)
	}
	for {
		err := f.both(ctx)
		if !errors.Is(err, ErrOutOfRange) {
			return ended(ctx, err)
		}
		// A topic was created again: what was read of its former life says nothing about the new one.
		f.log.Warn("a system topic does not hold the next offset; reading both from their beginning", "error", err)
		f.levels.Forget()
	}
}

func (f *Follower) both(ctx context.Context) error {
	eg, gctx := errgroup.WithContext(ctx)
	f.mu.Lock()
	f.behind = 2
	f.mu.Unlock()
	eg.Go(func() error {
		return f.follow(gctx, f.names.Progress(), func(r *Record) error {
			p, err := parseProgress(r)
			if err == nil {
				f.levels.Progress(p)
			}
			return err
		})
	})
	eg.Go(func() error {
		return f.follow(gctx, f.names.Levels(), func(r *Record) error {
			said, err := parseLevel(r)
			switch x := said.(type) {
			case Applied:
				f.levels.Applied(x)
			case Exception:
				f.levels.Exception(x)
			}
			return err
		})
	})
	return eg.Wait()
}

// ended is nil for an error that only says that ctx is over.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// follow reads one partition for ever. A record that cannot be read was not written by us; it is logged and passed over.
func (f *Follower) follow(ctx context.Context, topic string, take func(*Record) error) error {
	var offset, end int64
	err := retry(ctx, f.log, "following "+topic, func() error {
		b, err := f.bus.Bounds(ctx, topic)
		if err == nil && len(b) != 1 {
			err = fmt.Errorf("topic %s has %d partitions, not one: %w", topic, len(b), ErrPermanent)
		}
		if err == nil {
			offset, end = b[0].First, b[0].End
		}
		return err
	})
	if err != nil {
		return err
	}
	reached := false
	for {
		if !reached && offset >= end {
			reached = true
			f.reached()
		}
		var b Batch
		err := retry(ctx, f.log, "following "+topic, func() (err error) {
			b, err = f.bus.Fetch(ctx, topic, 0, offset, followBytes, followWait)
			if errors.Is(err, ErrOutOfRange) {
				err = fmt.Errorf("%w: %w", err, ErrPermanent)
			}
			return err
		})
		if err != nil {
			return err
		}
		for i := range b.Records {
			if err := take(&b.Records[i]); err != nil {
				f.log.Warn("passed over", "topic", topic, "offset", b.Records[i].Offset, "error", err)
			}
		}
		offset = b.Next
	}
}

func (f *Follower) reached() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.behind--; f.behind == 0 {
		f.once.Do(func() { close(f.caughtUp) })
	}
}

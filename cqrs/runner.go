package cqrs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sort"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// Runner keeps views up to date: for each it joins the view's consumer group, and for each partition that it gets
//
//	fetch -> decode -> drop what is superseded -> Projector.Apply -> announce the level -> commit the offset
//
// An offset is announced and committed only when every event below it is in the store or in the dead-letter queue, so
// nothing is lost when a worker dies; what is applied twice then is harmless by its version. A store that fails is tried
// again for ever, and holds up nothing but its own partition; an event that can never apply goes to the dead-letter
// queue with its cause, and the partition goes on.
type Runner struct {
	bus   Bus
	cfg   RunnerConfig
	views []Projection
	say   *announcer

	mu    sync.Mutex
	parts map[*worker]struct{}
}

// Projection is a view to keep up to date.
type Projection struct {
	ViewID
	Tables    []Table // whose events it gets
	Projector Projector
}

// RunnerConfig has what all views share.
type RunnerConfig struct {
	Names Names
	// Partitions of a table's topic that has to be created, as in PublisherConfig.
	Partitions int
	// BatchEvents is the most events that one Apply gets. Default 1000.
	BatchEvents int
	// FetchBytes is about the most that one fetch returns; a partition holds up to three of them. Default 1 MiB.
	FetchBytes int
	// CommitInterval is how often offsets are committed: what a killed worker's successor applies again. Default 1 s.
	CommitInterval time.Duration
	// Levels, if set, is one that a Follower feeds in this process. The runner learns from it which dead-lettered events
	// of earlier workers are superseded by what it applies.
	Levels *Levels
	Log    *slog.Logger
}

// Defaults of RunnerConfig.
const (
	DefaultBatchEvents    = 1000
	DefaultFetchBytes     = 1 << 20
	DefaultCommitInterval = time.Second
)

// NewRunner makes a runner of some views.
func NewRunner(bus Bus, cfg RunnerConfig, views ...Projection) (*Runner, error) {
	seen := map[ViewID]bool{}
	for _, v := range views {
		switch {
		case v.Name == "" || v.Projector == nil || len(v.Tables) == 0:
			return nil, fmt.Errorf("runner: view %q needs a name, tables and a projector", v.Name)
		case seen[v.ViewID]:
			return nil, fmt.Errorf("runner: view %s is there twice", v.ViewID)
		}
		seen[v.ViewID] = true
	}
	if cfg.BatchEvents <= 0 {
		cfg.BatchEvents = DefaultBatchEvents
	}
	if cfg.FetchBytes <= 0 {
		cfg.FetchBytes = DefaultFetchBytes
	}
	if cfg.CommitInterval <= 0 {
		cfg.CommitInterval = DefaultCommitInterval
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	return &Runner{
		bus: bus, cfg: cfg, views: views, parts: map[*worker]struct{}{},
		say: newAnnouncer(bus, cfg.Names.Levels(), cfg.Log),
	}, nil
}

// Run works until ctx ends (nil). It outlives a bus and stores that are away.
func (r *Runner) Run(ctx context.Context) error {
	if err := retry(ctx, r.cfg.Log, "creating topics", func() error { return r.bus.Ensure(ctx, r.topics()...) }); err != nil {
		return ended(ctx, err)
	}
	eg, gctx := errgroup.WithContext(ctx)
	eg.Go(func() error { return r.say.run(gctx) })
	for _, v := range r.views {
		eg.Go(func() error {
			return r.bus.Join(gctx, r.cfg.Names.Group(v.ViewID), v.topics(r.cfg.Names), func(ctx context.Context, c Claim) error {
				w := newWorker(r, v, c)
				r.mu.Lock()
				r.parts[w] = struct{}{}
				r.mu.Unlock()
				defer func() {
					r.mu.Lock()
					delete(r.parts, w)
					r.mu.Unlock()
				}()
				return w.run(ctx)
			})
		})
	}
	return ended(ctx, eg.Wait())
}

func (r *Runner) topics() []Topic {
	topics := r.cfg.Names.System()
	seen := map[string]bool{}
	for _, v := range r.views {
		for _, name := range v.topics(r.cfg.Names) {
			if !seen[name] {
				seen[name] = true
				topics = append(topics, Topic{Name: name, Partitions: r.cfg.Partitions})
			}
		}
	}
	return topics
}

func (v *Projection) topics(n Names) []string {
	var topics []string
	for _, t := range v.Tables {
		topics = append(topics, n.Table(t.Schema, t.Name))
	}
	return topics
}

// Tracked is the view as Levels wants it; shards as in Tracked.Shards.
func (v *Projection) Tracked(n Names, shards []string) Tracked {
	return Tracked{ViewID: v.ViewID, Topics: v.topics(n), Shards: shards}
}

// PartitionStats is the state of one partition that this runner works on.
type PartitionStats struct {
	View         ViewID
	Topic        string
	Partition    int
	Applied      int64     // offset below which everything is applied
	End          int64     // the partition's end when it was last fetched
	Events       int64     // applied by this worker
	DeadLettered int64     // by this worker
	Retries      int64     // failed attempts to apply
	Failing      error     // why the partition stands still now, nil when it does not
	Since        time.Time // when it began to fail
}

// Lag is how many records wait.
func (s PartitionStats) Lag() int64 { return max(0, s.End-s.Applied) }

// Stats lists the partitions that this runner works on, in order.
func (r *Runner) Stats() []PartitionStats {
	r.mu.Lock()
	defer r.mu.Unlock()
	stats := make([]PartitionStats, 0, len(r.parts))
	for w := range r.parts {
		stats = append(stats, w.snapshot())
	}
	sort.Slice(stats, func(i, j int) bool {
		a, b := &stats[i], &stats[j]
		switch {
		case a.View != b.View:
			return a.View.String() < b.View.String()
		case a.Topic != b.Topic:
			return a.Topic < b.Topic
		}
		return a.Partition < b.Partition
	})
	return stats
}

// announcer writes what workers have applied to the levels topic. Offsets of one partition that come while a write is
// in flight share the next record, so a fast partition costs no more records than the bus takes.
type announcer struct {
	bus   Bus
	topic string
	log   *slog.Logger
	wake  chan struct{}

	mu      sync.Mutex
	dirty   map[announced]Applied
	cleared []Exception
	said    map[announced]Applied // of the partitions that this process owns
}

type announced struct {
	view ViewID
	partition
}

// announceAgain is how often a runner repeats the offsets of its partitions, so that a levels topic that lost them
// (created again by hand) is whole again soon.
const announceAgain = 30 * time.Second

func newAnnouncer(bus Bus, topic string, log *slog.Logger) *announcer {
	return &announcer{bus: bus, topic: topic, log: log, wake: make(chan struct{}, 1), dirty: map[announced]Applied{}, said: map[announced]Applied{}}
}

func (s *announcer) applied(a Applied, cleared ...Exception) {
	at := announced{a.View, partition{a.Topic, a.Partition}}
	s.mu.Lock()
	a.Reset = a.Reset || s.dirty[at].Reset
	s.dirty[at] = a
	s.cleared = append(s.cleared, cleared...)
	s.mu.Unlock()
	notify(s.wake)
}

// left forgets a partition that this process owns no more: its next owner speaks for it.
func (s *announcer) left(a Applied) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.said, announced{a.View, partition{a.Topic, a.Partition}})
}

func (s *announcer) run(ctx context.Context) error {
	again := time.NewTicker(announceAgain)
	defer again.Stop()
	for {
		select {
		case <-s.wake:
		case <-again.C:
			s.repeat()
		case <-ctx.Done():
			// What was applied last is worth one more try: sessions wait for it.
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), finalCommit)
			defer cancel()
			if records := s.take(); len(records) > 0 {
				if _, err := s.bus.Append(last, s.topic, 0, records); err != nil {
					s.log.Debug("the last levels were not announced; the next owner of the partitions will", "error", err)
				}
			}
			return nil
		}
		records := s.take()
		if len(records) == 0 {
			continue
		}
		err := retry(ctx, s.log, "announcing levels", func() error {
			_, err := s.bus.Append(ctx, s.topic, 0, records)
			return err
		})
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("announce levels: %w", err)
		}
	}
}

func (s *announcer) take() []Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	var records []Record
	for at, a := range s.dirty {
		records = append(records, a.record())
		a.Reset = false
		s.said[at] = a
	}
	for i := range s.cleared {
		records = append(records, s.cleared[i].record())
	}
	clear(s.dirty)
	s.cleared = nil
	return records
}

func (s *announcer) repeat() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for at, a := range s.said {
		if _, newer := s.dirty[at]; !newer {
			s.dirty[at] = a
		}
	}
}

// errStopped ends a worker whose partition was taken away.
var errStopped = errors.New("partition taken away")

package cqrs_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tidemarkdb/tidemark/cqrs"
	"github.com/tidemarkdb/tidemark/cqrs/bustest"
	"github.com/tidemarkdb/tidemark/internal/lsn"
	"github.com/tidemarkdb/tidemark/replication"
)

var errDown = errors.New("the bus is down")

// faulty is one process's connection to the bus: requests and answers get lost, and after a kill everything does.
type faulty struct {
	cqrs.Bus
	mu   sync.Mutex
	rng  *rand.Rand
	lose float64 // share of requests and of answers
	dead atomic.Bool
}

func (f *faulty) lost() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.dead.Load() || f.rng.Float64() < f.lose {
		return errDown
	}
	return nil
}

func (f *faulty) Ensure(ctx context.Context, topics ...cqrs.Topic) error {
	if err := f.lost(); err != nil {
		return err
	}
	return errors.Join(f.Bus.Ensure(ctx, topics...), f.lost())
}

func (f *faulty) Bounds(ctx context.Context, topic string) ([]cqrs.Bounds, error) {
	if err := f.lost(); err != nil {
		return nil, err
	}
	return f.Bus.Bounds(ctx, topic)
}

func (f *faulty) Append(ctx context.Context, topic string, n int, records []cqrs.Record) (int64, error) {
	if err := f.lost(); err != nil {
		return 0, err
	}
	base, err := f.Bus.Append(ctx, topic, n, records)
	if lost := f.lost(); err == nil && lost != nil {
		return 0, lost // written, but nobody knows
	}
	return base, err
}

func (f *faulty) Fetch(ctx context.Context, topic string, n int, offset int64, maxBytes int, wait time.Duration) (cqrs.Batch, error) {
	b, err := f.Bus.Fetch(ctx, topic, n, offset, maxBytes, wait)
	if lost := f.lost(); err == nil && lost != nil {
		return cqrs.Batch{}, lost
	}
	return b, err
}

func (f *faulty) Join(ctx context.Context, group string, topics []string, own func(context.Context, cqrs.Claim) error) error {
	return f.Bus.Join(ctx, group, topics, func(ctx context.Context, c cqrs.Claim) error {
		commit := c.Commit
		c.Commit = func(ctx context.Context, offset int64) error {
			if err := f.lost(); err != nil {
				return err
			}
			return commit(ctx, offset)
		}
		return own(ctx, c)
	})
}

// Everything at once, by seed: a database that commits, a capture that is killed and begins again at what it had
// confirmed, workers that are killed with SIGKILL's manners (nothing is said or committed any more), requests and
// answers that get lost, a store that fails now and then, and sessions that write and read their own writes. No read
// under a token is stale, acknowledgements come in order, and in the end the store has what the database has.
func TestPipelineSimulation(t *testing.T) {
	s := rand.Uint64()
	if v := os.Getenv("SEED"); v != "" {
		n, err := strconv.ParseUint(v, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		s = n
	}
	for round := range uint64(20) {
		t.Run(fmt.Sprintf("SEED=%d", s+round), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { simulate(t, rand.New(rand.NewPCG(s+round, 1))) })
		})
	}
}

type simulation struct {
	t     *testing.T
	ctx   context.Context
	rng   *rand.Rand // guarded by mu
	bus   *cqrs.Memory
	names cqrs.Names
	view  cqrs.Projection
	log   *slog.Logger

	mu        sync.Mutex
	wal       []*replication.Tx // all commits, in order
	confirmed lsn.LSN           // what capture acknowledged to the database
}

func simulate(t *testing.T, rng *rand.Rand) {
	const accounts, commits, sessions = 7, 300, 3
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour) // of the bubble's clock
	defer cancel()
	failing := rand.New(rand.NewPCG(rng.Uint64(), 2))
	store := &bustest.Store{Fail: func(*cqrs.Event) error { // called with the store's lock held
		if failing.IntN(50) == 0 {
			return errors.New("the store is busy")
		}
		return nil
	}}
	s := &simulation{
		t: t, ctx: ctx, rng: rng, bus: cqrs.NewMemory(cqrs.MemoryLimits{}), names: cqrs.Names{Database: "shop"},
		view: cqrs.Projection{ViewID: cqrs.ViewID{Name: "accounts"}, Projector: store, Tables: []cqrs.Table{{Schema: "public", Name: "accounts"}}},
		log:  slog.New(slog.DiscardHandler),
	}
	levels := cqrs.NewLevels(cqrs.LevelLimits{Progress: 16})
	levels.Track(s.view.Tracked(s.names, nil))
	var all sync.WaitGroup
	run := func(f func()) { all.Go(f) }
	fctx, stopFollower := context.WithCancel(ctx)
	following := s.connection(0.02)
	run(func() {
		if err := cqrs.NewFollower(following, s.names, levels, s.log).Run(fctx); err != nil {
			t.Error(err)
		}
	})
	dctx, stopDaemons := context.WithCancel(ctx)
	run(func() { s.daemon(dctx, "capture", s.capture) })
	for range 2 {
		run(func() { s.daemon(dctx, "worker", s.worker) })
	}

	var writers sync.WaitGroup
	for w := range sessions {
		mine := rand.New(rand.NewPCG(s.seed(), 3))
		writers.Go(func() {
			for i := range commits / sessions {
				id, value := w+sessions*mine.IntN(accounts), fmt.Sprintf("%d-%d", w, i) // each session has keys of its own
				token := s.commit(id, value)
				time.Sleep(time.Duration(mine.IntN(20)) * time.Millisecond)
				if mine.IntN(3) > 0 {
					continue
				}
				key := bustest.Key(id)
				if err := levels.Wait(ctx, "accounts", token, key); err != nil {
					t.Errorf("wait: %v", err)
					return
				}
				if got, _ := store.Get(key); got.Row != fmt.Sprintf(`{"id":%d,"value":%q}`, id, value) {
					t.Errorf("stale read of %s after %v: %s, want %s", key, token, got.Row, value)
				}
			}
		})
	}
	writers.Wait()
	s.mu.Lock()
	end := s.wal[len(s.wal)-1].End
	s.mu.Unlock()
	if err := levels.Wait(ctx, "accounts", lsn.Token{"s1": {Epoch: 1, LSN: end}}, ""); err != nil {
		t.Error(err)
	}
	stopDaemons()
	stopFollower()
	all.Wait()

	want := map[string]bustest.Stored{}
	for _, tx := range s.wal {
		version, err := lsn.Pack(tx.Epoch, tx.Commit)
		if err != nil {
			t.Fatal(err)
		}
		v := tx.Changes[0].New
		want[`{"id":`+string(v[0].Bytes)+`}`] = bustest.Stored{Version: version, Row: fmt.Sprintf(`{"id":%s,"value":%q}`, v[0].Bytes, v[1].Bytes)}
	}
	if diff := cmp.Diff(want, store.Rows()); diff != "" {
		t.Error(diff)
	}
}

func (s *simulation) seed() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rng.Uint64()
}

func (s *simulation) connection(lose float64) *faulty {
	return &faulty{Bus: s.bus, rng: rand.New(rand.NewPCG(s.seed(), 4)), lose: lose}
}

func (s *simulation) commit(id int, value string) lsn.Token {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := lsn.LSN(8)
	if n := len(s.wal); n > 0 {
		at = s.wal[n-1].End
	}
	tx := bustest.Tx("s1", at, value, id)
	s.wal = append(s.wal, tx)
	return lsn.Token{"s1": {Epoch: 1, LSN: tx.End}}
}

// daemon runs a process, kills it after a while and starts it again.
func (s *simulation) daemon(ctx context.Context, what string, process func(context.Context, *faulty) error) {
	for ctx.Err() == nil {
		bus := s.connection(0.05)
		s.mu.Lock()
		life := time.Duration(s.rng.IntN(3000)) * time.Millisecond
		s.mu.Unlock()
		pctx, kill := context.WithCancel(ctx)
		timer := time.AfterFunc(life, func() {
			bus.dead.Store(true) // first: its last words are not heard
			kill()
		})
		if err := process(pctx, bus); err != nil && !bus.dead.Load() {
			s.t.Errorf("%s: %v", what, err)
		}
		timer.Stop()
		kill()
	}
}

func (s *simulation) worker(ctx context.Context, bus *faulty) error {
	view := s.view
	view.Projector = mortal{view.Projector, &bus.dead}
	r, err := cqrs.NewRunner(bus, cqrs.RunnerConfig{Names: s.names, BatchEvents: 3, CommitInterval: 300 * time.Millisecond, Log: s.log}, view)
	if err != nil {
		return err
	}
	return r.Run(ctx)
}

// mortal is a store seen from a process that may be dead.
type mortal struct {
	cqrs.Projector
	dead *atomic.Bool
}

func (m mortal) Apply(ctx context.Context, events []cqrs.Event) []error {
	if m.dead.Load() {
		errs := make([]error, len(events))
		for i := range errs {
			errs[i] = errDown
		}
		return errs
	}
	return m.Projector.Apply(ctx, events)
}

func (s *simulation) capture(ctx context.Context, bus *faulty) error {
	s.mu.Lock()
	next := 0
	for next < len(s.wal) && s.wal[next].End <= s.confirmed {
		next++
	}
	last := s.confirmed
	s.mu.Unlock()
	p, err := cqrs.NewPublisher(bus, cqrs.PublisherConfig{
		Shard: "s1", Names: s.names, Tables: s.view.Tables, BatchBytes: 1000, BufferBytes: 3000, Log: s.log,
		Acked: func(l lsn.LSN) {
			s.mu.Lock()
			defer s.mu.Unlock()
			if l < last {
				s.t.Errorf("acknowledged %s after %s", l, last)
			}
			if last = l; !bus.dead.Load() {
				s.confirmed = max(s.confirmed, l)
			}
		},
	})
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	for ctx.Err() == nil {
		s.mu.Lock()
		var tx *replication.Tx
		if next < len(s.wal) {
			tx = s.wal[next]
			next++
		}
		s.mu.Unlock()
		if tx == nil { // the database is idle; its keepalives say how far it is
			s.mu.Lock()
			at := lsn.LSN(8)
			if next > 0 {
				at = s.wal[next-1].End
			}
			s.mu.Unlock()
			if err := p.Progress(ctx, replication.Progress{Shard: "s1", Epoch: 1, LSN: at}); err != nil {
				break
			}
			time.Sleep(5 * time.Millisecond)
			continue
		}
		if err := p.Publish(ctx, tx); err != nil {
			break
		}
	}
	return <-done
}

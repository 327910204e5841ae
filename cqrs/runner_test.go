package cqrs_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tidemarkdb/tidemark/cqrs"
	"github.com/tidemarkdb/tidemark/cqrs/bustest"
	"github.com/tidemarkdb/tidemark/internal/lsn"
	"github.com/tidemarkdb/tidemark/replication"
)

// projector records what it is given and fails as the test says.
type projector struct {
	mu    sync.Mutex
	fail  func(e *cqrs.Event) error
	calls []string // the values of each call
	knows map[string]bool
}

func (p *projector) Knows(_ context.Context, partition string) (bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.knows[partition], nil
}

func (p *projector) Remember(_ context.Context, partition string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.knows == nil {
		p.knows = map[string]bool{}
	}
	p.knows[partition] = true
	return nil
}

func (p *projector) Apply(_ context.Context, events []cqrs.Event) []error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var values []string
	errs := make([]error, len(events))
	for i := range events {
		values = append(values, cqrs.KeyJSON(events[i].Key)+"="+string(events[i].After.Get("value")))
		if p.fail != nil {
			errs[i] = p.fail(&events[i])
		}
	}
	p.calls = append(p.calls, strings.Join(values, " "))
	return errs
}

func (p *projector) set(fail func(e *cqrs.Event) error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fail = fail
}

func (p *projector) log() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.calls...)
}

// site is a bus with one view, and levels that follow it.
type site struct {
	t      *testing.T
	ctx    context.Context
	bus    *cqrs.Memory
	names  cqrs.Names
	topic  string
	levels *cqrs.Levels
	view   cqrs.Projection
	store  *projector
	out    io.Writer
}

func newSite(t *testing.T, partitions int, limits cqrs.MemoryLimits) *site {
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(func() {
		cancel()
		synctest.Wait()
	})
	s := &site{
		t: t, ctx: ctx, bus: cqrs.NewMemory(limits), names: cqrs.Names{Database: "shop"},
		levels: cqrs.NewLevels(cqrs.LevelLimits{}), store: &projector{}, out: io.Discard,
	}
	s.view = cqrs.Projection{ViewID: cqrs.ViewID{Name: "v"}, Tables: []cqrs.Table{{Schema: "public", Name: "accounts"}}, Projector: s.store}
	s.topic = s.names.Table("public", "accounts")
	if err := s.bus.Ensure(ctx, append(s.names.System(), cqrs.Topic{Name: s.topic, Partitions: partitions})...); err != nil {
		t.Fatal(err)
	}
	s.levels.Track(s.view.Tracked(s.names, nil))
	s.levels.Progress(cqrs.Progress{Shard: "s1", Mark: lsn.Mark{Epoch: 1, LSN: 1 << 20}}) // publishes nothing itself
	go func() {
		if err := cqrs.NewFollower(s.bus, s.names, s.levels, s.logger()).Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	return s
}

func (s *site) logger() *slog.Logger { return slog.New(slog.NewTextHandler(s.out, nil)) }

// work starts a runner; stop ends it.
func (s *site) work(cfg cqrs.RunnerConfig) (*cqrs.Runner, func()) {
	cfg.Names, cfg.Levels, cfg.Log = s.names, s.levels, s.logger()
	r, err := cqrs.NewRunner(s.bus, cfg, s.view)
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(s.ctx)
	go func() {
		if err := r.Run(ctx); err != nil {
			s.t.Error(err)
		}
	}()
	return r, func() {
		cancel()
		synctest.Wait()
	}
}

// put appends the transaction's events to one partition.
func (s *site) put(partition int, tx *replication.Tx) {
	s.t.Helper()
	var records []cqrs.Record
	err := cqrs.Events(tx, func(e *cqrs.Event) error {
		records = append(records, cqrs.NewRecord(e))
		return nil
	})
	if err == nil {
		_, err = s.bus.Append(s.ctx, s.topic, partition, records)
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) covers(key string) error {
	synctest.Wait()
	_, err := s.levels.Covers("v", lsn.Token{"s1": {Epoch: 1, LSN: 1 << 20}}, key)
	return err
}

func TestRunnerDropsWhatIsSupersededOrOfAnotherTable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 1, cqrs.MemoryLimits{})
		tx := bustest.Tx("s1", 8, "a", 1, 2, 3)
		tx.Changes[1].Last = false
		s.put(0, tx)
		other := *bustest.Accounts
		other.Name = "others"
		tx = bustest.Tx("s1", 16, "b", 1)
		tx.Changes[0].Relation = &other
		s.put(0, tx)
		r, _ := s.work(cqrs.RunnerConfig{})
		synctest.Wait()
		if diff := cmp.Diff([]string{`{"id":1}="a" {"id":3}="a"`}, s.store.log()); diff != "" {
			t.Error(diff)
		}
		if got := r.Stats(); len(got) != 1 || got[0].Applied != 4 || got[0].Lag() != 0 || got[0].Events != 2 {
			t.Errorf("%+v", got)
		}
	})
}

// A store that fails is tried again without what it took, and holds up its own partition only.
func TestRunnerRetriesWhatFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 2, cqrs.MemoryLimits{})
		busy := errors.New("busy")
		s.store.set(func(e *cqrs.Event) error {
			if cqrs.KeyJSON(e.Key) == bustest.Key(2) {
				return busy
			}
			return nil
		})
		r, _ := s.work(cqrs.RunnerConfig{BatchEvents: 3})
		synctest.Wait()
		s.put(0, bustest.Tx("s1", 8, "a", 1, 2, 3, 4))
		time.Sleep(10 * time.Second)
		s.put(1, bustest.Tx("s1", 16, "b", 5))
		synctest.Wait()
		stats := r.Stats()
		if !errors.Is(stats[0].Failing, busy) || stats[0].Applied != 0 || stats[0].Retries < 3 || stats[0].Retries > 30 || stats[1].Applied != 1 {
			t.Errorf("%+v", stats)
		}
		s.store.set(nil)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		calls := s.store.log()
		last := len(calls) - 1
		want := []string{`{"id":1}="a" {"id":2}="a" {"id":3}="a"`, `{"id":2}="a"`, `{"id":2}="a"`, `{"id":4}="a"`}
		if diff := cmp.Diff(want, append(calls[:2:2], calls[last-1:]...)); diff != "" {
			t.Error(diff)
		}
		if stats = r.Stats(); stats[0].Failing != nil || stats[0].Applied != 4 || stats[0].DeadLettered != 0 {
			t.Errorf("%+v", stats)
		}
	})
}

// An event knows the partition that it was read from, also when it is replayed: the rows that a whole table's event reaches are those of
// its own.
func TestRunnerSaysWhichPartition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 3, cqrs.MemoryLimits{})
		for n := range 3 {
			s.put(n, bustest.Tx("s1", 8, "a", n))
		}
		var origins map[string]string
		note := func(e *cqrs.Event) error { // called with the store's lock held
			origins[cqrs.KeyJSON(e.Key)] = e.Origin()
			return fmt.Errorf("bad: %w", cqrs.ErrPermanent)
		}
		check := func(when string) {
			t.Helper()
			want := map[string]string{bustest.Key(0): "public.accounts/s1/0", bustest.Key(1): "public.accounts/s1/1", bustest.Key(2): "public.accounts/s1/2"}
			if diff := cmp.Diff(want, origins); diff != "" {
				t.Errorf("%s: %s", when, diff)
			}
		}
		origins = map[string]string{}
		s.store.set(note)
		s.work(cqrs.RunnerConfig{})
		synctest.Wait()
		check("applied")

		origins = map[string]string{}
		q := cqrs.NewDLQ(s.bus, s.names)
		letters, _, err := q.List(s.ctx, "v", 10)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range letters {
			if err := q.Replay(s.ctx, d.ID(), s.store); !errors.Is(err, cqrs.ErrPermanent) {
				t.Errorf("replay: %v", err)
			}
		}
		check("replayed")
	})
}

// A clean stop commits what was applied: the successor repeats nothing.
func TestRunnerCommitsWhenItStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 3, cqrs.MemoryLimits{})
		for n := range 3 {
			s.put(n, bustest.Tx("s1", 8, "a", n))
		}
		for range 2 {
			_, stop := s.work(cqrs.RunnerConfig{CommitInterval: time.Hour})
			synctest.Wait()
			stop()
		}
		if got := s.store.log(); len(got) != 3 {
			t.Errorf("applied %v", got)
		}
	})
}

// A store that was emptied, or that took another one's place, is filled again from the beginning, and until then the view is not level.
func TestRunnerFillsAStoreThatForgot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 1, cqrs.MemoryLimits{})
		tx := bustest.Tx("s1", 8, "a", 1)
		s.put(0, tx)
		s.levels.Progress(cqrs.Progress{Shard: "s1", Mark: lsn.Mark{Epoch: 1, LSN: 2 << 20}, Ends: map[string][]int64{s.topic: {1}}})
		_, stop := s.work(cqrs.RunnerConfig{})
		synctest.Wait()
		if ok, _ := s.levels.Covers("v", lsn.Token{"s1": {LSN: 2 << 20}}, ""); !ok {
			t.Error("the view is not level with all applied")
		}
		stop()

		s.store.mu.Lock()
		s.store.calls, s.store.knows = nil, nil
		s.store.fail = func(*cqrs.Event) error { return errDown }
		s.store.mu.Unlock()
		r, stop := s.work(cqrs.RunnerConfig{})
		synctest.Wait()
		if ok, _ := s.levels.Covers("v", lsn.Token{"s1": {LSN: 2 << 20}}, ""); ok {
			t.Error("the view counts as level although its store is empty")
		}
		if got := r.Stats(); got[0].Applied != 0 || got[0].Lag() != 1 {
			t.Errorf("%+v, want one event behind", got)
		}
		s.store.set(nil)
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := s.store.log(); len(got) == 0 || got[len(got)-1] != `{"id":1}="a"` {
			t.Errorf("applied again: %v", got)
		}
		if ok, _ := s.levels.Covers("v", lsn.Token{"s1": {LSN: 2 << 20}}, ""); !ok {
			t.Error("the view is not level after it was filled again")
		}
		stop()
		_, stop = s.work(cqrs.RunnerConfig{})
		defer stop()
		n := len(s.store.log())
		time.Sleep(time.Minute)
		if got := s.store.log(); len(got) != n {
			t.Errorf("what the store knows was applied once more: %v", got)
		}
	})
}

// Events that retention took before they were applied are never silently missing.
func TestRunnerReportsAGap(t *testing.T) {
	for name, committed := range map[string]bool{"a group that lagged": true, "a new group": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t, 1, cqrs.MemoryLimits{PartitionBytes: 20_000})
				if committed {
					s.put(0, bustest.Tx("s1", 8, "a", 1))
					_, stop := s.work(cqrs.RunnerConfig{})
					synctest.Wait()
					stop()
				}
				if err := s.covers(bustest.Key(7)); err != nil {
					t.Errorf("before: %v", err)
				}
				for i := range 100 {
					s.put(0, bustest.Tx("s1", lsn.LSN(16+8*i), "b", i))
				}
				s.work(cqrs.RunnerConfig{})
				if err := s.covers(bustest.Key(7)); !errors.Is(err, cqrs.ErrDeadLettered) {
					t.Errorf("after: %v", err)
				}
				calls := s.store.log()
				if last := calls[len(calls)-1]; !strings.HasSuffix(last, `{"id":99}="b"`) {
					t.Errorf("it does not go on: %s", last)
				}
			})
		})
	}
}

// The list of exceptions is bounded: beyond it the view as a whole is not trusted, until the queue is empty again.
func TestManyDeadLettersMakeTheViewExceptional(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 1, cqrs.MemoryLimits{})
		s.store.set(func(e *cqrs.Event) error { return fmt.Errorf("bad: %w", cqrs.ErrPermanent) })
		r, _ := s.work(cqrs.RunnerConfig{})
		ids := func(from, n int) (ids []int) {
			for i := range n {
				ids = append(ids, from+i)
			}
			return ids
		}
		s.put(0, bustest.Tx("s1", 8, "a", ids(0, 256)...))
		if err := s.covers(bustest.Key(-1)); err != nil {
			t.Errorf("at the limit: %v", err)
		}
		s.put(0, bustest.Tx("s1", 16, "b", ids(1000, 50)...))
		if err := s.covers(bustest.Key(-1)); !errors.Is(err, cqrs.ErrDeadLettered) {
			t.Errorf("beyond the limit: %v", err)
		}
		if got := r.Stats()[0]; got.DeadLettered != 306 || got.Applied != 306 {
			t.Errorf("%+v", got)
		}
		b, err := s.bus.Bounds(s.ctx, s.names.Levels())
		if err != nil || b[0].End > 256+100 {
			t.Errorf("%d records of levels, error %v", b[0].End, err)
		}
		q := cqrs.NewDLQ(s.bus, s.names)
		letters, _, err := q.List(s.ctx, "v", 1000)
		if err != nil || len(letters) != 306 {
			t.Fatalf("%d letters, error %v", len(letters), err)
		}
		for _, d := range letters {
			if err := q.Replay(s.ctx, d.ID(), &projector{}); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.covers(""); err != nil {
			t.Errorf("after the replay: %v", err)
		}
		s.put(0, bustest.Tx("s1", 24, "c", 5000))
		if err := s.covers(bustest.Key(5000)); !errors.Is(err, cqrs.ErrDeadLettered) {
			t.Errorf("another one after the replay: %v", err)
		}
		if err := s.covers(bustest.Key(-1)); err != nil {
			t.Errorf("another key after the replay: %v", err)
		}
	})
}

package cqrs_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
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

// scripted answers appends to table topics as the test says: the bus takes the records only when the script's error is nil.
type scripted struct {
	cqrs.Bus
	mu      sync.Mutex
	calls   []string
	answers func(call int, topic string, n int, records []cqrs.Record) error
}

func (s *scripted) Append(ctx context.Context, topic string, n int, records []cqrs.Record) (int64, error) {
	if !strings.HasSuffix(topic, ".accounts") {
		return s.Bus.Append(ctx, topic, n, records)
	}
	var values []string
	for _, r := range records {
		e, err := cqrs.DecodeEvent(r.Value)
		if err != nil {
			return 0, err
		}
		values = append(values, string(e.After.Get("value")))
	}
	s.mu.Lock()
	call := len(s.calls)
	s.calls = append(s.calls, strings.Join(values, " "))
	s.mu.Unlock()
	if s.answers != nil {
		if err := s.answers(call, topic, n, records); err != nil {
			return 0, err
		}
	}
	return s.Bus.Append(ctx, topic, n, records)
}

func (s *scripted) log() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.calls...)
}

type publishing struct {
	*cqrs.Publisher
	bus   *scripted
	names cqrs.Names
	ctx   context.Context
	err   chan error
	mu    sync.Mutex
	acked []lsn.LSN
}

func publisher(t *testing.T, cfg cqrs.PublisherConfig, answers func(int, string, int, []cqrs.Record) error) *publishing {
	ctx, cancel := context.WithCancel(t.Context())
	p := &publishing{
		bus: &scripted{Bus: cqrs.NewMemory(cqrs.MemoryLimits{}), answers: answers}, names: cqrs.Names{Database: "shop"},
		ctx: ctx, err: make(chan error, 1),
	}
	cfg.Shard, cfg.Names, cfg.Log = "s1", p.names, slog.New(slog.DiscardHandler)
	cfg.Tables = []cqrs.Table{{Schema: "public", Name: "accounts"}}
	cfg.Acked = func(l lsn.LSN) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.acked = append(p.acked, l)
	}
	var err error
	if p.Publisher, err = cqrs.NewPublisher(p.bus, cfg); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		p.err <- p.Run(ctx)
		close(done)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return p
}

func (p *publishing) publish(t *testing.T, tx *replication.Tx) {
	t.Helper()
	if err := p.Publish(p.ctx, tx); err != nil {
		t.Fatal(err)
	}
}

func (p *publishing) acknowledged() []lsn.LSN {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]lsn.LSN(nil), p.acked...)
}

// A publisher that waited while another one wrote does not take the partitions to end where they did when it started: a progress record
// that said so would let views pass over what the other one wrote.
func TestTakeoverKnowsWhatOthersWrote(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		waiting := publisher(t, cqrs.PublisherConfig{Partitions: 8}, nil)
		synctest.Wait() // it has opened its topics
		owner, err := cqrs.NewPublisher(waiting.bus, cqrs.PublisherConfig{Shard: "s1", Names: waiting.names, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(waiting.ctx)
		go func() {
			if err := owner.Run(ctx); err != nil {
				t.Error(err)
			}
		}()
		if err := owner.Publish(ctx, bustest.Tx("s1", 8, "a", 1, 2, 3, 4, 5, 6, 7, 8)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		stop()
		synctest.Wait()

		if err := waiting.Begin(waiting.ctx); err != nil {
			t.Fatal(err)
		}
		waiting.publish(t, bustest.Tx("s1", 24, "b", 1))
		synctest.Wait()

		levels := cqrs.NewLevels(cqrs.LevelLimits{})
		topic := waiting.names.Table("public", "accounts")
		levels.Track(cqrs.Tracked{ViewID: cqrs.ViewID{Name: "v"}, Topics: []string{topic}})
		go func() {
			if err := cqrs.NewFollower(waiting.bus, waiting.names, levels, slog.New(slog.DiscardHandler)).Run(waiting.ctx); err != nil {
				t.Error(err)
			}
		}()
		bounds, err := waiting.bus.Bounds(waiting.ctx, topic)
		if err != nil {
			t.Fatal(err)
		}
		// A view has all of account 1, and nothing else that the first one wrote.
		behind := 0
		for n, b := range bounds {
			if n != cqrs.Partition([]byte(bustest.Key(1)), len(bounds)) {
				behind += int(b.End)
				b.End = 0
			}
			levels.Applied(cqrs.Applied{View: cqrs.ViewID{Name: "v"}, Topic: topic, Partition: n, Offset: b.End})
		}
		synctest.Wait()
		if level, ok := levels.Level("v", "s1"); ok || behind == 0 {
			t.Errorf("the view is at %v, and lacks %d events of before", level, behind)
		}
		for n, b := range bounds {
			levels.Applied(cqrs.Applied{View: cqrs.ViewID{Name: "v"}, Topic: topic, Partition: n, Offset: b.End})
		}
		if level, _ := levels.Level("v", "s1"); level.LSN != 32 {
			t.Errorf("with everything applied the view is at %v, want 0/20", level)
		}
	})
}

// A batch that fails is tried again, the same and before anything else of its partition; what came meanwhile is one
// batch behind it.
func TestNothingOvertakesAFailedBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := publisher(t, cqrs.PublisherConfig{Partitions: 1}, func(call int, _ string, _ int, _ []cqrs.Record) error {
			if call < 3 {
				return errDown
			}
			return nil
		})
		for i := range 4 {
			p.publish(t, bustest.Tx("s1", lsn.LSN(8+8*i), strconv.Itoa(i), 1))
			if i == 0 {
				synctest.Wait() // the first is under way
			}
		}
		if got := p.acknowledged(); len(got) > 0 {
			t.Errorf("acknowledged %v while the bus is down", got)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if diff := cmp.Diff([]string{`"0"`, `"0"`, `"0"`, `"0"`, `"1" "2" "3"`}, p.bus.log()); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff([]lsn.LSN{16, 24, 32, 40}, p.acknowledged()); diff != "" {
			t.Error(diff)
		}
	})
}

// A transaction whose records are all there waits for an earlier one on a partition that stands still, and so does the
// level that progress records claim.
func TestAcknowledgesInCommitOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := cqrs.Partition([]byte(bustest.Key(1)), 8)
		other := 2
		for cqrs.Partition([]byte(bustest.Key(other)), 8) == slow {
			other++
		}
		var mu sync.Mutex
		down := true
		p := publisher(t, cqrs.PublisherConfig{Partitions: 8}, func(_ int, _ string, n int, _ []cqrs.Record) error {
			mu.Lock()
			defer mu.Unlock()
			if down && n == slow {
				return errDown
			}
			return nil
		})
		p.publish(t, bustest.Tx("s1", 8, "a", other))
		p.publish(t, bustest.Tx("s1", 16, "b", 1, other))
		p.publish(t, bustest.Tx("s1", 24, "c", other))
		if err := p.Progress(p.ctx, replication.Progress{Shard: "s1", Epoch: 1, LSN: 100}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if diff := cmp.Diff([]lsn.LSN{16}, p.acknowledged()); diff != "" {
			t.Error(diff)
		}
		if got := p.Mark(); got.LSN != 16 {
			t.Errorf("mark %s", got.LSN)
		}
		mu.Lock()
		down = false
		mu.Unlock()
		time.Sleep(time.Minute)
		synctest.Wait()
		if diff := cmp.Diff([]lsn.LSN{16, 24, 32, 100}, p.acknowledged()); diff != "" {
			t.Error(diff)
		}
	})
}

// Neither a part of a transaction nor a chunk of a snapshot moves the level.
func TestMarkMovesWithWholeTransactions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := publisher(t, cqrs.PublisherConfig{}, nil)
		expect := func(want lsn.LSN) {
			t.Helper()
			synctest.Wait()
			if got := p.Mark().LSN; got != want {
				t.Errorf("mark %s, want %s", got, want)
			}
		}
		part := bustest.Tx("s1", 8, "part", 1)
		part.More, part.End = true, part.Commit
		p.publish(t, part)
		expect(0)
		p.publish(t, bustest.Tx("s1", 8, "rest", 2))
		expect(16)
		chunk := bustest.Tx("s1", 400, "row", 3)
		chunk.Changes[0].Op, chunk.Changes[0].Old = replication.Snapshot, nil
		p.publish(t, chunk)
		expect(16)
		if err := p.Progress(p.ctx, replication.Progress{Shard: "s1", Epoch: 1, LSN: 408, SnapshotDone: true}); err != nil {
			t.Fatal(err)
		}
		expect(408)
		p.publish(t, &replication.Tx{Shard: "s1", Epoch: 1, Commit: 500, End: 508}) // of tables that are not captured
		expect(508)
		if got := p.acknowledged(); len(got) != 5 {
			t.Errorf("acknowledged %v", got)
		}
	})
}

func TestPublishBlocksBeyondTheBuffer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		down := true
		p := publisher(t, cqrs.PublisherConfig{BufferBytes: 2000}, func(int, string, int, []cqrs.Record) error {
			mu.Lock()
			defer mu.Unlock()
			if down {
				return errDown
			}
			return nil
		})
		published := make(chan int, 100)
		go func() {
			for i := range 20 {
				if err := p.Publish(p.ctx, bustest.Tx("s1", lsn.LSN(8+8*i), strings.Repeat("x", 100), i)); err != nil {
					return
				}
				published <- i
			}
		}()
		time.Sleep(time.Minute)
		synctest.Wait()
		if _, bytes := p.Pending(); bytes > 2000 || bytes == 0 || len(published) >= 20 {
			t.Errorf("%d bytes wait after %d transactions", bytes, len(published))
		}
		mu.Lock()
		down = false
		mu.Unlock()
		time.Sleep(time.Minute)
		synctest.Wait()
		if transactions, bytes := p.Pending(); bytes != 0 || transactions != 0 || len(published) != 20 {
			t.Errorf("%d transactions and %d bytes are left after %d", transactions, bytes, len(published))
		}
	})
}

// A record that cannot be written stops the publisher: it is never left out.
func TestTooLargeStopsThePublisher(t *testing.T) {
	t.Run("before it is queued", func(t *testing.T) {
		p := publisher(t, cqrs.PublisherConfig{MaxRecordBytes: 1000}, nil)
		err := p.Publish(p.ctx, bustest.Tx("s1", 8, strings.Repeat("x", 1000), 1))
		if !errors.Is(err, cqrs.ErrTooLarge) || !strings.Contains(err.Error(), `{"id":1}`) || !strings.Contains(err.Error(), "max_record_bytes") {
			t.Errorf("error %v", err)
		}
	})
	t.Run("by the broker", func(t *testing.T) {
		tooLarge := fmt.Errorf("%w: %w", cqrs.ErrTooLarge, cqrs.ErrPermanent)
		p := publisher(t, cqrs.PublisherConfig{Partitions: 1}, func(_ int, _ string, _ int, records []cqrs.Record) error {
			if len(records) > 1 || strings.Contains(string(records[0].Value), "huge") {
				return tooLarge // one record at a time is small enough, but one is not
			}
			return nil
		})
		p.publish(t, bustest.Tx("s1", 8, "small", 1, 2, 3))
		for len(p.acknowledged()) == 0 {
			time.Sleep(time.Millisecond)
		}
		p.publish(t, bustest.Tx("s1", 16, "huge", 1))
		err := <-p.err
		p.err <- nil
		if !errors.Is(err, cqrs.ErrTooLarge) {
			t.Errorf("run: %v", err)
		}
		if diff := cmp.Diff([]lsn.LSN{16}, p.acknowledged()); diff != "" {
			t.Error(diff)
		}
		if err := p.Publish(p.ctx, bustest.Tx("s1", 24, "x", 1)); !errors.Is(err, cqrs.ErrTooLarge) {
			t.Errorf("publish afterwards: %v", err)
		}
	})
}

// A table's topic that loses what it had acknowledged must not go unnoticed.
func TestRecreatedTopicStopsThePublisher(t *testing.T) {
	p := publisher(t, cqrs.PublisherConfig{Partitions: 1}, nil)
	p.publish(t, bustest.Tx("s1", 8, "a", 1, 2, 3))
	for len(p.acknowledged()) == 0 {
		time.Sleep(time.Millisecond)
	}
	topic := p.names.Table("public", "accounts")
	memory := p.bus.Bus.(*cqrs.Memory)
	memory.Delete(topic)
	if err := memory.Ensure(p.ctx, cqrs.Topic{Name: topic, Partitions: 1}); err != nil {
		t.Fatal(err)
	}
	p.publish(t, bustest.Tx("s1", 16, "b", 1))
	err := <-p.err
	p.err <- nil
	if err == nil || !strings.Contains(err.Error(), "created again") {
		t.Errorf("run: %v", err)
	}
}

func TestWholeTablesGoToEveryPartition(t *testing.T) {
	for _, op := range []replication.Op{replication.Truncate, replication.Sweep} {
		t.Run(string(op), func(t *testing.T) { testWholeTable(t, op) })
	}
}

func testWholeTable(t *testing.T, op replication.Op) {
	synctest.Test(t, func(t *testing.T) {
		memory := cqrs.NewMemory(cqrs.MemoryLimits{})
		names := cqrs.Names{Database: "shop"}
		p, err := cqrs.NewPublisher(memory, cqrs.PublisherConfig{Shard: "s1", Names: names, Partitions: 3, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			if err := p.Run(ctx); err != nil {
				t.Error(err)
			}
		}()
		tx := &replication.Tx{Shard: "s1", Epoch: 1, Commit: 8, End: 16, Changes: []replication.Change{{Op: op, Relation: bustest.Accounts, Last: true}}}
		if err := p.Publish(ctx, tx); err != nil { // its table was not known before
			t.Fatal(err)
		}
		synctest.Wait()
		for n := range 3 {
			b, err := memory.Fetch(ctx, names.Table("public", "accounts"), n, 0, 1<<20, 0)
			if err != nil || len(b.Records) != 1 || b.Records[0].Key != nil {
				t.Fatalf("partition %d: %+v, %v", n, b, err)
			}
			e, err := cqrs.DecodeEvent(b.Records[0].Value)
			if err != nil || e.Op != op || e.Key != nil {
				t.Errorf("partition %d: %+v, %v", n, e, err)
			}
		}
		cancel()
		synctest.Wait()
	})
}

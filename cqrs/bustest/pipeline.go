package bustest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidemarkdb/tidemark/cqrs"
	"github.com/tidemarkdb/tidemark/internal/lsn"
	"github.com/tidemarkdb/tidemark/replication"
)

// Store is a Projector in memory that keeps the promises of one, remembers what it saw, and can be told to fail.
type Store struct {
	// Fail is asked before each event; an event it fails changes nothing. May be nil.
	Fail func(e *cqrs.Event) error

	mu    sync.Mutex
	rows  map[string]Stored
	knows map[string]bool
	seen  int
}

// Knows implements cqrs.Projector.
func (s *Store) Knows(_ context.Context, partition string) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.knows[partition], nil
}

// Remember implements cqrs.Projector.
func (s *Store) Remember(_ context.Context, partition string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.knows == nil {
		s.knows = map[string]bool{}
	}
	s.knows[partition] = true
	return nil
}

// Stored is the state of one key.
type Stored struct {
	Version lsn.Version
	Ordinal int
	Row     string // JSON; "null" when the row is deleted
}

// Apply implements cqrs.Projector.
func (s *Store) Apply(_ context.Context, events []cqrs.Event) []error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rows == nil {
		s.rows = map[string]Stored{}
	}
	var errs []error
	for i := range events {
		e := &events[i]
		if s.Fail != nil {
			if err := s.Fail(e); err != nil {
				if errs == nil {
					errs = make([]error, len(events))
				}
				errs[i] = err
				continue
			}
		}
		s.seen++
		key := cqrs.KeyJSON(e.Key)
		if have, ok := s.rows[key]; ok && e.Version < have.Version {
			continue
		}
		s.rows[key] = Stored{Version: e.Version, Ordinal: e.Source.Ordinal, Row: string(cqrs.AppendRow(nil, e.After))}
	}
	return errs
}

// Rows is a copy of what the store holds, by key.
func (s *Store) Rows() map[string]Stored {
	s.mu.Lock()
	defer s.mu.Unlock()
	rows := make(map[string]Stored, len(s.rows))
	for k, r := range s.rows {
		rows[k] = r
	}
	return rows
}

// Get returns the state of one key.
func (s *Store) Get(key string) (Stored, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.rows[key]
	return r, ok
}

// Seen is how many events were applied, repetitions included.
func (s *Store) Seen() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen
}

// Accounts is the table that Tx changes: (id bigint primary key, value text).
var Accounts = &replication.Relation{
	OID: 16384, Schema: "public", Name: "accounts",
	Columns: []replication.Column{
		{Name: "id", TypeOID: 20, Type: "bigint", TypeMod: -1, Key: true},
		{Name: "value", TypeOID: 25, Type: "text", TypeMod: -1},
	},
}

// Key is the key of an account.
func Key(id int) string { return `{"id":` + strconv.Itoa(id) + `}` }

// Tx is a transaction that sets accounts to a value; commits at commit and ends 8 bytes later.
func Tx(shard string, commit lsn.LSN, value string, ids ...int) *replication.Tx {
	tx := &replication.Tx{
		Shard: shard, Epoch: 1, Commit: commit, End: commit + 8, XID: uint32(commit),
		CommitTime: time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC),
	}
	for i, id := range ids {
		row := []replication.Value{{Bytes: []byte(strconv.Itoa(id))}, {Bytes: []byte(value)}}
		tx.Changes = append(tx.Changes, replication.Change{
			Op: replication.Update, Relation: Accounts, Ordinal: i, Last: true, Old: row, New: row,
		})
	}
	return tx
}

// Pipeline is everything between a transaction and a session's wait, over one bus: a publisher, a view with one worker,
// and the levels that a session would ask.
type Pipeline struct {
	Names     cqrs.Names
	Publisher *cqrs.Publisher
	Levels    *cqrs.Levels
	Acked     chan lsn.LSN
	View      cqrs.Projection

	t          *testing.T
	ctx        context.Context
	partitions int
}

// NewPipeline starts a publisher and a follower, each with its own client of the bus. The view is "accounts".
func NewPipeline(t *testing.T, open func(t *testing.T) cqrs.Bus, partitions int, store cqrs.Projector) *Pipeline {
	names := cqrs.Names{Prefix: name("pipe") + ".", Database: "shop"}
	p := &Pipeline{
		t: t, ctx: within(t), partitions: partitions, Names: names, Levels: cqrs.NewLevels(cqrs.LevelLimits{}), Acked: make(chan lsn.LSN, 1<<20),
		View: cqrs.Projection{
			ViewID: cqrs.ViewID{Name: "accounts", Generation: 1}, Projector: store,
			Tables: []cqrs.Table{{Schema: "public", Name: "accounts"}},
		},
	}
	p.Levels.Track(p.View.Tracked(names, nil))
	publisher, err := cqrs.NewPublisher(open(t), cqrs.PublisherConfig{
		Shard: "s1", Names: names, Tables: p.View.Tables, Partitions: partitions,
		Acked: func(l lsn.LSN) { p.Acked <- l }, Log: Log(t),
	})
	must(t, err)
	p.Publisher = publisher
	p.Start("publisher", publisher.Run)
	follower := cqrs.NewFollower(open(t), names, p.Levels, Log(t))
	p.Start("follower", follower.Run)
	return p
}

// Work starts one worker of the view; stop ends it.
func (p *Pipeline) Work(bus cqrs.Bus, view cqrs.Projection) (r *cqrs.Runner, stop func()) {
	r, err := cqrs.NewRunner(bus, cqrs.RunnerConfig{Names: p.Names, Partitions: p.partitions, Levels: p.Levels, Log: Log(p.t)}, view)
	must(p.t, err)
	return r, p.Start("runner", r.Run)
}

// Start runs f until stop is called or the test ends.
func (p *Pipeline) Start(what string, f func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(p.ctx)
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			p.t.Errorf("%s: %v", what, err)
		}
	})
	p.t.Cleanup(stop)
	return stop
}

// Write publishes a transaction and returns the token of the session that made it.
func (p *Pipeline) Write(commit lsn.LSN, value string, ids ...int) lsn.Token {
	p.t.Helper()
	tx := Tx("s1", commit, value, ids...)
	must(p.t, p.Publisher.Publish(p.ctx, tx))
	return lsn.Token{"s1": {Epoch: tx.Epoch, LSN: tx.End}}
}

// Wait is what a session does before it reads key from the view.
func (p *Pipeline) Wait(token lsn.Token, key string) error {
	return p.Levels.Wait(p.ctx, p.View.Name, token, key)
}

// Log writes to the test's log.
func Log(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo}))
}

// A session that writes and then waits never reads an old value.
func testRoundTrips(t *testing.T, open func(t *testing.T) cqrs.Bus) {
	const n, accounts = 1000, 17
	store := &Store{}
	p := NewPipeline(t, open, 4, store)
	_, stop := p.Work(open(t), p.View)
	must(t, p.Wait(p.Write(8, "first", 0), Key(0)))
	var worst, total time.Duration
	for i := 1; i <= n; i++ {
		id, value := i%accounts, strconv.Itoa(i)
		began := time.Now()
		token := p.Write(lsn.LSN(8+8*i), value, id)
		must(t, p.Wait(token, Key(id)))
		took := time.Since(began)
		worst, total = max(worst, took), total+took
		got, _ := store.Get(Key(id))
		if want := fmt.Sprintf(`{"id":%d,"value":"%s"}`, id, value); got.Row != want {
			t.Fatalf("stale read %d: %s, want %s", i, got.Row, want)
		}
	}
	t.Logf("commit to visible: mean %s, worst %s of %d", total/n, worst, n)
	for want := lsn.LSN(16); want <= 16+8*n; want += 8 {
		if got := <-p.Acked; got != want {
			t.Fatalf("acknowledged %s, want %s: out of order", got, want)
		}
	}
	// An idle shard's position moves the level too, so that a session that wrote elsewhere does not wait in vain.
	must(t, p.Publisher.Progress(p.ctx, replication.Progress{Shard: "s1", Epoch: 1, LSN: 1 << 30}))
	must(t, p.Wait(lsn.Token{"s1": {Epoch: 1, LSN: 1 << 30}}, ""))
	stop()
}

// Events that can never apply go to the queue with their cause and stop nothing else; sessions that depend on them are
// told, and a replay puts things right without undoing anything newer.
func testDeadLetters(t *testing.T, open func(t *testing.T) cqrs.Bus) {
	var mu sync.Mutex
	poison := map[string]bool{"poison": true}
	store := &Store{Fail: func(e *cqrs.Event) error {
		mu.Lock()
		defer mu.Unlock()
		var value string
		if v := e.After.Get("value"); v != nil {
			value, _ = strconv.Unquote(string(v))
		}
		if poison[value] {
			return fmt.Errorf("the mapping has no %q: %w", value, cqrs.ErrPermanent)
		}
		return nil
	}}
	bus := open(t)
	p := NewPipeline(t, open, 1, store)
	p.Work(open(t), p.View)

	must(t, p.Wait(p.Write(8, "one", 1, 2, 3), ""))
	bad := p.Write(16, "poison", 1, 2)
	must(t, p.Wait(p.Write(24, "after", 3), Key(3))) // another key is served
	for _, key := range []string{Key(1), Key(2), ""} {
		if err := p.Wait(bad, key); !errors.Is(err, cqrs.ErrDeadLettered) {
			t.Errorf("wait for key %q: %v", key, err)
		}
	}
	// Not an envelope at all, and nobody knows whose.
	_, err := bus.Append(p.ctx, p.Names.Table("public", "accounts"), 0, []cqrs.Record{{Key: []byte("?"), Value: []byte("{broken")}})
	must(t, err)

	q := cqrs.NewDLQ(bus, p.Names)
	var letters []cqrs.DeadLetter
	for len(letters) < 3 {
		if letters, _, err = q.List(p.ctx, "accounts", 100); err != nil {
			t.Fatal(err)
		}
	}
	for i, want := range []struct{ cause, key string }{{"the mapping has no", Key(1)}, {"the mapping has no", Key(2)}, {"not valid JSON", "?"}} {
		d, err := q.Show(p.ctx, letters[i].ID())
		must(t, err)
		if !strings.Contains(d.Cause, want.cause) || string(d.Key) != want.key || d.View != p.View.ViewID || d.Attempts != 1 || len(d.Value) == 0 || d.At.IsZero() {
			t.Errorf("letter %d: %+v", i, d)
		}
	}
	if _, more, err := q.List(p.ctx, "", 2); err != nil || !more {
		t.Errorf("a list of 2 of 3: more %v, error %v", more, err)
	}

	// The undecodable event concerns everybody until it is discarded; it cannot be replayed.
	token := p.Write(32, "newer", 1)
	if err := waitFor(p, token, Key(3), true); err != nil {
		t.Error(err)
	}
	if err := q.Replay(p.ctx, letters[2].ID(), store); !errors.Is(err, cqrs.ErrPermanent) {
		t.Errorf("replay of rubbish: %v", err)
	}
	must(t, q.Discard(p.ctx, letters[2].ID()))
	if err := waitFor(p, token, Key(3), false); err != nil {
		t.Error(err)
	}
	// A newer state of key 1 made its dead letter obsolete; key 2 still misses its own.
	if err := waitFor(p, token, Key(1), false); err != nil {
		t.Error(err)
	}
	if err := p.Wait(token, Key(2)); !errors.Is(err, cqrs.ErrDeadLettered) {
		t.Errorf("wait for key 2: %v", err)
	}
	// While the cause lasts, a replay changes nothing.
	if err := q.Replay(p.ctx, letters[1].ID(), store); !errors.Is(err, cqrs.ErrPermanent) {
		t.Errorf("replay before the cause is gone: %v", err)
	}
	mu.Lock()
	poison = nil
	mu.Unlock()
	must(t, q.Replay(p.ctx, letters[0].ID(), store))
	must(t, q.Replay(p.ctx, letters[1].ID(), store))
	if err := waitFor(p, token, "", false); err != nil {
		t.Error(err)
	}
	one, _ := store.Get(Key(1))
	two, _ := store.Get(Key(2))
	if one.Row != `{"id":1,"value":"newer"}` || two.Row != `{"id":2,"value":"poison"}` {
		t.Errorf("after the replay: %s and %s", one.Row, two.Row)
	}
	if letters, _, err = q.List(p.ctx, "", 100); err != nil || len(letters) > 0 {
		t.Errorf("the queue still has %d letters, error %v", len(letters), err)
	}
	if err := q.Replay(p.ctx, "nothing/there/0/0", store); !errors.Is(err, cqrs.ErrNoDeadLetter) {
		t.Errorf("replay of nothing: %v", err)
	}
}

// waitFor waits until reads of key are, or are not, refused for a dead letter; levels hear of it a little later.
func waitFor(p *Pipeline, token lsn.Token, key string, refused bool) error {
	for {
		err := p.Wait(token, key)
		if errors.Is(err, cqrs.ErrDeadLettered) == refused {
			return nil
		}
		if err != nil && !errors.Is(err, cqrs.ErrDeadLettered) {
			return err
		}
		if p.ctx.Err() != nil {
			return fmt.Errorf("key %q: refused is not %v in time: %w", key, refused, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

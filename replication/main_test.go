package replication

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/tidemarkdb/tidemark/internal/lsn"
	"github.com/tidemarkdb/tidemark/testcontainers"
)

func TestMain(m *testing.M) {
	if os.Getenv(workerEnv) != "" {
		workerMain()
		return
	}
	testcontainers.Main(m)
}

// versions are the oldest and the newest server that is supported.
var versions = []string{"15", "18"}

// onVersions runs a test against a fresh database of each version.
func onVersions(t *testing.T, f func(t *testing.T, db *database)) {
	for _, v := range versions {
		t.Run("pg"+v, func(t *testing.T) { f(t, newDatabase(t, v)) })
	}
}

// database is an empty database of a real server, whose owner is no superuser.
type database struct {
	t    testing.TB
	name string
	dsn  string
	root string // the superuser's
	conn *pgx.Conn
}

func newDatabase(t testing.TB, version string) *database {
	t.Helper()
	c := testcontainers.Shared(t, testcontainers.Spec{
		Shards: 1, PostgresVersion: version,
		Settings: map[string]string{"wal_level": "logical", "max_wal_senders": "30", "max_replication_slots": "30", "max_connections": "100"},
	})
	name := c.Database(t)
	p := c.Shards[0].Primary
	db := &database{t: t, name: name, root: p.DSN(name)}
	// The role is called as our schema: without a search_path its tables would be made there from the second run on ("$user").
	db.dsn = p.DSNAs(testcontainers.AppUser, testcontainers.AppPassword, name) + "&search_path=public"
	db.conn = db.connect()
	t.Cleanup(func() { // a slot outlives its database's tests otherwise and forbids to drop it
		conn, err := pgx.Connect(context.Background(), db.root)
		if err != nil {
			t.Error(err)
			return
		}
		defer closeConn(conn)
		_, err = conn.Exec(context.Background(), `SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE database = current_database() AND active`)
		if err != nil {
			t.Error(err)
		}
		for _, slot := range []string{db.config().Slot, "other_slot"} {
			if err := dropSlot(context.Background(), conn, slot); err != nil {
				t.Error(err)
			}
		}
	})
	return db
}

func (db *database) connect() *pgx.Conn {
	db.t.Helper()
	conn, err := pgx.Connect(context.Background(), db.dsn)
	if err != nil {
		db.t.Fatal(err)
	}
	db.t.Cleanup(func() { closeConn(conn) })
	return conn
}

// exec runs statements, each on its own.
func (db *database) exec(sqls ...string) {
	db.t.Helper()
	for _, sql := range sqls {
		if _, err := db.conn.Exec(db.t.Context(), sql); err != nil {
			db.t.Fatalf("%s: %v", sql, err)
		}
	}
}

func (db *database) text(sql string, args ...any) string {
	db.t.Helper()
	var s string
	if err := db.conn.QueryRow(db.t.Context(), sql, args...).Scan(&s); err != nil {
		db.t.Fatalf("%s: %v", sql, err)
	}
	return s
}

// mark is the position behind what db.conn has committed, as the proxy takes it.
func (db *database) mark() lsn.LSN {
	db.t.Helper()
	l, err := lsn.Parse(db.text(`SELECT pg_current_wal_insert_lsn()::text`))
	if err != nil {
		db.t.Fatal(err)
	}
	return lsn.RecordEnd(l, 0)
}

// config is for a slot of the database's own, since slots are the server's.
func (db *database) config(tables ...string) Config {
	return Config{Shard: "s1", ConnString: db.dsn, Slot: db.name, Publication: "tidemark", Tables: tables, FixReplicaIdentity: true}
}

// rows reads a table as a ledger has it: the text of every row by the text of its key.
func (db *database) rows(table string, keys ...string) map[string]string {
	db.t.Helper()
	conn, err := (&Config{Shard: "s1", ConnString: db.dsn, Slot: "x"}).connect(db.t.Context(), "check", map[string]string{"search_path": printPath})
	if err != nil {
		db.t.Fatal(err)
	}
	defer closeConn(conn)
	var b strings.Builder
	if _, err := conn.PgConn().CopyTo(db.t.Context(), &b, "COPY (SELECT * FROM "+table+") TO STDOUT"); err != nil {
		db.t.Fatal(err)
	}
	cols := strings.Split(db.text(`SELECT string_agg(attname, ',' ORDER BY attnum) FROM pg_attribute WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped`, table), ",")
	rel := &Relation{}
	for _, c := range cols {
		rel.Columns = append(rel.Columns, Column{Name: c, Key: slices.Contains(keys, c)})
	}
	out := map[string]string{}
	for line := range strings.Lines(b.String()) {
		vals := copyRow(nil, []byte(strings.TrimSuffix(line, "\n")))
		out[rowKey(rel, vals)] = rowText(vals)
	}
	return out
}

func rowKey(rel *Relation, vals []Value) string {
	var parts []string
	for i, c := range rel.Columns {
		if c.Key {
			parts = append(parts, string(vals[i].Bytes))
		}
	}
	return strings.Join(parts, "|")
}

func rowText(vals []Value) string {
	var b strings.Builder
	for _, v := range vals {
		switch {
		case v.Unchanged:
			b.WriteString("<unchanged>")
		case v.Null():
			b.WriteString("<null>")
		default:
			b.Write(v.Bytes)
		}
		b.WriteByte('\x1f')
	}
	return b.String()
}

// ledger is a Sink that keeps what a read model would: per row the state of the greatest version, and tombstones. It stands
// for Kafka and a store at once.
type ledger struct {
	ack func(lsn.LSN)

	mu       sync.Mutex // guards what follows
	moved    *sync.Cond
	tables   map[string]map[string]entry
	floors   map[string]lsn.Version // of TRUNCATE and sweeps
	txs      []*Tx
	progress []Progress
	begun    int
	refuses  bool // Begin fails
	hold     bool // acknowledge nothing
	behind   []lsn.LSN
}

type entry struct {
	version lsn.Version
	row     string
	gone    bool
}

func newLedger() *ledger {
	l := &ledger{tables: map[string]map[string]entry{}, floors: map[string]lsn.Version{}}
	l.moved = sync.NewCond(&l.mu)
	return l
}

func (l *ledger) Begin(context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.refuses {
		return errors.New("it cannot be reached")
	}
	l.begun++
	return nil
}

func (l *ledger) Publish(_ context.Context, tx *Tx) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.begun == 0 {
		return errors.New("the sink was given a transaction before it was told to begin")
	}
	if err := l.apply(tx); err != nil {
		return err
	}
	l.txs = append(l.txs, tx)
	l.acknowledge(tx.End)
	l.moved.Broadcast()
	return nil
}

func (l *ledger) Progress(_ context.Context, p Progress) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.progress = append(l.progress, p)
	l.acknowledge(p.LSN)
	l.moved.Broadcast()
	return nil
}

// published is what has come so far; more may be coming.
func (l *ledger) published() ([]*Tx, []Progress) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.txs), slices.Clone(l.progress)
}

func (l *ledger) acknowledge(at lsn.LSN) {
	if l.hold {
		l.behind = append(l.behind, at)
	} else if l.ack != nil {
		l.ack(at)
	}
}

func (l *ledger) apply(tx *Tx) error {
	v, err := lsn.Pack(tx.Epoch, tx.Commit)
	if err != nil {
		return err
	}
	for _, c := range tx.Changes {
		if !c.Last {
			continue
		}
		name := c.Relation.Schema + "." + c.Relation.Name
		t := l.tables[name]
		if t == nil {
			t = map[string]entry{}
			l.tables[name] = t
		}
		if c.Op.WholeTable() {
			for k, e := range t {
				if e.version < v {
					t[k] = entry{version: v, gone: true}
				}
			}
			l.floors[name] = v
			continue
		}
		row := c.New
		if c.Op == Delete {
			row = c.Old
		}
		k := rowKey(c.Relation, row)
		if old, ok := t[k]; ok && old.version > v || v < l.floors[name] {
			continue
		}
		t[k] = entry{version: v, row: rowText(row), gone: c.Op == Delete}
	}
	return nil
}

func (l *ledger) live(table string) map[string]string {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := map[string]string{}
	for k, e := range l.tables[table] {
		if !e.gone {
			out[k] = e.row
		}
	}
	return out
}

func (l *ledger) changes(table string) (out []Change) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, tx := range l.txs {
		for _, c := range tx.Changes {
			if c.Relation.Schema+"."+c.Relation.Name == table {
				out = append(out, c)
			}
		}
	}
	return out
}

var discard = slog.New(slog.DiscardHandler)

// running is a capture in the background.
type running struct {
	*Capture
	*ledger
	t      testing.TB
	cancel context.CancelFunc
	done   chan struct{}
	err    error
}

func start(t testing.TB, cfg Config) *running {
	t.Helper()
	return startInto(t, cfg, newLedger())
}

func startInto(t testing.TB, cfg Config, l *ledger) *running {
	t.Helper()
	c, err := New(cfg, slog.New(slog.NewTextHandler(logWriter{t}, nil)))
	if err != nil {
		t.Fatal(err)
	}
	l.ack = c.Acked
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{Capture: c, ledger: l, t: t, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(r.done)
		r.err = c.Run(ctx, l)
	}()
	t.Cleanup(r.stop)
	return r
}

// logWriter sends a capture's log to the test's, which is shown when the test fails.
type logWriter struct{ t testing.TB }

func (w logWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

func (r *running) stop() {
	r.cancel()
	<-r.done
}

// wait returns the error that ends the capture by itself.
func (r *running) wait() error {
	r.t.Helper()
	select {
	case <-r.done:
		return r.err
	case <-time.After(patience):
		r.t.Fatal("the capture did not end")
		return nil
	}
}

const patience = 60 * time.Second

// reach waits until the level has passed a mark.
func (r *running) reach(m lsn.LSN) {
	r.t.Helper()
	r.until("level "+m.String(), func() bool { return r.Level().LSN >= m })
}

func (r *running) until(what string, ok func() bool) {
	r.t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		select {
		case <-r.done:
			r.t.Fatalf("waiting for %s: the capture ended: %v", what, r.err)
		default:
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("waiting for %s: status %+v", what, r.Status())
		}
		time.Sleep(time.Millisecond)
	}
}

func (r *running) streaming() *running {
	r.t.Helper()
	r.until("streaming", func() bool { return r.Status().State == Streaming })
	return r
}

func wantRows(t testing.TB, what string, got, want map[string]string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		if len(diff) > 2000 {
			diff = diff[:2000] + "…"
		}
		t.Errorf("%s: %d rows, want %d (-table +stream):\n%s", what, len(got), len(want), diff)
	}
}

func wantError(t testing.TB, err, is error, says ...string) {
	t.Helper()
	if !errors.Is(err, is) {
		t.Fatalf("error %v, want one that wraps %q", err, is)
	}
	for _, s := range says {
		if !strings.Contains(fmt.Sprint(err), s) {
			t.Errorf("error %q does not say %q", err, s)
		}
	}
}

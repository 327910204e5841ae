package e2e

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/tidemarkdb/tidemark/internal/collector"
)

// TestSessionsReadTheirOwnWritesFromReadModels writes and reads a read model right behind, a thousand times, in several sessions at once: by key,
// by filter and count, simple and extended, in the same session and in another one that was given the token. No answer is older than the write,
// also while a projector is killed and started again.
func TestSessionsReadTheirOwnWritesFromReadModels(t *testing.T) {
	const (
		sessions = 4
		rounds   = 250 // each
	)
	traces := collector.New(t)
	sp := linesSpec
	sp.tracing = traces.URL
	s := start(t, sp)
	var done atomic.Int64
	halfway := make(chan struct{}, 1)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	eg, ctx := errgroup.WithContext(ctx)
	begun := time.Now()
	for n := range sessions {
		r, err := newReader(ctx, s.url(), int64(n))
		if err != nil {
			t.Fatal(err)
		}
		eg.Go(func() error {
			defer r.close()
			for i := range rounds {
				if err := r.round(ctx, i); err != nil {
					return fmt.Errorf("session %d, round %d: %w", n, i, err)
				}
				if done.Add(1) == sessions*rounds/2 {
					halfway <- struct{}{}
				}
			}
			return nil
		})
	}
	eg.Go(func() error {
		select {
		case <-halfway:
		case <-ctx.Done():
			return ctx.Err()
		}
		p := s.projectors[0]
		p.kill()
		t.Logf("killed %s after %d rounds", p.name, done.Load())
		return errors.Join(p.start(), p.ready(ctx))
	})
	if err := eg.Wait(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d write-then-read rounds in %v, none stale", done.Load(), time.Since(begun).Round(time.Millisecond))
	traceOfRead(t, s, traces)
}

// traceOfRead asks for the trace of a read right behind a write: it tells the wait for the read model apart from its reading.
func traceOfRead(t *testing.T, s *system, traces *collector.Collector) {
	t.Helper()
	const id = "0af7651916cd43dd8448eb211c80319c"
	conn := s.connect()
	must(t, conn, waits)
	must(t, conn, upsertLine, 100, 1, 1_000_000)
	must(t, conn, "SELECT rev FROM line_search WHERE customer_id = 100 /*traceparent='00-"+id+"-b7ad6b7169203331-01'*/", pgx.QueryExecModeSimpleProtocol)
	spans := traces.Await(t, id, func(spans []collector.Span) bool { return len(spans) >= 4 })
	parts := ""
	for _, x := range spans {
		if x.Failed {
			t.Errorf("span %+v", x)
		}
		parts += x.Name + ":" + x.Attrs["db.collection.name"] + " "
	}
	if want := "SELECT " + s.database + ": plan: level:line_search scan:line_search "; parts != want {
		t.Errorf("spans %q, want %q", parts, want)
	}
}

// reader is a session that writes and reads, and one that only reads, with the first one's token.
type reader struct {
	own, other *pgx.Conn
	customer   int64
	rev        int64
}

func newReader(ctx context.Context, url string, number int64) (*reader, error) {
	r := &reader{customer: 100 + number}
	for _, c := range []**pgx.Conn{&r.own, &r.other} {
		conn, err := pgx.Connect(ctx, url)
		if err != nil {
			return nil, err
		}
		*c = conn
		if _, err := conn.Exec(ctx, waits); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func (r *reader) close() {
	for _, c := range []*pgx.Conn{r.own, r.other} {
		_ = c.Close(context.Background())
	}
}

// round writes one line and reads it back in one of the ways.
func (r *reader) round(ctx context.Context, i int) error {
	r.rev++
	id := int64(i % 10) // inserts first, then updates of the same lines
	if _, err := r.own.Exec(ctx, upsertLine, r.customer, id, r.rev); err != nil {
		return err
	}
	conn := r.own
	if i%5 == 4 {
		conn = r.other
		token := r.own.PgConn().ParameterStatus("tidemark.token")
		if token == "" {
			return errors.New("no token was reported after a write")
		}
		if _, err := conn.Exec(ctx, "SET tidemark.token = '"+token+"'"); err != nil {
			return err
		}
	}
	var mode []any
	if i%2 == 0 {
		mode = []any{pgx.QueryExecModeSimpleProtocol}
	}
	key, rev := "WHERE customer_id = $1 AND id = $2", strconv.FormatInt(r.rev, 10)
	for _, ask := range []struct {
		every int
		sql   string
		args  []any
		want  string
	}{
		{1, "SELECT rev FROM line_cache " + key, []any{r.customer, id}, rev},
		{1, "SELECT rev FROM line_search " + key, []any{r.customer, id}, rev},
		{2, "SELECT id FROM line_search WHERE customer_id = $1 AND rev = $2", []any{r.customer, r.rev}, strconv.FormatInt(id, 10)},
		{3, "SELECT count(*) FROM line_search WHERE customer_id = $1 AND rev >= $2", []any{r.customer, r.rev}, "1"},
		{3, "SELECT count(*) FROM line_cache WHERE customer_id = $1 AND rev = $2", []any{r.customer, r.rev}, "1"},
		{4, "SELECT rev FROM line_search WHERE customer_id = $1 ORDER BY rev DESC LIMIT 1", []any{r.customer}, rev},
	} {
		if i%ask.every != 0 {
			continue
		}
		var got int64
		if err := conn.QueryRow(ctx, ask.sql, append(append([]any{}, mode...), ask.args...)...).Scan(&got); err != nil {
			return fmt.Errorf("%w, in %s, revision %s", err, ask.sql, rev)
		}
		if strconv.FormatInt(got, 10) != ask.want {
			return fmt.Errorf("STALE: %s gave %d right after revision %s was written, want %s", ask.sql, got, rev, ask.want)
		}
	}
	return nil
}

// TestUncommittedWritesAreNotPassedOver reads a read model within the transaction that wrote, where it cannot have the writes: that is refused,
// unless the session takes old answers.
func TestUncommittedWritesAreNotPassedOver(t *testing.T) {
	s := start(t, linesSpec)
	conn := s.connect()
	ctx := within(t, patience)
	must(t, conn, waits)
	must(t, conn, upsertLine, int64(1), int64(1), int64(1))
	const read = "SELECT rev FROM line_cache WHERE customer_id = 1 AND id = 1"
	reads := func(when string, want int64) {
		t.Helper()
		var rev int64
		if err := conn.QueryRow(ctx, read).Scan(&rev); err != nil || rev != want {
			t.Errorf("%s: revision %d, %v, want %d", when, rev, err, want)
		}
	}
	reads("after a commit", 1)

	must(t, conn, "BEGIN")
	reads("in a transaction that has not written", 1)
	must(t, conn, "UPDATE lines SET rev = 2 WHERE customer_id = 1 AND id = 1")
	refused(t, conn, read, "0A000", "Commit first")
	must(t, conn, "ROLLBACK")
	reads("after a rollback", 1)

	must(t, conn, "SET tidemark.on_timeout = 'stale'")
	must(t, conn, "BEGIN")
	must(t, conn, "UPDATE lines SET rev = 2 WHERE customer_id = 1 AND id = 1")
	reads("where old answers are taken", 1)
	must(t, conn, "COMMIT")
	must(t, conn, "RESET tidemark.on_timeout")
	reads("after the commit", 2)

	// The implicit transaction of a pipeline ends with its Sync.
	var batch pgx.Batch
	batch.Queue(upsertLine, int64(1), int64(1), int64(3))
	batch.Queue(read)
	if err := conn.SendBatch(ctx, &batch).Close(); err == nil || !strings.Contains(err.Error(), "0A000") {
		t.Errorf("a write and a read in one pipeline: %v, want SQLSTATE 0A000", err)
	}
	reads("after a pipeline that failed", 2)

	// A session that keeps its connection is in no transaction.
	must(t, conn, "CREATE TEMP TABLE kept (id int)")
	for customer := int64(1); ; customer++ {
		if _, err := conn.Exec(ctx, upsertLine, pgx.QueryExecModeSimpleProtocol, customer, int64(9), int64(9)); err != nil && customer < 50 {
			continue // of another shard
		} else if err != nil {
			t.Fatal(err)
		}
		var rev int64
		sql := fmt.Sprintf("SELECT rev FROM line_cache WHERE customer_id = %d AND id = 9", customer)
		if err := conn.QueryRow(ctx, sql, pgx.QueryExecModeSimpleProtocol).Scan(&rev); err != nil || rev != 9 {
			t.Errorf("with a temporary table: revision %d, %v, want 9", rev, err)
		}
		break
	}
}

// TestWithoutConsistencyReadsAreStale shows that the test above can fail: the same reads under eventual consistency are behind.
func TestWithoutConsistencyReadsAreStale(t *testing.T) {
	s := start(t, linesSpec)
	for _, p := range s.projectors {
		p.kill() // nothing is applied any more
	}
	conn := s.connect()
	must(t, conn, "SET tidemark.consistency = 'eventual'")
	must(t, conn, upsertLine, int64(1), int64(1), int64(7))
	ctx := within(t, patience)
	var n int
	if err := conn.QueryRow(ctx, "SELECT count(*) FROM line_cache WHERE customer_id = 1").Scan(&n); err != nil || n != 0 {
		t.Errorf("eventual: %d rows, %v, want none", n, err)
	}

	// Under session consistency the same read is an error, or stale with a warning, as the session wants it.
	must(t, conn, "SET tidemark.consistency = 'session'")
	must(t, conn, "SET tidemark.wait_timeout = '200ms'")
	must(t, conn, upsertLine, int64(1), int64(1), int64(8))
	refused(t, conn, "SELECT rev FROM line_cache WHERE customer_id = 1 AND id = 1", "55000", "has not caught up")
	must(t, conn, "SET tidemark.on_timeout = 'stale'")
	if err := conn.QueryRow(ctx, "SELECT count(*) FROM line_cache WHERE customer_id = 1").Scan(&n); err != nil || n != 0 {
		t.Errorf("stale: %d rows, %v, want none", n, err)
	}
}

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sync/errgroup"

	"github.com/tidemarkdb/tidemark/testcontainers"
)

// refused fails the test unless the statement fails with that SQLSTATE and a message, detail or hint that contains the text. It must not
// take long: the client is told, not left waiting.
func refused(t *testing.T, conn *pgx.Conn, sql, code, text string) {
	t.Helper()
	if err := refusal(t, conn, sql, code, text); err != nil {
		t.Error(err)
	}
}

func refusal(t *testing.T, conn *pgx.Conn, sql, code, text string) error {
	t.Helper()
	_, err := conn.Exec(within(t, 2*patience), sql)
	var e *pgconn.PgError
	if !errors.As(err, &e) {
		return fmt.Errorf("%s: got %v, want SQLSTATE %s", sql, err, code)
	}
	all := e.Message + "\n" + e.Detail + "\n" + e.Hint
	noSecrets(t, "an error", all)
	if e.Code != code || !strings.Contains(all, text) {
		return fmt.Errorf("%s: got %s %s, want %s with %q", sql, e.Code, all, code, text)
	}
	return nil
}

// TestOutages takes away Redis, Elasticsearch, Kafka and a shard's primary, one after the other, while clients write. What can be answered
// is answered, the rest is a clear error; everything comes back by itself and nothing is lost.
func TestOutages(t *testing.T) {
	s := start(t, linesSpec)
	r := seeded(t)
	w := &workload{url: s.url()}
	ctx, cancel := context.WithTimeout(context.Background(), 5*patience)
	defer cancel()
	writing, stop := context.WithCancel(ctx)
	defer stop()
	var eg errgroup.Group
	var clients []*writer
	for i := range 4 {
		c := w.writer(r, i)
		clients = append(clients, c)
		eg.Go(func() error {
			for writing.Err() == nil {
				if err := c.make1(ctx); err != nil {
					return err
				}
			}
			return c.write(ctx, 0) // closes its connection
		})
	}

	conn := s.connect()
	must(t, conn, waits)
	must(t, conn, upsertLine, int64(-1), int64(1), int64(1))
	byKey := func(view string) string {
		return "SELECT rev FROM " + view + " WHERE customer_id = -1 AND id = 1"
	}
	works := func(view string) {
		t.Helper()
		var rev int64
		if err := conn.QueryRow(within(t, patience), byKey(view)).Scan(&rev); err != nil {
			t.Errorf("%s: %v", view, err)
		}
	}
	works("line_cache")
	works("line_search")

	outage := func(name string, service testcontainers.Service, during func(t *testing.T)) {
		t.Run(name, func(t *testing.T) {
			before := w.writes.Load()
			begun := time.Now()
			back := func() error {
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				defer cancel()
				return service.Start(ctx) // nothing to do when it runs
			}
			t.Cleanup(func() { // whatever has failed here, other tests need it
				if err := back(); err != nil {
					t.Error(err)
				}
			})
			if err := service.Kill(); err != nil {
				t.Fatal(err)
			}
			during(t)
			if err := back(); err != nil {
				t.Fatal(err)
			}
			down := time.Since(begun)
			must(t, conn, waits)
			returned := time.Now()
			eventually(t, patience, func(ctx context.Context) error {
				_, err := conn.Exec(ctx, upsertLine, int64(-1), int64(1), int64(2))
				return err
			})
			works("line_cache")
			works("line_search")
			t.Logf("down for %v, level again %v after its return; %d writes meanwhile", down.Round(time.Millisecond), time.Since(returned).Round(time.Millisecond), w.writes.Load()-before)
			for _, p := range append([]*process{s.proxy}, s.projectors...) {
				s.well(t, p)
			}
		})
	}
	// proceeds waits for acknowledged writes.
	proceeds := func(t *testing.T) {
		t.Helper()
		from := w.writes.Load()
		eventually(t, patience, func(context.Context) error {
			if n := w.writes.Load() - from; n < 50 {
				return fmt.Errorf("only %d writes", n)
			}
			return nil
		})
	}
	// unwell waits for a process's /health to answer with the code and to name the check as failing.
	unwell := func(t *testing.T, p *process, code int, check string) {
		t.Helper()
		eventually(t, patience, func(ctx context.Context) error {
			got, _, checks, err := p.health(ctx)
			if err != nil {
				return err
			}
			if got != code || checks[check] == "" {
				return fmt.Errorf("%s answers %d with %v, want %d and a failing %s", p.name, got, checks, code, check)
			}
			return nil
		})
	}

	outage("redis", s.cluster.Redis, func(t *testing.T) {
		refused(t, conn, byKey("line_cache"), "58000", `read model "line_cache" cannot be read now`)
		works("line_search")
		proceeds(t)
		unwell(t, s.proxy, http.StatusOK, "view line_cache")
		unwell(t, s.projectors[0], http.StatusServiceUnavailable, "view line_cache")
	})
	outage("kafka", s.cluster.Kafka, func(t *testing.T) {
		proceeds(t) // capture waits; the shards keep what it has not published
		must(t, conn, "SET tidemark.wait_timeout = '300ms'")
		must(t, conn, upsertLine, int64(-1), int64(1), int64(3))
		refused(t, conn, byKey("line_cache"), "55000", "has not caught up")
		unwell(t, s.proxy, http.StatusOK, "kafka")
		unwell(t, s.projectors[1], http.StatusServiceUnavailable, "kafka")
	})
	outage("elasticsearch", s.cluster.Elasticsearch, func(t *testing.T) {
		refused(t, conn, byKey("line_search"), "58000", `read model "line_search" cannot be read now`)
		works("line_cache")
		proceeds(t)
		unwell(t, s.projectors[0], http.StatusServiceUnavailable, "view line_search")
	})
	must(t, conn, upsertLine, int64(-1), int64(1), int64(4))
	home := s.cluster.Shards[0]
	if strings.Contains(s.route(conn), " "+s.cluster.Shards[1].Name+" ") {
		home = s.cluster.Shards[1]
	}
	outage("primary", home.Primary, func(t *testing.T) {
		unwell(t, s.proxy, http.StatusServiceUnavailable, "shard "+home.Name)
		// It goes on to take clients: reads, and the other shard, work, and another proxy would be no better.
		if code, body, err := s.proxy.get(within(t, patience), "/ready"); err != nil || code != http.StatusOK {
			t.Errorf("/ready: %d %s %v", code, body, err)
		}
		eventually(t, patience, func(context.Context) error { // now and then a statement is the one that tries the server: 08006
			return refusal(t, conn, "UPDATE lines SET rev = 5 WHERE customer_id = -1 AND id = 1", "57P03", home.Name)
		})
		// Readers are not concerned, and neither is the other shard.
		reader := s.connect()
		if _, err := reader.Exec(within(t, patience), "SELECT rev FROM lines WHERE customer_id = -1 AND id = 1"); err != nil {
			t.Errorf("a read, which the replica can answer: %v", err)
		}
	})

	stop()
	if err := eg.Wait(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d writes, %d of them made again after an error", w.writes.Load(), w.tries.Load())
	equal(t, "PostgreSQL, compared with what was acknowledged,", expected(clients), s.truth("SELECT customer_id, id, rev FROM lines WHERE customer_id >= 0"))
	s.touchEveryShard(conn)
	s.compareViews(conn, "*", lineViews)
	if code, out := s.run("dlq", "list"); code != 0 || !strings.Contains(out, "is empty") {
		t.Errorf("dlq list: exit code %d\n%s", code, out)
	}
}

// make1 makes one write, or one transaction, without hurry.
func (c *writer) make1(ctx context.Context) error {
	steps := c.plan(4)
	if err := c.make(ctx, steps); err != nil {
		return err
	}
	for _, s := range steps {
		s.commit()
	}
	c.w.writes.Add(int64(len(steps)))
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(50 * time.Millisecond):
		return nil
	}
}

package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	writers = 12
	writes  = 50_000
	kills   = 6
)

// linesSpec has the table of the workload in both stores.
var linesSpec = spec{
	tables: "{lines: {key: customer_id}}",
	views: `  line_search: {from: lines, elastic: {index: INDEX_lines}}
  line_cache: {from: lines, redis: {as: hash, prefix: "PREFIX"}}
`,
	projectors: 2,
	sql:        []string{linesTable},
}

var lineViews = map[string]string{"line_search": "lines", "line_cache": "lines"}

// TestKilledInTheMiddleOfWrites ends the projectors and the proxy by SIGKILL while 50,000 writes are made. Afterwards every acknowledged write
// is in PostgreSQL, and every row of PostgreSQL, no other, is in Elasticsearch and in Redis, with all its columns.
func TestKilledInTheMiddleOfWrites(t *testing.T) {
	s := start(t, linesSpec)
	r := seeded(t)
	w := &workload{url: s.url(), at: map[int64]chan<- struct{}{}}
	now := make(chan struct{}, kills)
	for i := range kills { // one in each part, so that they do not all come at once
		const part = writes / (kills + 1)
		w.at[int64(part/2+i*part+r.IntN(part))] = now
	}
	victims := []*process{s.projectors[0], s.proxy, s.projectors[1], s.proxy, s.projectors[0], s.projectors[1]}
	r.Shuffle(len(victims), func(i, j int) { victims[i], victims[j] = victims[j], victims[i] })

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	eg, ctx := errgroup.WithContext(ctx)
	var clients []*writer
	begun := time.Now()
	for i := range writers {
		c := w.writer(r, i)
		clients = append(clients, c)
		n := writes / writers
		if i < writes%writers {
			n++
		}
		eg.Go(func() error { return c.write(ctx, n) })
	}
	eg.Go(func() error {
		for _, p := range victims {
			select {
			case <-now:
			case <-ctx.Done():
				return ctx.Err()
			}
			p.kill()
			t.Logf("killed %s after %d writes", p.name, w.writes.Load())
			if err := p.start(); err != nil {
				return err
			}
			if err := p.ready(ctx); err != nil {
				return err
			}
		}
		return nil
	})
	if err := eg.Wait(); err != nil {
		t.Fatal(err)
	}
	took := time.Since(begun)
	t.Logf("%d writes in %v (%.0f per second), %d of them made again after an error", w.writes.Load(), took.Round(time.Millisecond), float64(writes)/took.Seconds(), w.tries.Load())

	equal(t, "PostgreSQL, compared with what was acknowledged,", expected(clients), s.truth("SELECT customer_id, id, rev FROM lines"))
	conn := s.connect()
	s.touchEveryShard(conn)
	begun = time.Now()
	s.compareViews(conn, "*", lineViews)
	t.Logf("the views were level %v after the last write", time.Since(begun).Round(time.Millisecond))

	// Nothing was given up on, and both projectors have partitions.
	if code, out := s.run("dlq", "list"); code != 0 || !strings.Contains(out, "is empty") {
		t.Errorf("dlq list: exit code %d\n%s", code, out)
	}
	eventually(t, patience, func(ctx context.Context) error {
		for _, p := range s.projectors {
			n := partitions(ctx, p)
			if n == 0 {
				return fmt.Errorf("%s has no partition", p.name)
			}
		}
		return nil
	})
}

// partitions is how many partitions of views a projector works on.
func partitions(ctx context.Context, p *process) (n int) {
	_, body, err := p.get(ctx, "/metrics")
	if err != nil {
		return 0
	}
	for l := range strings.Lines(body) {
		if strings.HasPrefix(l, "tidemark_projection_lag_events{") {
			n++
		}
	}
	return n
}

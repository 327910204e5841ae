package proxy_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/tidemarkdb/tidemark/internal/backend"
	"github.com/tidemarkdb/tidemark/internal/collector"
	"github.com/tidemarkdb/tidemark/internal/otlp"
	"github.com/tidemarkdb/tidemark/internal/wire"
	"github.com/tidemarkdb/tidemark/proxy"
)

// tracedTo has a proxy send its traces to a collector, soon.
func tracedTo(t *testing.T, c *collector.Collector, change func(*proxy.Tracing)) func(*proxy.Config) {
	t.Helper()
	e, err := otlptrace.New(t.Context(), otlp.New(otlp.Config{URL: c.URL + "/v1/traces", Timeout: 20 * time.Second}))
	if err != nil {
		t.Fatal(err)
	}
	p := sdktrace.NewTracerProvider(sdktrace.WithBatcher(e, sdktrace.WithBatchTimeout(100*time.Millisecond)))
	t.Cleanup(func() { _ = p.Shutdown(context.Background()) })
	return func(cfg *proxy.Config) {
		asAdmin(cfg)
		cfg.Tracing = &proxy.Tracing{Tracer: p.Tracer("test")}
		if change != nil {
			change(cfg.Tracing)
		}
	}
}

// parent is a traceparent and its ids; each number has its own.
func parent(n int, sampled bool) (traceparent, traceID, spanID string) {
	traceID, spanID = fmt.Sprintf("0af7651916cd43dd8448eb21%08x", n), fmt.Sprintf("b7ad6b71%08x", n)
	flags := "00"
	if sampled {
		flags = "01"
	}
	return "00-" + traceID + "-" + spanID + "-" + flags, traceID, spanID
}

// tree prints spans as they hang together, with their kind and the attributes that tell what happened.
func tree(spans []collector.Span, root string) string {
	var b strings.Builder
	var walk func(parent string, depth int)
	walk = func(parent string, depth int) {
		for _, s := range spans {
			if s.Parent != parent {
				continue
			}
			fmt.Fprintf(&b, "%s%s", strings.Repeat("  ", depth), s.Name)
			for _, k := range []string{"tidemark.plan", "tidemark.shard", "tidemark.role", "db.query.text", "db.operation.batch.size", "db.response.status_code", "error.type"} {
				if v, ok := s.Attrs[k]; ok {
					fmt.Fprintf(&b, " %s=%s", k[strings.LastIndexByte(k, '.')+1:], v)
				}
			}
			if s.Failed {
				b.WriteString(" failed")
			}
			b.WriteByte('\n')
			walk(s.ID, depth+1)
		}
	}
	walk(root, 0)
	return b.String()
}

// ended waits until the span named last, which ends last, has come.
func ended(last string) func([]collector.Span) bool {
	return func(spans []collector.Span) bool {
		for _, s := range spans {
			if s.Name == last {
				return true
			}
		}
		return false
	}
}

func TestTracesOnDemand(t *testing.T) {
	for _, engineName := range []string{"epoll", "goroutines"} {
		t.Run(engineName, func(t *testing.T) { testTraces(t, engineName) })
	}
}

func testTraces(t *testing.T, engineName string) {
	c := collector.New(t)
	f, dsn := shop(t, engineName, fixtureSpec{config: tracedTo(t, c, func(x *proxy.Tracing) { x.QueryText = true })})
	app := connect(t, dsn)
	at := make([]string, 2)
	for i := range at {
		p := f.cluster.Shards[i].Primary
		at[i] = fmt.Sprintf("%s:%d", p.Host, p.Port)
	}
	exec(t, app, "INSERT INTO customers VALUES (1, 'secret-name')")
	n := 0
	check := func(name, ends string, run func(t *testing.T, traceparent string), want string) {
		n++
		p, traceID, spanID := parent(n, true)
		t.Run(name, func(t *testing.T) {
			run(t, p)
			got := tree(c.Await(t, traceID, ended(ends)), spanID)
			if strings.Contains(got, "secret") {
				t.Errorf("a literal is in the trace")
			}
			for i, a := range at {
				got = strings.ReplaceAll(got, a, fmt.Sprintf("server%d", i))
			}
			if diff := cmp.Diff(strings.TrimLeft(want, "\n"), got); diff != "" {
				t.Error(diff)
			}
		})
	}
	commented := func(sql string) func(t *testing.T, traceparent string) {
		return func(t *testing.T, traceparent string) {
			t.Helper()
			var e *pgconn.PgError
			if _, err := app.PgConn().Exec(t.Context(), sql+" /*app='x',traceparent='"+traceparent+"'*/").ReadAll(); err != nil && !errors.As(err, &e) {
				t.Fatal(err)
			}
		}
	}
	check("a routed read by a comment", "SELECT shop", commented("SELECT name FROM customers WHERE id = 1 AND name = 'secret-name'"), `
SELECT shop plan=route text=SELECT name FROM customers WHERE id = ? AND name = ?
  plan
  acquire shard=shard1 role=primary
  SELECT server1 shard=shard1 role=primary
`)
	check("an error of the server", "SELECT shop", commented("SELECT 1/0"), `
SELECT shop plan=anyshard text=SELECT ?/? status_code=22012 type=22012 failed
  plan
  acquire shard=shard0 role=primary
  SELECT server0 shard=shard0 role=primary status_code=22012 type=22012 failed
`)
	check("a refusal", "SELECT shop", commented("SELECT id FROM customers ORDER BY id"), `
SELECT shop plan=refuse text=SELECT id FROM customers ORDER BY id status_code=0A000 type=0A000 failed
  plan
`)
	check("several shards", "SELECT shop", commented("SELECT id FROM customers"), `
SELECT shop plan=scatter text=SELECT id FROM customers
  plan
  acquire shard=shard0 role=primary
  acquire shard=shard1 role=primary
  SELECT server0 shard=shard0 role=primary
  SELECT server1 shard=shard1 role=primary
`)
	check("a password", "ALTER shop", commented("ALTER ROLE nobody_here PASSWORD 'secret'"), `
ALTER shop plan=broadcast text=ALTER ROLE nobody_here PASSWORD ? status_code=42704 type=42704 failed
  plan
  acquire shard=shard0 role=primary
  acquire shard=shard1 role=primary
  ALTER server0 shard=shard0 role=primary status_code=42704 type=42704 failed
`)
	check("a transaction by a setting, extended", "TRANSACTION shop", func(t *testing.T, traceparent string) {
		exec(t, app, "SET tidemark.traceparent = '"+traceparent+"'")
		tx, err := app.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tx.Exec(t.Context(), "UPDATE customers SET name = $2 WHERE id = $1", 1, "secret-name"); err != nil {
			t.Fatal(err)
		}
		if err := tx.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		exec(t, app, "SET tidemark.traceparent = ''")
	}, `
TRANSACTION shop
  BEGIN shop plan=tx text=begin
    plan
  PREPARE shop text=UPDATE customers SET name = $2 WHERE id = $1
    acquire shard=shard0 role=primary
    PREPARE server0 shard=shard0 role=primary
  UPDATE shop plan=route text=UPDATE customers SET name = $2 WHERE id = $1
    plan
    acquire shard=shard1 role=primary
    UPDATE server1 shard=shard1 role=primary
  COMMIT shop plan=tx text=commit
    plan
    COMMIT server1 shard=shard1 role=primary
`)
	check("a pipeline", "SELECT shop", func(t *testing.T, traceparent string) {
		b := &pgx.Batch{}
		for range 3 {
			b.Queue("SELECT name FROM customers WHERE id = 1 /*traceparent='" + traceparent + "'*/")
		}
		if err := app.SendBatch(t.Context(), b).Close(); err != nil {
			t.Fatal(err)
		}
	}, `
PREPARE shop text=SELECT name FROM customers WHERE id = ?
  acquire shard=shard0 role=primary
  PREPARE server0 shard=shard0 role=primary
SELECT shop plan=route text=SELECT name FROM customers WHERE id = ? size=3
  plan
  acquire shard=shard1 role=primary
  SELECT server1 shard=shard1 role=primary
`)
	t.Run("the flag says no", func(t *testing.T) {
		n++
		p, traceID, _ := parent(n, false)
		commented("SELECT 1")(t, p)
		n++
		q, last, _ := parent(n, true)
		commented("SELECT 1")(t, q)
		c.Await(t, last, ended("SELECT shop"))
		if spans := c.Spans(traceID); len(spans) > 0 {
			t.Errorf("a trace that is not sampled: %+v", spans)
		}
	})
	t.Run("what is not a traceparent", func(t *testing.T) {
		for _, v := range []string{"x", "00-00000000000000000000000000000000-b7ad6b7169203331-01", "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"} {
			if _, err := app.Exec(t.Context(), "SET tidemark.traceparent = '"+v+"'"); sqlState(err) != wire.InvalidParameterValue {
				t.Errorf("%s: %v", v, err)
			}
			commented("SELECT 1")(t, v)
		}
		if got := cell(t, app, "SHOW tidemark.traceparent"); got != "" {
			t.Errorf("tidemark.traceparent = %q", got)
		}
	})
}

// An administrator has a client, or all of a user, traced for a while.
func TestTraceCommand(t *testing.T) {
	c := collector.New(t)
	f := newFixture(t, fixtureSpec{shards: 1, config: tracedTo(t, c, nil)})
	dsn := f.start(t, "")
	admin, app, other := console(t, dsn), connect(t, dsn), connect(t, dsn)
	run := func(conn *pgx.Conn, name string) {
		t.Helper()
		execute(t, conn, "SELECT 1 AS "+name)
	}
	id := cell(t, admin, "SELECT id FROM clients ORDER BY connected_at LIMIT 1")
	of := func(id string) func([]collector.Span) bool {
		return func(spans []collector.Span) bool {
			for _, s := range spans {
				if s.Name == "SELECT shop" && s.Attrs["tidemark.client_id"] == id {
					return true
				}
			}
			return false
		}
	}
	run(app, "untraced")
	if got := execute(t, admin, "TRACE "+id+" FOR '1h'"); got != "TRACE 1" {
		t.Errorf("tag %q", got)
	}
	if got := cell(t, admin, "SELECT count(*) FROM clients WHERE traced_until IS NOT NULL"); got != "1" {
		t.Errorf("%s clients are traced", got)
	}
	run(other, "untraced")
	run(app, "traced")
	spans := c.Await(t, "", of(id))
	for _, s := range spans {
		if s.Name == "SELECT shop" && (s.Attrs["tidemark.client_id"] != id || s.Parent != "" || s.Attrs["db.query.text"] != "") {
			t.Errorf("span %+v", s)
		}
	}
	if got := execute(t, admin, "TRACE "+id+" FOR '0s'"); got != "TRACE 1" {
		t.Errorf("tag %q", got)
	}
	if got := cell(t, admin, "SELECT count(*) FROM clients WHERE traced_until IS NOT NULL"); got != "0" {
		t.Errorf("%s clients are traced", got)
	}
	execute(t, admin, "TRACE USER "+clientUser)
	late := connect(t, dsn)
	lateID := cell(t, admin, "SELECT id FROM clients ORDER BY connected_at DESC LIMIT 1")
	run(late, "traced")
	c.Await(t, "", of(lateID))
	for _, test := range []struct{ sql, code string }{
		{"TRACE", wire.SyntaxError},
		{"TRACE 1 FOR '60s'", wire.UndefinedObject},
		{"TRACE " + id + " FOR soon", wire.SyntaxError},
		{"TRACE " + id + " FOR '48h'", wire.SyntaxError},
	} {
		if _, err := admin.Exec(t.Context(), test.sql); sqlState(err) != test.code {
			t.Errorf("%s: %v, want %s", test.sql, err, test.code)
		}
	}
	elsewhere := newFixture(t, fixtureSpec{shards: 1, config: asAdmin}).start(t, "")
	if _, err := console(t, elsewhere).Exec(t.Context(), "TRACE USER app"); sqlState(err) != wire.ObjectNotInPrerequisiteState {
		t.Errorf("without a collector: %v", err)
	}
}

// Chance decides once for a request, of however many messages.
func TestSampledShare(t *testing.T) {
	c := collector.New(t)
	f := newFixture(t, fixtureSpec{shards: 1, config: tracedTo(t, c, func(x *proxy.Tracing) { x.Sample = 0.5 })})
	app := connect(t, f.start(t, ""))
	const n = 600 // of whose spans the exporter drops none
	for i := range n {
		mode := []pgx.QueryExecMode{pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeCacheStatement}[i%3]
		exec(t, app, "SELECT $1::int", mode, i)
	}
	// The last one is asked for: all before it are there when it is.
	p, last, _ := parent(1, true)
	exec(t, app, "SELECT 1 /*traceparent='"+p+"'*/", pgx.QueryExecModeSimpleProtocol)
	c.Await(t, last, ended("SELECT shop"))
	got := 0
	for _, s := range c.Spans("") {
		if s.Name == "SELECT shop" && s.Trace != last {
			got++
		}
	}
	if got < n/2-75 || got > n/2+75 { // six standard deviations, and less than one of the three makes out
		t.Errorf("%d of %d requests are traced", got, n)
	}
}

// Sampling by chance takes whole transactions. Those whose client leaves, or whose server does, end too.
func TestSampledTraces(t *testing.T) {
	c := collector.New(t)
	f := newFixture(t, fixtureSpec{shards: 1, config: tracedTo(t, c, func(x *proxy.Tracing) { x.Sample = 1 }), backend: func(c *backend.Config) { c.CheckDelay = -1 }})
	dsn := f.start(t, "")
	app := connect(t, dsn)
	execute(t, app, "BEGIN")
	execute(t, app, "SELECT 1")
	pid := cell(t, app, "SELECT pg_backend_pid()")
	execute(t, connect(t, f.direct(0)), "SELECT pg_terminate_backend("+pid+")")
	for sqlState(func() error { _, err := app.Exec(t.Context(), "SELECT 2"); return err }()) == "" {
	}
	_ = app.Close(t.Context())
	spans := c.Await(t, "", ended("TRANSACTION shop"))
	var root collector.Span
	for _, s := range spans {
		if s.Parent == "" && s.Name == "TRANSACTION shop" {
			root = s
		}
	}
	got := tree(c.Spans(root.Trace), "")
	if !strings.HasPrefix(got, "TRANSACTION shop failed\n  BEGIN shop plan=tx\n") || !strings.Contains(got, "status_code=57P01 type=57P01 failed") {
		t.Errorf("the trace:\n%s", got)
	}
}

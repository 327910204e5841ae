//go:build unix

package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidemarkdb/tidemark/internal/collector"
	"github.com/tidemarkdb/tidemark/testcontainers"
)

const (
	someTrace  = "0af7651916cd43dd8448eb211c80319c"
	someParent = "00-" + someTrace + "-b7ad6b7169203331-01"
)

// Traces begin with a reload that names a collector, go to another one with the next, and what waits is sent at the end. A
// collector that is out of order, or not there at all, is no concern of the clients.
func TestTracingOfTheProcess(t *testing.T) {
	l := newLife(t)
	l.start()
	console, app := l.connect("tidemark"), l.connect(l.database)
	l.exec(app, "SELECT 1 /*traceparent='"+someParent+"'*/")
	first, second := collector.New(t), collector.New(t)
	l.change("admin:", fmt.Sprintf("tracing: {endpoint: %q, headers: {x-key: header-secret}, service: pool, query_text: true, timeout: 20s}\nadmin:", first.URL))
	l.exec(console, "RELOAD")
	l.exec(app, "SELECT 1, 'a literal' /*traceparent='"+someParent+"'*/")
	spans := first.Await(t, someTrace, func(s []collector.Span) bool { return len(s) >= 4 })
	if s := spans[0]; s.Service != "pool" || s.Name != "SELECT "+l.database || s.Parent != "b7ad6b7169203331" || s.Attrs["db.query.text"] != "SELECT ?, ?" {
		t.Errorf("the first span: %+v", s)
	}
	if got := first.Header().Get("X-Key"); got != "header-secret" {
		t.Errorf("header %q", got)
	}

	first.Refuse(100) // however many requests they come in
	l.exec(app, "SELECT 2 /*traceparent='"+someParent+"'*/")
	l.metric("tidemark_trace_spans_total{result=\"failed\"}", "4")
	l.change(first.URL, "http://"+testcontainers.FreeAddress(t)) // nobody is there
	l.exec(console, "RELOAD")
	l.exec(app, "SELECT 3 /*traceparent='"+someParent+"'*/")
	l.metric("tidemark_trace_spans_total{result=\"failed\"}", "8")

	before, err := os.ReadFile(l.config)
	if err != nil {
		t.Fatal(err)
	}
	l.change("tracing: {endpoint: ", "tracing: {endpoint: ftp://")
	if _, err := console.Exec(t.Context(), "RELOAD"); codeOf(err) != "22023" {
		t.Errorf("RELOAD of a wrong endpoint: %v", err)
	}
	l.write(string(before))
	from := strings.Index(string(before), "tracing: {endpoint: \"") + len("tracing: {endpoint: \"")
	old, _, _ := strings.Cut(string(before)[from:], "\"")
	l.change(old, second.URL)
	l.exec(console, "RELOAD")
	if n := len(first.Spans("")); n != 4 {
		t.Errorf("the first collector has %d spans", n)
	}
	l.exec(app, "SELECT 4 /*traceparent='"+someParent+"'*/")
	l.signal(syscall.SIGTERM)
	if err := l.ended(); err != nil {
		t.Errorf("the process: %v", err)
	}
	if spans := second.Spans(someTrace); len(spans) != 4 {
		t.Errorf("sent before the end: %+v", spans)
	}
	log, err := os.ReadFile(l.config + ".log")
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(log), "traces cannot be sent"); n != 1 {
		t.Errorf("the log complains %d times, want once a minute", n)
	}
	if strings.Contains(string(log), "header-secret") || strings.Contains(string(log), "a literal") {
		t.Error("a secret is in the log")
	}
}

// A user of the proxy may have the name of the role that logs in to the servers: their pools are told apart, and one scrape
// has both.
// A server alone is asked for no mark behind a write: nothing can be behind it.
func TestNoMarksWithoutCopies(t *testing.T) {
	l := newLife(t)
	l.start()
	conn := l.connect(l.database)
	l.exec(conn, "CREATE TABLE alone (a int)")
	l.exec(conn, "INSERT INTO alone VALUES (1)")
	if token := l.value(conn, "SHOW tidemark.token"); token != "" {
		t.Errorf("the token is %q", token)
	}
}

func TestMetricsOfNamesakes(t *testing.T) {
	l := newLife(t)
	l.change("users:", fmt.Sprintf("users:\n  - {name: %s, password: two, pool_size: 3}", testcontainers.AppUser))
	l.start()
	conn, err := pgx.Connect(t.Context(), l.dsn(testcontainers.AppUser, "two", l.database))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	l.exec(conn, "SELECT 1")
	l.exec(l.connect(l.database), "SELECT 1")
	labels := fmt.Sprintf(",shard=\"s1\",user=%q}", testcontainers.AppUser)
	at := l.value(l.connect("tidemark"), "SELECT endpoint FROM endpoints")
	for pool, size := range map[string]string{"user": "3", "shared": "20"} {
		l.metric(fmt.Sprintf("tidemark_pool_size{endpoint=%q,pool=%q", at, pool)+labels, size)
	}
}

// metric waits until a metric has a value.
func (l *life) metric(name, want string) {
	l.t.Helper()
	got := ""
	for until := time.Now().Add(lifePatience); time.Now().Before(until); time.Sleep(20 * time.Millisecond) {
		resp, err := http.Get("http://" + l.http + "/metrics")
		if err != nil {
			l.t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil {
			l.t.Fatal(err)
		}
		_, got, _ = strings.Cut(string(b), "\n"+name+" ")
		if got, _, _ = strings.Cut(got, "\n"); got == want {
			return
		}
	}
	l.t.Fatalf("%s is %s, want %s", name, got, want)
}

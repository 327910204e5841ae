//go:build unix

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tidemarkdb/tidemark/testcontainers"
)

// A proxy that loses its server connection while it reads the schema reads it again.
func TestStartWhileServerConnectionsBreak(t *testing.T) {
	l := newLife(t)
	conn, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	host, port := l.primary()
	broken := breaks{server: fmt.Sprintf("%s:%d", host, port), at: []byte("prosqlbody")}
	go broken.serve(conn)
	l.change(fmt.Sprintf("host: %s, port: %d", host, port), fmt.Sprintf("host: 127.0.0.1, port: %d", conn.Addr().(*net.TCPAddr).Port))
	l.start()
	eventually := time.Now().Add(lifePatience)
	for {
		c, err := l.tryConnect(l.database)
		if err == nil {
			if got := l.value(c, "select 'served'"); got != "served" {
				t.Errorf("it serves %q", got)
			}
			break
		}
		if time.Now().After(eventually) {
			t.Fatalf("it does not serve: %v", err)
		}
		time.Sleep(50 * time.Millisecond)
	}
	if n := broken.readings.Load(); n < 2 {
		t.Errorf("the schema was read %d times", n)
	}
}

// breaks stands before a server and ends each other connection in which the schema is read.
type breaks struct {
	server   string
	at       []byte // what a reading sends amid others
	readings atomic.Int32
}

func (b *breaks) serve(l net.Listener) {
	for {
		client, err := l.Accept()
		if err != nil {
			return
		}
		go b.forward(client)
	}
}

func (b *breaks) forward(client net.Conn) {
	defer func() { _ = client.Close() }()
	server, err := net.Dial("tcp", b.server)
	if err != nil {
		return
	}
	defer func() { _ = server.Close() }()
	go func() {
		_, _ = io.Copy(client, server)
		_ = client.Close()
	}()
	var sent []byte
	buf := make([]byte, 64<<10)
	for seen := false; ; {
		n, err := client.Read(buf)
		if err != nil {
			return
		}
		if sent = append(sent, buf[:n]...); !seen && bytes.Contains(sent, b.at) {
			if seen = true; b.readings.Add(1)%2 == 1 {
				return
			}
		}
		sent = sent[max(0, len(sent)-len(b.at)):]
		if _, err := server.Write(buf[:n]); err != nil {
			return
		}
	}
}

// primary is the server's address in the configuration.
func (l *life) primary() (host string, port int) {
	l.t.Helper()
	for line := range strings.Lines(l.text()) {
		if _, rest, ok := strings.Cut(line, "primary: {"); ok {
			if _, err := fmt.Sscanf(strings.ReplaceAll(rest, ",", " "), "host: %s port: %d", &host, &port); err != nil {
				l.t.Fatal(err)
			}
		}
	}
	return host, port
}

// newStart is a proxy that has yet to be launched, with a user who proves nothing and one who must.
func newStart(t *testing.T) *life {
	t.Helper()
	l := newLife(t)
	l.change("  - {name: app, password: one}", "  - {name: app, password: one}\n  - {name: open, password: two}")
	l.change("admin: {users: [app]}", `admin: {users: [app]}
auth: {rules: [{type: any, users: [open], method: trust}, {type: any, method: scram-sha-256}]}`)
	return l
}

// server gives a command to the server, as its superuser.
func (l *life) server(sql string) {
	l.t.Helper()
	conn, err := pgx.Connect(l.t.Context(), testcontainers.Shared(l.t, testcontainers.Spec{Shards: 1}).Shards[0].Primary.DSN("postgres"))
	if err != nil {
		l.t.Fatal(err)
	}
	l.exec(conn, sql)
	if err := conn.Close(l.t.Context()); err != nil {
		l.t.Fatal(err)
	}
}

// refused is what a client is told that is not let in.
func (l *life) refused(user string) *pgconn.PgError {
	l.t.Helper()
	dsn := strings.Replace(l.dsn(user, "one", l.database), "sslmode=disable", "sslmode=prefer", 1)
	_, err := pgx.Connect(l.t.Context(), dsn)
	var e *pgconn.PgError
	if !errors.As(err, &e) {
		l.t.Fatalf("user %s: %v", user, err)
	}
	return e
}

// refusedWith waits until a client is told that detail.
func (l *life) refusedWith(user, detail string) {
	l.t.Helper()
	e := l.refused(user)
	for until := time.Now().Add(lifePatience); e.Detail != detail && time.Now().Before(until); time.Sleep(50 * time.Millisecond) {
		e = l.refused(user) // no reading has ended, or one broke
	}
	if e.Severity != "FATAL" || e.Code != "57P03" || e.Message != "the proxy is starting up" || e.Detail != detail || e.Hint == "" {
		l.t.Errorf("%s is told %+v", user, e)
	}
}

// A proxy whose database does not exist says so, to clients and to administrators, and serves once it does exist.
func TestStartWithoutDatabase(t *testing.T) {
	l := newStart(t)
	l.server(fmt.Sprintf("ALTER DATABASE %s RENAME TO %[1]s_away", l.database))
	l.launch()
	cause := fmt.Sprintf("database \"%s\" does not exist", l.database)
	l.refusedWith("app", `The schema cannot be read from shard "s1": its server has no database of the configured name.`)
	l.refusedWith("stranger", `The schema cannot be read from shard "s1": its server has no database of the configured name.`)
	l.refusedWith("open", fmt.Sprintf(`The schema cannot be read from shard "s1": %s (SQLSTATE 3D000).`, cause))
	console := l.connect("tidemark")
	if got := l.value(console, "SELECT starting FROM databases"); !strings.Contains(got, cause) {
		t.Errorf("the table databases says %q", got)
	}
	l.exec(console, "RELOAD")
	if code, why := l.readiness(); code != http.StatusServiceUnavailable || !strings.Contains(why, cause) {
		t.Errorf("/ready: %d %q", code, why)
	}
	l.server(fmt.Sprintf("ALTER DATABASE %s_away RENAME TO %[1]s", l.database))
	if state := l.hear(); !strings.HasPrefix(state, "READY=1\nSTATUS=serving ") { // the first word, so RELOAD said nothing
		t.Errorf("the service manager is told %q", state)
	}
	if got := l.value(l.connect(l.database), "SELECT current_database()"); got != l.database {
		t.Errorf("it serves %q", got)
	}
	if got := l.value(console, "SELECT count(*) FROM databases WHERE starting IS NULL"); got != "1" {
		t.Errorf("%s databases have started", got)
	}
	if code, why := l.readiness(); code != http.StatusOK {
		t.Errorf("/ready: %d %q", code, why)
	}
}

// A server that comes up later than its proxy is used then.
func TestStartBeforeServer(t *testing.T) {
	l := newStart(t)
	host, port := l.primary()
	address := testcontainers.FreeAddress(t)
	l.change(fmt.Sprintf("host: %s, port: %d", host, port), "host: 127.0.0.1, port: "+address[strings.LastIndexByte(address, ':')+1:])
	l.launch()
	l.refusedWith("app", `The schema cannot be read from shard "s1": its server cannot be reached.`)
	l.refusedWith("open", `The schema cannot be read from shard "s1": connect: connection refused.`)
	l.logged("endpoint is down")
	conn, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	whole := breaks{server: fmt.Sprintf("%s:%d", host, port), at: []byte("\x00never\x00")}
	go whole.serve(conn)
	l.heard("READY=1")
	l.exec(l.connect(l.database), "SELECT 1")
}

// A proxy that waits for a server ends when it is told to, and so do the clients that wait with it.
func TestStopWhileStarting(t *testing.T) {
	l := newStart(t)
	silent, err := net.Listen("tcp", "127.0.0.1:0") // the system accepts, and nobody answers
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	host, port := l.primary()
	l.change(fmt.Sprintf("host: %s, port: %d", host, port), fmt.Sprintf("host: 127.0.0.1, port: %d", silent.Addr().(*net.TCPAddr).Port))
	l.change("connect_timeout: 30s", "connect_timeout: 10m")
	l.change("drain_timeout: 20s", "drain_timeout: 10m")
	l.launch()
	told := make(chan error, 1)
	go func() {
		_, err := pgx.Connect(context.Background(), l.dsn("app", "one", l.database))
		told <- err
	}()
	console := l.connect("tidemark")
	for until := time.Now().Add(lifePatience); l.value(console, "SELECT clients FROM databases") == "0" && time.Now().Before(until); {
		time.Sleep(10 * time.Millisecond)
	}
	l.signal(syscall.SIGTERM)
	if err := <-told; codeOf(err) != "57P03" {
		t.Errorf("a client that waits is told: %v", err)
	}
	if err := l.ended(); err != nil {
		t.Errorf("the process: %v", err)
	}
}

// A new process that cannot read the schema takes over nothing: clients and /ready are the old one's.
func TestHandoverToOneThatCannotStart(t *testing.T) {
	l := newStart(t)
	l.start()
	console := l.connect("tidemark")
	old := l.value(console, "SELECT pid FROM version")
	l.change("database: {", "database: {server_name: nosuch, ")
	l.signal(syscall.SIGUSR2)
	l.logged("cannot read the schema")
	for range 20 {
		conn := l.connect("tidemark")
		if got := l.value(conn, "SELECT pid FROM version"); got != old {
			t.Fatalf("a client reaches process %s; %s serves", got, old)
		}
		_ = conn.Close(t.Context())
		conn = l.connect(l.database)
		_ = conn.Close(t.Context())
		if code, why := l.readiness(); code != http.StatusOK {
			t.Fatalf("/ready: %d %q", code, why)
		}
	}
	l.signal(syscall.SIGTERM)
	if err := l.ended(); err != nil {
		t.Errorf("the old process: %v", err)
	}
	l.logged("no new process has taken over; this one ends")
}

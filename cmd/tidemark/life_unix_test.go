//go:build unix

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tidemarkdb/tidemark/testcontainers"
)

// beProgram has this test binary be the program, so that tests can start, signal and kill it as a process.
const beProgram = "TIDEMARK_TEST_BE_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(beProgram) != "" {
		os.Exit(run(os.Args[1:]))
	}
	testcontainers.Main(m)
}

// life is one proxy process, or those that came after it, on one set of addresses.
type life struct {
	t            *testing.T
	config       string
	listen, http string
	database     string
	cmd          *exec.Cmd
	leash        io.Closer
	hear         func() string // what the service manager is told
}

const lifePatience = 30 * time.Second

// newLife writes a configuration; start starts the process.
func newLife(t *testing.T) *life {
	t.Helper()
	c := testcontainers.Shared(t, testcontainers.Spec{Shards: 1})
	l := &life{t: t, listen: testcontainers.FreeAddress(t), http: testcontainers.FreeAddress(t), database: c.Database(t), config: filepath.Join(t.TempDir(), "life.yaml")}
	p := c.Shards[0].Primary
	l.write(fmt.Sprintf(`listen: %s
http: %s
drain_timeout: 20s
pool: {connect_timeout: 30s}
database: {name: %s, user: %s, password: %s, tls: disable}
users:
  - {name: app, password: one}
shards:
  - {name: s1, primary: {host: %s, port: %d}}
admin: {users: [app]}
`, l.listen, l.http, l.database, testcontainers.AppUser, testcontainers.AppPassword, p.Host, p.Port))
	return l
}

func (l *life) write(config string) {
	l.t.Helper()
	if err := os.WriteFile(l.config, []byte(config), 0o600); err != nil {
		l.t.Fatal(err)
	}
}

// change edits the configuration.
func (l *life) change(from, to string) {
	l.t.Helper()
	b := l.text()
	if !strings.Contains(b, from) {
		l.t.Fatalf("no %q in the configuration", from)
	}
	l.write(strings.Replace(b, from, to, 1))
}

// text is the configuration.
func (l *life) text() string {
	l.t.Helper()
	b, err := os.ReadFile(l.config)
	if err != nil {
		l.t.Fatal(err)
	}
	return string(b)
}

// start starts the process and waits until it serves. files are descriptors from 3 on.
func (l *life) start(files ...*os.File) {
	l.t.Helper()
	l.launch(files...)
	l.heard("READY=1")
}

// launch starts it and waits until its addresses are open.
func (l *life) launch(files ...*os.File) {
	l.t.Helper()
	_, l.hear = fakeManager(l.t)
	program, err := os.Executable()
	if err != nil {
		l.t.Fatal(err)
	}
	l.cmd = exec.Command(program, "proxy", "--config", l.config, "--leash")
	if len(files) > 0 { // LISTEN_PID is the process's own, which only a shell knows beforehand
		l.cmd = exec.Command("sh", "-c", `LISTEN_PID=$$ exec "$0" "$@"`, program, "proxy", "--config", l.config, "--leash")
		l.cmd.ExtraFiles = files
	}
	l.cmd.Env = append(os.Environ(), beProgram+"=1", fmt.Sprintf("LISTEN_FDS=%d", len(files)))
	log, err := os.OpenFile(l.config+".log", os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		l.t.Fatal(err)
	}
	defer func() { _ = log.Close() }() // the process has its own
	l.cmd.Stdout, l.cmd.Stderr = log, log
	// Not StdinPipe, which ends with the first process, and the ones after it would too.
	stdin, leash, err := os.Pipe()
	if err != nil {
		l.t.Fatal(err)
	}
	l.cmd.Stdin, l.leash = stdin, leash
	if err := errors.Join(l.cmd.Start(), stdin.Close()); err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() {
		_ = l.leash.Close() // all that came after it end too
		_ = l.cmd.Process.Kill()
		_ = l.cmd.Wait()
		if b, err := os.ReadFile(l.config + ".log"); err == nil && l.t.Failed() {
			l.t.Logf("the log:\n%s", b)
		}
	})
	l.logged("msg=started")
}

// logged waits until the log says so.
func (l *life) logged(words string) {
	l.t.Helper()
	for until := time.Now().Add(lifePatience); time.Now().Before(until); time.Sleep(50 * time.Millisecond) {
		b, err := os.ReadFile(l.config + ".log")
		if err != nil {
			l.t.Fatal(err)
		}
		if strings.Contains(string(b), words) {
			return
		}
	}
	l.t.Fatalf("the log does not say %q", words)
}

// heard waits until the service manager is told so, and returns all that it was told at once.
func (l *life) heard(line string) string {
	l.t.Helper()
	for range 20 {
		if state := l.hear(); strings.HasPrefix(state, line) {
			return state
		}
	}
	l.t.Fatalf("the service manager does not hear %s", line)
	return ""
}

func (l *life) signal(s os.Signal) {
	l.t.Helper()
	if err := l.cmd.Process.Signal(s); err != nil {
		l.t.Fatal(err)
	}
}

// ended waits for the end of the first process.
func (l *life) ended() error {
	done := make(chan error, 1)
	go func() { done <- l.cmd.Wait() }()
	select {
	case err := <-done:
		return err
	case <-time.After(lifePatience):
		return errors.New("it does not end")
	}
}

func (l *life) dsn(user, password, database string) string {
	return fmt.Sprintf("postgres://%s:%s@%s/%s?sslmode=disable&connect_timeout=20", user, password, l.listen, database)
}

func (l *life) connect(database string) *pgx.Conn {
	l.t.Helper()
	conn, err := l.tryConnect(database)
	if err != nil {
		l.t.Fatal(err)
	}
	return conn
}

func (l *life) tryConnect(database string) (*pgx.Conn, error) {
	conn, err := pgx.Connect(l.t.Context(), l.dsn("app", "one", database))
	if err == nil {
		l.t.Cleanup(func() { _ = conn.Close(context.Background()) })
	}
	return conn, err
}

func (l *life) exec(conn *pgx.Conn, sql string) {
	l.t.Helper()
	if _, err := conn.Exec(l.t.Context(), sql); err != nil {
		l.t.Fatalf("%s: %v", sql, err)
	}
}

func (l *life) value(conn *pgx.Conn, sql string) (value string) {
	l.t.Helper()
	if err := conn.QueryRow(l.t.Context(), sql, pgx.QueryExecModeSimpleProtocol).Scan(&value); err != nil {
		l.t.Fatalf("%s: %v", sql, err)
	}
	return value
}

func codeOf(err error) string {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

func (l *life) ready() int {
	code, _ := l.readiness()
	return code
}

// readiness asks over a connection of its own, which may reach any process that accepts there. why is empty when it is ready.
func (l *life) readiness() (code int, why string) {
	req, err := http.NewRequestWithContext(l.t.Context(), http.MethodGet, "http://"+l.http+"/ready", nil)
	if err != nil {
		l.t.Fatal(err)
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = resp.Body.Close() }()
	var answer struct{ Reason string }
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return resp.StatusCode, err.Error()
	}
	return resp.StatusCode, answer.Reason
}

func TestReload(t *testing.T) {
	l := newLife(t)
	l.start()
	console := l.connect("tidemark")
	l.change("  - {name: app, password: one}", "  - {name: app, password: one}\n  - {name: late, password: two}")
	l.change("drain_timeout: 20s", "drain_timeout: 3s\nlog: {level: debug}\nconsistency: {default: eventual}")
	l.signal(syscall.SIGHUP)
	if state := l.heard("RELOADING=1"); !strings.Contains(state, "\nMONOTONIC_USEC=") {
		t.Errorf("told %q", state)
	}
	l.heard("READY=1")
	conn, err := pgx.Connect(t.Context(), l.dsn("late", "two", l.database))
	if err != nil {
		t.Fatalf("a user of the new configuration: %v", err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	if got := l.value(conn, "SHOW tidemark.consistency"); got != "eventual" {
		t.Errorf("tidemark.consistency of a new session is %s", got)
	}
	if got := l.value(console, "SELECT value FROM config WHERE key = 'drain_timeout'"); got != "3s" {
		t.Errorf("drain_timeout is %s", got)
	}
	for _, test := range []struct{ from, to, says string }{
		{"listen: ", "listen: 127.0.0.1:1 #", "needs a restart, because of listen"},
		{"drain_timeout: 3s", "drain_timeout: soon", "drain_timeout"},
	} {
		before, err := os.ReadFile(l.config)
		if err != nil {
			t.Fatal(err)
		}
		l.change(test.from, test.to)
		l.change("password: two", "password: three") // not applied either
		_, err = console.Exec(t.Context(), "RELOAD")
		if codeOf(err) != "22023" || !strings.Contains(err.Error(), test.says) {
			t.Errorf("RELOAD: %v; want an error that says %q", err, test.says)
		}
		again, err := pgx.Connect(t.Context(), l.dsn("late", "two", l.database))
		if err != nil {
			t.Fatalf("after a reload that was refused: %v", err)
		}
		_ = again.Close(t.Context())
		l.write(string(before))
	}
	l.change("name: late, password: two", "name: late, password: two, max_clients: 1")
	l.exec(console, "RELOAD")
	if again, err := pgx.Connect(t.Context(), l.dsn("late", "two", l.database)); codeOf(err) != "53300" { // conn came before there was a limit
		t.Errorf("a second client of one: %v", err)
		if err == nil {
			_ = again.Close(t.Context())
		}
	}
}

// SIGTERM sends idle clients away and lets transactions end, a COPY among them; /ready tells at once. A second SIGTERM cuts
// off what is left.
func TestDrain(t *testing.T) {
	l := newLife(t)
	l.start()
	idle, busy, copying, stuck := l.connect(l.database), l.connect(l.database), l.connect(l.database), l.connect(l.database)
	l.exec(idle, "CREATE TABLE drained (id bigint)")
	l.exec(busy, "BEGIN")
	if _, err := busy.Prepare(t.Context(), "one", "INSERT INTO drained VALUES ($1)"); err != nil {
		t.Fatal(err)
	}
	l.exec(stuck, "BEGIN")
	l.exec(stuck, "INSERT INTO drained VALUES (99)")
	rows, feed := io.Pipe()
	copied := make(chan error, 1)
	go func() {
		_, err := copying.PgConn().CopyFrom(context.Background(), rows, "COPY drained FROM STDIN")
		copied <- err
	}()
	if _, err := io.WriteString(feed, strings.Repeat("1\n", 50_000)); err != nil {
		t.Fatal(err)
	}
	for until := time.Now().Add(lifePatience); l.value(idle, "SELECT count(*) FROM pg_stat_progress_copy") != "1"; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatal("the COPY does not begin")
		}
	}

	l.signal(syscall.SIGTERM)
	l.heard("STOPPING=1")
	if code := l.ready(); code != http.StatusServiceUnavailable {
		t.Errorf("/ready: %d", code)
	}
	// It asks nothing: a statement that crosses the farewell would still be answered.
	patient, cancel := context.WithTimeout(t.Context(), lifePatience)
	defer cancel()
	if _, err := idle.WaitForNotification(patient); codeOf(err) != "57P01" {
		t.Errorf("an idle client was not sent away: %v", err)
	}
	if conn, err := pgx.Connect(t.Context(), l.dsn("app", "one", l.database)); codeOf(err) != "57P03" {
		if err == nil {
			_ = conn.Close(t.Context())
		}
		t.Errorf("a new client: %v", err)
	}
	if got := l.value(l.connect("tidemark"), "SELECT draining FROM databases"); got != "t" {
		t.Errorf("the admin database says of draining %s", got)
	}
	l.cancelled(stuck)
	if _, err := busy.Exec(t.Context(), "one", 2); err != nil {
		t.Errorf("a prepared statement in a transaction: %v", err)
	}
	if _, err := busy.Exec(t.Context(), "COMMIT"); err != nil {
		t.Errorf("COMMIT: %v", err)
	}
	if _, err := busy.WaitForNotification(patient); codeOf(err) != "57P01" {
		t.Errorf("a client was not sent away after its transaction: %v", err)
	}
	if _, err := io.WriteString(feed, "3\n"); err != nil {
		t.Fatal(err)
	}
	_ = feed.Close()
	if err := <-copied; err != nil {
		t.Errorf("COPY: %v", err)
	}

	l.signal(syscall.SIGTERM)
	if err := l.ended(); err != nil {
		t.Errorf("the process: %v", err)
	}
	if _, err := stuck.Exec(t.Context(), "SELECT 1"); err == nil {
		t.Error("a client outlived the second signal")
	}
	l.start()
	if got := l.value(l.connect(l.database), "SELECT count(*) || ' ' || sum(id) FROM drained"); got != "50002 50005" {
		t.Errorf("count and sum: %s", got)
	}
}

// cancelled runs a statement until a cancel request ends it.
func (l *life) cancelled(conn *pgx.Conn) {
	l.t.Helper()
	ended := make(chan error, 1)
	go func() {
		_, err := conn.Exec(context.Background(), "SELECT pg_sleep(3600)")
		ended <- err
	}()
	for until := time.Now().Add(lifePatience); time.Now().Before(until); { // one that comes before the statement cancels nothing
		if err := conn.PgConn().CancelRequest(l.t.Context()); err != nil {
			l.t.Fatalf("cancel: %v", err)
		}
		select {
		case err := <-ended:
			if codeOf(err) != "57014" {
				l.t.Fatalf("a statement that was cancelled: %v", err)
			}
			return
		case <-time.After(100 * time.Millisecond):
		}
	}
	l.t.Fatal("the statement is not cancelled")
}

func TestShutdownByConsole(t *testing.T) {
	l := newLife(t)
	l.start()
	stuck := l.connect(l.database)
	l.exec(stuck, "BEGIN")
	l.exec(l.connect("tidemark"), "SHUTDOWN")
	if err := l.ended(); err != nil {
		t.Errorf("the process: %v", err)
	}
}

func TestSocketActivation(t *testing.T) {
	l := newLife(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f, err := ln.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	l.start(f)
	l.listen = ln.Addr().String() // not that of the configuration
	if err := errors.Join(f.Close(), ln.Close()); err != nil {
		t.Fatal(err)
	}
	l.exec(l.connect(l.database), "SELECT 1")
}

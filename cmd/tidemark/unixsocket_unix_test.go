//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidemarkdb/tidemark/internal/localstack"
)

// newLocal is a proxy with a Unix socket, and rules by which the user of this process needs no password there.
func newLocal(t *testing.T) (l *life, dir, socket string) {
	t.Helper()
	l = newLife(t)
	dir, err := os.MkdirTemp("", "local") // t.TempDir may be longer than the path of a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	_, port, err := net.SplitHostPort(l.listen)
	if err != nil {
		t.Fatal(err)
	}
	l.change("http: ", "unix_socket: {dir: "+dir+"}\nhttp: ")
	l.change("admin: {users: [app]}", fmt.Sprintf(`admin: {users: [app, %[1]s]}
auth: {rules: [{type: local, users: [%[1]s, other], method: peer}, {type: any, method: scram-sha-256}]}`, me(t)))
	l.change("  - {name: app, password: one}", "  - {name: app, password: one}\n  - {name: "+me(t)+"}\n  - {name: other}")
	return l, dir, filepath.Join(dir, ".s.PGSQL."+port)
}

func me(t *testing.T) string {
	t.Helper()
	u, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	return u.Username
}

// local is how clients come over the socket.
func (l *life) local(dir, user, database string) string {
	_, port, _ := net.SplitHostPort(l.listen)
	return fmt.Sprintf("host=%s port=%s user=%s password=one dbname=%s connect_timeout=20", dir, port, user, database)
}

func (l *life) connectTo(dsn string) *pgx.Conn {
	l.t.Helper()
	conn, err := pgx.Connect(l.t.Context(), dsn)
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// psql connects over the socket, and prints what a query returns.
func (l *life) psql(dsn, sql string) string {
	l.t.Helper()
	path, err := localstack.Tool(l.t.Context(), "psql", "postgresql-client", func(s string) { l.t.Log(s) })
	if err != nil {
		l.t.Fatal(err)
	}
	out, _ := exec.CommandContext(l.t.Context(), path, "-XAtq", dsn, "-c", sql).CombinedOutput() // what it says is looked at
	return strings.TrimSpace(string(out))
}

// gone waits until a file is gone.
func gone(path string) error {
	for until := time.Now().Add(lifePatience); time.Now().Before(until); time.Sleep(20 * time.Millisecond) {
		if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
			return nil
		}
	}
	return fmt.Errorf("%s is still there", path)
}

// Clients of the same machine come over a Unix socket as over TCP: to the served database and to the admin database, by password or as
// whom the system knows, and to cancel.
func TestUnixSocket(t *testing.T) {
	for _, engine := range []string{"auto", "goroutines"} {
		t.Run(engine, func(t *testing.T) {
			l, dir, socket := newLocal(t)
			l.change("http: ", "engine: "+engine+"\nhttp: ")
			l.change("dir: "+dir, "dir: "+dir+", mode: 0640, group: "+strconv.Itoa(os.Getgid()))
			l.start()
			info, err := os.Lstat(socket)
			if err != nil || info.Mode() != fs.ModeSocket|0o640 {
				t.Errorf("the socket: %v, %v", info.Mode(), err)
			}
			for _, test := range []struct{ user, database, sql, want string }{
				{"app", l.database, "SELECT current_database()", l.database},
				{"app sslmode=require gssencmode=disable", l.database, "SELECT 1", "1"}, // libpq knows of no TLS here
				{"app", "tidemark", "SELECT count(*) FROM version", "1"},
				{me(t), l.database, "SELECT 1", "1"},
				{me(t), "tidemark", "SELECT username, address FROM consoles", me(t) + "|[local]"},
				{me(t), l.database, "SELECT pg_sleep(0)", ""},
				{"other", l.database, "SELECT 1", `peer authentication failed for user "other"`},
				{"stranger", l.database, "SELECT 1", `password authentication failed for user "stranger"`},
			} {
				if got := l.psql(l.local(dir, test.user, test.database), test.sql); got != test.want && !strings.Contains(got, "FATAL:  "+test.want) {
					t.Errorf("%s: %s: psql says %q, want %q", test.user, test.sql, got, test.want)
				}
			}
			l.logged(fmt.Sprintf("the system's user is \\\"%s\\\"", me(t)))
			l.logged("client=[local]")
			conn := l.connectTo(l.local(dir, "app", l.database))
			if got := l.value(l.connect("tidemark"), "SELECT address FROM clients"); got != "[local]" {
				t.Errorf("a client's address is %s", got)
			}
			l.cancelled(conn)
			l.exec(conn, "CREATE TABLE lines (a text)")
			if _, err := conn.PgConn().CopyFrom(t.Context(), strings.NewReader(strings.Repeat(strings.Repeat("x", 999)+"\n", 20_000)), "COPY lines FROM STDIN"); err != nil {
				t.Error(err)
			}
			if got := l.value(conn, "SELECT length(string_agg(a, '')) FROM lines"); got != "19980000" {
				t.Errorf("%s bytes came", got)
			}
			l.signal(syscall.SIGTERM)
			if err := errors.Join(l.ended(), gone(socket), gone(lockOf(socket))); err != nil {
				t.Error(err)
			}
		})
	}
}

// The socket of a process that was killed is replaced, one that is served is not, by whom ever, nor is anything else.
func TestUnixSocketInUse(t *testing.T) {
	l, dir, socket := newLocal(t)
	l.start()
	refused := func(want string) {
		t.Helper()
		other := unixSocket{path: socket, mode: 0o777}
		if ln, lock, err := other.listen(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("another process: %v, want an error that says %q", err, want)
			if err == nil {
				_ = errors.Join(ln.Close(), lock.Close())
			}
		}
	}
	refused(fmt.Sprintf("process %d serves there", l.cmd.Process.Pid))
	if err := l.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = l.ended() // by a signal
	if _, err := os.Lstat(socket); err != nil {
		t.Fatalf("nothing is left to be replaced: %v", err)
	}
	l.start()
	if got := l.psql(l.local(dir, "app", l.database), "SELECT 1"); got != "1" {
		t.Errorf("after kill -9: %s", got)
	}
	l.signal(syscall.SIGTERM)
	if err := errors.Join(l.ended(), gone(socket)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(socket, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	refused("no socket")
	if err := os.Remove(socket); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("unix", socket) // as a program does that knows no such lock
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	refused("another program serves there")
	if err := os.Symlink(l.config, lockOf(socket)); err != nil {
		t.Fatal(err)
	}
	refused("too many levels of symbolic links")
	ours := unixSocket{path: socket + "0", mode: 0o777, group: "no such group"}
	if _, _, err := ours.listen(t.Context()); err == nil || !strings.Contains(err.Error(), "unknown group") {
		t.Errorf("a group that there is not: %v", err)
	}
	if err := errors.Join(gone(ours.path), gone(lockOf(ours.path))); err != nil {
		t.Error(err)
	}
}

// The next process has the same socket, and the lock. At no moment is a client refused, nor is the socket gone when the old process is; one
// that does not come up takes nothing away.
func TestUnixSocketHandover(t *testing.T) {
	l, dir, socket := newLocal(t)
	l.start()
	patient := l.connectTo(l.local(dir, "app", l.database)) // whom the first process waits for
	l.exec(patient, "BEGIN")
	ctx, stop := context.WithCancel(t.Context())
	var over sync.WaitGroup
	over.Go(func() {
		for ctx.Err() == nil {
			conn, err := pgx.Connect(ctx, l.local(dir, "app", l.database))
			if err != nil {
				if ctx.Err() == nil {
					t.Errorf("a new client: %v", err)
				}
				return
			}
			if _, err := conn.Exec(ctx, "SELECT 1"); err != nil && ctx.Err() == nil {
				t.Errorf("its first statement: %v", err)
			}
			_ = conn.Close(context.Background())
		}
	})
	whole := l.text()
	l.change("listen:", "lisen:")
	l.signal(syscall.SIGUSR2)
	l.logged("no new process has taken over")
	l.write(whole)
	l.signal(syscall.SIGUSR2)
	pid := strings.TrimPrefix(l.heard("MAINPID="), "MAINPID=")
	l.logged("why=\"another process has taken over\"")
	if got := l.psql(l.local(dir, "app", "tidemark"), "SELECT pid FROM version"); got != pid {
		t.Errorf("clients reach %s, not %s", got, pid)
	}
	if holder, err := os.ReadFile(lockOf(socket)); err != nil || strings.TrimSpace(string(holder)) != pid {
		t.Errorf("the lock is held by %s, %v", holder, err)
	}
	if _, _, err := (unixSocket{path: socket}).listen(ctx); err == nil || !strings.Contains(err.Error(), "process "+pid+" serves there") {
		t.Errorf("another process beside the new one: %v", err)
	}
	stop()
	over.Wait()
	number, err := strconv.Atoi(pid)
	if err := errors.Join(err, syscall.Kill(number, syscall.SIGKILL)); err != nil {
		t.Fatal(err)
	}
	first, leash := l.cmd, l.leash
	l.start() // while the first one still drains
	if got := l.psql(l.local(dir, "app", l.database), "SELECT 1"); got != "1" {
		t.Errorf("behind a new process that was killed: %s", got)
	}
	l.exec(patient, "COMMIT")
	if err := first.Wait(); err != nil {
		t.Errorf("the old process: %v", err)
	}
	_ = errors.Join(leash.Close(), l.leash.Close())
	if err := errors.Join(gone(socket), gone(lockOf(socket))); err != nil {
		t.Error(err)
	}
}

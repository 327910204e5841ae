//go:build unix

package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Clients that are in transactions, or begin them, lose nothing while processes replace each other, and at no time is a
// client refused.
func TestHandover(t *testing.T) {
	l := newLife(t)
	l.start()
	setup := l.connect(l.database)
	l.exec(setup, "CREATE TABLE kept (id bigint PRIMARY KEY)")
	patient := l.connect(l.database)
	l.exec(patient, "BEGIN")
	l.exec(patient, "INSERT INTO kept VALUES (-1)")

	const workers = 6
	ctx, stop := context.WithTimeout(t.Context(), 2*lifePatience)
	defer stop()
	var over sync.WaitGroup
	done := make(chan struct{})
	committed := make([]int, workers)
	for w := range workers {
		over.Go(func() {
			var conn *pgx.Conn
			var since time.Time
			each := w%2 == 0 // transaction has a connection of its own
			for n := 0; ctx.Err() == nil; {
				select {
				case <-done:
					if conn != nil {
						_ = conn.Close(context.Background())
					}
					return
				default:
				}
				if conn == nil {
					var err error
					since = time.Now()
					if conn, err = pgx.Connect(ctx, l.dsn("app", "one", l.database)); err != nil {
						t.Errorf("a new client: %v", err)
						return
					}
				}
				if _, err := conn.Exec(ctx, "BEGIN"); err != nil {
					// Sent away between two transactions: that is how an idle client learns of it.
					if c := codeOf(err); c != "57P01" || each && time.Since(since) < time.Second {
						t.Errorf("BEGIN: %v", err)
						return
					}
					_ = conn.Close(context.Background())
					conn = nil
					continue
				}
				for _, sql := range []string{
					fmt.Sprintf("INSERT INTO kept VALUES (%d)", w*1_000_000+n), "SELECT pg_sleep(0.003)", "COMMIT",
				} {
					if _, err := conn.Exec(ctx, sql); err != nil {
						t.Errorf("within a transaction: %s: %v", sql, err)
						return
					}
				}
				n++
				committed[w] = n
				if each {
					_ = conn.Close(ctx)
					conn = nil
				}
			}
		})
	}
	first := l.value(l.connect("tidemark"), "SELECT pid FROM version")
	l.signal(syscall.SIGUSR2)
	second := strings.TrimPrefix(l.heard("MAINPID="), "MAINPID=")
	got := first
	for until := time.Now().Add(lifePatience); got == first && time.Now().Before(until); { // both accept for a moment
		got = l.value(l.connect("tidemark"), "SELECT pid FROM version")
	}
	if got != second {
		t.Errorf("new clients reach process %s; %s has handed over to %s", got, first, second)
	}
	l.signal(syscall.SIGTERM) // as systemd, when it stops the unit that both are of: the drain goes on
	l.logged("the drain goes on")
	l.exec(patient, "INSERT INTO kept VALUES (-2)")
	l.exec(patient, "COMMIT")
	if err := l.ended(); err != nil {
		t.Errorf("the old process: %v", err)
	}
	time.Sleep(100 * time.Millisecond)
	close(done)
	over.Wait()
	want := 2
	for _, n := range committed {
		want += n
	}
	if got := l.value(l.connect(l.database), "SELECT count(*)::text FROM kept"); got != strconv.Itoa(want) {
		t.Errorf("%s rows, clients have committed %d", got, want)
	}
	if code := l.ready(); code != http.StatusOK {
		t.Errorf("/ready of the new process: %d", code)
	}
}

// A program that cannot start leaves the old process as it was.
func TestHandoverThatFails(t *testing.T) {
	l := newLife(t)
	l.start()
	l.change("listen:", "lisen:")
	l.signal(syscall.SIGUSR2)
	l.logged("no new process has taken over; this one goes on")
	l.exec(l.connect(l.database), "SELECT 1")
}

// A cancel request finds its client in whichever process that is, however often processes have replaced each other.
func TestCancelAfterHandovers(t *testing.T) {
	l := newLife(t)
	l.change("drain_timeout: 20s", "drain_timeout: 5m")
	l.start()
	first, later := l.connect(l.database), l.connect(l.database)
	for _, conn := range []*pgx.Conn{first, later} {
		l.exec(conn, "BEGIN")
		l.exec(conn, "SELECT 1")
	}
	l.signal(syscall.SIGUSR2)
	pid, err := strconv.Atoi(strings.TrimPrefix(l.heard("MAINPID="), "MAINPID="))
	if err != nil {
		t.Fatal(err)
	}
	var second *pgx.Conn
	for until := time.Now().Add(lifePatience); ; { // both accept for a moment
		second = l.connect(l.database)
		l.exec(second, "BEGIN")
		if got := l.value(l.connect("tidemark"), "SELECT pid FROM version"); got == strconv.Itoa(pid) {
			break
		}
		if time.Now().After(until) {
			t.Fatal("new clients reach the old process")
		}
		l.exec(second, "ROLLBACK") // it may hold up the old process
	}
	l.cancelled(first)
	if err := syscall.Kill(pid, syscall.SIGUSR2); err != nil {
		t.Fatal(err)
	}
	l.heard("MAINPID=")
	l.cancelled(second)
	l.cancelled(later)
	for _, conn := range []*pgx.Conn{first, second, later} { // the second one may be of the first process, too
		l.exec(conn, "ROLLBACK")
	}
	if err := l.ended(); err != nil {
		t.Errorf("the first process: %v", err)
	}
}

// A process that has not taken over yet does not hand over: the one before would not learn of it.
func TestNoHandoverWhileTakingOver(t *testing.T) {
	p := &proxyProcess{sockets: &sockets{ready: os.Stdin}, serving: make(chan struct{})}
	if err := p.handOver(t.Context()); err == nil || !strings.Contains(err.Error(), "still taking over") {
		t.Errorf("got %v", err)
	}
}

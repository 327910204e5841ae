package proxy_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tidemarkdb/tidemark/internal/backend"
)

// Drivers that prepare nothing send the same batch again and again. One that has to wait for a connection gets its answer, or hears why
// not and goes on.
func TestSameBatchWaits(t *testing.T) {
	timeout := time.Minute
	f := newFixture(t, fixtureSpec{shards: 1, pool: 1, backend: func(c *backend.Config) { c.AcquireTimeout = timeout }})
	exec(t, connect(t, f.direct(0)), "create table ones as select 1 as a") // what reads no table may go another way
	ask := func(c *pgx.Conn, n int) (string, error) {
		r := c.PgConn().ExecParams(context.Background(), "select $1::int4 + a from ones", [][]byte{fmt.Append(nil, n)}, []uint32{23}, nil, nil).Read()
		if r.Err != nil {
			return "", r.Err
		}
		return string(r.Rows[0][0]), nil
	}
	answers := func(t *testing.T, c *pgx.Conn, n int) {
		if got, err := ask(c, n); err != nil || got != fmt.Sprint(n+1) {
			t.Errorf("%d + 1 = %q, %v", n, got, err)
		}
	}
	engines(t, func(t *testing.T, engineName string) {
		timeout = time.Minute
		p := f.run(t, engineName)
		holder := connect(t, p.dsn)
		var clients []*pgx.Conn
		for i := range 5 {
			c := connect(t, p.dsn)
			clients = append(clients, c)
			for range 3 {
				answers(t, c, i)
			}
		}
		for range 3 {
			exec(t, holder, "begin")
			exec(t, holder, "select 1")
			var served sync.WaitGroup
			for i, c := range clients {
				served.Go(func() { answers(t, c, 10*i) })
			}
			eventually(t, "they wait", func() error {
				if w := p.backend.Stats()[0].Waiting; w != len(clients) {
					return fmt.Errorf("%d wait", w)
				}
				return nil
			})
			exec(t, holder, "commit")
			served.Wait()
		}

		timeout = 300 * time.Millisecond
		p = f.run(t, engineName)
		holder, late := connect(t, p.dsn), connect(t, p.dsn)
		answers(t, late, 1)
		answers(t, late, 2)
		exec(t, holder, "begin")
		exec(t, holder, "select 1")
		for range 2 {
			var e *pgconn.PgError
			if _, err := ask(late, 3); !errors.As(err, &e) || e.Code != "53300" {
				t.Fatalf("a full pool: %v", err)
			}
		}
		exec(t, holder, "commit")
		eventually(t, "it is served in the end", func() error {
			_, err := ask(late, 4)
			return err
		})
		answers(t, late, 5)
	})
}

// A transaction whose first statement has to wait for a connection begins on it, also where the proxy is told to drain meanwhile: what it
// writes is its own until it commits.
func TestTransactionWaits(t *testing.T) {
	timeout := time.Minute
	f := newFixture(t, fixtureSpec{shards: 1, pool: 1, backend: func(c *backend.Config) { c.AcquireTimeout = timeout }})
	direct := connect(t, f.direct(0))
	exec(t, direct, "create table waited (a int)")
	holds := func(t *testing.T, when, want string) {
		t.Helper()
		if got := text(t, direct, "select count(*) from waited"); got != want {
			t.Errorf("%s: %s rows, want %s", when, got, want)
		}
	}
	engines(t, func(t *testing.T, engineName string) {
		timeout = time.Minute
		exec(t, direct, "truncate waited")
		p := f.run(t, engineName)
		holder := connect(t, p.dsn)
		var clients []*pgx.Conn
		for range 5 {
			c := connect(t, p.dsn)
			clients = append(clients, c)
			for range 2 {
				exec(t, c, "begin")
				exec(t, c, "insert into waited values (1)")
				exec(t, c, "rollback")
			}
		}
		for _, round := range []struct {
			end    string
			drains bool
			rows   string
		}{{"rollback", false, "0"}, {"commit", false, "5"}, {"rollback", true, "5"}} {
			exec(t, holder, "begin")
			exec(t, holder, "select 1")
			var served sync.WaitGroup
			for _, c := range clients {
				exec(t, c, "begin")
				served.Go(func() {
					exec(t, c, "insert into waited values (1)")
					exec(t, c, round.end)
				})
			}
			eventually(t, "they wait", func() error {
				if w := p.backend.Stats()[0].Waiting; w != len(clients) {
					return fmt.Errorf("%d wait", w)
				}
				return nil
			})
			if round.drains {
				p.drain()
			}
			exec(t, holder, "commit")
			served.Wait()
			holds(t, round.end, round.rows)
		}

		timeout = 300 * time.Millisecond
		p = f.run(t, engineName)
		holder, late := connect(t, p.dsn), connect(t, p.dsn)
		exec(t, late, "insert into waited values (1)")
		exec(t, holder, "begin")
		exec(t, holder, "select 1")
		exec(t, late, "begin")
		for _, want := range []string{"53300", "25P02"} {
			if _, err := late.Exec(t.Context(), "insert into waited values (1)"); code(err) != want {
				t.Fatalf("a full pool: %v, want %s", err, want)
			}
		}
		exec(t, holder, "commit")
		exec(t, late, "commit")
		holds(t, "a transaction that had no server", "6")
		exec(t, late, "insert into waited values (1)")
		holds(t, "the next statement", "7")
	})
}

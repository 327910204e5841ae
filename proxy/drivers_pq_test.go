package proxy_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/lib/pq"
)

// What lib/pq and database/sql do beside queries: savepoints, cursors, cancelled contexts, a listener that connects again by
// itself, and a pool that replaces a connection which the server has ended.
func TestLibPQHabits(t *testing.T) {
	f := newFixture(t, fixtureSpec{shards: 1, pool: 3})
	direct := connect(t, f.direct(0))
	exec(t, direct, "create table notes (id int primary key, body text)")
	engines(t, func(t *testing.T, engineName string) {
		dsn := f.start(t, engineName)
		db, err := sql.Open("postgres", dsn)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = db.Close() }()
		db.SetMaxOpenConns(2)
		ctx := t.Context()
		one := func(q interface {
			QueryRowContext(context.Context, string, ...any) *sql.Row
		}, query string, args ...any,
		) (got string) {
			if err := q.QueryRowContext(ctx, query, args...).Scan(&got); err != nil {
				got = err.Error()
			}
			return got
		}
		run := func(q interface {
			ExecContext(context.Context, string, ...any) (sql.Result, error)
		}, query string, args ...any,
		) {
			t.Helper()
			if _, err := q.ExecContext(ctx, query, args...); err != nil {
				t.Errorf("%s: %v", query, err)
			}
		}
		state := func(err error) string {
			var e *pq.Error
			if errors.As(err, &e) {
				return string(e.Code)
			}
			return fmt.Sprint(err)
		}

		tx, err := db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelSerializable})
		if err != nil {
			t.Fatal(err)
		}
		run(tx, "delete from notes")
		run(tx, "insert into notes values ($1, $2)", 1, "a")
		run(tx, "savepoint a")
		if _, err := tx.ExecContext(ctx, "insert into notes values ($1, $2)", 1, "b"); state(err) != "23505" {
			t.Errorf("a duplicate: %v", err)
		}
		run(tx, "rollback to a")
		if got := one(tx, "show transaction_isolation"); got != "serializable" {
			t.Errorf("isolation: %s", got)
		}
		run(tx, "declare c cursor for select 'row ' || n from generate_series(1, 5) n")
		for i := 1; i <= 5; i++ {
			if got := one(tx, "fetch 1 from c"); got != fmt.Sprint("row ", i) {
				t.Errorf("a cursor: %s", got)
			}
		}
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}

		short, stop := context.WithTimeout(ctx, 300*time.Millisecond)
		if _, err := db.ExecContext(short, "select pg_sleep(60)"); state(err) != "57014" && !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a context that ends: %v", err)
		}
		stop()
		if got := one(db, "select body from notes where id = $1", 1); got != "a" {
			t.Errorf("behind it: %s", got)
		}

		if _, err := db.ExecContext(ctx, "select pg_terminate_backend(pg_backend_pid())"); state(err) != "57P01" {
			t.Errorf("a server process that ends itself: %v", err)
		}
		eventually(t, "the pool goes on", func() error {
			if got := one(db, "select $1::text", "again"); got != "again" {
				return errors.New(got)
			}
			return nil
		})

		l := pq.NewListener(dsn, 10*time.Millisecond, time.Second, nil)
		defer func() { _ = l.Close() }()
		if err := l.Listen("news"); err != nil {
			t.Fatal(err)
		}
		hears := func(want string) {
			t.Helper()
			for end := time.After(30 * time.Second); ; {
				select {
				case n := <-l.Notify:
					if n != nil && n.Extra == want {
						return
					}
				case <-time.After(100 * time.Millisecond): // it may have been connecting when it was said
					run(db, "select pg_notify('news', $1)", want)
				case <-end:
					t.Fatalf("the listener did not hear %q", want)
				}
			}
		}
		hears("first")
		exec(t, direct, "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and query like 'LISTEN%'")
		hears("behind a connection that was lost")
	})
}

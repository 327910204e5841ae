package proxy_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// With one shard clients may commit in two phases, on whatever connection, as on a server itself.
func TestTwoPhaseCommit(t *testing.T) {
	f := newFixture(t, fixtureSpec{shards: 1, pool: 2})
	steps := []string{
		"create table TABLE (a int)",
		"begin", "set my.x = 'kept'", "set local my.y = 'gone'", "insert into TABLE values (1)", "prepare transaction 'TABLE a'", "show my.x", "select current_setting('my.y', true) is distinct from 'gone'",
		"select count(*) from TABLE", "commit prepared 'TABLE a'", "select count(*) from TABLE",
		"begin", "insert into TABLE values (2)", "prepare transaction 'TABLE b'", "rollback prepared 'TABLE b'", "select count(*) from TABLE",
		"begin", "prepare transaction 'TABLE c'", "rollback prepared 'TABLE c'",
		"prepare transaction 'TABLE d'",
		"begin", "select 1/0", "prepare transaction 'TABLE e'", "commit prepared 'TABLE e'",
		"begin", "commit prepared 'TABLE f'", "rollback",
		"begin", "set my.x = 'not kept'", "select pg_notify('x', 'y')", "prepare transaction 'TABLE g'", "show my.x", "rollback",
		"begin; insert into TABLE values (3); prepare transaction 'TABLE h'", "commit prepared 'TABLE h'", "select count(*) from TABLE",
		"create temp table TABLE_temp (a int)", "begin", "insert into TABLE_temp values (1)", "prepare transaction 'TABLE i'", "select count(*) from TABLE_temp",
	}
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec} {
		play := func(dsn, table string) (seen []string) {
			c := connect(t, dsn)
			for _, s := range steps {
				if mode == pgx.QueryExecModeExec && strings.Contains(s, ";") {
					continue
				}
				s = strings.ReplaceAll(s, "TABLE", table)
				got := ""
				rows, err := c.Query(t.Context(), s, mode)
				if err == nil {
					for rows.Next() {
						got += fmt.Sprint(rows.Values())
					}
					rows.Close()
					err = rows.Err()
					got += " " + rows.CommandTag().String()
				}
				if e := (*pgconn.PgError)(nil); errors.As(err, &e) {
					got = e.Code
				} else if err != nil {
					t.Fatal(s, err)
				}
				seen = append(seen, fmt.Sprintf("%s: %s %c", s, got, c.PgConn().TxStatus()))
			}
			return seen
		}
		engines(t, func(t *testing.T, engineName string) {
			p := f.run(t, engineName)
			name := fmt.Sprintf("two_%s_%d", engineName, mode)
			want := play(f.direct(0), name)
			exec(t, connect(t, f.direct(0)), "drop table "+name)
			for i, got := range play(p.dsn, name) {
				if got != want[i] {
					t.Errorf("%s, want %s", got, want[i])
				}
			}
		})
	}
}

// A transaction that has failed with its server connection ends with PREPARE TRANSACTION as with ROLLBACK.
func TestPrepareTransactionThatFailedWithItsServer(t *testing.T) {
	f := newFixture(t, fixtureSpec{shards: 1, pool: 2})
	engines(t, func(t *testing.T, engineName string) {
		d, c := connect(t, f.direct(0)), connect(t, f.start(t, engineName))
		for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec, pgx.QueryExecModeDescribeExec} {
			exec(t, c, "begin", mode)
			terminate(t, d, text(t, c, "select pg_backend_pid()", mode))
			if _, err := c.Exec(t.Context(), "select 1", mode); err == nil {
				t.Fatal("the server connection is there")
			}
			tag, err := c.Exec(t.Context(), "prepare transaction 'lost'", mode)
			if status := c.PgConn().TxStatus(); err != nil || tag.String() != "ROLLBACK" || status != 'I' {
				t.Errorf("%v: %v %q, then %c", mode, err, tag, status)
			}
			_, _ = c.Exec(t.Context(), "rollback", mode)
			if got := text(t, c, "select 1", mode); got != "1" {
				t.Errorf("%v: behind it %s", mode, got)
			}
		}
	})
}

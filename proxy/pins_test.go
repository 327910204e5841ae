package proxy_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// A client keeps its server connection as long as state of its own lives there, whoever made it, and no longer.
func TestPinnedUntilFreed(t *testing.T) {
	f := newFixture(t, fixtureSpec{shards: 1, pool: 1})
	direct := connect(t, f.direct(0))
	exec(t, direct, `create function make_temp() returns void language plpgsql as 'begin create temp table made (a int); end'`)
	exec(t, direct, `create function make_lock() returns void language sql as 'select pg_advisory_lock(1)'`)
	exec(t, direct, `create function nothing_much() returns int language plpgsql volatile as 'begin return 1; end'`)
	engines(t, func(t *testing.T, engineName string) {
		dsn := f.start(t, engineName)
		a, b := connect(t, dsn), connect(t, dsn)
		for _, tc := range []struct {
			name, makes, sees, want string
			frees                   []string
		}{
			{"temporary table", "create temp table tt (a int)", "select count(*) from tt", "0", []string{"drop table tt"}},
			{"temporary table, DISCARD", "create temp table tt (a int)", "select count(*) from tt", "0", []string{"discard temp"}},
			{"temporary table of a transaction", "begin; create temp table tt (a int) on commit drop", "select count(*) from tt", "0", []string{"commit"}},
			{"temporary table of a function", "select make_temp()", "select count(*) from made", "0", []string{"drop table made"}},
			{"temporary table of DO", "do $$ begin create temp table made (a int); end $$", "select count(*) from made", "0", []string{"discard all"}},
			{"lock", "select pg_advisory_lock(7)", "select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()", "1", []string{"select pg_advisory_unlock(7)"}},
			{"locks of a function", "select make_lock()", "select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()", "1", []string{"select pg_advisory_unlock_all()"}},
			{"cursor", "declare cc scroll cursor with hold for select 5", "fetch first from cc", "5", []string{"close cc"}},
			{"LISTEN", "listen ll", "select * from pg_listening_channels()", "ll", []string{"unlisten *"}},
			{"nothing", "select nothing_much()", "select 1", "1", nil},
		} {
			exec(t, a, tc.makes, pgx.QueryExecModeSimpleProtocol)
			for range 2 {
				if got := outcome(t, a, tc.sees); got != tc.want {
					t.Errorf("%s: its client sees %s, want %s", tc.name, got, tc.want)
				}
			}
			for _, sql := range tc.frees {
				exec(t, a, sql, pgx.QueryExecModeSimpleProtocol)
			}
			ctx, stop := context.WithTimeout(t.Context(), 20*time.Second)
			var one int
			if err := b.QueryRow(ctx, "select 1").Scan(&one); err != nil {
				t.Fatalf("%s: another client behind it: %v", tc.name, err)
			}
			stop()
		}
	})
}

// Temporary is whatever is created in pg_temp, and it is its client's alone.
func TestPinnedByPgTemp(t *testing.T) {
	f := newFixture(t, fixtureSpec{shards: 1, pool: 2})
	engines(t, func(t *testing.T, engineName string) {
		dsn := f.start(t, engineName)
		a, b := connect(t, dsn), connect(t, dsn)
		for _, tc := range []struct{ name, makes, sees, want, frees string }{
			{"type", "create type pg_temp.ty as enum ('q')", "select 'q'::pg_temp.ty", "q", "drop type pg_temp.ty"},
			{"function", "create function pg_temp.fu() returns int language sql as 'select 3'", "select pg_temp.fu()", "3", "drop function pg_temp.fu()"},
			{"search_path", "create table tt (a int)", "select count(*) from pg_temp.tt", "0", "drop table tt"},
			{"search_path, CREATE TABLE AS", "create table tt as select 1", "select count(*) from pg_temp.tt", "1", "drop table tt"},
		} {
			if strings.HasPrefix(tc.name, "search_path") {
				exec(t, a, "set search_path = pg_temp, public")
			}
			exec(t, a, tc.makes)
			exec(t, b, "begin") // on the connection that was used last, unless its client has kept it
			exec(t, b, "select 1")
			if got := outcome(t, a, tc.sees); got != tc.want {
				t.Errorf("%s: its client sees %s, want %s", tc.name, got, tc.want)
			}
			exec(t, b, "rollback")
			exec(t, a, tc.frees)
			exec(t, a, "reset search_path")
		}
	})
}

// A statement on every shard that fails leaves no transaction open on a connection that stays with its session: what follows
// would be lost with it.
func TestPinnedAfterAFailedBroadcast(t *testing.T) {
	f := newFixture(t, fixtureSpec{shards: 2})
	direct := connect(t, f.direct(0))
	exec(t, direct, `create table only_here (a int)`)
	engines(t, func(t *testing.T, engineName string) {
		a := connect(t, f.start(t, engineName))
		exec(t, a, `create temp table tt (a int)`)
		if got := outcome(t, a, `drop table only_here`); got != "42P01" { // there on the first shard, and not on the second
			t.Errorf("DROP TABLE: %s, want 42P01", got)
		}
		if got := outcome(t, a, `select pg_current_xact_id_if_assigned() is null, count(*) from tt`); got != "t|0" {
			t.Errorf("the session's connection after it: %s, want no transaction and an empty table", got)
		}
		if got := outcome(t, direct, `select count(*) from only_here`); got != "0" {
			t.Errorf("the table after the refused DROP: %s", got)
		}
		exec(t, a, `drop table pg_temp.tt`)
	})
}

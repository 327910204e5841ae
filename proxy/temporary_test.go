package proxy_test

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/jackc/pgx/v5"
)

// DDL that names no schema is about the session's temporary tables, if it has some of these names, and about those of all shards
// otherwise.
func TestTemporaryTablesOnSeveralShards(t *testing.T) {
	engines(t, func(t *testing.T, engineName string) {
		f, dsn := shop(t, engineName, fixtureSpec{pool: 3})
		for _, mode := range bothModes {
			a, b := connect(t, dsn), connect(t, dsn)
			exec(t, b, "create table everywhere (a int)", mode)
			exec(t, a, "create temp table tt (a int)", mode)
			exec(t, a, "create temp table everywhere (a text)", mode) // which hides the other
			for _, sql := range []string{
				"create index tt_a on tt (a)", "alter table tt add b int default 7", "insert into tt values (1)", "alter table tt rename b to c",
				"begin", "alter table tt add d int default 8", "drop index tt_a", "commit", "create index tt_d on tt (d)", "drop index if exists tt_d",
				"alter table everywhere add z int", "comment on table everywhere is 'x'", "comment on column everywhere.z is 'x'", "grant select on everywhere to public",
				"create function pg_temp.f() returns int language sql as 'select 1'", "alter function pg_temp.f() cost 5", "comment on function pg_temp.f() is 'x'", "drop function pg_temp.f()",
				"create type pg_temp.e as enum ('a')", "alter type pg_temp.e add value 'b'", "drop type pg_temp.e",
			} {
				exec(t, a, sql, mode)
			}
			if got := outcome(t, a, "select * from tt"); got != "1|7|8" {
				t.Errorf("%v: the temporary table has %s", mode, got)
			}
			if got := outcome(t, a, "drop table tt, products"); got != "0A000" {
				t.Errorf("%v: both kinds in one DROP: %s", mode, got)
			}
			if got := outcome(t, a, "drop table nobody"); got != "42P01" {
				t.Errorf("%v: a table that is nowhere: %s", mode, got)
			}
			for shard := range 2 {
				direct := connect(t, f.direct(shard))
				if got := text(t, direct, "select string_agg(attname, ',') from pg_attribute where attrelid = 'public.everywhere'::regclass and attnum > 0"); got != "a" {
					t.Errorf("%v: shard %d has %s", mode, shard, got)
				}
				_ = direct.Close(t.Context())
			}
			exec(t, a, "drop table everywhere", mode) // the temporary one
			exec(t, a, "alter table everywhere add y int", mode)
			if got := outcome(t, b, "select y from everywhere"); got != "" {
				t.Errorf("%v: the table on all shards: %s", mode, got)
			}
			exec(t, b, "drop table everywhere", pgx.QueryExecModeSimpleProtocol)
			_, _ = a.Close(t.Context()), b.Close(t.Context())
		}
	})
}

// A server process that has used temporary tables refuses another temp_buffers, and keeps the room that it has made for these, whatever
// is discarded: nobody notices of others that they have used some.
func TestTempBuffersWhereOthersUsedTemporaryTables(t *testing.T) {
	engines(t, func(t *testing.T, engineName string) {
		f := newFixture(t, fixtureSpec{shards: 1, pool: 2})
		dsn := f.start(t, engineName)
		uses := func(c *pgx.Conn) (pid string) {
			exec(t, c, "create temp table used (a int); insert into used values (1)")
			pid = text(t, c, "select pg_backend_pid()")
			exec(t, c, "drop table used")
			return pid
		}
		spend := func() { // both connections of the pool
			a, b := connect(t, dsn), connect(t, dsn)
			exec(t, a, "select pg_advisory_lock(1)")
			uses(b)
			uses(a)
			_, _ = a.Close(t.Context()), b.Close(t.Context())
		}
		for _, set := range []string{"set temp_buffers = 100", "select set_config('temp_buffers', '100', false)", "set my.x = 'a'; set temp_buffers = 100", "begin; set temp_buffers = 100; commit"} {
			spend()
			c := connect(t, dsn)
			if _, err := c.Exec(t.Context(), set); err != nil {
				t.Errorf("%s: %v", set, err)
			}
			spend()
			if got := outcome(t, c, "show temp_buffers"); got != "800kB" {
				t.Errorf("behind %s: %s", set, got)
			}
			small := uses(c)
			_ = c.Close(t.Context())
			for range 3 {
				c := connect(t, dsn)
				if pid := text(t, c, "select pg_backend_pid()"); pid == small {
					t.Error("a connection with little room for temporary tables is another client's")
				}
				_ = c.Close(t.Context())
			}
		}
		c := connect(t, dsn)
		exec(t, c, "create temp table used (a int)")
		exec(t, c, "insert into used values (1)")
		if got := outcome(t, c, "set temp_buffers = 100"); got != "22023" {
			t.Errorf("behind the client's own temporary table: %s", got)
		}
		if got := outcome(t, c, "select * from used"); got != "1" {
			t.Errorf("... which has %s", got)
		}
	})
}

// A COPY over several shards that fails leaves the client what it keeps on one of their connections.
func TestFailedCopyKeepsTemporaryTable(t *testing.T) {
	engines(t, func(t *testing.T, engineName string) {
		_, dsn := shop(t, engineName, fixtureSpec{})
		c := connect(t, dsn)
		exec(t, c, "create temp table mine (a int)")
		exec(t, c, "insert into mine values (7)")
		for name, data := range map[string]io.Reader{
			"a row that is none":        strings.NewReader("no number\tx\n"),
			"a bad second column":       strings.NewReader("1\tx\n2\ty\tz\n"),
			"a client's change of mind": io.MultiReader(strings.NewReader("1\tx\n"), iotest.ErrReader(errors.New("changed my mind"))),
		} {
			if _, err := c.PgConn().CopyFrom(t.Context(), data, "copy customers from stdin"); err == nil {
				t.Errorf("%s: no error", name)
			}
			if got := text(t, c, "select a::text from mine"); got != "7" {
				t.Errorf("%s: the temporary table has %q", name, got)
			}
		}
	})
}

// A temporary table that others would not see hides no table by whose name statements are routed, and stays with its session, however it
// comes to its name.
func TestTemporaryTablesHideNothing(t *testing.T) {
	engines(t, func(t *testing.T, engineName string) {
		_, dsn := shop(t, engineName, fixtureSpec{pool: 1})
		c, other := connect(t, dsn), connect(t, dsn)
		exec(t, c, "create temp table x as select 1 as id")
		exec(t, c, "create temp table y as select 1 as id")
		exec(t, c, "create temp view z as select 1 as id")
		for _, sql := range []string{
			"create table pg_temp.customers as select 1 as id", "select 1 as id into pg_temp.customers", "create temp table customers (id int)",
			"alter table x rename to customers", "alter table pg_temp.y rename to customers", "alter view z rename to customers", "create temp view customers as select 1 as id",
		} {
			if _, err := c.Exec(t.Context(), sql); code(err) != "0A000" {
				t.Errorf("%s: %v", sql, err)
			}
		}
		exec(t, c, "alter table pg_temp.x rename to x2")
		if got := text(t, c, "select id from x2"); got != "1" {
			t.Errorf("a temporary table that was renamed: %s", got)
		}
		exec(t, c, "discard temp")
		for _, sql := range []string{"create table pg_temp.mine as select 5 as id", "select 5 as id into pg_temp.mine"} {
			exec(t, c, sql)
			pid := text(t, c, "select pg_backend_pid()")
			if got := text(t, c, "select id from mine"); got != "5" || text(t, c, "select pg_backend_pid()") != pid {
				t.Errorf("%s: its session finds %q", sql, got)
			}
			exec(t, c, "discard temp")
			if _, err := other.Exec(t.Context(), "select id from mine"); code(err) != "42P01" {
				t.Errorf("%s: another session, on the same connection: %v", sql, err)
			}
		}
	})
}

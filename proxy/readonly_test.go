package proxy_test

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/tidemarkdb/tidemark/sharding"
)

// A transaction that has been made read only writes on no shard, whatever makes it so, and however its statements are sent: what PostgreSQL
// refuses there is refused, though a change of all shards may be for another reason.
func TestReadOnlyWritesNowhere(t *testing.T) {
	f, plain := newFixture(t, fixtureSpec{shards: 2, tables: []sharding.Table{{Name: "ro", Kind: sharding.Sharded, Column: "a", Type: sharding.Int4}}}), newFixture(t, fixtureSpec{shards: 1})
	schema := []string{
		"create table ro (a int primary key, b text)", "create table ro_plain (a int)",
		"create function ro_on() returns text language plpgsql as $$ begin return set_config('transaction_read_only', 'on', true); end $$",
	}
	for _, dsn := range []string{f.direct(0), f.direct(1), plain.direct(0)} {
		for _, sql := range schema {
			exec(t, connect(t, dsn), sql)
		}
	}
	writes := []string{
		"create table ro_new (a int)", "drop table ro", "truncate ro", "insert into ro select n, 'x' from generate_series(1, 9) n", "insert into ro values (1, 'x'), (2, 'x'), (3, 'x'), (4, 'x')",
		"update ro set b = 'u'", "delete from ro", "comment on table ro is 'x'", "create index on ro (b)", "insert into ro values (1, 'x')", "insert into ro values (2, 'x')", "insert into ro values (5, 'x')",
		"insert into ro_plain values (1)",
	}
	ways := [][]string{
		{"set transaction read only"},
		{"set transaction isolation level repeatable read, read only"},
		{"set transaction read only", "set transaction isolation level serializable"},
		{"set transaction read only", "set transaction not deferrable"},
		{"select 1", "set transaction read only"},
		{"select b from ro where a = 1", "set transaction read only"},
		{"select b from ro where a = 2", "set transaction read only"},
		{"set transaction read only", "select 1"},
		{"set transaction read only", "select count(*) from ro_plain"},
		{"set transaction read only", "set application_name = 'x'"},
		{"set transaction read only", "prepare ro_p as select 1"},
		{"set transaction read only", "begin"},
		{"set transaction read only", "deallocate all"},
		{"set transaction read only", "deallocate all", "select 1"},
		{"set transaction_read_only = on"},
		{"set local transaction_read_only = on"},
		{"select set_config('transaction_read_only', 'on', true)"},
		{"select set_config('transaction_read_only', 'on', false)"},
		{"select set_config('transaction_read_' || 'only', 'on', true)"},
		{"select ro_on()"},
		{"do $$ begin perform set_config('transaction_read_only', 'on', true); end $$"},
	}
	lasting := []string{
		"set default_transaction_read_only = on", "set session characteristics as transaction read only", "select set_config('default_transaction_read_only', 'on', false)",
	}
	rows := func() (n string) {
		for i := range 2 {
			n += text(t, connect(t, f.direct(i)), "select concat_ws(' ', count(*), to_regclass('ro_new') is null, (select count(*) from ro_plain)) from ro") + " "
		}
		return n
	}
	before := rows()
	engines(t, func(t *testing.T, engineName string) {
		dsn := f.start(t, engineName)
		d, c := connect(t, plain.direct(0)), connect(t, dsn)
		on := func(c *pgx.Conn, batch []string, first []string) []string {
			for _, sql := range append(first, "") {
				exec(t, c, sql)
			}
			defer func() {
				exec(t, c, "rollback")
				exec(t, c, "discard all")
			}()
			return pipelined(t, c, batch)
		}
		both := func(batch []string, first ...string) {
			t.Helper()
			want, got := on(d, batch, first), on(c, batch, first)
			if !strings.Contains(want[len(want)-1], "25006") {
				t.Fatalf("%q %q: PostgreSQL says %q", first, batch, want)
			}
			if last := got[len(got)-1]; last != want[len(want)-1] && !strings.Contains(strings.Join(got, " "), "0A000") {
				t.Errorf("%q %q: %q, want %q", first, batch, got, want)
			}
		}
		for _, way := range ways {
			for _, w := range writes {
				both(append(way[:len(way):len(way)], w))
				both(append(append([]string{"begin"}, way...), w))
			}
		}
		for _, l := range lasting {
			for _, w := range writes {
				both([]string{w}, l)
				both([]string{"select 1", w}, l)
				both([]string{"begin", w}, l)
				both([]string{"begin", w}, "begin", l, "commit")
			}
		}
		for _, w := range []pgproto3.FrontendMessage{&pgproto3.Parse{Query: "copy ro from stdin"}, &pgproto3.Query{String: "copy ro from stdin"}, &pgproto3.Query{String: "drop table ro"}} {
			c := dialWire(t, dsn)
			c.send(t, &pgproto3.Parse{Query: "set transaction read only"}, &pgproto3.Bind{}, &pgproto3.Execute{}, w)
			if _, query := w.(*pgproto3.Query); !query {
				c.send(t, &pgproto3.Bind{}, &pgproto3.Execute{})
			}
			c.send(t, &pgproto3.CopyData{Data: []byte("1\tx\n")}, &pgproto3.CopyDone{}, &pgproto3.Sync{})
			if e, err := receive[*pgproto3.ErrorResponse](c); err != nil || e.Code != "25006" && e.Code != "0A000" {
				t.Errorf("%T: %v, %v", w, e, err)
			}
		}
	})
	if after := rows(); after != before {
		t.Errorf("%q, before %q", after, before)
	}
}

package proxy_test

import (
	"slices"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/tidemarkdb/tidemark/sharding"
)

// What stands in a batch is read under the settings that it has by then, also where they are those of before again; and what no
// transaction block may have does not run behind anything else of its batch, on however many shards.
func TestBehindOthersOfItsBatch(t *testing.T) {
	tables := []sharding.Table{{Schema: "public", Name: "customers", Kind: sharding.Sharded, Column: "id", Type: sharding.Int8}}
	const off, read = "set standard_conforming_strings = off", `select length('a\nb')`
	engines(t, func(t *testing.T, engineName string) {
		for shards := 1; shards <= 2; shards++ {
			f := newFixture(t, fixtureSpec{shards: shards, tables: tables})
			for i := range shards {
				exec(t, connect(t, f.direct(i)), "create table customers (id bigint primary key, name text)")
			}
			dsn := f.start(t, engineName)
			for _, batch := range [][]string{
				{off, read},
				{off, "rollback", read},
				{"begin", off, "rollback", read},
				{"begin", off, "commit", read},
				{"begin", off, "commit", "rollback", read, "begin", "reset all", "commit", read},
				{"begin", off, "set standard_conforming_strings = on", read},
				{"begin", "set local standard_conforming_strings = off", read, "commit", read},
				{"begin", "savepoint a", off, "rollback to a", read},
				{"begin", off, "savepoint a", "reset all", "rollback to a", read},
				{"set local standard_conforming_strings = off", read, "commit", read},
				{"select 1", "vacuum customers"},
				{"select name from customers where id = 1", "vacuum customers"},
				{"select name from customers where id = 1", "create index concurrently on customers (name)"},
				{"vacuum customers", "reindex table concurrently customers"},
				{"vacuum customers", "select 1"},
				// the end of a transaction is one of what came before
				{"begin", "select 1", "rollback", "vacuum customers"},
				{"begin", "delete from customers where id = 1", "commit", "delete from customers where id = 2", "delete from customers where id = 2"},
				{
					"begin", "delete from customers where id = 1", "commit", "begin", "delete from customers where id = 2", "commit", "begin read only",
					"select name from customers where id = 3", "rollback", "begin", "select name from customers where id = 4", "rollback",
				},
				{"begin", "delete from customers where id = 1", "commit", "select name from customers", "select 1/0", "select 2"},
				{"begin", "delete from customers where id = 1", "select 1/0", "commit", "begin", "delete from customers where id = 2"},
			} {
				want, got := pipelined(t, connect(t, f.direct(0)), batch), pipelined(t, connect(t, dsn), batch)
				if !slices.Equal(got, want) {
					t.Errorf("%d shards: %q: %q, want %q", shards, batch, got, want)
				}
			}
		}
	})
}

// What the client has prepared is lent to the connection before code runs that may execute it. Where that fails amid a batch, and ends it,
// the Query behind it is skipped as by any other error.
func TestLendingFailsAmidABatch(t *testing.T) {
	f := newFixture(t, fixtureSpec{shards: 1})
	engines(t, func(t *testing.T, engineName string) {
		d, c := connect(t, f.direct(0)), dialWire(t, f.start(t, engineName))
		exec(t, d, "drop table if exists locked")
		exec(t, d, "create table locked (a int)")
		c.send(t, &pgproto3.Query{String: "prepare p as select a from locked"})
		if _, err := receive[*pgproto3.ReadyForQuery](c); err != nil {
			t.Fatal(err)
		}
		exec(t, d, "begin")
		exec(t, d, "lock table locked")
		c.send(t,
			&pgproto3.Query{String: "set statement_timeout = '200ms'"},
			&pgproto3.Parse{Query: "show application_name"}, &pgproto3.Bind{}, &pgproto3.Execute{},
			&pgproto3.Query{String: "do $$ begin execute 'select 1'; end $$"},
			&pgproto3.Sync{},
			&pgproto3.Query{String: "select 2"})
		e, err := receive[*pgproto3.ErrorResponse](c)
		if err != nil || e.Code != "57014" {
			t.Fatal(e, err)
		}
		for _, want := range []string{"", "2"} {
			if want != "" {
				if row, err := receive[*pgproto3.DataRow](c); err != nil || string(row.Values[0]) != want {
					t.Fatal(row, err)
				}
			}
			if _, err := receive[*pgproto3.ReadyForQuery](c); err != nil {
				t.Fatal(err)
			}
		}
		exec(t, d, "rollback")
	})
}

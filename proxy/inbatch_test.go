package proxy_test

import (
	"slices"
	"testing"

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
			} {
				want, got := pipelined(t, connect(t, f.direct(0)), batch), pipelined(t, connect(t, dsn), batch)
				if !slices.Equal(got, want) {
					t.Errorf("%d shards: %q: %q, want %q", shards, batch, got, want)
				}
			}
		}
	})
}

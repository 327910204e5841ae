package proxy_test

import (
	"slices"
	"testing"

	"github.com/tidemarkdb/tidemark/proxy"
	"github.com/tidemarkdb/tidemark/router"
	"github.com/tidemarkdb/tidemark/sharding"
)

// The catalog is read by PostgreSQL's own operators: one that a user has made, and that fits better, would run as the role that reads. Nor
// does it where the questions were prepared before there was any.
func TestCatalogBesideOperators(t *testing.T) {
	f := newFixture(t, fixtureSpec{shards: 1})
	c := connect(t, f.direct(0))
	reading := connect(t, f.direct(0))
	before := proxy.NewCatalogReader(reading.PgConn(), 2)
	if _, err := before.Read(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, sql := range []string{
		"create function mine(smallint, integer) returns integer language plpgsql as $$ begin raise exception 'a function of the user''s own'; end $$",
		"create operator & (leftarg = smallint, rightarg = integer, function = mine)",
		"create table watched (id bigint)",
		"create function watches() returns trigger language plpgsql as $$ begin return null; end $$",
		"create trigger watcher after insert on watched for each row execute function watches()",
	} {
		exec(t, c, sql)
	}
	for _, shards := range []int{1, 2} {
		c := connect(t, f.direct(0))
		if _, err := proxy.NewCatalogReader(c.PgConn(), shards).Read(t.Context()); err != nil {
			t.Error(err)
		}
	}
	read, err := before.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(read.Tables, func(table router.Table) bool { return table.Name == "watched" }) {
		t.Error("what was made since is not read")
	}
}

// A view that has been made on the servers directly is known for what it is behind ReloadCatalog.
func TestCatalogChangedElsewhere(t *testing.T) {
	f := newFixture(t, fixtureSpec{shards: 2, tables: []sharding.Table{{Name: "kept", Kind: sharding.Sharded, Column: "id", Type: sharding.Int8}}})
	in := f.run(t, "")
	c := connect(t, in.dsn)
	exec(t, c, "CREATE TABLE kept (id bigint)")
	for shard := range 2 {
		exec(t, connect(t, f.direct(shard)), "CREATE VIEW seen AS SELECT * FROM kept")
	}
	in.proxy.ReloadCatalog()
	if _, err := c.Exec(t.Context(), "SELECT * FROM seen"); code(err) != "0A000" {
		t.Errorf("a view of a sharded table is asked for on one shard: %v", err)
	}
}

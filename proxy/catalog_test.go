package proxy_test

import (
	"slices"
	"testing"

	"github.com/tidemarkdb/tidemark/proxy"
	"github.com/tidemarkdb/tidemark/router"
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

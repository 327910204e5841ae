package proxy_test

import (
	"testing"

	"github.com/tidemarkdb/tidemark/proxy"
)

// The catalog is read by PostgreSQL's own operators: one that a user has made, and that fits better, would run as the role that reads.
func TestCatalogBesideOperators(t *testing.T) {
	f := newFixture(t, fixtureSpec{shards: 1})
	c := connect(t, f.direct(0))
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
		if _, err := proxy.ReadCatalog(t.Context(), c, shards); err != nil {
			t.Error(err)
		}
	}
}

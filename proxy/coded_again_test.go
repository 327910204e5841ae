package proxy_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/tidemarkdb/tidemark/sharding"
	"github.com/tidemarkdb/tidemark/testcontainers"
)

// What code has left behind its transaction is asked for once more where the server could not say it then: a name that hangs on it is
// refused until it can, and then means what it means in PostgreSQL.
func TestMeaningBehindCodeAskedAgain(t *testing.T) {
	tables := []sharding.Table{{Schema: "again", Name: "customers", Kind: sharding.Sharded, Column: "id", Type: sharding.Int8}}
	engines(t, func(t *testing.T, engineName string) {
		f := newFixture(t, fixtureSpec{shards: 2, tables: tables})
		// The server cannot be asked as this role while that may not call a function of the question.
		const withhold, give = "revoke execute on function pg_catalog.current_setting(text, boolean) from public", "grant execute on function pg_catalog.current_setting(text, boolean) to public"
		var supers []func(sql string)
		for i, s := range f.cluster.Shards[:2] {
			super := connect(t, s.Primary.DSN(f.database))
			supers = append(supers, func(sql string) { exec(t, super, sql) })
			exec(t, super, "select pg_advisory_lock(2)")
			exec(t, super, `do $$ begin if not exists (select from pg_roles where rolname = 'again') then create role again; end if; end $$`)
			exec(t, super, "grant again to "+testcontainers.AppUser)
			exec(t, super, "grant execute on function pg_catalog.current_setting(text, boolean) to "+testcontainers.AppUser)
			exec(t, super, "select pg_advisory_unlock(2)")
			d := connect(t, f.direct(i))
			for _, sql := range []string{
				"create schema again", "create table again.customers (id bigint primary key, name text)", "create table public.customers (id bigint primary key, name text)",
				"grant usage on schema again to public", "grant select, insert on all tables in schema again, public to public",
				"create function becomes() returns int language plpgsql as $$ begin set role again; return 1; end $$",
			} {
				exec(t, d, sql)
			}
		}
		c := connect(t, f.start(t, engineName))
		keys := map[string]int{}
		for k := 0; len(keys) < 2; k++ {
			text(t, c, "select name from again.customers where id = $1", k)
			keys[strings.Fields(route(t, c))[1]] = k
		}
		for _, k := range keys {
			exec(t, c, "insert into again.customers values ($1, 'own')", k)
			exec(t, c, "insert into public.customers values ($1, 'common')", k)
		}
		for at, k := range keys {
			for _, super := range supers {
				super(withhold)
			}
			read := fmt.Sprintf("select name from customers where id = %d", k)
			simply(t, c, "discard all")
			simply(t, c, "select becomes()")
			if _, err := c.PgConn().Exec(t.Context(), read).ReadAll(); code(err) != "0A000" || !strings.Contains(err.Error(), "which is not known") {
				t.Errorf("of shard %s, while nobody can say: %v", at, err)
			}
			for _, super := range supers {
				super(give)
			}
			results, err := c.PgConn().Exec(t.Context(), read).ReadAll()
			if err != nil || len(results) != 1 || len(results[0].Rows) != 1 || string(results[0].Rows[0][0]) != "own" {
				t.Errorf("of shard %s, asked again: %v %v, want own", at, results, err)
			}
		}
	})
}

package proxy_test

import (
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/tidemarkdb/tidemark/cqrs"
	"github.com/tidemarkdb/tidemark/proxy"
)

// Where one shard is all there is, code that may change search_path stands in nobody's way: not in that of Sequelize's findOrCreate. Tidemark's
// own tables are no read models; only a name of theirs has another meaning then.
func TestNamesBehindCodeOfOneShard(t *testing.T) {
	state := proxy.Table{Name: "state", Cols: []proxy.TableColumn{proxy.Text("v", "a value")}, Rows: func() [][][]byte { return [][][]byte{{proxy.TextValue("own")}} }}
	f := newFixture(t, fixtureSpec{shards: 1, views: map[string]cqrs.View{"tidemark.state": state.View("tidemark.state")}})
	engines(t, func(t *testing.T, engineName string) {
		c := connect(t, f.start(t, engineName))
		run := func(sql string) error {
			_, err := c.Exec(t.Context(), sql, pgx.QueryExecModeSimpleProtocol)
			return err
		}
		const found = `create or replace function pg_temp.f(out a int) as $$ begin a := 7; exception when unique_violation then null; end $$ language plpgsql;
			select a from pg_temp.f(); drop function if exists pg_temp.f()`
		for _, sql := range []string{found, "begin; " + found + "; commit"} {
			if err := run(sql); err != nil {
				t.Errorf("%s: %v", sql, err)
			}
		}
		exec(t, c, "create table if not exists public.state as select 'theirs' as v")
		exec(t, c, "set search_path = tidemark, public")
		if got := text(t, c, "select v from state", pgx.QueryExecModeSimpleProtocol); got != "own" {
			t.Errorf("by search_path: %q", got)
		}
		exec(t, c, "begin")
		exec(t, c, "do $$ begin perform set_config('search_path', 'public', true); end $$")
		if got := text(t, c, "select v from state", pgx.QueryExecModeSimpleProtocol); got != "theirs" {
			t.Errorf("by a search_path that code has changed: %q", got)
		}
		exec(t, c, "rollback")
	})
}

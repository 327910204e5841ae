package proxy_test

import (
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/google/go-cmp/cmp"
)

// Statements of a PostgreSQL that is newer than the parser run where there is one shard, and so do mistakes, with the server's own error.
func TestNewerStatements(t *testing.T) {
	f := newFixture(t, fixtureSpec{shards: 1, pool: 2})
	run := func(t *testing.T, dsn string) string {
		a, b := dialWire(t, dsn), dialWire(t, dsn)
		var said strings.Builder
		for _, step := range []struct {
			c        *wireClient
			messages string
		}{
			{a, "Query set client_min_messages = warning"},
			{a, "Query drop table if exists newer"},
			{a, "Query create table newer (a int, b int generated always as (a * 2))"},
			{a, "Query insert into newer values (4)"},
			{a, "Query update newer set a = a + 1 returning with (old as o, new as n) o.b, n.b"},
			{a, `Parse {"Name":"s","Query":"update newer set a = a + $1 returning with (old as o, new as n) o.b, n.b"}
				Describe {"ObjectType":"S","Name":"s"}
				Bind {"PreparedStatement":"s","Parameters":["7"]}
				Execute
				Sync`},
			{a, "Query create or replace function newer_body() returns setof int language sql begin atomic update newer set a = case when true then a + 1 end; update newer set a = a + 1 returning with (old as o, new as n) o.b; end"},
			{b, "Query select newer_body()"},
			{a, "Query create function newer_other() returns setof int language sql begin atomic update newer set a = 1 returning with (old as o, new as n) o.b; select from; end"},
			{a, "Query drop function newer_body"},
			{a, "Query create temp table newer (mine int, b int generated always as (mine))"},
			{b, "Query begin\nQuery select b from newer"},
			{a, "Query select * from newer"},
			{b, "Query rollback"},
			{a, "Query drop table newer"},
			{a, "Query begin\nQuery create tabel x (a int)\nQuery select 1\nQuery rollback"},
			{b, "Query insert into newer valuse (1)"},
			{b, "Query select b from newer"},
		} {
			said.WriteString(step.c.play(t, &datadriven.TestData{Cmd: "send", Input: step.messages, CmdArgs: []datadriven.CmdArg{{Key: "fields"}}}))
		}
		return said.String()
	}
	want := run(t, f.direct(0))
	engines(t, func(t *testing.T, engineName string) {
		if diff := cmp.Diff(want, run(t, f.start(t, engineName))); diff != "" {
			t.Errorf("(-PostgreSQL +Tidemark)\n%s", diff)
		}
	})
}

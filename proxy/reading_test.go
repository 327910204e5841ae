package proxy_test

import (
	"testing"

	"github.com/jackc/pgx/v5"
)

// What a literal means is read when its statement is prepared: clients that read it otherwise do not share that, and who reads it otherwise
// later has what it has prepared, wherever that is prepared anew.
func TestLiteralsArePrepared(t *testing.T) {
	const moment, day = "select extract(epoch from '2020-01-01 00:00'::timestamptz)::int8::text", "select ($$01/02/2020$$::date - '2020-01-01')::text"
	f := newFixture(t, fixtureSpec{shards: 1, pool: 1})
	exec(t, connect(t, f.direct(0)), "create function literals_of(zone text) returns void language plpgsql as $$ begin perform set_config('timezone', zone, true); end $$")
	engines(t, func(t *testing.T, engineName string) {
		p := f.run(t, engineName)
		clients := map[string]*pgx.Conn{}
		ask := func(name, sql, want string) {
			t.Helper()
			if got := text(t, clients[name], sql, pgx.QueryExecModeCacheDescribe); got != want { // by the unnamed statement
				t.Errorf("%s, unnamed: %s is %s, want %s", name, sql, got, want)
			}
			if got := text(t, clients[name], sql); got != want {
				t.Errorf("%s: %s is %s, want %s", name, sql, got, want)
			}
		}
		for _, name := range []string{"UTC", "Asia/Tokyo"} {
			clients[name] = connect(t, p.dsn)
			exec(t, clients[name], "set timezone = '"+name+"'")
		}
		exec(t, clients["Asia/Tokyo"], "set datestyle = 'ISO, DMY'")
		for range 2 {
			for name, want := range map[string][2]string{"UTC": {"1577836800", "1"}, "Asia/Tokyo": {"1577804400", "31"}} {
				ask(name, moment, want[0])
				ask(name, day, want[1])
			}
		}
		named := func(name, want string) {
			t.Helper()
			if got := text(t, clients[name], moment); got != want {
				t.Errorf("%s: what was prepared is %s, want %s", name, got, want)
			}
		}
		exec(t, clients["UTC"], "set timezone = 'America/New_York'")
		p.backend.Reconnect()
		named("UTC", "1577836800")
		named("Asia/Tokyo", "1577804400")
		clients["another"] = connect(t, p.dsn)
		exec(t, clients["another"], "set timezone = 'UTC'")
		named("another", "1577836800")

		p.backend.Reconnect()
		exec(t, clients["another"], "begin")
		exec(t, clients["another"], "select literals_of('Asia/Tokyo')")
		text(t, clients["another"], moment) // as the function has it, see docs/limits.md
		exec(t, clients["another"], "commit")
		clients["last"] = connect(t, p.dsn)
		exec(t, clients["last"], "set timezone = 'UTC'")
		named("last", "1577836800")
	})
}

package proxy_test

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/tidemarkdb/tidemark/testcontainers"
)

// Who seeds random() draws from that seed until its end, as on a connection of its own, and nobody else ever does: neither beside
// it nor behind it.
func TestSeedIsTheClientsOwn(t *testing.T) {
	f := newFixture(t, fixtureSpec{shards: 1, pool: 2})
	direct := connect(t, f.direct(0))
	exec(t, direct, `create function seeds() returns void language sql as 'select setseed(0.5)'`)
	exec(t, direct, `create function seeds_calmly() returns int language plpgsql stable as 'begin perform seeds(); return 1; end'`)
	exec(t, direct, `create view seeding as select setseed(0.5)::text`)
	exec(t, direct, `create view through as select * from seeding`)
	exec(t, direct, `create function on_row() returns trigger language plpgsql as 'begin perform setseed(0.5); return new; end'`)
	exec(t, direct, `create table seeded (a int); create trigger t before insert on seeded for each row execute function on_row()`, pgx.QueryExecModeSimpleProtocol)
	draws := func(t *testing.T, c *pgx.Conn, n int) (got []string) {
		for range n {
			got = append(got, text(t, c, `select random()::text`))
		}
		return got
	}
	exec(t, direct, `select setseed(0.5)`)
	want := draws(t, direct, 40)
	engines(t, func(t *testing.T, engineName string) {
		dsn := f.start(t, engineName)
		for _, how := range []string{
			`select setseed(0.5)`, `set seed = 0.5`, `set seed to 0.5; select 1`, `select set_config('seed', '0.5', false)`, `begin; select set_config('SEED', '0.5', true); commit`,
			`select seeds()`, `select seeds_calmly()`, `do $$ begin perform setseed(0.5); end $$`, `do $$ begin perform seeds(); end $$`,
			`select * from through`, `insert into seeded values (1)`, `prepare p as select setseed($1); execute p(0.5)`, "bind", "call", "options",
		} {
			a, err := pgx.Connect(t.Context(), dsn)
			if err != nil {
				t.Fatal(err)
			}
			b := connect(t, dsn)
			switch how {
			case "bind":
				_, err = a.Exec(t.Context(), `select set_config($1, $2, $3)`, "seed", "0.5", false)
			case "call":
				err = callFunction(a, 1599, "0.5") // setseed
			case "options": // PostgreSQL does not seed by the startup message
				o := connect(t, dsn+"&options=-c%20seed%3D0.5")
				if got := draws(t, o, 1); slices.Contains(want, got[0]) {
					t.Errorf("a seed in the startup message counts: %v", got)
				}
				_ = o.Close(t.Context())
				_, err = a.Exec(t.Context(), `select setseed(0.5)`)
			default:
				_, err = a.Exec(t.Context(), how, pgx.QueryExecModeSimpleProtocol)
			}
			if err != nil {
				t.Fatalf("%s: %v", how, err)
			}
			for i := range 5 {
				if got := draws(t, a, 1); got[0] != want[i] {
					t.Errorf("%s: number %d of its client is %v, want %s", how, i, got, want[i])
				}
				if got := draws(t, b, 2); slices.Contains(want, got[0]) || slices.Contains(want, got[1]) {
					t.Errorf("%s: another client draws from the same seed: %v", how, got)
				}
			}
			_ = a.Close(context.Background())
			exec(t, b, `begin`)
			draws(t, b, 1) // so that it holds the connection that it had, and the next client gets the other one
			c := connect(t, dsn)
			for _, got := range draws(t, c, 20) {
				if slices.Contains(want, got) {
					t.Errorf("%s: a client behind it draws from the same seed: %s", how, got)
					break
				}
			}
			for _, x := range []*pgx.Conn{b, c} {
				_ = x.Close(context.Background())
			}
		}
	})
}

// callFunction calls a function by the message for that.
func callFunction(c *pgx.Conn, oid uint32, args ...string) (err error) {
	call := &pgproto3.FunctionCall{Function: oid}
	for _, a := range args {
		call.Arguments = append(call.Arguments, []byte(a))
	}
	fe := c.PgConn().Frontend()
	fe.Send(call)
	if err := fe.Flush(); err != nil {
		return err
	}
	for {
		m, failed := fe.Receive()
		if failed != nil {
			return failed
		}
		switch m := m.(type) {
		case *pgproto3.ErrorResponse:
			err = pgconn.ErrorResponseToPgError(m)
		case *pgproto3.ReadyForQuery:
			return err
		}
	}
}

// A setting whose name nobody knows stays with who made it, also by the message that calls a function.
func TestFunctionCallOfAComputedName(t *testing.T) {
	f := newFixture(t, fixtureSpec{shards: 1, pool: 2})
	direct := connect(t, f.direct(0))
	exec(t, direct, `create function sets(text) returns text language sql as $$ select set_config('a.' || $1, 'mine', false) $$`)
	exec(t, direct, `create function calls(text) returns text language plpgsql stable as $$ begin return sets($1); end $$`)
	var calls uint32
	if err := direct.QueryRow(t.Context(), `select 'calls'::regproc::oid`).Scan(&calls); err != nil {
		t.Fatal(err)
	}
	const setConfig = 2078
	engines(t, func(t *testing.T, engineName string) {
		dsn := f.start(t, engineName)
		for how, call := range map[string]func(*pgx.Conn) error{
			"a function that calls it": func(c *pgx.Conn) error { return callFunction(c, calls, "name") },
			"set_config":               func(c *pgx.Conn) error { return callFunction(c, setConfig, "a.name", "mine", "f") },
		} {
			a, err := pgx.Connect(t.Context(), dsn)
			if err != nil {
				t.Fatal(err)
			}
			b := connect(t, dsn)
			exec(t, b, `begin; select 1`, pgx.QueryExecModeSimpleProtocol)
			if err := call(a); err != nil {
				t.Fatalf("%s: %v", how, err)
			}
			exec(t, b, `commit`) // its connection is what anybody would get now
			for range 3 {
				if got := text(t, a, `select coalesce(current_setting('a.name', true), '')`); got != "mine" {
					t.Errorf("%s: its client has %q", how, got)
				}
				if got := text(t, b, `select coalesce(current_setting('a.name', true), '')`); got != "" {
					t.Errorf("%s: another client has %q", how, got)
				}
			}
			_ = a.Close(context.Background())
			_ = b.Close(context.Background())
		}
	})
}

// What the function that a FunctionCall names runs by text finds what its client has prepared.
func TestFunctionCallExecutes(t *testing.T) {
	f := newFixture(t, fixtureSpec{shards: 1, pool: 1})
	direct := connect(t, f.direct(0))
	exec(t, direct, `create table said (word text); create function runs(text) returns void language plpgsql as $$ begin execute $1; end $$`, pgx.QueryExecModeSimpleProtocol)
	var runs uint32
	if err := direct.QueryRow(t.Context(), `select 'runs'::regproc::oid`).Scan(&runs); err != nil {
		t.Fatal(err)
	}
	engines(t, func(t *testing.T, engineName string) {
		dsn := f.start(t, engineName)
		a, b := connect(t, dsn), connect(t, dsn)
		for c, word := range map[*pgx.Conn]string{a: "a", b: "b"} {
			exec(t, c, `prepare p as insert into said values ('`+word+engineName+`')`, pgx.QueryExecModeSimpleProtocol)
		}
		for c, word := range map[*pgx.Conn]string{a: "a", b: "b"} {
			if err := callFunction(c, runs, "execute p"); err != nil {
				t.Error(err)
			}
			if got := text(t, c, `select count(*)::text from said where word = $1`, word+engineName); got != "1" {
				t.Errorf("%s has said its own %s times", word, got)
			}
		}
		if err := callFunction(a, runs, "execute q"); code(err) != "26000" {
			t.Errorf("what nobody has prepared: %v", err)
		}
	})
}

// A seed that is set by a name which the proxy cannot read does not reach the next client.
func TestSeedByAComputedName(t *testing.T) {
	f := newFixture(t, fixtureSpec{shards: 1, pool: 1})
	direct := connect(t, f.direct(0))
	exec(t, direct, `select setseed(0.5)`)
	want := text(t, direct, `select random()::text`)
	dsn := f.start(t, "")
	a, b := connect(t, dsn), connect(t, dsn)
	exec(t, a, `select set_config('se' || x, '0.5', true) from (values ('ed')) v(x)`)
	if got := text(t, b, `select random()::text`); got == want {
		t.Error("the next client draws from it")
	}
}

// A connection that dblink has opened is logged in as somebody: the client that opened it finds it again, and nobody else does.
func TestDblinkConnectionsAreTheClientsOwn(t *testing.T) {
	f := newFixture(t, fixtureSpec{shards: 1, pool: 2})
	primary := f.cluster.Shards[0].Primary
	exec(t, connect(t, primary.DSN(f.database)), `create extension dblink`)
	direct := connect(t, f.direct(0))
	remote := fmt.Sprintf("host=%s port=%d dbname=%s user=%s password=%s", primary.Host, primary.Port, f.database, testcontainers.AppUser, testcontainers.AppPassword)
	exec(t, direct, fmt.Sprintf(`create function reaches() returns text language plpgsql as $$ begin return dblink_connect('far', '%s'); end $$`, remote))
	const open = `select coalesce(array_to_string(dblink_get_connections(), ','), 'none')`
	engines(t, func(t *testing.T, engineName string) {
		dsn := f.start(t, engineName)
		for _, how := range []string{fmt.Sprintf(`select dblink_connect('far', '%s')`, remote), `select reaches()`, `do $$ begin perform reaches(); end $$`} {
			a, err := pgx.Connect(t.Context(), dsn)
			if err != nil {
				t.Fatal(err)
			}
			b := connect(t, dsn)
			exec(t, a, how)
			for range 3 {
				if got := text(t, b, open); got != "none" {
					t.Errorf("%s: another client has %s", how, got)
				}
				if got := text(t, a, open); got != "far" {
					t.Errorf("%s: its client has %s", how, got)
				}
			}
			if got := text(t, a, `select x from dblink('far', 'select 7') d(x int)`); got != "7" {
				t.Errorf("%s: over it comes %s", how, got)
			}
			_ = a.Close(context.Background())
			exec(t, b, `begin`)
			text(t, b, open)
			c := connect(t, dsn)
			if got := text(t, c, open); got != "none" {
				t.Errorf("%s: a client behind it has %s", how, got)
			}
			for _, x := range []*pgx.Conn{b, c} {
				_ = x.Close(context.Background())
			}
		}
	})
}

// A set_config whose name, or whether it is called at all, only the server knows makes the setting for its client, as pg_dump does it:
// until it leaves, and for nobody else.
func TestSetConfigInALargerQuery(t *testing.T) {
	f := newFixture(t, fixtureSpec{shards: 1, pool: 2})
	engines(t, func(t *testing.T, engineName string) {
		dsn := f.start(t, engineName)
		for _, name := range []string{"work_mem", "app.larger"} {
			for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeCacheDescribe} {
				show := func(c *pgx.Conn) string {
					return text(t, c, `select coalesce(current_setting('`+name+`', true), '')`, mode)
				}
				a, err := pgx.Connect(t.Context(), dsn)
				if err != nil {
					t.Fatal(err)
				}
				b := connect(t, dsn)
				servers := show(b)
				exec(t, a, `select set_config(n, '7MB', false) from (values ('`+name+`')) v(n) where false`, mode)
				if got := show(a); got != servers {
					t.Errorf("%s, without a row: %q, want %q", name, got, servers)
				}
				exec(t, a, `select set_config(n, '8MB', false) from (values ('`+name+`')) v(n)`, mode)
				for _, s := range []struct{ sql, want string }{
					{"begin", "8MB"}, {"select set_config(n, '9MB', false) from (values ('" + name + "')) v(n)", "9MB"}, {"rollback", "8MB"}, {"set " + name + " = '10MB'", "10MB"},
				} {
					exec(t, a, s.sql, mode)
					if got := show(a); got != s.want {
						t.Errorf("%s behind %q: %q, want %q", name, s.sql, got, s.want)
					}
					if got := show(b); got != servers {
						t.Errorf("%s behind %q: another client has %q", name, s.sql, got)
					}
				}
				_ = a.Close(context.Background())
				exec(t, b, `begin`)
				show(b) // holds its connection, so that the next client gets another one
				if got := show(connect(t, dsn)); got != servers {
					t.Errorf("%s: a client behind it has %q, want %q", name, got, servers)
				}
				_ = b.Close(context.Background())
			}
		}
		c := connect(t, dsn)
		if _, err := c.Exec(t.Context(), `select set_config('tidemark.consistency', 'eventual', false) from pg_class`); code(err) != "0A000" {
			t.Errorf("a setting of Tidemark's own: %v", err)
		}
	})
}

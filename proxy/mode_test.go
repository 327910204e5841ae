package proxy_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tidemarkdb/tidemark/internal/backend"
	"github.com/tidemarkdb/tidemark/proxy"
	"github.com/tidemarkdb/tidemark/sharding"
)

// In session mode a client has one connection until it leaves, with all that lives in it; the next client finds it clean.
func TestSessionMode(t *testing.T) {
	f := newFixture(t, fixtureSpec{shards: 2, replicas: 1, pool: 2, tables: []sharding.Table{{Name: "pets", Kind: sharding.Sharded, Column: "id", Type: sharding.Int8}}, backend: func(c *backend.Config) { c.Mode = backend.Session }})
	exec(t, connect(t, f.direct(0)), "create table pets (id bigint primary key, name text)")
	exec(t, connect(t, f.direct(1)), "create table pets (id bigint primary key, name text)")
	admin := connect(t, f.direct(0))
	engines(t, func(t *testing.T, engineName string) {
		p := f.run(t, engineName)
		a := connect(t, p.dsn)
		simple := pgx.QueryExecModeSimpleProtocol
		pid := text(t, a, "select pg_backend_pid()::text", simple)
		exec(t, a, "create temp table mine as select 7 as a", simple)
		exec(t, a, "begin", simple)
		exec(t, a, "commit", simple)
		for range 3 { // also a read that a replica could serve, and one of all shards
			if got := text(t, a, "select pg_backend_pid()::text", simple); got != pid {
				t.Errorf("server process %s, want %s", got, pid)
			}
			if got := text(t, a, "select a::text from mine", simple); got != "7" {
				t.Errorf("the temporary table has %s", got)
			}
			exec(t, a, "select * from pets")
		}
		asked := func(query string) { // the server, and not the proxy alone: an empty query asks whether the connection lives
			if got := text(t, admin, "select query from pg_stat_activity where pid = "+pid); got != query {
				t.Errorf("the server was asked %q last, want %q", got, query)
			}
		}
		exec(t, a, "-- alive?", simple)
		asked("-- alive?")
		if r := a.PgConn().ExecParams(t.Context(), "-- still?", nil, nil, nil, nil).Read(); r.Err != nil {
			t.Error(r.Err)
		}
		asked("-- still?")
		exec(t, a, "begin", simple)
		exec(t, a, "select 1", simple)
		exec(t, a, "-- in a transaction?", simple)
		asked("-- in a transaction?")
		exec(t, a, "rollback", simple)
		active := func() (n int) {
			for _, s := range p.backend.Stats() {
				n += s.Active
				if s.Mode != backend.Session {
					t.Errorf("%+v: want session mode", s)
				}
			}
			return n
		}
		if n := active(); n != 2 {
			t.Errorf("%d connections are held, want one to each shard", n)
		}
		if err := a.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the connections are given back", func() error {
			if n := active(); n != 0 {
				return fmt.Errorf("%d are held", n)
			}
			return nil
		})
		b := connect(t, p.dsn)
		if got := text(t, b, "select pg_backend_pid()::text", simple); got != pid {
			t.Errorf("the connection was not used again: %s, want %s", got, pid)
		}
		if got := outcome(t, b, "select a from mine"); got != "42P01" {
			t.Errorf("the next client sees %s", got)
		}
	})
}

// In statement mode no transaction spans statements, however it is begun; all else works.
func TestStatementMode(t *testing.T) {
	f := newFixture(t, fixtureSpec{shards: 1, pool: 1, backend: func(c *backend.Config) {
		c.Users = map[string]backend.UserConfig{clientUser: {Mode: backend.Statement}}
	}})
	engines(t, func(t *testing.T, engineName string) {
		c := connect(t, f.start(t, engineName))
		simple := pgx.QueryExecModeSimpleProtocol
		for _, tt := range []struct {
			sql  string
			want string
		}{
			{"begin", "0A000"},
			{"start transaction read only", "0A000"},
			{"begin; select 1; commit", "0A000"},
			{"select 1; begin", "0A000"},
			{"select 'fine'", "fine"},
			{"select 1; select 'two'", "1;two"},
			{"rollback", ""},
			{"savepoint a", "25P01"},
		} {
			if got := outcome(t, c, tt.sql); got != tt.want {
				t.Errorf("%s: %q, want %q", tt.sql, got, tt.want)
			}
		}
		if _, err := c.Exec(t.Context(), "begin", pgx.QueryExecModeExec); code(err) != "0A000" {
			t.Errorf("BEGIN by the extended protocol: %v", err)
		}
		exec(t, c, "create temp table if not exists kept (a int)") // a pin, as in transaction mode
		if got := text(t, c, "select count(*)::text from kept", simple); got != "0" {
			t.Errorf("the session goes on with %s", got)
		}
	})
}

// Limits of one user do not concern another one.
func TestUserLimits(t *testing.T) {
	f := newFixture(t, fixtureSpec{
		shards: 1, pool: 5,
		config: func(c *proxy.Config) { c.MaxClientsOf = map[string]int{clientUser: 2} },
		backend: func(c *backend.Config) {
			c.Users = map[string]backend.UserConfig{clientUser: {PoolSize: 1}}
			c.AcquireTimeout = time.Second
		},
	})
	engines(t, func(t *testing.T, engineName string) {
		p := f.run(t, engineName)
		a, b := connect(t, p.dsn), connect(t, p.dsn)
		_, err := pgconn.Connect(t.Context(), p.dsn)
		if code(err) != "53300" {
			t.Fatalf("a third client of two: %v", err)
		}
		exec(t, a, "begin")
		exec(t, a, "select txid_current()")
		if _, err := b.Exec(t.Context(), "select txid_current()"); code(err) != "53300" {
			t.Errorf("a second connection of one: %v", err)
		}
		exec(t, a, "rollback")
		eventually(t, "the connection is free again", func() error {
			_, err := b.Exec(t.Context(), "select txid_current()")
			return err
		})
		if err := b.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the seat is free again", func() error {
			c, err := pgx.Connect(t.Context(), p.dsn)
			if err != nil {
				return err
			}
			return c.Close(t.Context())
		})
	})
}

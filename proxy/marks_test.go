package proxy_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// writers are the ways to write one customer's name.
var writers = []struct {
	name  string
	write func(t *testing.T, c *pgx.Conn, id int, name string)
}{
	{"simple", func(t *testing.T, c *pgx.Conn, id int, name string) {
		exec(t, c, "update customers set name = $2 where id = $1", pgx.QueryExecModeSimpleProtocol, id, name)
	}},
	{"extended", func(t *testing.T, c *pgx.Conn, id int, name string) {
		exec(t, c, "update customers set name = $2 where id = $1", id, name)
	}},
	{"transaction", func(t *testing.T, c *pgx.Conn, id int, name string) {
		exec(t, c, "begin")
		exec(t, c, "update customers set name = $2 where id = $1", id, name)
		exec(t, c, "commit")
	}},
	{"chained transaction", func(t *testing.T, c *pgx.Conn, id int, name string) {
		exec(t, c, "begin")
		exec(t, c, "update customers set name = $2 where id = $1", id, name)
		exec(t, c, "commit and chain")
		exec(t, c, "rollback")
	}},
	{"query string", func(t *testing.T, c *pgx.Conn, id int, name string) {
		sql := fmt.Sprintf("delete from customers where id = %d; insert into customers values (%d, '%s')", id, id, name)
		if _, err := c.PgConn().Exec(t.Context(), sql).ReadAll(); err != nil {
			t.Fatal(err)
		}
	}},
	{"transaction in a query string", func(t *testing.T, c *pgx.Conn, id int, name string) {
		sql := fmt.Sprintf("begin; update customers set name = '%s' where id = %d; commit", name, id)
		if _, err := c.PgConn().Exec(t.Context(), sql).ReadAll(); err != nil {
			t.Fatal(err)
		}
	}},
	{"batch", func(t *testing.T, c *pgx.Conn, id int, name string) {
		b := &pgx.Batch{}
		b.Queue("delete from customers where id = $1", id)
		b.Queue("insert into customers values ($1, $2)", id, name)
		if err := c.SendBatch(t.Context(), b).Close(); err != nil {
			t.Fatal(err)
		}
	}},
	{"COPY", func(t *testing.T, c *pgx.Conn, id int, name string) {
		exec(t, c, "delete from customers where id = $1", id)
		if _, err := c.PgConn().CopyFrom(t.Context(), strings.NewReader(fmt.Sprintf("%d\t%s\n", id, name)), "copy customers from stdin"); err != nil {
			t.Fatal(err)
		}
	}},
	{"WITH", func(t *testing.T, c *pgx.Conn, id int, name string) {
		text(t, c, "with w as (update customers set name = $2 where id = $1 returning id) select * from w", id, name)
	}},
}

// A session reads what it wrote, however it wrote it, and replicas serve what they can.
func TestSessionReadsItsWrites(t *testing.T) {
	engines(t, func(t *testing.T, engineName string) {
		f, dsn := shop(t, engineName, fixtureSpec{replicas: 1})
		c, admin := connect(t, dsn), connect(t, f.cluster.Shards[0].Replicas[0].DSN("postgres"))
		keys := keysOn(t, c)
		stale, replica, primary := 0, 0, 0
		loop := func(n int) {
			for i := range n {
				w, id := writers[i%len(writers)], keys[i/len(writers)%2]
				want := fmt.Sprintf("%s %d", w.name, i)
				w.write(t, c, id, want)
				if got := text(t, c, "select name from customers where id = $1", id); got != want {
					t.Errorf("write %d: read %q, want %q", i, got, want)
					stale++
				}
				if strings.Contains(route(t, c), " replica ") {
					replica++
				} else {
					primary++
				}
				exec(t, c, "select pg_sleep(0.002)") // so that a replica gets a chance
			}
		}
		for _, id := range keys {
			exec(t, c, "insert into customers values ($1, 'new')", id)
		}
		loop(200)
		eventually(t, "replicas read what they have", func() error {
			text(t, c, "select name from customers where id = $1", keys[0])
			if r := route(t, c); !strings.HasPrefix(r, "route shard0 replica") {
				return fmt.Errorf("route is %q", r)
			}
			return nil
		})

		exec(t, admin, "select pg_wal_replay_pause()")
		t.Cleanup(func() {
			a, err := pgx.Connect(context.Background(), f.cluster.Shards[0].Replicas[0].DSN("postgres"))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = a.Close(context.Background()) }()
			if _, err := a.Exec(context.Background(), "select pg_wal_replay_resume()"); err != nil {
				t.Fatal(err)
			}
		})
		loop(2 * len(writers))
		exec(t, c, "update customers set name = 'fresh' where id = $1", keys[0])
		if got := text(t, c, "select name from customers where id = $1", keys[0]); got != "fresh" {
			t.Errorf("behind a lagging replica: %q", got)
		}
		if r := route(t, c); !strings.HasPrefix(r, "route shard0 primary") {
			t.Errorf("a read that the replica cannot serve: %q", r)
		}
		exec(t, c, "create table made_late (a int)")
		if got := text(t, c, "select count(*) from made_late"); got != "0" {
			t.Error(got)
		}
		token := text(t, c, "show tidemark.token")
		if c.PgConn().ParameterStatus("tidemark.token") != token || token == "" {
			t.Errorf("token %q is reported as %q", token, c.PgConn().ParameterStatus("tidemark.token"))
		}

		// Another session sees it with the token, and need not without.
		with, without := connect(t, dsn), connect(t, dsn)
		exec(t, with, "set tidemark.token = '"+token+"'")
		if got := text(t, with, "select name from customers where id = $1", keys[0]); got != "fresh" {
			t.Errorf("a session that was handed the token reads %q", got)
		}
		if got := text(t, without, "select name from customers where id = $1", keys[0]); got == "fresh" {
			t.Errorf("without the token a replica that stands still said %q: route %q", got, route(t, without))
		}
		exec(t, c, "set tidemark.consistency = eventual")
		if got := text(t, c, "select name from customers where id = $1", keys[0]); got == "fresh" {
			t.Errorf("an eventual read from a replica that stands still said %q: route %q", got, route(t, c))
		}
		for _, bad := range []string{"garbage", "shard9:1:0/1"} {
			if _, err := with.Exec(t.Context(), "set tidemark.token = '"+bad+"'"); code(err) != "22023" {
				t.Errorf("token %q: %v", bad, err)
			}
		}
		t.Logf("%d reads from replicas, %d from primaries, %d stale", replica, primary, stale)
	})
}

// Where statements go when nothing was written.
func TestReadsGoToReplicasInTurn(t *testing.T) {
	engines(t, func(t *testing.T, engineName string) {
		_, dsn := shop(t, engineName, fixtureSpec{replicas: 1})
		c := connect(t, dsn)
		keys := keysOn(t, c)
		for _, tc := range []struct{ sql, where string }{
			{"select name from customers where id = $1", "replica"},
			{"with x as (select * from customers where id = $1) select * from x", "replica"},
			{"select name from customers where id = $1 for update", "primary"},
			{"select nextval('s'), name from customers where id = $1", "primary"},
			{"insert into customers values ($1, 'x') on conflict do nothing", "primary"},
			{"select pg_advisory_xact_lock(1), name from customers where id = $1", "primary"},
		} {
			if strings.Contains(tc.sql, "nextval") {
				exec(t, c, "create sequence s")
			}
			eventually(t, tc.sql, func() error {
				reader := connect(t, dsn)
				defer func() { _ = reader.Close(t.Context()) }()
				if _, err := reader.Exec(t.Context(), tc.sql, keys[0]); err != nil {
					return err
				}
				if r := route(t, reader); !strings.HasPrefix(r, "route shard0 "+tc.where) {
					return fmt.Errorf("route is %q", r)
				}
				return nil
			})
		}
		exec(t, c, "begin")
		text(t, c, "select name from customers where id = $1", keys[1])
		if r := route(t, c); !strings.HasPrefix(r, "route shard1 primary") {
			t.Errorf("in a transaction: %q", r)
		}
		exec(t, c, "commit")
	})
}

// A query string can be handed a token before it reads, and tells the one that it makes behind what it writes.
func TestTokenInAQueryString(t *testing.T) {
	engines(t, func(t *testing.T, engineName string) {
		_, dsn := shop(t, engineName, fixtureSpec{replicas: 1})
		a, b := connect(t, dsn), connect(t, dsn)
		before := text(t, a, "show tidemark.token")
		res, err := a.PgConn().Exec(t.Context(), "insert into customers values (1, 'x'); show tidemark.token").ReadAll()
		if err != nil || len(res) != 2 || len(res[1].Rows) != 1 {
			t.Fatalf("%v, %v", res, err)
		}
		token := string(res[1].Rows[0][0])
		if token == before || token != text(t, a, "show tidemark.token") {
			t.Errorf("the token behind the write is %q, before it was %q", token, before)
		}
		res, err = b.PgConn().Exec(t.Context(), "set tidemark.token = '"+token+"'; select name from customers where id = 1; show tidemark.token").ReadAll()
		if err != nil {
			t.Fatal(err)
		}
		if got := resultText(res); got != "x;"+token {
			t.Errorf("who is handed it reads %q", got)
		}
	})
}

// COPY into a table of one shard runs while the session has a mark to take behind it.
func TestCopyLeavesAMark(t *testing.T) {
	engines(t, func(t *testing.T, engineName string) {
		_, dsn := shop(t, engineName, fixtureSpec{replicas: 1})
		c := connect(t, dsn)
		before := text(t, c, "show tidemark.token")
		tag, err := c.PgConn().CopyFrom(t.Context(), strings.NewReader("1\ta\n2\tb\n"), "copy notes from stdin")
		if err != nil || tag.RowsAffected() != 2 {
			t.Fatalf("%v, %v", tag, err)
		}
		if after := text(t, c, "show tidemark.token"); after == before {
			t.Errorf("the token stays %q", after)
		}
		if got := text(t, c, "select count(*) from notes"); got != "2" {
			t.Errorf("%s rows", got)
		}
	})
}

package proxy_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/jackc/pgx/v5"

	"github.com/tidemarkdb/tidemark/sharding"
)

// Names are looked up where the servers look: a database, or a role, may begin with another search_path than PostgreSQL's.
func TestSearchPathOfTheServers(t *testing.T) {
	f := newFixture(t, fixtureSpec{shards: 2, tables: []sharding.Table{{Schema: "sales", Name: "orders", Kind: sharding.Sharded, Column: "id", Type: sharding.Int8}}})
	for i := range 2 {
		c := connect(t, f.direct(i))
		exec(t, c, "CREATE SCHEMA sales; CREATE TABLE sales.orders (id bigint PRIMARY KEY, note text)")
		exec(t, c, "ALTER DATABASE "+pgx.Identifier{f.database}.Sanitize()+" SET search_path = sales, public")
	}
	engines(t, func(t *testing.T, engineName string) {
		p := f.run(t, engineName)
		c := connect(t, p.dsn)
		const n = 40
		for id := range n {
			exec(t, c, "DELETE FROM sales.orders WHERE id = $1", id+1)
			exec(t, c, "INSERT INTO sales.orders (id, note) VALUES ($1, 'here')", id+1)
		}
		for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeCacheStatement} {
			for id := range n {
				var note string
				if err := c.QueryRow(t.Context(), "SELECT note FROM orders WHERE id = $1", mode, id+1).Scan(&note); err != nil {
					t.Fatalf("order %d by the servers' search_path: %v", id+1, err)
				}
			}
		}
		// What is altered meanwhile counts from the next start, for who looks names up and on all connections.
		exec(t, connect(t, f.direct(0)), "ALTER DATABASE "+pgx.Identifier{f.database}.Sanitize()+" SET search_path = public")
		p.backend.Reconnect()
		for _, c := range []*pgx.Conn{c, connect(t, p.dsn)} {
			for id := range n {
				if got := text(t, c, fmt.Sprint("SELECT note FROM orders WHERE id = ", id+1)); got != "here" {
					t.Errorf("order %d behind a change: %q", id+1, got)
				}
			}
		}
		exec(t, connect(t, f.direct(0)), "ALTER DATABASE "+pgx.Identifier{f.database}.Sanitize()+" SET search_path = sales, public")
		exec(t, c, "SET search_path = public")
		if _, err := c.Exec(t.Context(), "SELECT note FROM orders WHERE id = 1"); err == nil {
			t.Error("found behind SET search_path = public")
		}
		exec(t, c, "RESET search_path")
		if got := text(t, c, "SELECT note FROM orders WHERE id = 7"); got != "here" {
			t.Errorf("behind RESET: %q", got)
		}
	})
}

// The types of a statement's parameters stay what they were when the client prepared it, also on a server connection to which it comes under
// another search_path; and there it is another client's, too.
func TestTypesUnderAnotherSearchPath(t *testing.T) {
	f := newFixture(t, fixtureSpec{shards: 1, pool: 3})
	c := connect(t, f.direct(0))
	exec(t, c, "create schema s1; create schema s2; create table s1.t (a int, b text); create table s2.t (a text, b text); insert into s1.t values (1, 'one')")
	const unlike = "ErrorResponse ERROR 42883 operator does not exist: text = integer"
	engines(t, func(t *testing.T, engineName string) {
		dsn := f.start(t, engineName)
		busy := func() func() { // with the connection that the others have used
			x := connect(t, dsn)
			exec(t, x, "begin")
			exec(t, x, "select 1")
			return func() { _ = x.Close(t.Context()) }
		}
		play := func(w *wireClient, messages, want string) {
			t.Helper()
			if got := w.play(t, &datadriven.TestData{Cmd: "send", Input: messages}); !strings.Contains(got, want) {
				t.Errorf("%s\nanswered\n%swant %s", messages, got, want)
			}
		}
		a, b := dialWire(t, dsn, "search_path s1"), dialWire(t, dsn, "search_path s1")
		for _, w := range []*wireClient{a, b} {
			play(w, "Parse {\"Name\":\"s\",\"Query\":\"select b from t where a = $1\"}\nSync", "ParseComplete")
			play(w, "Query prepare q as select b from t where a = $1", "PREPARE")
		}
		const run, query = `Bind {"PreparedStatement":"s","Parameters":["1"]}` + "\nExecute\nSync", "Query execute q(1)"
		play(a, "Query set search_path = s2", "SET")
		defer busy()()
		play(a, run, unlike)
		play(a, query, unlike)
		play(a, `Describe {"ObjectType":"S","Name":"s"}`+"\nSync", unlike)
		play(b, run, `DataRow "one"`)
		play(b, query, `DataRow "one"`)
		defer busy()()
		play(b, run, `DataRow "one"`)
		play(a, run, unlike)
		play(a, "Query set search_path = s1", "SET")
		play(a, run, `DataRow "one"`)
		play(a, query, `DataRow "one"`)
	})
}

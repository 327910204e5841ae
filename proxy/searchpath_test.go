package proxy_test

import (
	"fmt"
	"testing"

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

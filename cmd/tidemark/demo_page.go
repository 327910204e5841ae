package main

import (
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// printPage says where everything is and what to try, in less than a screen.
func (up *running) printPage(out io.Writer, took time.Duration) {
	var b strings.Builder
	fmt.Fprintf(&b, "\nTidemark is up, after %.1f s. Ctrl-C stops everything.\n", took.Seconds())
	fmt.Fprintf(&b, "  proxy          %s   http://%s/health   /ready   /metrics\n", demoURL(up.addresses.proxy), up.addresses.proxyHTTP)
	fmt.Fprintf(&b, "  projector      http://%s/health\n", up.addresses.projectorHTTP)
	for i, pg := range up.stack.Postgres {
		fmt.Fprintf(&b, "  %-14s primary %s", fmt.Sprintf("%s in %s", pg.Name, demoShards[i].region), pg.Primary.Addr())
		for _, r := range pg.Replicas {
			fmt.Fprintf(&b, ", replica %s", r.Addr())
		}
		fmt.Fprintf(&b, "   PostgreSQL %s\n", pg.Version)
	}
	fmt.Fprintf(&b, "  Kafka          %s   Elasticsearch %s   Redis %s\n", strings.Join(up.stack.Kafka.Brokers, ","), up.stack.Elastic.URL, up.stack.Redis.Addr)
	fmt.Fprintf(&b, "  configuration  %s   logs %s\n\n", up.config, filepath.Join(up.stack.Dir, "logs"))
	if _, err := exec.LookPath("psql"); err != nil {
		fmt.Fprintf(&b, "psql is not installed here (Debian: apt install postgresql-client); any other client will do.\n")
	}
	fmt.Fprintf(&b, "In another terminal:\n  export DB=%s\n", demoURL(up.addresses.proxy))
	for _, c := range demoCommands {
		fmt.Fprintf(&b, "  # %s\n  psql $DB", c.what)
		for _, sql := range c.sql {
			fmt.Fprintf(&b, ` -c "%s"`, sql)
		}
		b.WriteByte('\n')
	}
	_, _ = io.WriteString(out, b.String()) // what cannot be shown cannot be reported either
}

// demoCommands are what the page shows: each one is a session of its own. The end-to-end test runs them.
var demoCommands = []struct {
	what string
	sql  []string
}{
	{"one customer's orders: one shard, a replica", []string{"SELECT id, status, total FROM orders WHERE customer_id = 42 ORDER BY placed DESC LIMIT 3", "SHOW tidemark.route"}},
	{"a write: that shard's primary", []string{"UPDATE customers SET city = 'Porto' WHERE id = 42", "SHOW tidemark.route"}},
	{"all shards", []string{"SELECT customer_id, id, total FROM orders WHERE total > 3000", "SHOW tidemark.route"}},
	{"full text, from Elasticsearch", []string{"SELECT id, name, price FROM product_search WHERE search @@ 'red shoes' ORDER BY price LIMIT 5"}},
	{"write, then read the copy in Redis: never the old value", []string{"UPDATE customers SET city = 'Faro' WHERE id = 42", "SELECT name, city FROM customer_cache WHERE id = 42"}},
	{"how far the read models are", []string{"SELECT * FROM tidemark.lag"}},
}

package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/tidemarkdb/tidemark/internal/localstack"
)

// demoLogin is the demo's only user, its password and its database. Everything listens on 127.0.0.1 only.
const demoLogin = "shop"

// demoShards are the demo's shards and their regions.
var demoShards = []struct{ name, region string }{{"s1", "eu"}, {"s2", "us"}}

// demoAddresses are what the demo itself listens on.
type demoAddresses struct{ proxy, proxyHTTP, projectorHTTP string }

// chooseAddresses takes the usual ports where they are free, and any others where not.
func chooseAddresses() (a demoAddresses, moved bool, err error) {
	for _, want := range []struct {
		into *string
		port int
	}{{&a.proxy, 6432}, {&a.proxyHTTP, 9632}, {&a.projectorHTTP, 9633}} {
		l, err := net.Listen("tcp", net.JoinHostPort(localstack.Host, strconv.Itoa(want.port)))
		if err != nil {
			moved = true
			if l, err = net.Listen("tcp", net.JoinHostPort(localstack.Host, "0")); err != nil {
				return a, moved, fmt.Errorf("find a free port: %w", err)
			}
		}
		*want.into = l.Addr().String()
		defer func() { _ = l.Close() }() // all are held until all are chosen
	}
	return a, moved, nil
}

// writeDemoConfig writes the demo's configuration into its folder: what a user would write by hand.
func writeDemoConfig(stack *localstack.Stack, a demoAddresses) (path string, err error) {
	var shards strings.Builder
	for i, pg := range stack.Postgres {
		fmt.Fprintf(&shards, "  - name: %s\n    region: %s\n    primary: {host: %s, port: %d}\n    replicas:\n", pg.Name, demoShards[i].region, pg.Primary.Host, pg.Primary.Port)
		for _, r := range pg.Replicas {
			fmt.Fprintf(&shards, "      - {host: %s, port: %d}\n", r.Host, r.Port)
		}
	}
	text := fmt.Sprintf(`# Written by tidemark demo; docs/config.md explains every key.
listen: %s
http: %s # of the proxy; the projector's is given by --http
region: %s

database: {name: %s, user: %s, password: %s}
users:
  - {name: %s, password: %s}
admin:
  users: [%s]

shards:
%s
sharding:
  tables:
    customers: {key: id}
    orders: {key: customer_id}
    order_lines: {key: customer_id}
    products: reference

kafka:
  brokers: [%s]
  partitions: 4

capture:
  tables: [customers, orders, products]

views:
  order_search: {from: orders, elastic: {}}
  product_search: {from: products, elastic: {}}
  customer_cache: {from: customers, redis: {as: hash}}
  product_cache: {from: products, redis: {as: json}}

elasticsearch:
  addresses: [%s]

redis:
  address: %s
`, a.proxy, a.proxyHTTP, demoShards[0].region, demoLogin, localstack.User, localstack.Password, demoLogin, demoLogin, demoLogin, shards.String(),
		strings.Join(stack.Kafka.Brokers, ", "), stack.Elastic.URL, stack.Redis.Addr)
	path = filepath.Join(stack.Dir, "tidemark.yaml")
	return path, os.WriteFile(path, []byte(text), 0o600)
}

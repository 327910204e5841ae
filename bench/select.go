package main

import (
	"context"
	"strconv"
)

// latencyColumns are those of every scenario that pgbench drives for a time; load.sample fills them.
var latencyColumns = []column{
	{name: "tps"},
	{name: "p50 ms", digits: 3},
	{name: "p99 ms", digits: 3},
	{name: "user µs", digits: 1, proxy: true},
	{name: "system µs", digits: 1, proxy: true},
	{name: "CPU µs", digits: 1, proxy: true},
}

// modes are the protocols of pgbench.
var modes = []string{"simple", "extended", "prepared"}

// selects is pgbench -S: one row by primary key.
func selects(b *bench) *scenario {
	sc := &scenario{
		name: "select", title: "Select-only",
		note: "pgbench -S, one pgbench thread. CPU is that of the proxy's process per transaction, logins left out. tidemark-sharded routes each statement by key to two shards. " +
			"Prepared: a PgBouncer before 1.21 pools sessions there, because it cannot keep prepared statements otherwise. Goals: 1.00, sharded 1.25.",
		keys: []string{"mode", "clients"}, columns: latencyColumns, cost: "CPU µs",
		sharding: "pgbench_accounts: {key: aid, type: int}",
	}
	for _, mode := range modes {
		for _, n := range b.clients {
			sc.points = append(sc.points, point{
				labels: []string{mode, strconv.Itoa(n)},
				measure: func(ctx context.Context, p *peer) (sample, error) {
					return load{clients: n, seconds: b.seconds, mode: mode, sampling: 0.1, args: []string{"-S"}}.sample(ctx, p)
				},
			})
		}
	}
	return sc
}

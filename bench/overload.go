package main

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
)

// overload compares as many clients as the pool has connections with ten times as many.
func overload(b *bench) *scenario {
	sc := &scenario{
		name: "overload", title: "Overload",
		note: "Pools of 20 connections; 20 and 200 clients, simple protocol. *10 ms* is a transaction that holds its connection for 10 ms: ten times the clients can only wait ten times as long, " +
			"so 100 ms is the median that a fair queue gives, and p99 tells how fair it is.",
		keys: []string{"transaction", "clients"}, columns: latencyColumns, cost: "p99 ms", poolers: true,
	}
	script := filepath.Join(b.dir, "10ms.sql")
	for _, kind := range []struct {
		label    string
		sampling float64
		args     []string
	}{{"select-only", 0.1, []string{"-S"}}, {"10 ms", 1, []string{"-f", script}}} {
		for _, n := range []int{poolSize, 10 * poolSize} {
			sc.points = append(sc.points, point{
				labels: []string{kind.label, strconv.Itoa(n)},
				measure: func(ctx context.Context, p *peer) (sample, error) {
					if err := os.WriteFile(script, []byte("SELECT pg_sleep(0.01);\n"), 0o644); err != nil {
						return nil, err
					}
					return load{clients: n, seconds: b.seconds, mode: "simple", sampling: kind.sampling, args: kind.args}.sample(ctx, p)
				},
			})
		}
	}
	return sc
}

package main

import (
	"fmt"
	"strings"
)

// render is the report: one table per mode, medians of the rounds, with each peer's CPU as a multiple of PgBouncer's.
func render(peers []*peer, points []*point, rounds, seconds int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Select-only: direct, PgBouncer, Tidemark\n\n")
	fmt.Fprintf(&b, "%s. pgbench -S, one pgbench thread, pools of %d; medians of %d interleaved rounds of %d s.\n", machine(), poolSize, rounds, seconds)
	b.WriteString("CPU is that of the proxy's process, user and system, per transaction. tidemark-sharded routes each statement by key to two shards.\n")
	b.WriteString("PgBouncer pools sessions in prepared mode, because version 1.18 cannot keep prepared statements otherwise.\n")
	base := -1
	for i, p := range peers {
		if p.name == "pgbouncer" {
			base = i
		}
	}
	mode := ""
	for _, pt := range points {
		if pt.mode != mode {
			mode = pt.mode
			fmt.Fprintf(&b, "\n## %s\n\n| clients | peer | tps | p50 ms | p99 ms | CPU µs | × PgBouncer |\n|--:|:--|--:|--:|--:|--:|--:|\n", mode)
		}
		for i, p := range peers {
			s := pt.samples[i]
			cpu := median(s, func(s sample) float64 { return s.cpu })
			ratio := ""
			if base >= 0 && p.cmd != nil {
				if of := median(pt.samples[base], func(s sample) float64 { return s.cpu }); of > 0 {
					ratio = fmt.Sprintf("%.2f", cpu/of)
				}
			}
			cost := ""
			if p.cmd != nil {
				cost = fmt.Sprintf("%.1f", cpu)
			}
			fmt.Fprintf(&b, "| %d | %s | %.0f | %.3f | %.3f | %s | %s |\n", pt.clients, p.name,
				median(s, func(s sample) float64 { return s.tps }), median(s, func(s sample) float64 { return s.p50 }),
				median(s, func(s sample) float64 { return s.p99 }), cost, ratio)
		}
	}
	return b.String()
}

package main

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// write puts the report and its chart into the folder.
func (b *bench) write(results []*result) error {
	name := "report"
	if b.quick {
		name = "quick"
	}
	if err := os.MkdirAll(b.out, 0o755); err != nil {
		return err
	}
	file := filepath.Join(b.out, name+".md")
	chart := chart(results)
	if err := os.WriteFile(filepath.Join(b.out, name+".svg"), []byte(chart), 0o644); err != nil {
		return err
	}
	say("written to %s", file)
	return os.WriteFile(file, []byte(b.render(results, name+".svg")), 0o644)
}

// render is the report in Markdown: a table for each scenario.
func (b *bench) render(results []*result, chart string) string {
	var w strings.Builder
	fmt.Fprintf(&w, "# Direct, PgBouncer, Tidemark\n\n%s.\n", b.setting())
	fmt.Fprintf(&w, "Medians of %d interleaved rounds of %d s; all on one machine, with pgbench and the servers, in memory without fsync. Pools of %d connections.\n",
		b.rounds, b.seconds, poolSize)
	w.WriteString("The last column is the cost printed before it (*in italics*) as a multiple of PgBouncer's, the newer one where there are two: the median of the rounds' own ratios. Less is better.\n")
	w.WriteString("Compare within a table, not with other runs. `make bench` does it again.\n")
	fmt.Fprintf(&w, "\n![Cost as a multiple of PgBouncer's](%s)\n", chart)
	for _, r := range results {
		w.WriteString(r.table())
	}
	return w.String()
}

// setting is one line about the machine and what ran on it.
func (b *bench) setting() string {
	model := "unknown processor"
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(info)) {
			if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
				model = strings.TrimSpace(v)
				break
			}
		}
	}
	parts := []string{time.Now().UTC().Format("2006-01-02"), fmt.Sprintf("%s, %d cores", model, runtime.NumCPU()), "PostgreSQL " + b.stack.Postgres[0].Version}
	for _, name := range peerNames {
		if pr, ok := b.programs[name]; ok && name != "tidemark-sharded" {
			parts = append(parts, fmt.Sprintf("%s is %s", name, pr.version))
		}
	}
	return strings.Join(parts, "; ")
}

func (r *result) table() string {
	var w strings.Builder
	fmt.Fprintf(&w, "\n## %s\n\n%s\n\n|", r.title, r.note)
	for _, k := range r.keys {
		fmt.Fprintf(&w, " %s |", k)
	}
	w.WriteString(" peer |")
	for _, c := range r.columns {
		if c.name == r.cost {
			fmt.Fprintf(&w, " *%s* |", c.name)
			continue
		}
		fmt.Fprintf(&w, " %s |", c.name)
	}
	w.WriteString(" × PgBouncer |\n|" + strings.Repeat(":--|", len(r.keys)+1) + strings.Repeat("--:|", len(r.columns)+1) + "\n")
	for i, pt := range r.points {
		for j, p := range r.peers {
			rounds := r.samples[i][j]
			if len(rounds) == 0 {
				continue
			}
			fmt.Fprintf(&w, "| %s | %s |", strings.Join(pt.labels, " | "), p.name)
			for k, c := range r.columns {
				if c.proxy && !p.proxy() {
					w.WriteString(" |")
					continue
				}
				fmt.Fprintf(&w, " %.*f |", c.digits, median(values(rounds, k)))
			}
			if ratio := r.ratio(i, j); ratio > 0 {
				fmt.Fprintf(&w, " %.2f |\n", ratio)
				continue
			}
			w.WriteString(" |\n")
		}
	}
	for _, f := range r.failures {
		first, _, _ := strings.Cut(f, "\n")
		fmt.Fprintf(&w, "\nFailed: %s\n", first)
	}
	return w.String()
}

// base is the index of the PgBouncer that others are compared with, -1 when there is none.
func (r *result) base() int {
	for _, name := range []string{"pgbouncer-new", "pgbouncer"} {
		if i := slices.IndexFunc(r.peers, func(p *peer) bool { return p.name == name }); i >= 0 {
			return i
		}
	}
	return -1
}

// ratio is the cost of a peer at a point as a multiple of PgBouncer's: the median over rounds, each of which compares two
// measurements that were made one after the other. 0 when there is nothing to compare.
func (r *result) ratio(point, peer int) float64 {
	base := r.base()
	k := slices.IndexFunc(r.columns, func(c column) bool { return c.name == r.cost })
	if base < 0 || r.columns[k].proxy && !r.peers[peer].proxy() {
		return 0
	}
	own, of := values(r.samples[point][peer], k), values(r.samples[point][base], k)
	var ratios []float64
	for i := range min(len(own), len(of)) {
		if of[i] > 0 {
			ratios = append(ratios, own[i]/of[i])
		}
	}
	return median(ratios)
}

func values(rounds []sample, column int) []float64 {
	v := make([]float64, len(rounds))
	for i, s := range rounds {
		v[i] = s[column]
	}
	return v
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	v = slices.Sorted(slices.Values(v))
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

// geometricMean is the mean for ratios: twice and half are as far from one.
func geometricMean(v []float64) float64 {
	var sum float64
	for _, x := range v {
		sum += math.Log(x)
	}
	return math.Exp(sum / float64(max(1, len(v))))
}

package main

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
)

//go:generate go test . -run ^TestMetricsPage$ -write-metrics

var writeMetrics = flag.Bool("write-metrics", false, "write docs/metrics.md instead of comparing it")

const metricsHead = `# Metrics

<!-- Generated from the code by "go generate ./cmd/tidemark"; a test fails when it differs. -->

` + "`/metrics` on the `http` address is for Prometheus. Beside what is below there are `go_*` and `process_*` of its Go client, and `tidemark_build_info`, whose labels are the version and what the process is.\n" +
	"The tables of the [admin database](admin.md) have the same numbers, client by client and connection by connection. Buckets of histograms are powers of two from 65.5 µs to 34.4 s.\n"

// The page about metrics names every one of them, as the code has them.
func TestMetricsPage(t *testing.T) {
	const page = "../../docs/metrics.md"
	var b strings.Builder
	b.WriteString(metricsHead)
	for _, part := range []struct {
		title   string
		metrics []metric
	}{
		{"A proxy", slices.Concat((&proxyProcess{}).metrics().metrics, ofMeters, (&tracing{}).metrics().metrics)},
		{"A projector", (&projector{}).metrics().metrics},
	} {
		fmt.Fprintf(&b, "\n## %s\n\n| metric | type | labels | meaning |\n|---|---|---|---|\n", part.title)
		for _, m := range part.metrics {
			kind := map[prometheus.ValueType]string{0: "histogram", prometheus.GaugeValue: "gauge", prometheus.CounterValue: "counter"}[m.kind]
			if (kind == "counter") != strings.HasSuffix(m.name, "_total") || m.help == "" || strings.Contains(m.help, "|") {
				t.Errorf("%s: a %s of that name, or no meaning that a table can show", m.name, kind)
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", m.name, kind, strings.Join(m.labels, ", "), m.help)
		}
	}
	if *writeMetrics {
		if err := os.WriteFile(page, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(b.String(), string(got)); diff != "" {
		t.Errorf("%s is out of date; run go generate ./cmd/tidemark\n(-code +page)\n%s", page, diff)
	}
}

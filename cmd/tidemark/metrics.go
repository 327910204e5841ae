package main

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// metric is one time series family that is read from Stats() at each scrape. docs/metrics.md is generated from these.
type metric struct {
	desc       *prometheus.Desc
	kind       prometheus.ValueType // 0: histogram
	name, help string
	labels     []string
}

func newMetric(kind prometheus.ValueType, name, help string, labels []string) metric {
	name = "tidemark_" + name
	return metric{prometheus.NewDesc(name, help, labels, nil), kind, name, help, labels}
}

func gauge(name, help string, labels ...string) metric {
	return newMetric(prometheus.GaugeValue, name, help, labels)
}

func counter(name, help string, labels ...string) metric {
	return newMetric(prometheus.CounterValue, name, help, labels)
}

func histogram(name, help string, labels ...string) metric { return newMetric(0, name, help, labels) }

// valid makes label values that Prometheus takes: names of users are whatever clients send.
func valid(labels []string) []string {
	for i, l := range labels {
		labels[i] = strings.ToValidUTF8(l, "\uFFFD")
	}
	return labels
}

// sample is a value of a gauge or counter.
func (m metric) sample(value float64, labels ...string) prometheus.Metric {
	x, err := prometheus.NewConstMetric(m.desc, m.kind, value, valid(labels)...)
	if err != nil {
		return prometheus.NewInvalidMetric(m.desc, err)
	}
	return x
}

// distribution is a value of a histogram.
func (m metric) distribution(count uint64, sum float64, buckets map[float64]uint64, labels ...string) prometheus.Metric {
	x, err := prometheus.NewConstHistogram(m.desc, count, sum, buckets, valid(labels)...)
	if err != nil {
		return prometheus.NewInvalidMetric(m.desc, err)
	}
	return x
}

// scrape reads a package's numbers and emits them; it keeps none.
type scrape struct {
	metrics []metric
	read    func(emit func(m metric, value float64, labels ...string))
}

// Describe implements prometheus.Collector.
func (s scrape) Describe(out chan<- *prometheus.Desc) {
	for _, m := range s.metrics {
		out <- m.desc
	}
}

// Collect implements prometheus.Collector.
func (s scrape) Collect(out chan<- prometheus.Metric) {
	s.read(func(m metric, value float64, labels ...string) { out <- m.sample(value, labels...) })
}

func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

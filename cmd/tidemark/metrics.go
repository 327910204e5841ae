package main

import "github.com/prometheus/client_golang/prometheus"

// metric is one time series family that is read from Stats() at each scrape.
type metric struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
}

func gauge(name, help string, labels ...string) metric {
	return metric{prometheus.NewDesc("tidemark_"+name, help, labels, nil), prometheus.GaugeValue}
}

func counter(name, help string, labels ...string) metric {
	return metric{prometheus.NewDesc("tidemark_"+name, help, labels, nil), prometheus.CounterValue}
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
	s.read(func(m metric, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(m.desc, m.kind, value, labels...)
	})
}

func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

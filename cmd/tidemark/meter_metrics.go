package main

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidemarkdb/tidemark/proxy"
)

// meterMetrics has what users do on shards as Prometheus histograms and counters, read at each scrape.
type meterMetrics func() []*proxy.Meter

var (
	meterLabels     = []string{"user", "shard"}
	waitHistogram   = prometheus.NewDesc("tidemark_wait_seconds", "Time that sessions waited for a server connection.", meterLabels, nil)
	queryHistogram  = prometheus.NewDesc("tidemark_request_seconds", "Time from a request's first byte to a server to its last answer; a request is a query string, or a batch of the extended protocol.", meterLabels, nil)
	txHistogram     = prometheus.NewDesc("tidemark_transaction_seconds", "Time of transactions; a request outside of one is one.", meterLabels, nil)
	bytesInCounter  = prometheus.NewDesc("tidemark_client_bytes_in_total", "Bytes from clients.", meterLabels, nil)
	bytesOutCounter = prometheus.NewDesc("tidemark_client_bytes_out_total", "Bytes to clients.", meterLabels, nil)
)

// Describe implements prometheus.Collector.
func (m meterMetrics) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{waitHistogram, queryHistogram, txHistogram, bytesInCounter, bytesOutCounter} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (m meterMetrics) Collect(out chan<- prometheus.Metric) {
	for _, x := range m() {
		for _, h := range []struct {
			desc *prometheus.Desc
			from *proxy.Histogram
		}{{waitHistogram, &x.Wait}, {queryHistogram, &x.Query}, {txHistogram, &x.Transaction}} {
			count, sum, buckets := h.from.Read()
			out <- prometheus.MustNewConstHistogram(h.desc, count, sum, buckets, x.User, x.Shard)
		}
		out <- prometheus.MustNewConstMetric(bytesInCounter, prometheus.CounterValue, float64(x.BytesIn.Load()), x.User, x.Shard)
		out <- prometheus.MustNewConstMetric(bytesOutCounter, prometheus.CounterValue, float64(x.BytesOut.Load()), x.User, x.Shard)
	}
}

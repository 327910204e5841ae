package main

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidemarkdb/tidemark/proxy"
)

// meterMetrics has what users do on shards as Prometheus histograms and counters, read at each scrape.
type meterMetrics func() []*proxy.Meter

var (
	waitHistogram  = histogram("wait_seconds", "Time that sessions waited for a server connection.", "user", "shard")
	queryHistogram = histogram("request_seconds", "Time from a request's first byte to a server to its last answer; a request is a query string, or a batch of the extended protocol.", "user", "shard")
	txHistogram    = histogram("transaction_seconds", "Time of transactions; a request outside of one is one.", "user", "shard")
	bytesIn        = counter("client_bytes_in_total", "Bytes from clients.", "user", "shard")
	bytesOut       = counter("client_bytes_out_total", "Bytes to clients.", "user", "shard")

	ofMeters = []metric{waitHistogram, queryHistogram, txHistogram, bytesIn, bytesOut}
)

// Describe implements prometheus.Collector.
func (m meterMetrics) Describe(out chan<- *prometheus.Desc) {
	for _, x := range ofMeters {
		out <- x.desc
	}
}

// Collect implements prometheus.Collector.
func (m meterMetrics) Collect(out chan<- prometheus.Metric) {
	for _, x := range m() {
		for _, h := range []struct {
			of   metric
			from *proxy.Histogram
		}{{waitHistogram, &x.Wait}, {queryHistogram, &x.Query}, {txHistogram, &x.Transaction}} {
			count, sum, buckets := h.from.Read()
			out <- h.of.distribution(count, sum, buckets, x.User, x.Shard)
		}
		out <- bytesIn.sample(float64(x.BytesIn.Load()), x.User, x.Shard)
		out <- bytesOut.sample(float64(x.BytesOut.Load()), x.User, x.Shard)
	}
}

package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

	"github.com/tidemarkdb/tidemark/internal/config"
	"github.com/tidemarkdb/tidemark/internal/otlp"
	"github.com/tidemarkdb/tidemark/proxy"
)

// tracing sends the process's spans to the collector of the configuration, and to another one when a reload names it.
// Nothing of OpenTelemetry's is global: what its packages would print of a failure, this type logs.
type tracing struct {
	log      *slog.Logger
	mu       sync.Mutex // guards the two below
	current  *config.Tracing
	provider *sdktrace.TracerProvider // nil: there is no collector
	retired  sync.WaitGroup           // of collectors that a reload has replaced

	sent, failed atomic.Uint64 // spans
	complained   atomic.Int64  // when a failure was last logged, in Unix seconds
}

// Bounds of what waits for the collector.
const (
	spanQueue    = 4096 // spans at most; further ones are dropped
	spanBatch    = 512  // of these are sent at once
	spanDelay    = 2 * time.Second
	spanValue    = 4096 // bytes of an attribute
	spansFlushed = 2 * time.Second
	complainEach = 60 // seconds
)

// prepare makes what a proxy needs to trace by a configuration; nil for one without tracing. apply puts it into force, cancel
// does not.
func (t *tracing) prepare(c *config.Config) (out *proxy.Tracing, apply, cancel func(), err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	provider := t.provider
	if !c.Tracing.SameCollector(t.current) {
		if provider, err = t.dial(c); err != nil {
			return nil, nil, nil, err
		}
	}
	if c.Tracing != nil {
		out = &proxy.Tracing{Tracer: provider.Tracer("github.com/tidemarkdb/tidemark/proxy"), Sample: c.Tracing.Sample, QueryText: c.Tracing.QueryText}
	}
	apply = func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		old := t.provider
		t.current, t.provider = c.Tracing, provider
		if old != nil && old != provider {
			t.retired.Go(func() { t.shut(context.Background(), old) }) // spans of requests under way are lost with it
		}
	}
	cancel = func() {
		if provider != nil && !c.Tracing.SameCollector(t.current) {
			t.shut(context.Background(), provider) // it has nothing to send
		}
	}
	return out, apply, cancel, nil
}

// dial makes a provider for the collector; nil where there is none. It connects to nothing.
func (t *tracing) dial(c *config.Config) (*sdktrace.TracerProvider, error) {
	x := c.Tracing
	if x == nil {
		return nil, nil
	}
	header := http.Header{}
	for _, h := range x.Headers {
		header.Set(h.Name, h.Value.Reveal())
	}
	secure, err := c.TracingTLS()
	if err != nil {
		return nil, err
	}
	exporter, err := otlptrace.New(context.Background(), otlp.New(otlp.Config{URL: x.Endpoint, Header: header, TLS: secure, Timeout: x.Timeout, Agent: "tidemark/" + version()}))
	if err != nil {
		return nil, fmt.Errorf("%s: tracing: %w", c.File, err)
	}
	limits := sdktrace.NewSpanLimits()
	limits.AttributeValueLengthLimit = spanValue
	return sdktrace.NewTracerProvider(
		sdktrace.WithSampler(sdktrace.AlwaysSample()), // the proxy has decided
		sdktrace.WithRawSpanLimits(limits),
		sdktrace.WithResource(resource.NewSchemaless(semconv.ServiceName(x.Service), semconv.ServiceVersion(version()), attribute.String("tidemark.database", c.Database.Name))),
		sdktrace.WithBatcher(
			counting{exporter, t}, sdktrace.WithMaxQueueSize(spanQueue), sdktrace.WithMaxExportBatchSize(spanBatch), sdktrace.WithBatchTimeout(spanDelay),
			sdktrace.WithExportTimeout(x.Timeout),
		),
	), nil
}

// close sends what waits, as long as ctx and spansFlushed allow.
func (t *tracing) close(ctx context.Context) {
	t.mu.Lock()
	provider := t.provider
	t.mu.Unlock()
	if provider != nil {
		t.shut(ctx, provider)
	}
	t.retired.Wait()
}

func (t *tracing) shut(ctx context.Context, provider *sdktrace.TracerProvider) {
	ctx, stop := context.WithTimeout(ctx, spansFlushed)
	defer stop()
	if err := provider.Shutdown(ctx); err != nil {
		t.log.Warn("traces were not sent before the end", "error", err)
	}
}

// metrics are the numbers of spans.
func (t *tracing) metrics() scrape {
	spans := counter("trace_spans_total", "Spans of traces that a collector has taken, or not: those that no collector took in time are dropped.", "result")
	return scrape{metrics: []metric{spans}, read: func(emit func(metric, float64, ...string)) {
		emit(spans, float64(t.sent.Load()), "sent")
		emit(spans, float64(t.failed.Load()), "failed")
	}}
}

// counting is an exporter whose failures are counted, and logged now and then. They end here: the SDK would print them.
type counting struct {
	sdktrace.SpanExporter
	t *tracing
}

// ExportSpans implements sdktrace.SpanExporter.
func (e counting) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	err := e.SpanExporter.ExportSpans(ctx, spans)
	if err == nil {
		e.t.sent.Add(uint64(len(spans)))
		return nil
	}
	e.t.failed.Add(uint64(len(spans)))
	now, last := time.Now().Unix(), e.t.complained.Load()
	if now-last >= complainEach && e.t.complained.CompareAndSwap(last, now) {
		e.t.log.Warn("traces cannot be sent and are dropped", "spans", len(spans), "error", err)
	}
	return nil
}

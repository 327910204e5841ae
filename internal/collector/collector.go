// Package collector receives OpenTelemetry traces for tests: OTLP over HTTP, as any collector takes it.
package collector

import (
	"cmp"
	"compress/gzip"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	common "go.opentelemetry.io/proto/otlp/common/v1"
	trace "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// Collector keeps what it receives.
type Collector struct {
	URL string

	mu      sync.Mutex // guards the fields below
	spans   []Span
	header  http.Header // of the last request
	refuses int
	faults  []error
}

// Span is one span, with its attributes as text.
type Span struct {
	Name, Kind, Trace, ID, Parent string
	Attrs                         map[string]string
	Failed                        bool
	Begin, End                    time.Time
	Service                       string
}

// New serves a collector until the test ends, and fails the test for requests that are not OTLP.
func New(t testing.TB) *Collector {
	t.Helper()
	c := &Collector{}
	s := httptest.NewServer(c)
	c.URL = s.URL
	t.Cleanup(func() {
		s.Close()
		for _, err := range c.faults {
			t.Errorf("collector: %v", err)
		}
	})
	return c
}

// Refuse has the next n requests answered by status 500, which no sender repeats.
func (c *Collector) Refuse(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refuses = n
}

// Header is the header of the last request.
func (c *Collector) Header() http.Header {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.header.Clone()
}

// Spans are those of one trace, or all when trace is empty, by the time of their begin.
func (c *Collector) Spans(trace string) []Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	var found []Span
	for _, s := range c.spans {
		if trace == "" || s.Trace == trace {
			found = append(found, s)
		}
	}
	slices.SortStableFunc(found, func(a, b Span) int { return cmp.Or(a.Begin.Compare(b.Begin), b.End.Compare(a.End)) })
	return found
}

// Await waits until spans of the trace are as enough wants them; "" means all traces.
func (c *Collector) Await(t testing.TB, trace string, enough func([]Span) bool) []Span {
	t.Helper()
	for until := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		spans := c.Spans(trace)
		if enough(spans) {
			return spans
		}
		if time.Now().After(until) {
			t.Fatalf("spans of trace %q: %+v", trace, spans)
		}
	}
}

// ServeHTTP implements http.Handler.
func (c *Collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.header = r.Header.Clone()
	if c.refuses > 0 {
		c.refuses--
		http.Error(w, "out of order", http.StatusInternalServerError)
		return
	}
	if err := c.take(r); err != nil {
		c.faults = append(c.faults, err)
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/x-protobuf") // an empty ExportTraceServiceResponse
}

func (c *Collector) take(r *http.Request) error {
	if r.Method != http.MethodPost || r.URL.Path != "/v1/traces" || r.Header.Get("Content-Type") != "application/x-protobuf" {
		return fmt.Errorf("%s %s of type %q", r.Method, r.URL, r.Header.Get("Content-Type"))
	}
	body := io.Reader(r.Body)
	if r.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(body)
		if err != nil {
			return err
		}
		body = z
	}
	b, err := io.ReadAll(body)
	if err != nil {
		return err
	}
	var m trace.TracesData // has the same one field as ExportTraceServiceRequest, whose package links gRPC
	if err := proto.Unmarshal(b, &m); err != nil {
		return err
	}
	for _, rs := range m.ResourceSpans {
		service := attributes(rs.GetResource().GetAttributes())["service.name"]
		for _, ss := range rs.ScopeSpans {
			for _, s := range ss.Spans {
				c.spans = append(c.spans, Span{
					Name: s.Name, Kind: trace.Span_SpanKind_name[int32(s.Kind)], Trace: hex.EncodeToString(s.TraceId), ID: hex.EncodeToString(s.SpanId),
					Parent: hex.EncodeToString(s.ParentSpanId), Attrs: attributes(s.Attributes), Failed: s.GetStatus().GetCode() == trace.Status_STATUS_CODE_ERROR,
					Begin: time.Unix(0, int64(s.StartTimeUnixNano)), End: time.Unix(0, int64(s.EndTimeUnixNano)), Service: service,
				})
			}
		}
	}
	return nil
}

func attributes(list []*common.KeyValue) map[string]string {
	m := map[string]string{}
	for _, kv := range list {
		switch v := kv.GetValue().GetValue().(type) {
		case *common.AnyValue_StringValue:
			m[kv.Key] = v.StringValue
		case *common.AnyValue_IntValue:
			m[kv.Key] = strconv.FormatInt(v.IntValue, 10)
		case *common.AnyValue_BoolValue:
			m[kv.Key] = strconv.FormatBool(v.BoolValue)
		default:
			m[kv.Key] = kv.GetValue().String()
		}
	}
	return m
}

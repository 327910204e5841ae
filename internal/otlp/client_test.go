package otlp

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	trace "go.opentelemetry.io/proto/otlp/trace/v1"
)

// What a collector wants to be asked again is; what it rejects is an error, with its words.
func TestUpload(t *testing.T) {
	for _, test := range []struct {
		name     string
		answers  []int
		body     string
		requests int64
		says     string
	}{
		{name: "taken", answers: []int{200}, requests: 1},
		{name: "taken, with words", answers: []int{200}, body: "\x0a\x06\x12\x04warn", requests: 1},
		{name: "not now", answers: []int{503, 429, 200}, requests: 3},
		{name: "never", answers: []int{400}, body: "bad", requests: 1, says: `400 Bad Request: "bad"`},
		{name: "out of order", answers: []int{500}, requests: 1, says: "500"},
		{name: "in part", answers: []int{200}, body: "\x0a\x07\x08\x05\x12\x03old", requests: 1, says: `rejected 5 spans: "old"`},
		{name: "not protobuf", answers: []int{200}, body: "<html>", requests: 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			var requests atomic.Int64
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				n := requests.Add(1)
				w.WriteHeader(test.answers[min(int(n), len(test.answers))-1])
				_, _ = w.Write([]byte(test.body))
			}))
			defer s.Close()
			c := New(Config{URL: s.URL, Timeout: time.Minute})
			err := c.UploadTraces(t.Context(), []*trace.ResourceSpans{{}})
			if (err != nil) != (test.says != "") || err != nil && !strings.Contains(err.Error(), test.says) {
				t.Errorf("error %v, want %q", err, test.says)
			}
			if n := requests.Load(); n != test.requests {
				t.Errorf("%d requests, want %d", n, test.requests)
			}
		})
	}
}

// A collector that never answers holds a batch up for the timeout only, or for as long as its sender has.
func TestUploadTimeout(t *testing.T) {
	hang := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-hang }))
	defer s.Close()
	defer close(hang)
	if err := New(Config{URL: s.URL, Timeout: 10 * time.Millisecond}).UploadTraces(t.Context(), nil); err == nil {
		t.Error("no error")
	}
	ctx, stop := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer stop()
	if err := New(Config{URL: s.URL, Timeout: time.Hour}).UploadTraces(ctx, nil); err == nil {
		t.Error("no error")
	}
}

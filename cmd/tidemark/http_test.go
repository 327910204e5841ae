package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidemarkdb/tidemark/testcontainers"
)

func answer(detail string, err error) func(context.Context) (string, error) {
	return func(context.Context) (string, error) { return detail, err }
}

func TestHealth(t *testing.T) {
	down := errors.New("nothing listens there")
	for _, test := range []struct {
		name   string
		probes []probe
		code   int
		status string
		checks []healthCheck
	}{
		{"nothing to ask", nil, 200, "ok", []healthCheck{}},
		{"all well", []probe{{name: "a", run: answer("fine", nil)}}, 200, "ok", []healthCheck{{Name: "a", Status: "ok", Detail: "fine"}}},
		{
			"a replica is down",
			[]probe{{name: "primary", run: answer("", nil)}, {name: "replica", optional: true, run: answer("", down)}},
			200, "degraded",
			[]healthCheck{{Name: "primary", Status: "ok"}, {Name: "replica", Status: "failing", Optional: true, Error: down.Error()}},
		},
		{
			"a primary is down, and a replica after it",
			[]probe{{name: "primary", run: answer("", down)}, {name: "replica", optional: true, run: answer("", down)}},
			503, "failing",
			[]healthCheck{{Name: "primary", Status: "failing", Error: down.Error()}, {Name: "replica", Status: "failing", Optional: true, Error: down.Error()}},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := httptest.NewRecorder()
			endpoints{probes: test.probes, ready: newReadiness(), metrics: prometheus.NewRegistry()}.handler().ServeHTTP(w, httptest.NewRequest("GET", "/health", nil))
			var got healthReport
			if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
				t.Fatalf("%v in %s", err, w.Body)
			}
			for i := range got.Checks {
				got.Checks[i].Millis = 0
			}
			if diff := cmp.Diff(healthReport{test.status, test.checks}, got); diff != "" || w.Code != test.code {
				t.Errorf("code %d, want %d; report (-want +got)\n%s", w.Code, test.code, diff)
			}
		})
	}
}

// A service that does not answer costs one timeout however many there are, and is named as such.
func TestProbesTimeOutTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := func(ctx context.Context) (string, error) { <-ctx.Done(); return "", ctx.Err() }
		start := time.Now()
		findings := runProbes(t.Context(), []probe{{name: "a", run: hang}, {name: "b", run: hang}, {name: "c", run: answer("", nil)}}, time.Second)
		if took := time.Since(start); took != time.Second {
			t.Errorf("three probes took %v, want 1s", took)
		}
		if err := findings[0].err; err == nil || !strings.Contains(err.Error(), "no answer within 1s") {
			t.Errorf("error %v", err)
		}
		if findings[2].err != nil {
			t.Errorf("the probe that answers failed: %v", findings[2].err)
		}
	})
}

func TestReady(t *testing.T) {
	r := newReadiness()
	get := func() (int, string) {
		w := httptest.NewRecorder()
		r.ServeHTTP(w, nil)
		return w.Code, strings.Join(strings.Fields(w.Body.String()), " ")
	}
	want := func(code int, body string) {
		t.Helper()
		if gotCode, gotBody := get(); gotCode != code || gotBody != body {
			t.Errorf("%d %s, want %d %s", gotCode, gotBody, code, body)
		}
	}
	want(503, `{ "ready": false, "reason": "starting" }`)
	r.when(func() string { return "shard s1 has no primary" })
	want(503, `{ "ready": false, "reason": "shard s1 has no primary" }`)
	r.when(func() string { return "" })
	want(200, `{ "ready": true }`)
	r.not("draining")
	want(503, `{ "ready": false, "reason": "draining" }`)
}

func TestServeHTTP(t *testing.T) {
	metrics := prometheus.NewRegistry()
	metrics.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "tidemark_test"}, func() float64 { return 7 }))
	h := endpoints{ready: newReadiness(), metrics: metrics}.handler()
	ctx, stop := context.WithCancel(t.Context())

	opened := &sockets{}
	address := testcontainers.FreeAddress(t)
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := serveHTTP(ctx, opened.listenHTTP, address, h, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("serving on an address in use: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	wait, err := serveHTTP(ctx, opened.listenHTTP, address, h, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- wait() }()
	for path, want := range map[string]string{"/metrics": "tidemark_test 7", "/": "/health", "/nowhere": "404"} {
		resp, err := http.Get("http://" + address + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		if err := resp.Body.Close(); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(body), want) {
			t.Errorf("%s: %s does not contain %s", path, body, want)
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Errorf("serving ended with %v", err)
	}
}

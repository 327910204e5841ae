package main

import (
	"encoding/json"
	"net/http"
	"sync/atomic"
	"time"
)

// probeTimeout bounds each probe of /health.
const probeTimeout = 2 * time.Second

// healthReport is the body of /health.
type healthReport struct {
	Status string        `json:"status"` // ok; degraded: an optional check failed; failing: another did, and the code is 503
	Checks []healthCheck `json:"checks"`
}

type healthCheck struct {
	Name     string  `json:"name"`
	Status   string  `json:"status"` // ok or failing
	Optional bool    `json:"optional,omitempty"`
	Detail   string  `json:"detail,omitempty"`
	Error    string  `json:"error,omitempty"`
	Millis   float64 `json:"ms"`
}

func reportHealth(findings []finding) (healthReport, int) {
	report, code := healthReport{Status: "ok", Checks: []healthCheck{}}, http.StatusOK
	for _, f := range findings {
		check := healthCheck{Name: f.name, Status: "ok", Optional: f.optional, Detail: f.detail, Millis: float64(f.took.Microseconds()) / 1000}
		if f.err != nil {
			check.Status, check.Error = "failing", f.err.Error()
			switch {
			case !f.optional:
				report.Status, code = "failing", http.StatusServiceUnavailable
			case report.Status == "ok":
				report.Status = "degraded"
			}
		}
		report.Checks = append(report.Checks, check)
	}
	return report, code
}

// serveHealth answers /health: every probe is run, for each request.
func serveHealth(probes []probe) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		report, code := reportHealth(runProbes(r.Context(), probes, probeTimeout))
		writeJSON(w, code, report)
	}
}

// readiness says whether new work should be sent here. It is false until the process serves, and again when it drains.
type readiness struct{ reason atomic.Pointer[string] }

func newReadiness() *readiness {
	r := new(readiness)
	r.not("starting")
	return r
}

func (r *readiness) yes()              { r.reason.Store(nil) }
func (r *readiness) not(reason string) { r.reason.Store(&reason) }

// ServeHTTP answers /ready.
func (r *readiness) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	if reason := r.reason.Load(); reason != nil {
		writeJSON(w, http.StatusServiceUnavailable, map[string]any{"ready": false, "reason": *reason})
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{"ready": true})
}

func writeJSON(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	_ = e.Encode(v) // the client has left
}

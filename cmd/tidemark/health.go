package main

import (
	"cmp"
	"encoding/json"
	"net/http"
	"sync"
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

// readiness says whether new work should be sent here: not before the process serves, nor when it drains.
type readiness struct {
	mu   sync.Mutex
	why  func() string // empty: ready
	over string        // set once and for ever by not
}

func newReadiness() *readiness {
	return &readiness{why: func() string { return "starting" }}
}

// when has each request ask why it is not ready; empty: it is.
func (r *readiness) when(why func() string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.why = why
}

// not ends readiness for good.
func (r *readiness) not(reason string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.over = reason
}

func (r *readiness) reason() string {
	r.mu.Lock()
	why, over := r.why, r.over
	r.mu.Unlock()
	return cmp.Or(over, why())
}

// ServeHTTP answers /ready.
func (r *readiness) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	if reason := r.reason(); reason != "" {
		writeJSON(w, http.StatusServiceUnavailable, map[string]any{"ready": false, "reason": reason})
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

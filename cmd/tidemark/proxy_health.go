package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidemarkdb/tidemark/internal/backend"
)

// probes are those of /health: primaries must be there, all else has something that stands in for it.
func (p *proxyProcess) probes() []probe {
	var probes []probe
	for _, s := range p.backend.Shards() {
		probes = append(probes, probe{name: "shard " + s.Name(), run: func(context.Context) (string, error) {
			e, err := s.Primary()
			if err != nil {
				return "", err
			}
			if !e.Healthy() {
				return "", fmt.Errorf("primary %s: %w", e.Name(), e.Status().Err)
			}
			return "primary " + e.Name(), nil
		}})
		if len(s.Endpoints()) > 1 {
			probes = append(probes, probe{name: "replicas of " + s.Name(), optional: true, run: func(context.Context) (string, error) { return replicaHealth(s) }})
		}
	}
	for _, v := range p.views {
		probes = append(probes, probe{name: "view " + v.Name(), optional: true, run: v.check})
	}
	return probes
}

func replicaHealth(s *backend.Shard) (string, error) {
	var good []string
	var bad []error
	for _, e := range s.Endpoints() {
		switch {
		case e.Role() == backend.RolePrimary:
		case e.Healthy():
			good = append(good, fmt.Sprintf("%s %v behind", e.Name(), e.Status().Lag.Round(time.Millisecond)))
		default:
			bad = append(bad, fmt.Errorf("%s: %w", e.Name(), e.Status().Err))
		}
	}
	if len(bad) > 0 {
		return "", errors.Join(bad...)
	}
	return strings.Join(good, ", "), nil
}

// metrics reads the numbers of the proxy, its pools and its endpoints.
func (p *proxyProcess) metrics() prometheus.Collector {
	clients := gauge("clients", "Connected clients.")
	logins := counter("logins_total", "Sessions that began.")
	refused := counter("logins_refused_total", "Logins that failed.")
	failed := counter("statement_errors_total", "Statements that the proxy itself answered with an error.")
	statements := counter("statements_total", "Statements by kind of plan.", "plan")
	tasks := gauge("loop_tasks", "Tasks alive.")
	stalls := counter("loop_stalls_total", "Times that a task held its loop for too long.")
	panics := counter("loop_panics_total", "Tasks ended by a panic.")
	busy := gauge("loop_busy_ratio", "Share of its time that a loop spent working.", "loop")
	budget := gauge("pool_budget_used", "Server connections of the process.")
	server := []string{"shard", "endpoint"}
	pool := []string{"shard", "endpoint", "user"}
	size := gauge("pool_size", "Connections of a user to an endpoint at most, without the reserve.", pool...)
	active := gauge("pool_active", "Connections lent to sessions.", pool...)
	idle := gauge("pool_idle", "Connections waiting for use.", pool...)
	waiting := gauge("pool_waiting", "Sessions waiting for a connection.", pool...)
	waits := counter("pool_waits_total", "Sessions that had to wait for a connection.", pool...)
	waited := counter("pool_wait_seconds_total", "Time that they waited.", pool...)
	timeouts := counter("pool_timeouts_total", "Sessions that gave up waiting.", pool...)
	opened := counter("pool_opened_total", "Connections opened.", pool...)
	failures := counter("pool_failures_total", "Attempts to open a connection that failed.", pool...)
	healthy := gauge("endpoint_healthy", "1 for an endpoint that takes statements.", "shard", "endpoint", "role")
	lag := gauge("endpoint_lag_seconds", "Age of the last commit that a replica has replayed, when it has something to replay.", server...)
	behind := gauge("view_lag_events", "Events that a read model has not applied.", "view")

	return scrape{
		metrics: []metric{
			clients, logins, refused, failed, statements, tasks, stalls, panics, busy, budget, size, active, idle, waiting, waits, waited, timeouts, opened, failures, healthy, lag, behind,
		},
		read: func(emit func(metric, float64, ...string)) {
			s := p.proxy.Stats()
			emit(clients, float64(s.Clients))
			emit(logins, float64(s.Logins))
			emit(refused, float64(s.Refused))
			emit(failed, float64(s.Errors))
			for plan, n := range s.Statements {
				emit(statements, float64(n), plan)
			}
			l := p.engine.Stats()
			emit(tasks, float64(l.Tasks))
			emit(stalls, float64(l.Stalls))
			emit(panics, float64(l.Panics))
			for i, share := range l.Busy {
				emit(busy, share, fmt.Sprint(i))
			}
			emit(budget, float64(p.backend.BudgetUsed()))
			for _, s := range p.backend.Stats() {
				at := []string{s.Shard, s.Endpoint, s.User}
				emit(size, float64(s.Size), at...)
				emit(active, float64(s.Active), at...)
				emit(idle, float64(s.Idle), at...)
				emit(waiting, float64(s.Waiting), at...)
				emit(waits, float64(s.Waits), at...)
				emit(waited, s.WaitTime.Seconds(), at...)
				emit(timeouts, float64(s.Timeouts), at...)
				emit(opened, float64(s.Opened), at...)
				emit(failures, float64(s.Failures), at...)
			}
			for _, s := range p.backend.Shards() {
				for _, e := range s.Endpoints() {
					emit(healthy, oneIf(e.Healthy()), s.Name(), e.Name(), e.Role().String())
					emit(lag, e.Status().Lag.Seconds(), s.Name(), e.Name())
				}
			}
			events := map[string]int64{}
			for _, g := range p.levels.Lags() {
				events[g.View.Name] = max(events[g.View.Name], g.Events) // the same number for each shard
			}
			for view, n := range events {
				emit(behind, float64(n), view)
			}
		},
	}
}

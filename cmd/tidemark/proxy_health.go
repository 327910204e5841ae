package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

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
				return "", fmt.Errorf("primary %s: %w", e.Name(), e.Unhealthy())
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
			bad = append(bad, fmt.Errorf("%s: %w", e.Name(), e.Unhealthy()))
		}
	}
	if len(bad) > 0 {
		return "", errors.Join(bad...)
	}
	return strings.Join(good, ", "), nil
}

// metrics reads the numbers of the proxy, its pools and its endpoints.
func (p *proxyProcess) metrics() scrape {
	clients := gauge("clients", "Connected clients, logins included.")
	most := gauge("clients_max", "Clients at most.")
	sessions := gauge("sessions", "Clients whose login is complete, by what they hold: idle, active, waiting.", "state")
	pinned := gauge("sessions_pinned", "Clients that keep a server connection between their transactions.")
	listening := gauge("sessions_listening", "Clients that listen to channels over a server connection that they share.")
	consoles := gauge("consoles", "Connections to the admin database.")
	prepared := gauge("prepared_statements", "Distinct named prepared statements of all clients.")
	messages := gauge("message_memory_bytes", "What large messages of clients take while they are read; clients.message_memory bounds it.")
	cached := gauge("plan_cache_entries", "Plans in the cache.")
	cacheBytes := gauge("plan_cache_bytes", "Memory that they take.")
	draining := gauge("draining", "1 while the process is about to end.")
	paused := gauge("shard_paused", "1 for a shard that is paused.", "shard")
	primaries := gauge("shard_primary", "1 for a shard that takes writes.", "shard")
	logins := counter("logins_total", "Sessions that began.")
	refused := counter("logins_refused_total", "Logins that failed.")
	failed := counter("statement_errors_total", "Statements that the proxy itself answered with an error.")
	statements := counter("statements_total", "Statements by kind of plan.", "plan")
	tasks := gauge("loop_tasks", "Tasks alive.")
	stalls := counter("loop_stalls_total", "Times that a task held its loop for too long.")
	panics := counter("loop_panics_total", "Tasks ended by a panic.")
	batches := counter("loop_batches_total", "Times that io_uring has sent several messages by one system call; 0 where this process may not use it.")
	busy := gauge("loop_busy_ratio", "Share of its time that a loop spent working.", "loop")
	budget := gauge("pool_budget_used", "Server connections of the process that count against pool.budget.")
	budgetMax := gauge("pool_budget", "Of these at most.")
	server := []string{"shard", "endpoint"}
	pool := []string{"shard", "endpoint", "user", "pool"}
	size := gauge("pool_size", "Connections of a user to an endpoint at most, without the reserve.", pool...)
	active := gauge("pool_active", "Connections lent to sessions.", pool...)
	idle := gauge("pool_idle", "Connections waiting for use.", pool...)
	reserve := gauge("pool_reserve", "Connections beyond the size, for sessions that wait too long.", pool...)
	opening := gauge("pool_opening", "Connections being opened.", pool...)
	waiting := gauge("pool_waiting", "Sessions waiting for a connection.", pool...)
	maxWait := gauge("pool_max_wait_seconds", "How long the session that has waited longest now has waited.", pool...)
	acquired := counter("pool_acquired_total", "Connections asked for.", pool...)
	waits := counter("pool_waits_total", "Sessions that had to wait for a connection.", pool...)
	waited := counter("pool_wait_seconds_total", "Time that they waited.", pool...)
	timeouts := counter("pool_timeouts_total", "Sessions that gave up waiting.", pool...)
	opened := counter("pool_opened_total", "Connections opened.", pool...)
	closed := counter("pool_closed_total", "Connections closed.", pool...)
	evicted := counter("pool_evicted_total", "Of these, so that another pool could open one.", pool...)
	broken := counter("pool_broken_total", "Of these, found dead after having been idle for long.", pool...)
	failures := counter("pool_failures_total", "Attempts to open a connection that failed.", pool...)
	healthy := gauge("endpoint_healthy", "1 for an endpoint that takes statements.", "shard", "endpoint", "role")
	lag := gauge("endpoint_lag_seconds", "Age of the last commit that a replica has replayed, when it has something to replay.", server...)
	position := gauge("endpoint_level_lsn", "Position in the write-ahead log that an endpoint has replayed, or written if it is the primary, in bytes.", server...)
	behind := gauge("view_lag_events", "Events that a read model has not applied.", "view")
	letters := gauge("view_dead_letters", "Events of a read model that lie in the dead-letter queue.", "view")
	level := gauge("view_level_lsn", "Position in a shard's write-ahead log that a read model has reached, in bytes; 0 while unknown.", "view", "shard")
	published := gauge("view_published_lsn", "Position up to which the shard's changes are on Kafka, in bytes; 0 while unknown.", "view", "shard")

	return scrape{
		metrics: []metric{
			clients, most, sessions, pinned, listening, consoles, logins, refused, failed, statements, prepared, messages, cached, cacheBytes, draining, tasks, stalls, panics, batches, busy,
			paused, primaries, budget, budgetMax, size, reserve, active, idle, opening, waiting, maxWait, acquired, waits, waited, timeouts, opened, closed, evicted, broken, failures,
			healthy, lag, position, behind, letters, level, published,
		},
		read: func(emit func(metric, float64, ...string)) {
			s := p.proxy.Stats()
			emit(clients, float64(s.Clients))
			emit(most, float64(s.MaxClients))
			for state, n := range s.Sessions {
				emit(sessions, float64(n), state)
			}
			emit(pinned, float64(s.Pinned))
			emit(listening, float64(s.Listening))
			emit(consoles, float64(s.Consoles))
			emit(prepared, float64(s.Prepared))
			emit(messages, float64(s.MessageBytes))
			emit(cached, float64(s.PlanCache.Entries))
			emit(cacheBytes, float64(s.PlanCache.Bytes))
			emit(draining, oneIf(s.Draining))
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
			emit(batches, float64(l.Batches))
			for i, share := range l.Busy {
				emit(busy, share, fmt.Sprint(i))
			}
			used, limit := p.backend.Budget()
			emit(budget, float64(used))
			emit(budgetMax, float64(limit))
			for _, s := range p.backend.Stats() {
				at := []string{s.Shard, s.Endpoint, s.User, "shared"}
				if s.Own {
					at[3] = "user"
				}
				if s.Mode == backend.Listening {
					at[3] += " listening"
				}
				emit(reserve, float64(s.Reserve), at...)
				emit(opening, float64(s.Opening), at...)
				emit(maxWait, s.MaxWait.Seconds(), at...)
				emit(acquired, float64(s.Acquired), at...)
				emit(closed, float64(s.Closed), at...)
				emit(evicted, float64(s.Evicted), at...)
				emit(broken, float64(s.Broken), at...)
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
				_, err := s.Primary()
				emit(primaries, oneIf(err == nil), s.Name())
				emit(paused, oneIf(p.proxy.Paused(s.Name())), s.Name())
				for _, e := range s.Endpoints() {
					emit(healthy, oneIf(e.Healthy()), s.Name(), e.Name(), e.Role().String())
					emit(lag, e.Status().Lag.Seconds(), s.Name(), e.Name())
					emit(position, float64(e.Level()), s.Name(), e.Name())
				}
			}
			events, dead := map[string]int64{}, map[string]int{}
			for _, g := range p.levels.Lags() {
				events[g.View.Name] = max(events[g.View.Name], g.Events) // the same number for each shard
				dead[g.View.Name] = max(dead[g.View.Name], g.Exceptions)
				emit(level, float64(g.Level.LSN), g.View.Name, g.Shard)
				emit(published, float64(g.Published.LSN), g.View.Name, g.Shard)
			}
			for view, n := range events {
				emit(behind, float64(n), view)
				emit(letters, float64(dead[view]), view)
			}
		},
	}
}

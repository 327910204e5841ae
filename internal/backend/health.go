package backend

import (
	"context"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tidemarkdb/tidemark/internal/lsn"
	"github.com/tidemarkdb/tidemark/internal/wire"
)

// health checks one endpoint again and again over a connection of its own.
type health struct {
	e         *Endpoint
	checked   chan struct{} // closed after the first check
	kick      chan struct{} // capacity 1: check soon
	fastUntil atomic.Int64  // Unix nanoseconds; until then checks are frequent

	// Used by run only.
	conn  *pgconn.PgConn
	first bool
}

func newHealth(e *Endpoint) *health {
	return &health{e: e, checked: make(chan struct{}), kick: make(chan struct{}, 1), first: true}
}

// nudge asks for frequent checks. Every session that waits calls it, so it does nothing while the time is not half over.
func (h *health) nudge() {
	now := time.Now().UnixNano()
	if h.fastUntil.Load() > now+int64(nudgeDuration/2) {
		return
	}
	h.fastUntil.Store(now + int64(nudgeDuration))
	select {
	case h.kick <- struct{}{}:
	default:
	}
}

// run checks until ctx ends.
func (h *health) run(ctx context.Context) {
	defer func() {
		if h.conn != nil {
			_ = closeAfter(h.conn, nil)
		}
	}()
	for {
		began := time.Now()
		h.check(ctx)
		if ctx.Err() != nil {
			return
		}
		if h.first {
			h.first = false
			close(h.checked)
		}
		select {
		case <-h.kick: // a nudge during the check was answered by it, or will be by the fast pace
		default:
		}
		if !h.pause(ctx, began, h.e.b.cfg()) {
			return
		}
	}
}

// pause waits until the next check is due; false when ctx ended.
func (h *health) pause(ctx context.Context, began time.Time, cfg *Config) bool {
	fast := began.Add(cfg.NudgeInterval)
	due := began.Add(jitter(cfg.HealthInterval))
	if h.fastUntil.Load() > time.Now().UnixNano() {
		due = fast
	}
	for {
		timer := time.NewTimer(time.Until(due))
		select {
		case <-ctx.Done():
			timer.Stop()
			return false
		case <-timer.C:
			return true
		case <-h.kick:
			timer.Stop()
			if fast.Before(due) {
				due = fast
			}
		}
	}
}

// check asks once and records the answer.
func (h *health) check(ctx context.Context) {
	parent := ctx
	ctx, cancel := context.WithTimeout(ctx, h.e.b.cfg().ConnectTimeout)
	defer cancel()
	st, err := h.ask(ctx)
	if err != nil {
		if parent.Err() != nil {
			return // we are closing: that says nothing about the endpoint
		}
		if h.conn != nil {
			_ = closeAfter(h.conn, nil)
			h.conn = nil
		}
		h.e.checkFailed(err)
		return
	}
	h.e.checkPassed(st)
}

// healthQuery yields what Status holds. A replica's timeline is the greater of the last checkpoint's and of the one that
// it must recover to, for after a promotion upstream the former lags behind.
//
// It names the schema of all that it calls, whatever the role's search_path is: what a user has made there must not run as this role. The
// connection's own search_path stays, for that is what clients are told.
const healthQuery = `
select pg_catalog.pg_is_in_recovery(),
       case when pg_catalog.pg_is_in_recovery() then pg_catalog.pg_last_wal_replay_lsn() else pg_catalog.pg_current_wal_insert_lsn() end,
       case when pg_catalog.pg_is_in_recovery()
             and (pg_catalog.pg_last_wal_receive_lsn() operator(pg_catalog.=) pg_catalog.pg_last_wal_replay_lsn()) is not true
            then extract(epoch from pg_catalog.clock_timestamp() operator(pg_catalog.-) pg_catalog.pg_last_xact_replay_timestamp()) else 0 end,
       case when pg_catalog.pg_is_in_recovery()
            then greatest((select timeline_id from pg_catalog.pg_control_checkpoint()), (select min_recovery_end_timeline from pg_catalog.pg_control_recovery()))
            else ('x' operator(pg_catalog.||) pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 1, 8))::pg_catalog.bit(32)::pg_catalog.int4 end,
       (select system_identifier from pg_catalog.pg_control_system()),
       pg_catalog.current_setting('server_version_num')`

func (h *health) ask(ctx context.Context) (Status, error) {
	if h.conn == nil {
		conn, err := pgconn.ConnectConfig(ctx, h.e.login().plain)
		if err != nil {
			return Status{}, err
		}
		h.conn = conn
		if _, err := conn.Prepare(ctx, "health", healthQuery, nil); err != nil {
			return Status{}, fmt.Errorf("prepare health check: %w", err)
		}
	}
	res := h.conn.ExecPrepared(ctx, "health", nil, nil, nil).Read()
	if res.Err != nil {
		return Status{}, fmt.Errorf("health check: %w", res.Err)
	}
	if len(res.Rows) != 1 || len(res.Rows[0]) != 6 {
		return Status{}, fmt.Errorf("health check: %d rows", len(res.Rows))
	}
	return parseStatus(res.Rows[0])
}

func parseStatus(row [][]byte) (Status, error) {
	st := Status{Role: RolePrimary, CheckedAt: time.Now()}
	if string(row[0]) == "t" {
		st.Role = RoleReplica
	}
	var err error
	if row[1] != nil { // null on a replica that has replayed nothing so far
		if st.Level, err = lsn.Parse(string(row[1])); err != nil {
			return Status{}, fmt.Errorf("health check: level: %w", err)
		}
	}
	if row[2] != nil {
		seconds, err := strconv.ParseFloat(string(row[2]), 64)
		if err != nil {
			return Status{}, fmt.Errorf("health check: lag: %w", err)
		}
		st.Lag = time.Duration(seconds * float64(time.Second))
	}
	timeline, err := strconv.ParseInt(string(row[3]), 10, 64)
	if err != nil {
		return Status{}, fmt.Errorf("health check: timeline: %w", err)
	}
	st.Timeline = uint32(timeline)
	if st.SystemID, err = strconv.ParseUint(string(row[4]), 10, 64); err != nil {
		return Status{}, fmt.Errorf("health check: system identifier: %w", err)
	}
	if st.ServerVersion, err = strconv.Atoi(string(row[5])); err != nil {
		return Status{}, fmt.Errorf("health check: version: %w", err)
	}
	return st, nil
}

// reported are the settings that servers report to clients (GUC_REPORT), up to PostgreSQL 18.
var reported = [...]string{
	"application_name", "client_encoding", "DateStyle", "default_transaction_read_only", "in_hot_standby",
	"integer_datetimes", "IntervalStyle", "is_superuser", "scram_iterations", "search_path", "server_encoding",
	"server_version", "session_authorization", "standard_conforming_strings", "TimeZone",
}

// checkPassed records a good check.
func (e *Endpoint) checkPassed(st Status) {
	old := e.status.Load()
	e.level.Store(uint64(st.Level))
	e.status.Store(&st)
	was := Role(e.role.Swap(uint32(st.Role)))
	if old.CheckedAt.IsZero() || was != st.Role {
		params := map[string]string{}
		for _, name := range reported {
			if v := e.health.conn.ParameterStatus(name); v != "" {
				params[name] = v
			}
		}
		params["application_name"] = "" // which is the check's own
		e.shard.setParams(params, st.Role == RolePrimary)
		e.b.log.Info("endpoint role", "endpoint", e.String(), "role", st.Role.String(), "timeline", st.Timeline, "level", st.Level.String(), "version", st.ServerVersion)
		if e.cfg.Role != RoleAuto && e.cfg.Role != st.Role {
			e.b.log.Warn("endpoint has another role than configured; its own word counts", "endpoint", e.String(), "configured", e.cfg.Role.String(), "role", st.Role.String())
		}
	}
	if was != st.Role || old.SystemID != st.SystemID {
		e.shard.refresh()
		e.shard.warnForeign(e)
	}
	e.breaker.success()
}

// warnForeign tells of a replica that is none of this shard's.
func (s *Shard) warnForeign(e *Endpoint) {
	if v := s.view.Load(); e.Role() == RoleReplica && !e.sameSystem(v.primary) {
		e.b.log.Error("endpoint belongs to another cluster than its shard's primary and gets no reads", "endpoint", e.String(), "primary", v.primary.String())
	}
}

// checkFailed records a failed one. The level stays: what was replayed remains replayed.
func (e *Endpoint) checkFailed(err error) {
	st := *e.status.Load()
	st.Err = err
	e.status.Store(&st)
	failed := e.connectError(err, e.login().user)
	if failed.Code == wire.TooManyConnections {
		return // the server is alive, and who is connected can go on
	}
	e.breaker.failure(failed)
	e.silent(st.CheckedAt, failed)
}

// breakerChanged follows the breaker: it tells people, the balancer and those who wait.
func (e *Endpoint) breakerChanged(from, to breakerState, cause error) {
	switch to {
	case breakerOpen:
		e.b.log.Warn("endpoint is down", "endpoint", e.String(), "was", from.String(), "error", cause)
	case breakerHalfOpen, breakerClosed:
		e.b.log.Info("endpoint is "+to.String(), "endpoint", e.String(), "was", from.String())
	}
	e.shard.refresh()
	for p := range e.pools {
		p.breakerChanged(to)
	}
}

package replication

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tidemarkdb/tidemark/internal/lsn"
)

// session settings that make every value's text the same whoever reads it, and independent of the server's defaults.
var textSettings = map[string]string{
	"client_encoding":                     "UTF8",
	"DateStyle":                           "ISO, MDY",
	"IntervalStyle":                       "postgres",
	"TimeZone":                            "UTC",
	"extra_float_digits":                  "1",
	"bytea_output":                        "hex",
	"xmlbinary":                           "base64",
	"search_path":                         "pg_catalog, pg_temp", // see printPath
	"row_security":                        "off",                 // an error instead of a snapshot that lacks rows
	"statement_timeout":                   "0",
	"lock_timeout":                        "0",
	"idle_in_transaction_session_timeout": "0",
	"idle_session_timeout":                "0",
}

// printPath is the search_path of connections that print rows, and the one by which types are named: of it comes which types, and which
// values of regclass, are printed with their schema. Those that ask have none but pg_catalog: what they would find elsewhere, an operator or
// a function of some user's that fits better than PostgreSQL's own, would run as the role that captures.
const printPath = "public"

// connConfig is the shard's connection with settings on top; purpose shows up in pg_stat_activity.
func (c *Config) connConfig(purpose string, settings map[string]string) (*pgx.ConnConfig, error) {
	cc, err := pgx.ParseConfig(c.ConnString)
	if err != nil {
		return nil, err
	}
	if cc.ConnectTimeout == 0 {
		cc.ConnectTimeout = 10 * time.Second
	}
	for k, v := range textSettings {
		cc.RuntimeParams[k] = v
	}
	for k, v := range settings {
		cc.RuntimeParams[k] = v
	}
	cc.RuntimeParams["application_name"] = "tidemark " + purpose + " " + c.Slot
	return cc, nil
}

func (c *Config) connect(ctx context.Context, purpose string, settings map[string]string) (*pgx.Conn, error) {
	cc, err := c.connConfig(purpose, settings)
	if err != nil {
		return nil, err
	}
	conn, err := pgx.ConnectConfig(ctx, cc)
	if err != nil {
		return nil, fmt.Errorf("connect to shard %s: %w", c.Shard, err)
	}
	return conn, nil
}

// control is the owner's ordinary connection. It holds the advisory lock that makes this worker the shard's only capture,
// and serves the short queries that go with the stream. Methods may be called by any goroutine.
type control struct {
	version int // server_version_num

	mu   sync.Mutex // guards conn: one query at a time
	conn *pgx.Conn
}

// advisoryClass is the first key of the owner's lock, so that it meets no application's: "tide" in ASCII.
const advisoryClass = 0x74696465

// queryTimeout bounds each of the short queries: longer means that the server is gone. queryGrace is what they have at shutdown.
const (
	queryTimeout = 30 * time.Second
	queryGrace   = time.Second
)

// openControl connects and waits until this worker owns the slot. It polls, for a blocking lock would hold a snapshot open
// and stop vacuum meanwhile.
func openControl(ctx context.Context, cfg *Config, waiting func()) (*control, error) {
	conn, err := cfg.connect(ctx, "capture", map[string]string{
		// Nudges and bookkeeping need not wait for a standby: they carry no data.
		"synchronous_commit": "local",
		// A lost host frees its lock about as fast as its slot.
		"tcp_keepalives_idle":     "5",
		"tcp_keepalives_interval": "2",
		"tcp_keepalives_count":    "3",
		"tcp_user_timeout":        fmt.Sprint(cfg.SenderTimeout.Milliseconds()),
	})
	if err != nil {
		return nil, err
	}
	c := &control{conn: conn}
	if err := c.own(ctx, cfg, waiting); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

func (c *control) own(ctx context.Context, cfg *Config, waiting func()) error {
	if err := c.conn.QueryRow(ctx, `SELECT current_setting('server_version_num')::int`).Scan(&c.version); err != nil {
		return fmt.Errorf("read server version: %w", err)
	}
	for first := true; ; first = false {
		var got bool
		err := c.conn.QueryRow(ctx, `SELECT pg_try_advisory_lock($1, hashtext($2))`, advisoryClass, cfg.Slot).Scan(&got)
		if err != nil {
			return fmt.Errorf("lock slot %s: %w", cfg.Slot, err)
		}
		if got {
			return nil
		}
		if first {
			waiting()
		}
		if err := sleep(ctx, cfg.TakeoverPoll); err != nil {
			return err
		}
	}
}

func (c *control) close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = c.conn.Close(ctx) // the connection is given up either way
}

// do runs f with the connection, bounded in time. pgx closes a connection whose query was interrupted, so that an error here
// ends the session and with it the ownership.
func (c *control) do(ctx context.Context, f func(ctx context.Context, conn *pgx.Conn) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	ctx, cancel := withGrace(ctx, queryTimeout, queryGrace)
	defer cancel()
	return f(ctx, c.conn)
}

// withGrace bounds a context in time, and lets it outlive its parent by a moment: a short query that is under way at shutdown
// may finish, so that the connection can still record what is confirmed last.
func withGrace(parent context.Context, timeout, grace time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(parent), timeout)
	stop := context.AfterFunc(parent, func() {
		if sleep(ctx, grace) == nil {
			cancel()
		}
	})
	return ctx, func() { stop(); cancel() }
}

// positions are the end of the last WAL record and how far WAL has been flushed. The walsender sends only what is flushed.
func (c *control) positions(ctx context.Context) (inserted, flushed lsn.LSN, err error) {
	err = c.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		var ins, fl string
		var segment uint64
		err := conn.QueryRow(ctx, `SELECT pg_current_wal_insert_lsn()::text, pg_current_wal_flush_lsn()::text,
			pg_size_bytes(current_setting('wal_segment_size'))`).Scan(&ins, &fl, &segment)
		if err != nil {
			return fmt.Errorf("read WAL position: %w", err)
		}
		if inserted, err = lsn.Parse(ins); err != nil {
			return err
		}
		inserted = lsn.RecordEnd(inserted, segment)
		flushed, err = lsn.Parse(fl)
		return err
	})
	return inserted, flushed, err
}

// nudge writes a small record and waits until it is flushed, and with it all WAL before it.
func (c *control) nudge(ctx context.Context) error {
	return c.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		if _, err := conn.Exec(ctx, NudgeSQL(c.version)); err != nil {
			return fmt.Errorf("nudge the stream: %w", err)
		}
		return nil
	})
}

// NudgeSQL is a statement that makes the stream's level pass every WAL record written before it: it flushes, as no commit of
// others may do for long, and makes the walsender speak. For the primary only, outside transactions, with
// synchronous_commit at least local. version is server_version_num.
func NudgeSQL(version int) string {
	if version >= 170000 {
		return `SELECT pg_logical_emit_message(false, 'tidemark.nudge', '', true)`
	}
	// Before the flush argument only a transaction's commit flushes.
	return `SELECT pg_logical_emit_message(true, 'tidemark.nudge', '')`
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// sqlState returns the SQLSTATE of a server's error, "" for others.
func sqlState(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code
	}
	return ""
}

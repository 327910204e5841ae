package replication

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/tidemarkdb/tidemark/internal/lsn"
)

// Capture follows one shard. Any number of workers may run a capture of the same shard and slot: one owns it (by an advisory
// lock and the slot itself) and streams, the others wait and take over when it goes.
type Capture struct {
	cfg Config
	log *slog.Logger

	nudges chan chan<- error // requests of Nudge, answered by the watch of a running stream
	acks   chan struct{}     // has a token when acked has advanced

	mu        sync.Mutex // guards what follows
	state     State
	handed    lsn.LSN // the end of what the sink was given
	delivered lsn.LSN // the same, of whole transactions whose Publish has returned: what need not be given again
	timeline  string  // of the stream, once there was one; a Capture lives on one
	acked     lsn.LSN
	histories []history // epochs by where they began, oldest first; those before acked's are dropped
	rows      int64     // of the snapshot, handed over so far
}

// history is an epoch and where in the stream it began.
type history struct {
	epoch lsn.Epoch
	from  lsn.LSN
	seen  bool // recorded in tidemark.epoch
}

// State is what a capture is doing.
type State string

// The states of a capture, in the order that a session passes them.
const (
	Stopped      State = "stopped"
	Connecting   State = "connecting"
	Waiting      State = "waiting" // another worker owns the shard
	Snapshotting State = "snapshotting"
	Streaming    State = "streaming"
)

// Status is a capture's state for health checks and metrics.
type Status struct {
	Shard        string
	State        State
	Level        lsn.Mark // see Capture.Level
	Handed       lsn.LSN  // what the sink has been given
	SnapshotRows int64    // rows of the running or last snapshot
}

// New checks the configuration; it does not connect.
func New(cfg Config, log *slog.Logger) (*Capture, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	for _, t := range cfg.Tables {
		if _, err := parseTable(t); err != nil {
			return nil, fmt.Errorf("capture of shard %s: %w", cfg.Shard, err)
		}
	}
	return &Capture{
		cfg: cfg, log: log.With("shard", cfg.Shard, "slot", cfg.Slot), state: Stopped,
		nudges: make(chan chan<- error), acks: make(chan struct{}, 1),
	}, nil
}

// Acked says that everything that was handed over up to l is durable: transactions whose End, and Progress whose LSN, is at
// most l. Call it in order. Only such positions are confirmed to the server, which then forgets the WAL before them.
func (c *Capture) Acked(l lsn.LSN) {
	c.mu.Lock()
	defer c.mu.Unlock()
	l = min(l, c.handed) // never confirm what the sink cannot have
	if l <= c.acked {
		return
	}
	c.acked = l
	select {
	case c.acks <- struct{}{}:
	default:
	}
}

// Level is how far the shard's stream is durable: max(end of the last commit, keepalive's WAL end), of what was acknowledged.
// It is zero before the first acknowledgement of this process and until a snapshot is complete.
func (c *Capture) Level() lsn.Mark {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ackedLevel()
}

func (c *Capture) ackedLevel() lsn.Mark {
	var m lsn.Mark
	for _, h := range c.histories {
		if h.from <= c.acked && c.acked > 0 {
			m = lsn.Mark{Epoch: h.epoch, LSN: c.acked}
		}
	}
	return m
}

// Status returns what the capture is doing. It may be called at any time.
func (c *Capture) Status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	return Status{Shard: c.cfg.Shard, State: c.state, Level: c.ackedLevel(), Handed: c.handed, SnapshotRows: c.rows}
}

// Nudge makes the stream pass everything that is in WAL now, within a round trip or two. Without it a position behind a commit
// can lie behind records that nobody flushes for long (an open transaction's, autovacuum's), and a waiter would wait for them.
// Callers at the same time share one record. It waits until this worker streams, or ctx ends.
//
// Whoever has a connection to the primary can run NudgeSQL there instead.
func (c *Capture) Nudge(ctx context.Context) error {
	done := make(chan error, 1)
	select {
	case c.nudges <- done:
	case <-ctx.Done():
		return fmt.Errorf("nudge shard %s: %w", c.cfg.Shard, ctx.Err())
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("nudge shard %s: %w", c.cfg.Shard, ctx.Err())
	}
}

// ErrHistoryChanged marks a shard that is no longer what this Capture has streamed: it failed over, was restored, or a new
// snapshot is due. Positions of before and after are not comparable, and acknowledgements under way would be taken for others:
// start again with a new Capture and a new Sink.
var ErrHistoryChanged = errors.New("the shard's history has changed")

// Run captures the shard until ctx ends, and then returns nil. It sets the shard up if need be, waits while another worker owns
// the slot, takes the snapshot, streams, and connects again when the connection is lost. It returns an error that trying again
// does not mend: what wraps ErrRefused, ErrResnapshotNeeded, ErrHistoryChanged or ErrNoKey, a wrong password, or the sink's own.
func (c *Capture) Run(ctx context.Context, sink Sink) error {
	defer c.enter(Stopped)
	delay := firstRetryDelay
	for {
		began := time.Now()
		err := c.session(ctx, sink)
		if ctx.Err() != nil {
			return nil
		}
		if permanent(err) {
			return fmt.Errorf("capture of shard %s: %w", c.cfg.Shard, err)
		}
		if time.Since(began) > 2*maxRetryDelay {
			delay = firstRetryDelay
		}
		pause := delay/2 + rand.N(delay)
		if sqlState(err) == "55006" { // object_in_use: the last owner has not left the slot yet
			pause = c.cfg.TakeoverPoll
			c.enter(Waiting)
		}
		c.log.Warn("capture interrupted", "error", err, "again_in", pause.Round(time.Millisecond))
		if sleep(ctx, pause) != nil {
			return nil
		}
		delay = min(2*delay, maxRetryDelay)
	}
}

// errSink marks an error of the sink's.
var errSink = errors.New("sink")

// permanent says whether trying again cannot help. Everything about connections and the server's health can.
func permanent(err error) bool {
	for _, p := range []error{ErrRefused, ErrResnapshotNeeded, ErrHistoryChanged, ErrNoKey, ErrProtocol, errSink} {
		if errors.Is(err, p) {
			return true
		}
	}
	code := sqlState(err)
	if code == "" || code == "55006" {
		return false
	}
	switch code[:2] {
	case "08", "40", "53", "57", "58", "XX": // connection, rollback, resources, operator, system, internal
		return false
	}
	return true
}

func (c *Capture) enter(s State) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state = s
}

// session is one life of a connection: own the shard, set it up, take the snapshot if there is none, stream.
func (c *Capture) session(ctx context.Context, sink Sink) error {
	c.enter(Connecting)
	ctl, err := openControl(ctx, &c.cfg, func() {
		c.enter(Waiting)
		c.log.Info("another worker owns the shard; waiting")
	})
	if err != nil {
		return err
	}
	defer ctl.close()

	plan, err := c.setup(ctx, ctl)
	if err != nil {
		return err
	}
	ws, err := openWalsender(ctx, &c.cfg)
	if err != nil {
		return err
	}
	defer ws.close()

	start := plan.epoch
	if plan.why != "" {
		if start, err = c.snapshot(ctx, ctl, ws, plan, sink); err != nil {
			return err
		}
	}
	return c.stream(ctx, ctl, ws, start, plan.recorded, sink)
}

// Drop removes the slot, the publication and the slot's record, so that the shard keeps no WAL for this capture. The epochs
// stay: a later capture continues their count. No worker may be running.
func (c *Capture) Drop(ctx context.Context) error {
	conn, err := c.cfg.connect(ctx, "check", nil)
	if err != nil {
		return err
	}
	defer closeConn(conn)
	if err := ownersRefusal(ctx, conn, c.cfg.Shard); err != nil {
		return err
	}
	if err := dropSlot(ctx, conn, c.cfg.Slot); err != nil {
		return err
	}
	for _, sql := range []string{
		"DROP PUBLICATION IF EXISTS " + pgx.Identifier{c.cfg.Publication}.Sanitize(),
		"DELETE FROM tidemark.capture WHERE slot = " + quoteLiteral(c.cfg.Slot),
	} {
		if _, err := conn.Exec(ctx, sql); err != nil && !strings.HasPrefix(sqlState(err), "42P01") {
			return fmt.Errorf("drop capture of shard %s: %w", c.cfg.Shard, err)
		}
	}
	return nil
}

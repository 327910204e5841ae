package replication

import (
	"context"
	"fmt"

	"github.com/tidemarkdb/tidemark/internal/lsn"
)

// course is what setup found: the tables, and either the epoch in which the stream goes on or why a snapshot is taken.
type course struct {
	tables   []*table
	recorded []capturedTable // as they were when the snapshot was taken
	epoch    lsn.Epoch
	why      string
	system   string // the server's system identifier, for the snapshot
}

// setup creates or checks everything in the shard that capture needs, and decides how to go on.
func (c *Capture) setup(ctx context.Context, ctl *control) (course, error) {
	var p course
	ctl.mu.Lock()
	defer ctl.mu.Unlock()
	conn := ctl.conn
	if err := createOwnTables(ctx, conn, c.cfg.Shard); err != nil {
		return p, err
	}
	findings, tables, err := inspect(ctx, conn, &c.cfg)
	if err != nil {
		return p, err
	}
	if c.cfg.FixReplicaIdentity {
		if findings, err = fixReplicaIdentity(ctx, conn, findings); err != nil {
			return p, err
		}
	}
	if err := refusal(c.cfg.Shard, findings); err != nil {
		return p, err
	}
	for _, f := range findings {
		c.log.Warn(f.Problem, "table", f.Table, "do", f.Fix)
	}
	s, err := loadState(ctx, conn, c.cfg.Slot)
	if err != nil {
		return p, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	p.tables, p.recorded = tables, s.tables
	captured := make([]capturedTable, len(tables))
	for i, t := range tables {
		captured[i] = t.captured()
	}

	switch {
	case !s.exists && s.slot:
		return p, fmt.Errorf("%w: slot %s exists, but tidemark.capture knows nothing of it: if nobody uses it, SELECT pg_drop_replication_slot(%s)",
			ErrRefused, c.cfg.Slot, quoteLiteral(c.cfg.Slot))
	case !s.exists:
		p.why = "first snapshot"
	case !s.done:
		p.why = "the last snapshot was not completed"
	default:
		why := s.resnapshotReason(&c.cfg, captured)
		if why == "" {
			if why, err = ensurePublication(ctx, conn, c.cfg.Publication, tables, ctl.version, true); err != nil {
				return p, err
			}
		}
		if why != "" && !c.cfg.Resnapshot {
			return p, fmt.Errorf("%w: %s. Permit it (resnapshot: true) and every captured table is read again in a new epoch; until then nothing is published",
				ErrResnapshotNeeded, why)
		}
		p.why = why
	}
	if p.why == "" {
		if len(captured) != len(s.tables) {
			if err := recordTables(ctx, conn, c.cfg.Slot, captured); err != nil {
				return p, err
			}
		}
		p.epoch, err = epochAt(ctx, conn, s.epoch, s.confirmed)
		return p, err
	}

	if c.streamed() {
		return p, fmt.Errorf("%w: %s", ErrHistoryChanged, p.why)
	}
	if _, err := ensurePublication(ctx, conn, c.cfg.Publication, tables, ctl.version, false); err != nil {
		return p, err
	}
	if err := dropSlot(ctx, conn, c.cfg.Slot); err != nil {
		return p, err
	}
	p.recorded, p.system = captured, s.current
	return p, withdrawSnapshot(ctx, conn, c.cfg.Slot)
}

func (c *Capture) streamed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.timeline != ""
}

// RequestSnapshot makes the next Run of this slot start over in a new epoch, as if its snapshot had not been completed.
func (c *Capture) RequestSnapshot(ctx context.Context) error {
	conn, err := c.cfg.connect(ctx, "check", nil)
	if err != nil {
		return err
	}
	defer closeConn(conn)
	if err := ownersRefusal(ctx, conn, c.cfg.Shard); err != nil {
		return err
	}
	_, err = conn.Exec(ctx, `UPDATE tidemark.capture SET snapshot_done = NULL WHERE slot = $1`, c.cfg.Slot)
	if err != nil {
		return fmt.Errorf("request a snapshot of shard %s: %w", c.cfg.Shard, err)
	}
	return nil
}

package replication

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidemarkdb/tidemark/internal/lsn"
)

// Capture keeps its memory in the shard itself, in two small tables of schema tidemark.
//
// tidemark.epoch has a row for each history of the shard. It is part of the publication: a change's epoch is the last such row
// before it in the stream. seen_lsn is the end of the row's own transaction, written by the capture before it confirms that
// position, so that a restart anywhere knows the epoch of where it begins: the greatest with seen_lsn at or before it.
//
// tidemark.capture has a row for each slot: what the slot was created for, and how far its snapshot is.

const (
	ownSchema    = "tidemark"
	epochTable   = "epoch"
	captureTable = "capture"
)

const ownTables = `
CREATE SCHEMA IF NOT EXISTS tidemark;
CREATE TABLE IF NOT EXISTS tidemark.epoch (
	epoch     smallint PRIMARY KEY CHECK (epoch BETWEEN 1 AND 4095),
	reason    text NOT NULL,
	raised_at timestamptz NOT NULL DEFAULT now(),
	seen_lsn  pg_lsn
);
CREATE TABLE IF NOT EXISTS tidemark.capture (
	slot              name PRIMARY KEY,
	shard             text NOT NULL,
	publication       name NOT NULL,
	epoch             smallint NOT NULL,
	system_identifier text NOT NULL,
	tables            jsonb NOT NULL,
	consistent_point  pg_lsn,
	snapshot_started  timestamptz NOT NULL DEFAULT now(),
	snapshot_done     timestamptz
);
COMMENT ON SCHEMA tidemark IS 'Tidemark''s own tables; see docs/events.md';
COMMENT ON TABLE tidemark.epoch IS 'One row per history of this shard; raised before the first write of a failover, restore, new slot or move';
COMMENT ON TABLE tidemark.capture IS 'What each of Tidemark''s replication slots was created for';
`

// ErrResnapshotNeeded marks a stream that cannot go on without a gap. The message says why; Config.Resnapshot permits starting
// over in a new epoch.
var ErrResnapshotNeeded = errors.New("a new snapshot is needed")

// capturedTable is a table of tidemark.capture.tables.
type capturedTable struct {
	Schema string   `json:"schema"`
	Name   string   `json:"name"`
	OID    uint32   `json:"oid"`
	Key    []string `json:"key"`
}

func (t capturedTable) tableName() tableName { return tableName{t.Schema, t.Name} }

// captureState is a row of tidemark.capture, with what the server says of the slot.
type captureState struct {
	exists    bool
	epoch     lsn.Epoch
	system    string
	tables    []capturedTable
	done      bool
	slot      bool    // the slot exists
	lost      string  // why the slot cannot be used, "" if it can
	confirmed lsn.LSN // its confirmed_flush_lsn
	current   string  // the server's system identifier
}

// catalogOnly is for a transaction on whatever connection RaiseEpoch was given: see printPath.
func catalogOnly(ctx context.Context, tx pgx.Tx) error {
	_, err := tx.Exec(ctx, "SET LOCAL search_path TO pg_catalog, pg_temp")
	return err
}

// createOwnTables makes the schema and the tables where they are missing. What is there already and not ours is refused before anything
// else is done with it.
func createOwnTables(ctx context.Context, conn *pgx.Conn, shard string) error {
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if err := catalogOnly(ctx, tx); err != nil {
			return err
		}
		if err := ownersRefusal(ctx, tx, shard); err != nil {
			return err
		}
		var done bool
		err := tx.QueryRow(ctx, `SELECT to_regclass('tidemark.epoch') IS NOT NULL AND to_regclass('tidemark.capture') IS NOT NULL`).Scan(&done)
		if err != nil || done {
			return err
		}
		// IF NOT EXISTS alone races with another worker that does the same.
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock($1, 0)`, advisoryClass); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, ownTables); err != nil {
			return fmt.Errorf("create schema tidemark: %w", err)
		}
		// Somebody may have made them since.
		return ownersRefusal(ctx, tx, shard)
	})
}

func loadState(ctx context.Context, conn *pgx.Conn, slot string) (s captureState, err error) {
	if err := conn.QueryRow(ctx, `SELECT system_identifier::text FROM pg_control_system()`).Scan(&s.current); err != nil {
		return s, fmt.Errorf("read system identifier: %w", err)
	}
	var tables []byte
	err = conn.QueryRow(ctx, `SELECT epoch::int, system_identifier, tables, snapshot_done IS NOT NULL FROM tidemark.capture WHERE slot = $1`, slot).
		Scan(&s.epoch, &s.system, &tables, &s.done)
	if err == nil {
		s.exists = true
		err = json.Unmarshal(tables, &s.tables)
	}
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return s, fmt.Errorf("read tidemark.capture: %w", err)
	}
	var plugin, wal, database, confirmed string
	err = conn.QueryRow(ctx, `SELECT coalesce(plugin, 'physical'), coalesce(wal_status, ''), coalesce(database, ''), coalesce(confirmed_flush_lsn, '0/0')::text
		FROM pg_replication_slots WHERE slot_name = $1`, slot).Scan(&plugin, &wal, &database, &confirmed)
	if errors.Is(err, pgx.ErrNoRows) {
		return s, nil
	} else if err != nil {
		return s, fmt.Errorf("read slot %s: %w", slot, err)
	}
	s.slot = true
	switch {
	case plugin != "pgoutput" || database != conn.Config().Database:
		return s, fmt.Errorf("slot %s exists but is not ours (plugin %s, database %s): choose another slot name", slot, plugin, database)
	case wal == "lost":
		s.lost = "the server has removed WAL that the slot still needed (max_slot_wal_keep_size)"
	}
	s.confirmed, err = lsn.Parse(confirmed)
	return s, err
}

// resnapshotReason says why the stream cannot go on from the state for these tables; "" if it can.
func (s captureState) resnapshotReason(cfg *Config, tables []capturedTable) string {
	switch {
	case !s.slot:
		return fmt.Sprintf("slot %s has vanished: what was committed since is not known", cfg.Slot)
	case s.lost != "":
		return fmt.Sprintf("slot %s is lost: %s", cfg.Slot, s.lost)
	case s.system != s.current:
		return fmt.Sprintf("this is another cluster (system identifier %s, the slot was created on %s)", s.current, s.system)
	}
	for _, t := range tables {
		i := slices.IndexFunc(s.tables, func(o capturedTable) bool { return o.tableName() == t.tableName() })
		switch {
		case i < 0:
			return fmt.Sprintf("table %s was added after the snapshot was taken", t.tableName())
		case s.tables[i].OID != t.OID:
			return fmt.Sprintf("table %s was dropped and created again", t.tableName())
		}
	}
	return ""
}

// raiseEpoch begins a new history. The row's transaction lies wholly before whatever is created next.
func raiseEpoch(ctx context.Context, conn *pgx.Conn, atLeast lsn.Epoch, reason string) (e lsn.Epoch, err error) {
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if err := catalogOnly(ctx, tx); err != nil {
			return err
		}
		// One at a time, so that rows commit in order.
		if _, err := tx.Exec(ctx, `LOCK TABLE tidemark.epoch IN SHARE ROW EXCLUSIVE MODE`); err != nil {
			return err
		}
		return tx.QueryRow(ctx, `INSERT INTO tidemark.epoch (epoch, reason)
			SELECT greatest(coalesce(max(epoch), 0), $1::int) + 1, $2 FROM tidemark.epoch RETURNING epoch::int`, int(atLeast), reason).Scan(&e)
	})
	if err != nil {
		return 0, fmt.Errorf("raise the epoch of the shard: %w", err)
	}
	return e, nil
}

// RaiseEpoch begins a new history of the shard that conn is connected to: every change that commits after it carries the new
// epoch. Call it before the first write of a failover, restore or bucket move.
func RaiseEpoch(ctx context.Context, conn *pgx.Conn, reason string) (lsn.Epoch, error) {
	if err := createOwnTables(ctx, conn, "with database "+conn.Config().Database); err != nil {
		return 0, err
	}
	return raiseEpoch(ctx, conn, 0, reason)
}

// markSeen records where in the stream an epoch's row committed, before that position is confirmed.
func markSeen(ctx context.Context, conn *pgx.Conn, e lsn.Epoch, end lsn.LSN) error {
	if _, err := conn.Exec(ctx, `UPDATE tidemark.epoch SET seen_lsn = $2::text::pg_lsn WHERE epoch = $1 AND seen_lsn IS NULL`, int(e), end.String()); err != nil {
		return fmt.Errorf("record the position of epoch %d: %w", e, err)
	}
	return nil
}

// epochAt is the epoch in which a stream begins that starts at a confirmed position of a slot created in epoch first.
func epochAt(ctx context.Context, conn *pgx.Conn, first lsn.Epoch, at lsn.LSN) (e lsn.Epoch, err error) {
	err = conn.QueryRow(ctx, `SELECT greatest($1::int, coalesce(max(epoch), 0)) FROM tidemark.epoch WHERE seen_lsn <= $2::text::pg_lsn`,
		int(first), at.String()).Scan(&e)
	if err != nil {
		return 0, fmt.Errorf("read tidemark.epoch: %w", err)
	}
	return e, nil
}

// withdrawSnapshot records that the slot's snapshot, if there was one, counts no more.
func withdrawSnapshot(ctx context.Context, conn *pgx.Conn, slot string) error {
	if _, err := conn.Exec(ctx, `UPDATE tidemark.capture SET snapshot_done = NULL WHERE slot = $1 AND snapshot_done IS NOT NULL`, slot); err != nil {
		return fmt.Errorf("record that a snapshot is due: %w", err)
	}
	return nil
}

// beginSnapshot records, before the slot exists, that it will be created and that its snapshot is not done.
func beginSnapshot(ctx context.Context, conn *pgx.Conn, cfg *Config, e lsn.Epoch, system string, tables []capturedTable) error {
	list, err := json.Marshal(tables)
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, `INSERT INTO tidemark.capture (slot, shard, publication, epoch, system_identifier, tables) VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (slot) DO UPDATE SET shard = excluded.shard, publication = excluded.publication, epoch = excluded.epoch,
			system_identifier = excluded.system_identifier, tables = excluded.tables, consistent_point = NULL,
			snapshot_started = now(), snapshot_done = NULL`,
		cfg.Slot, cfg.Shard, cfg.Publication, int(e), system, string(list))
	if err != nil {
		return fmt.Errorf("record the snapshot's beginning: %w", err)
	}
	return nil
}

func finishSnapshot(ctx context.Context, conn *pgx.Conn, slot string, e lsn.Epoch, at lsn.LSN) error {
	_, err := conn.Exec(ctx, `UPDATE tidemark.capture SET snapshot_done = now(), epoch = $2, consistent_point = $3::text::pg_lsn WHERE slot = $1`,
		slot, int(e), at.String())
	if err != nil {
		return fmt.Errorf("record the snapshot's end: %w", err)
	}
	return nil
}

// recordTables replaces the list of captured tables, after some were removed from the configuration.
func recordTables(ctx context.Context, conn *pgx.Conn, slot string, tables []capturedTable) error {
	list, err := json.Marshal(tables)
	if err != nil {
		return err
	}
	if _, err := conn.Exec(ctx, `UPDATE tidemark.capture SET tables = $2 WHERE slot = $1`, slot, string(list)); err != nil {
		return fmt.Errorf("record the captured tables: %w", err)
	}
	return nil
}

// dropSlot drops the slot if it exists. Its last user may still be leaving: that is waited for.
func dropSlot(ctx context.Context, conn *pgx.Conn, slot string) error {
	for {
		_, err := conn.Exec(ctx, `SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1`, slot)
		if sqlState(err) != "55006" { // object_in_use
			if err != nil {
				return fmt.Errorf("drop slot %s: %w", slot, err)
			}
			return nil
		}
		if err := sleep(ctx, 200*time.Millisecond); err != nil {
			return err
		}
	}
}

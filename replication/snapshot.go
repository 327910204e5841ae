package replication

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/jackc/pgx/v5"

	"github.com/tidemarkdb/tidemark/internal/lsn"
)

// The initial snapshot. Creating the slot exports the snapshot of its consistent point: what it sees are exactly the
// transactions that the stream will not bring, by construction of logical decoding and not by comparing positions. Parallel
// readers import it and read ctid ranges.
//
// An ACCESS SHARE lock on every table lasts from before the slot exists until everything is read. A rewriting ALTER TABLE in
// between would show the readers an empty table, and its rewritten rows are not in the stream either.

const (
	chunkBytes   = 1 << 20 // a Tx of a snapshot is handed over when it holds so much, however few rows
	ackInterval  = 10 * time.Second
	chunksQueued = 2 // read ahead of the sink, for each worker
)

// snapshot creates the slot, reads every table and waits until the sink has acknowledged all of it. It returns the epoch in
// which the stream begins. If it fails, the next session drops the slot and begins again, in a new epoch if one was begun.
//
// There are 4,095 epochs, so one is begun only when the sink can be reached and the tables are locked: an outage that lasts uses
// none up. From there on a failure does. An epoch cannot be used again on the word of what the shard has recorded: a standby
// that is promoted, or a backup, may lack the record that something was published in it.
func (c *Capture) snapshot(ctx context.Context, ctl *control, ws *walsender, p course, sink Sink) (lsn.Epoch, error) {
	c.enter(Snapshotting)
	began := time.Now()
	if err := sink.Begin(ctx); err != nil {
		return 0, fmt.Errorf("%w: begin: %w", errSink, err)
	}
	lock, err := c.lockTables(ctx, p.tables)
	if err != nil {
		return 0, err
	}
	defer closeConn(lock)
	err = ctl.do(ctx, func(ctx context.Context, conn *pgx.Conn) (err error) {
		if p.epoch, err = raiseEpoch(ctx, conn, c.cfg.MinEpoch, c.cfg.Slot+": "+p.why); err != nil {
			return err
		}
		return beginSnapshot(ctx, conn, &c.cfg, p.epoch, p.system, p.recorded)
	})
	if err != nil {
		return 0, err
	}
	c.log.Info("taking a snapshot", "why", p.why, "epoch", p.epoch, "tables", len(p.tables))
	at, name, err := ws.createSlot(ctx, ctl.version) // waits for every transaction that is running now
	if err != nil {
		return 0, err
	}
	epoch, err := c.adoptEpoch(ctx, ctl, name, at)
	if err != nil {
		return 0, err
	}

	// A new history: nothing of an earlier one counts for this slot.
	c.mu.Lock()
	c.handed, c.delivered, c.acked, c.rows = 0, 0, 0, 0
	c.histories = []history{{epoch: epoch, from: at, seen: true}}
	c.mu.Unlock()

	if err := sink.Begin(ctx); err != nil {
		return 0, fmt.Errorf("%w: begin: %w", errSink, err)
	}
	if err := c.readTables(ctx, ctl, p.tables, epoch, at, name, sink); err != nil {
		return 0, err
	}
	c.hand(at)
	if err := sink.Progress(ctx, Progress{Shard: c.cfg.Shard, Epoch: epoch, LSN: at, SnapshotDone: true}); err != nil {
		return 0, fmt.Errorf("%w: progress: %w", errSink, err)
	}
	if err := c.awaitAck(ctx, at); err != nil {
		return 0, err
	}
	err = ctl.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		return finishSnapshot(ctx, conn, c.cfg.Slot, epoch, at)
	})
	if err != nil {
		return 0, err
	}
	c.log.Info("snapshot done", "rows", c.Status().SnapshotRows, "took", time.Since(began).Round(time.Millisecond))
	return epoch, nil
}

// lockTables returns a connection whose transaction keeps the tables' definitions as they are. It holds no snapshot.
func (c *Capture) lockTables(ctx context.Context, tables []*table) (*pgx.Conn, error) {
	conn, err := c.cfg.connect(ctx, "snapshot", nil)
	if err != nil {
		return nil, err
	}
	if _, err = conn.Exec(ctx, "BEGIN"); err == nil {
		for _, t := range tables {
			if _, err = conn.Exec(ctx, "LOCK TABLE "+t.quoted()+" IN ACCESS SHARE MODE"); err != nil {
				err = fmt.Errorf("lock table %s: %w", t.tableName, err)
				break
			}
		}
	}
	if err != nil {
		closeConn(conn)
		return nil, err
	}
	return conn, nil
}

// adoptEpoch returns the greatest epoch that the snapshot sees: someone may have raised it since setup did, and that row is not
// in the stream.
func (c *Capture) adoptEpoch(ctx context.Context, ctl *control, snapshot string, at lsn.LSN) (e lsn.Epoch, err error) {
	r, err := c.openReader(ctx, snapshot)
	if err != nil {
		return 0, err
	}
	defer closeConn(r)
	if err := r.QueryRow(ctx, `SELECT pg_catalog.max(epoch)::int FROM tidemark.epoch`).Scan(&e); err != nil {
		return 0, fmt.Errorf("read tidemark.epoch: %w", err)
	}
	return e, ctl.do(ctx, func(ctx context.Context, conn *pgx.Conn) error { return markSeen(ctx, conn, e, at) })
}

// openReader returns a connection in a transaction that sees the exported snapshot.
func (c *Capture) openReader(ctx context.Context, snapshot string) (*pgx.Conn, error) {
	conn, err := c.cfg.connect(ctx, "snapshot", map[string]string{"search_path": printPath})
	if err != nil {
		return nil, err
	}
	if _, err = conn.Exec(ctx, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"); err == nil {
		_, err = conn.Exec(ctx, "SET TRANSACTION SNAPSHOT "+quoteLiteral(snapshot))
	}
	if err != nil {
		closeConn(conn)
		return nil, fmt.Errorf("import snapshot: %w", err)
	}
	return conn, nil
}

// chunk is a range of pages of one physical table.
type chunk struct {
	rel      *Relation
	leaf     leaf
	from, to int64 // pages; to 0: to the end
}

func (c *Capture) readTables(ctx context.Context, ctl *control, tables []*table, epoch lsn.Epoch, at lsn.LSN, snapshot string, sink Sink) error {
	relations, chunks, err := c.planChunks(ctx, ctl, tables)
	if err != nil {
		return err
	}
	todo := make(chan chunk)
	out := make(chan *Tx, chunksQueued*c.cfg.SnapshotWorkers)
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(todo)
		for _, ch := range chunks {
			select {
			case todo <- ch:
			case <-gctx.Done():
				return gctx.Err()
			}
		}
		return nil
	})
	readers, rctx := errgroup.WithContext(gctx)
	for range min(c.cfg.SnapshotWorkers, max(1, len(chunks))) {
		readers.Go(func() error {
			conn, err := c.openReader(rctx, snapshot)
			if err != nil {
				return err
			}
			defer closeConn(conn)
			for ch := range todo {
				if err := c.readChunk(rctx, conn, ch, out); err != nil {
					return fmt.Errorf("read table %s: %w", ch.leaf.tableName, err)
				}
			}
			return nil
		})
	}
	g.Go(func() error {
		defer close(out)
		return readers.Wait()
	})
	ordinal := 0
	g.Go(func() error {
		for tx := range out {
			tx.Epoch, tx.Commit = epoch, at-8
			for i := range tx.Changes {
				tx.Changes[i].Ordinal = ordinal
				ordinal++
			}
			if err := sink.Publish(gctx, tx); err != nil {
				return fmt.Errorf("%w: publish: %w", errSink, err)
			}
			c.mu.Lock()
			c.rows += int64(len(tx.Changes))
			c.mu.Unlock()
		}
		return nil
	})
	if err := g.Wait(); err != nil {
		return err
	}
	return c.sweep(ctx, relations, ordinal, epoch, at, sink)
}

// sweep ends a snapshot that is not the shard's first. What was published before, by an earlier capture or by a snapshot that was not
// completed, may have been deleted before this one began, and nothing will ever tell: the rows that the snapshot did not bring.
func (c *Capture) sweep(ctx context.Context, relations []*Relation, ordinal int, epoch lsn.Epoch, at lsn.LSN, sink Sink) error {
	if epoch <= 1 {
		return nil
	}
	tx := &Tx{Shard: c.cfg.Shard, Epoch: epoch, Commit: at - 8}
	for i, rel := range relations {
		tx.Changes = append(tx.Changes, Change{Op: Sweep, Relation: rel, Ordinal: ordinal + i, Last: true})
	}
	if err := sink.Publish(ctx, tx); err != nil {
		return fmt.Errorf("%w: publish: %w", errSink, err)
	}
	return nil
}

// planChunks describes the tables as the stream will, and cuts them into ranges. Every row that the snapshot sees was in its
// table before the snapshot was made, so the sizes of now suffice.
func (c *Capture) planChunks(ctx context.Context, ctl *control, tables []*table) (relations []*Relation, out []chunk, err error) {
	err = ctl.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		for _, t := range tables {
			rel, err := tableRelation(ctx, conn, t, ctl.version)
			if err != nil {
				return fmt.Errorf("describe %s: %w", t.tableName, err)
			}
			relations = append(relations, rel)
			for _, l := range t.leaves {
				var pages int64
				err := conn.QueryRow(ctx, `SELECT pg_relation_size($1::oid::regclass) / current_setting('block_size')::int`, l.oid).Scan(&pages)
				if err != nil {
					return fmt.Errorf("read the size of %s: %w", l.tableName, err)
				}
				step := int64(c.cfg.ChunkPages)
				for from := int64(0); from < pages; from += step {
					ch := chunk{rel: rel, leaf: l, from: from, to: from + step}
					if ch.to >= pages {
						ch.to = 0
					}
					out = append(out, ch)
				}
			}
		}
		return nil
	})
	return relations, out, err
}

// tableRelation reads a relation from the catalog with the columns that pgoutput sends.
func tableRelation(ctx context.Context, conn *pgx.Conn, t *table, version int) (*Relation, error) {
	rel := &Relation{OID: t.oid, Schema: t.schema, Name: t.name}
	rows, err := conn.Query(ctx, `SELECT attname::text, atttypid, atttypmod FROM pg_attribute
		WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped AND (attgenerated = '' OR attgenerated = 's' AND $2) ORDER BY attnum`,
		t.oid, version >= publishGeneratedVersion)
	if err != nil {
		return nil, err
	}
	var col Column
	_, err = pgx.ForEachRow(rows, []any{&col.Name, &col.TypeOID, &col.TypeMod}, func() error {
		rel.Columns = append(rel.Columns, col)
		return nil
	})
	if err != nil {
		return nil, err
	}
	types := map[uint32]typeInfo{}
	if err := loadTypes(ctx, conn, types, rel.Columns); err != nil {
		return nil, err
	}
	setTypes(rel.Columns, types)
	if !markKey(rel, t.key) {
		return nil, ErrNoKey
	}
	return rel, nil
}

// readChunk copies a range and sends it on in pieces of bounded size.
func (c *Capture) readChunk(ctx context.Context, conn *pgx.Conn, ch chunk, out chan<- *Tx) error {
	w := &copyReader{ctx: ctx, rel: ch.rel, rows: c.cfg.ChunkRows, shard: c.cfg.Shard, out: out}
	if _, err := conn.PgConn().CopyTo(ctx, w, copySQL(ch)); err != nil {
		if w.err != nil {
			return w.err // pgconn wraps it in its own words
		}
		return err
	}
	return w.flush()
}

func copySQL(ch chunk) string {
	b := []byte("COPY (SELECT ")
	for i, col := range ch.rel.Columns {
		if i > 0 {
			b = append(b, ", "...)
		}
		b = append(b, pgx.Identifier{col.Name}.Sanitize()...)
	}
	b = fmt.Appendf(b, " FROM ONLY %s WHERE ctid OPERATOR(pg_catalog.>=) '(%d,0)'", ch.leaf.quoted(), ch.from)
	if ch.to > 0 {
		b = fmt.Appendf(b, " AND ctid OPERATOR(pg_catalog.<) '(%d,0)'", ch.to)
	}
	return string(append(b, ") TO STDOUT"...))
}

// awaitAck waits until the sink has acknowledged l.
func (c *Capture) awaitAck(ctx context.Context, l lsn.LSN) error {
	remind := time.NewTicker(ackInterval)
	defer remind.Stop()
	for {
		if c.Level().LSN >= l {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-c.acks:
		case <-remind.C:
			c.log.Info("waiting until the snapshot is acknowledged")
		}
	}
}

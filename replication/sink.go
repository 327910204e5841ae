package replication

import (
	"context"

	"github.com/tidemarkdb/tidemark/internal/lsn"
)

// Sink takes a shard's changes in commit order, makes them durable elsewhere, and says so by Capture.Acked.
//
// Its methods are called by one goroutine at a time, Publish and Progress in stream order. They hand over and return; they may block
// for back-pressure, but must return soon when ctx ends. An error stops Capture.Run, which returns it.
type Sink interface {
	// Begin is called whenever this worker has come to own the shard's stream, before anything else. Until then another worker may
	// have owned it, and have made durable what this one is not given: positions that the slot's start lies behind. Before a
	// snapshot it is called twice: an epoch is begun only where the sink can be reached.
	Begin(ctx context.Context) error
	// Publish takes ownership of tx and everything it points to. The same transaction may come again after a restart.
	Publish(ctx context.Context, tx *Tx) error
	// Progress says that every transaction that committed up to p.LSN has been handed over. A sink may drop a Progress
	// that is directly followed by another (unless SnapshotDone); it acknowledges the one it keeps like a transaction.
	Progress(ctx context.Context, p Progress) error
}

// Progress is a position in a shard's stream between transactions. It advances on an idle database too, where no
// transaction would ever carry a level forward.
type Progress struct {
	Shard string
	Epoch lsn.Epoch
	LSN   lsn.LSN
	// SnapshotDone: every row of this epoch's snapshot has been handed over; the next thing is the stream. What a read
	// model still holds from older epochs was deleted in between.
	SnapshotDone bool
}

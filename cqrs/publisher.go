package cqrs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/tidemarkdb/tidemark/internal/lsn"
	"github.com/tidemarkdb/tidemark/replication"
	"golang.org/x/sync/errgroup"
)

// Publisher writes one shard's transactions to the bus: it is the replication.Sink of capture.
//
//	Publish -> events -> a queue for each partition -> Append, one batch in flight -> Acked, in commit order
//	                                                                               -> progress record
//
// Order per key holds because a key has one partition and a partition has one writer, which keeps at a batch until the
// bus has taken it: nothing overtakes. A batch whose acknowledgement was lost is written twice; versions make that
// harmless. What no attempt can write (a record over the limit) stops Run with an error instead of being left out.
//
// Batches need no waiting time to form: what arrives while one is in flight is the next one. So a lone commit is sent at
// once, and a busy partition sends large batches.
type Publisher struct {
	bus Bus
	cfg PublisherConfig
	log *slog.Logger

	opened chan struct{} // closed when the topics of cfg.Tables are known
	failed chan struct{} // closed when Run returns, with err set
	room   chan struct{} // capacity 1: bytes were given back
	acks   chan struct{} // capacity 1: the oldest transaction may be done
	moved  chan struct{} // capacity 1: mark moved

	starts chan *queue // to Run: a partition met for the first time needs its writer

	mu     sync.Mutex
	err    error
	topics map[string]*topicQueues
	order  []*pending // handed over and not yet acknowledged, in commit order
	bytes  int        // of all records in queues and in flight
	mark   lsn.Mark   // everything up to it is acknowledged; zero: nothing yet
}

// PublisherConfig says what to publish where.
type PublisherConfig struct {
	Shard string
	Names Names
	// Tables that are captured. Their topics are created at the start and listed in every progress record. Each table of
	// the publication must be here: what is not listed counts as not published by this shard.
	Tables []Table
	// Partitions of a topic that has to be created; 0: the bus's default.
	Partitions int
	// Retention of table topics; 0: the bus's default. A projector that is away for longer has to be rebuilt.
	Retention time.Duration
	// Linger is how long a partition waits for more records before it sends less than BatchBytes. Default 0, at most 5 ms:
	// it adds to the latency of every read of one's own writes.
	Linger time.Duration
	// BatchBytes is the size of a batch. Default 512 KiB.
	BatchBytes int
	// BufferBytes bounds all records that are not acknowledged; Publish blocks beyond it. Default 64 MiB.
	BufferBytes int
	// MaxRecordBytes is the largest record that the bus takes. Default 1 MiB.
	MaxRecordBytes int
	// ProgressInterval is the time between two progress records of the shard while commits keep coming. Default 2 ms.
	ProgressInterval time.Duration
	// Acked is called for every transaction and progress in the order they were handed over, when it is durable on the
	// bus. It must not block.
	Acked func(lsn.LSN)
	Log   *slog.Logger
}

// Table names a table.
type Table struct{ Schema, Name string }

// Defaults of PublisherConfig.
const (
	DefaultBatchBytes       = 512 << 10
	DefaultBufferBytes      = 64 << 20
	DefaultProgressInterval = 2 * time.Millisecond
	maxLinger               = 5 * time.Millisecond
)

var _ replication.Sink = (*Publisher)(nil)

// NewPublisher makes a publisher; Run makes it work.
func NewPublisher(bus Bus, cfg PublisherConfig) (*Publisher, error) {
	switch {
	case cfg.Shard == "":
		return nil, errors.New("publisher: no shard name")
	case cfg.Linger < 0 || cfg.Linger > maxLinger:
		return nil, fmt.Errorf("publisher: linger is %s; it may be 0 to %s", cfg.Linger, maxLinger)
	}
	if cfg.BatchBytes <= 0 {
		cfg.BatchBytes = DefaultBatchBytes
	}
	if cfg.BufferBytes <= 0 {
		cfg.BufferBytes = DefaultBufferBytes
	}
	if cfg.MaxRecordBytes <= 0 {
		cfg.MaxRecordBytes = DefaultMaxRecordBytes
	}
	cfg.BatchBytes = min(cfg.BatchBytes, cfg.MaxRecordBytes) // brokers hold a batch to the same limit as a record
	if cfg.ProgressInterval <= 0 {
		cfg.ProgressInterval = DefaultProgressInterval
	}
	if cfg.Acked == nil {
		cfg.Acked = func(lsn.LSN) {}
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	signal := func() chan struct{} { return make(chan struct{}, 1) }
	return &Publisher{
		bus: bus, cfg: cfg, log: cfg.Log.With("shard", cfg.Shard),
		opened: make(chan struct{}), failed: make(chan struct{}), starts: make(chan *queue),
		room: signal(), acks: signal(), moved: signal(),
		topics: map[string]*topicQueues{},
	}, nil
}

// Run writes what is handed over until ctx ends (nil) or something can never be written (that error). Afterwards
// Publish and Progress fail. A Publisher runs once.
func (p *Publisher) Run(ctx context.Context) error {
	eg, gctx := errgroup.WithContext(ctx)
	eg.Go(func() error {
		for {
			select {
			case q := <-p.starts:
				eg.Go(func() error { return p.write(gctx, q) })
			case <-gctx.Done():
				return nil
			}
		}
	})
	eg.Go(func() error {
		if err := p.open(gctx); err != nil {
			return err
		}
		close(p.opened)
		return p.report(gctx)
	})
	eg.Go(func() error { return p.acknowledge(gctx) })
	err := eg.Wait()
	if ctx.Err() != nil {
		err = nil
	}
	p.mu.Lock()
	if p.err = err; err == nil {
		p.err = errors.New("publisher: stopped")
	}
	p.mu.Unlock()
	close(p.failed)
	if err != nil {
		return fmt.Errorf("publish shard %s: %w", p.cfg.Shard, err)
	}
	return nil
}

func (p *Publisher) open(ctx context.Context) error {
	err := retry(ctx, p.log, "creating topics", func() error { return p.bus.Ensure(ctx, p.cfg.Names.System()...) })
	if err != nil {
		return err
	}
	for _, t := range p.cfg.Tables {
		if _, err := p.topic(ctx, t.Schema, t.Name); err != nil {
			return err
		}
	}
	return nil
}

// Begin implements replication.Sink. It looks where partitions end now: what another publisher of the shard wrote since they were
// opened here lies below, and progress must not leave it out.
func (p *Publisher) Begin(ctx context.Context) error {
	if err := p.wait(ctx, p.opened); err != nil {
		return err
	}
	p.mu.Lock()
	topics := make([]*topicQueues, 0, len(p.topics))
	for _, t := range p.topics {
		topics = append(topics, t)
	}
	p.mu.Unlock()
	for _, t := range topics {
		bounds, err := p.bounds(ctx, t.name)
		if err != nil {
			return err
		}
		p.mu.Lock()
		for i, q := range t.queues[:min(len(t.queues), len(bounds))] {
			q.end = max(q.end, bounds[i].End)
		}
		p.mu.Unlock()
	}
	return nil
}

// Publish implements replication.Sink: it hands the transaction's events to the writers. It blocks while more than
// BufferBytes wait; one larger transaction is taken when nothing else waits.
func (p *Publisher) Publish(ctx context.Context, tx *replication.Tx) error {
	if err := p.wait(ctx, p.opened); err != nil {
		return err
	}
	type entry struct {
		q *queue
		r Record
	}
	var entries []entry
	size := 0
	add := func(q *queue, r Record) {
		entries = append(entries, entry{q, r})
		size += r.Size()
	}
	err := Events(tx, func(e *Event) error {
		t, err := p.topic(ctx, e.Schema, e.Table)
		if err != nil {
			return err
		}
		r := NewRecord(e)
		if n := r.Size(); n > p.cfg.MaxRecordBytes {
			return fmt.Errorf("the event of key %s takes %d bytes, more than the %d of max_record_bytes: raise it, and max.message.bytes of topic %s: %w: %w",
				r.Key, n, p.cfg.MaxRecordBytes, t.name, ErrTooLarge, ErrPermanent)
		}
		if e.Op.WholeTable() {
			for _, q := range t.queues {
				add(q, r)
			}
			return nil
		}
		add(t.queues[Partition(r.Key, len(t.queues))], r)
		return nil
	})
	if err != nil {
		return err
	}
	tail := &pending{end: tx.End, left: len(entries)}
	// A part of a transaction and a chunk of a snapshot say nothing about what else lies before their position.
	if !tx.More && !isSnapshot(tx) {
		tail.mark = lsn.Mark{Epoch: tx.Epoch, LSN: tx.End}
	}
	if err := p.admit(ctx, size); err != nil {
		return err
	}
	p.mu.Lock()
	p.order = append(p.order, tail)
	for _, e := range entries {
		e.q.items = append(e.q.items, item{record: e.r, tx: tail})
	}
	p.mu.Unlock()
	for _, e := range entries {
		notify(e.q.wake)
	}
	if len(entries) == 0 {
		notify(p.acks)
	}
	return nil
}

// Progress implements replication.Sink.
func (p *Publisher) Progress(ctx context.Context, at replication.Progress) error {
	if err := p.wait(ctx, p.opened); err != nil {
		return err
	}
	next := &pending{end: at.LSN, mark: lsn.Mark{Epoch: at.Epoch, LSN: at.LSN}, droppable: !at.SnapshotDone}
	p.mu.Lock()
	if n := len(p.order); n > 0 && p.order[n-1].droppable {
		p.order[n-1] = next
	} else {
		p.order = append(p.order, next)
	}
	p.mu.Unlock()
	notify(p.acks)
	return nil
}

// isSnapshot says whether tx is of a snapshot, its end included.
func isSnapshot(tx *replication.Tx) bool {
	if len(tx.Changes) == 0 {
		return false
	}
	op := tx.Changes[0].Op
	return op == replication.Snapshot || op == replication.Sweep
}

// wait returns when done is closed; an error if the publisher or ctx ends before.
func (p *Publisher) wait(ctx context.Context, done <-chan struct{}) error {
	select {
	case <-p.failed:
		return p.failure()
	default:
	}
	select {
	case <-done:
		return nil
	case <-p.failed:
		return p.failure()
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *Publisher) failure() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

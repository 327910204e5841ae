package cqrs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// worker applies one partition to one view for as long as this process owns it.
type worker struct {
	r     *Runner
	view  Projection
	claim Claim
	log   *slog.Logger

	// missing are the listed exceptions of this partition by key: a later event of the key makes one obsolete.
	missing map[string][]Exception
	listed  int
	warned  bool // that the list is full

	mu    sync.Mutex
	stats PartitionStats
}

const (
	// exceptionsPerPartition is how many dead-lettered events of one partition are announced one by one.
	exceptionsPerPartition = 256
	// finalCommit is how long a worker that has to stop may take to commit.
	finalCommit = 2 * time.Second
	// fetchWait is how long one fetch may wait at the bus for a record.
	fetchWait = 500 * time.Millisecond

	// Offsets of exceptions that stand for many events.
	unboundedOffset = -1 // too many dead letters; cleared when the queue has none of the partition left
	gapOffset       = -2 // events were deleted before they were applied; only a rebuild helps
)

func newWorker(r *Runner, view Projection, c Claim) *worker {
	return &worker{
		r: r, view: view, claim: c, missing: map[string][]Exception{},
		log:   r.cfg.Log.With("view", view.String(), "topic", c.Topic, "partition", c.Partition),
		stats: PartitionStats{View: view.ViewID, Topic: c.Topic, Partition: c.Partition, Applied: c.Offset, End: c.Offset},
	}
}

func (w *worker) snapshot() PartitionStats {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.stats
}

func (w *worker) applied(offset int64, reset bool) Applied {
	return Applied{View: w.view.ViewID, Topic: w.claim.Topic, Partition: w.claim.Partition, Offset: offset, Reset: reset}
}

// run works until ctx ends. It returns an error only when the runner as a whole must stop.
func (w *worker) run(ctx context.Context) error {
	err := w.work(ctx)
	w.r.say.left(w.applied(0, false))
	if errors.Is(err, errStopped) || ctx.Err() != nil {
		return nil
	}
	return err
}

func (w *worker) work(ctx context.Context) error {
	if levels := w.r.cfg.Levels; levels != nil {
		for _, x := range levels.Exceptions(w.view.ViewID, w.claim.Topic, w.claim.Partition) {
			w.remember(x)
		}
	}
	if err := w.recall(ctx); err != nil {
		return err
	}
	if w.claim.Fresh {
		if w.claim.Offset > 0 {
			if err := w.gap(ctx, 0, w.claim.Offset); err != nil {
				return err
			}
		}
		// From now on a missing offset means that the topic was created again.
		if err := w.claim.Commit(ctx, w.claim.Offset); err != nil {
			w.log.Debug("commit of the first offset", "error", err)
		}
	}
	w.r.say.applied(w.applied(w.claim.Offset, w.claim.Fresh))

	// The fetcher is one batch ahead of the applier.
	batches := make(chan fetched, 1)
	eg, gctx := errgroup.WithContext(ctx)
	eg.Go(func() error { return w.fetch(gctx, batches) })
	eg.Go(func() error { return w.apply(gctx, batches) })
	return eg.Wait()
}

// recall asks the store whether it holds what the committed offset says. One that was emptied, or that the configuration has put in the
// place of another, is filled from the partition's beginning; and what was said of it does not hold any more.
func (w *worker) recall(ctx context.Context) error {
	name := fmt.Sprintf("%s/%d", w.claim.Topic, w.claim.Partition)
	var known bool
	err := retry(ctx, w.log, "asking the store for the partition", func() (err error) {
		known, err = w.view.Projector.Knows(ctx, name)
		return err
	})
	if err != nil || known {
		return stopped(ctx, err)
	}
	if !w.claim.Fresh {
		at, err := w.bounds(ctx)
		if err != nil {
			return stopped(ctx, err)
		}
		w.log.Warn("the store knows nothing of the partition: it was emptied, or is a new one; reading the partition from its beginning",
			"committed", w.claim.Offset, "first", at.First)
		w.claim.Offset, w.claim.Fresh = at.First, true
		w.mu.Lock()
		w.stats.Applied = at.First
		w.mu.Unlock()
		// Before the store remembers, or a kill in between would leave the old offset with a store that says it knows.
		if err := retry(ctx, w.log, "committing the first offset", func() error { return w.claim.Commit(ctx, at.First) }); err != nil {
			return stopped(ctx, err)
		}
	}
	return stopped(ctx, retry(ctx, w.log, "telling the store of the partition", func() error { return w.view.Projector.Remember(ctx, name) }))
}

// fetched is a batch, or a jump to an offset that is not the next one.
type fetched struct {
	Batch
	jump bool
}

func (w *worker) fetch(ctx context.Context, out chan<- fetched) error {
	offset := w.claim.Offset
	for {
		var b fetched
		err := retry(ctx, w.log, "fetching", func() (err error) {
			b.Batch, err = w.r.bus.Fetch(ctx, w.claim.Topic, w.claim.Partition, offset, w.r.cfg.FetchBytes, fetchWait)
			if errors.Is(err, ErrOutOfRange) {
				err = fmt.Errorf("%w: %w", err, ErrPermanent)
			}
			return err
		})
		if errors.Is(err, ErrOutOfRange) {
			b, err = w.outOfRange(ctx, offset)
		}
		switch {
		case ctx.Err() != nil:
			return errStopped
		case err != nil:
			return fmt.Errorf("view %s: %w", w.view, err)
		}
		w.mu.Lock()
		w.stats.End = b.End
		w.mu.Unlock()
		if len(b.Records) == 0 && b.Next == offset {
			continue
		}
		offset = b.Next
		select {
		case out <- b:
		case <-ctx.Done():
			return errStopped
		}
	}
}

// outOfRange finds out where to go on when the partition does not hold the next offset.
func (w *worker) outOfRange(ctx context.Context, offset int64) (fetched, error) {
	at, err := w.bounds(ctx)
	if err != nil {
		return fetched{}, err
	}
	if offset < at.First {
		if err := w.gap(ctx, offset, at.First); err != nil {
			return fetched{}, err
		}
		return fetched{Batch: Batch{Next: at.First, End: at.End}, jump: true}, nil
	}
	w.log.Warn("the partition ends before the next offset: the topic was created again, or lost records; reading it from its beginning",
		"offset", offset, "first", at.First, "end", at.End)
	return fetched{Batch: Batch{Next: at.First, End: at.End}, jump: true}, nil
}

func (w *worker) bounds(ctx context.Context) (at Bounds, err error) {
	err = retry(ctx, w.log, "finding the first offset", func() error {
		bounds, err := w.r.bus.Bounds(ctx, w.claim.Topic)
		if err == nil && w.claim.Partition >= len(bounds) {
			err = fmt.Errorf("topic %s has %d partitions only", w.claim.Topic, len(bounds))
		}
		if err == nil {
			at = bounds[w.claim.Partition]
		}
		return err
	})
	return at, err
}

// gap says that events are gone that were not applied: no session may trust the view until it is built again.
func (w *worker) gap(ctx context.Context, from, to int64) error {
	w.log.Error("events were deleted before they were applied, and sessions that wrote are not served from the view any more: "+
		"publish everything anew, under another kafka.prefix and capture.slot, with a longer kafka.retention",
		"from", from, "to", to)
	return w.except(ctx, Exception{View: w.view.ViewID, Topic: w.claim.Topic, Partition: w.claim.Partition, Offset: gapOffset})
}

func (w *worker) apply(ctx context.Context, in <-chan fetched) error {
	commit := time.NewTicker(w.r.cfg.CommitInterval)
	defer commit.Stop()
	applied, committed := w.claim.Offset, w.claim.Offset
	save := func(ctx context.Context) {
		if applied == committed {
			return
		}
		if err := w.claim.Commit(ctx, applied); err != nil {
			w.log.Debug("commit", "offset", applied, "error", err)
			return
		}
		committed = applied
	}
	defer func() {
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), finalCommit)
		defer cancel()
		save(last)
	}()
	done := func(offset int64, reset bool, cleared []Exception) {
		applied = offset
		w.mu.Lock()
		w.stats.Applied = offset
		w.mu.Unlock()
		w.r.say.applied(w.applied(offset, reset), cleared...)
	}
	for {
		select {
		case <-ctx.Done():
			return errStopped
		case <-commit.C:
			save(ctx)
		case b := <-in:
			for records := b.Records; len(records) > 0; {
				n := min(len(records), w.r.cfg.BatchEvents)
				cleared, err := w.applyRecords(ctx, records[:n])
				if err != nil {
					return err
				}
				done(records[n-1].Offset+1, false, cleared)
				records = records[n:]
			}
			if b.Next != applied {
				done(b.Next, b.jump, nil)
			}
		}
	}
}

// applyRecords returns when every record is applied, superseded, of no concern, or in the dead-letter queue.
func (w *worker) applyRecords(ctx context.Context, records []Record) (cleared []Exception, err error) {
	events := make([]Event, 0, len(records))
	from := make([]*Record, 0, len(records))
	for i := range records {
		r := &records[i]
		e, err := DecodeEvent(r.Value)
		if err != nil {
			if err := w.deadLetter(ctx, r, nil, err, 1); err != nil {
				return nil, err
			}
			continue
		}
		e.Partition = w.claim.Partition
		if e.Last && w.wants(&e) {
			events, from = append(events, e), append(from, r)
		}
	}
	wait := newBackOff(applyMost)
	for attempt := 1; len(events) > 0; attempt++ {
		errs := w.view.Projector.Apply(ctx, events)
		switch {
		case ctx.Err() != nil:
			return nil, errStopped // perhaps applied, perhaps not: the next owner applies it again
		case errs != nil && len(errs) != len(events):
			return nil, fmt.Errorf("view %s: its projector returned %d results for %d events", w.view, len(errs), len(events))
		}
		kept := 0
		var failing error
		for i := range events {
			var err error
			if errs != nil {
				err = errs[i]
			}
			switch {
			case err == nil:
				cleared = append(cleared, w.superseded(from[i], &events[i])...)
			case errors.Is(err, ErrPermanent):
				if err := w.deadLetter(ctx, from[i], &events[i], err, attempt); err != nil {
					return nil, err
				}
			default:
				events[kept], from[kept] = events[i], from[i]
				kept++
				failing = err
			}
		}
		w.attempted(len(events)-kept, attempt, failing)
		events, from = events[:kept], from[:kept]
		if kept > 0 && !sleep(ctx, wait.NextBackOff()) {
			return nil, errStopped
		}
	}
	return cleared, nil
}

func (w *worker) attempted(applied, attempt int, failing error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stats.Events += int64(applied)
	switch {
	case failing != nil:
		w.stats.Retries++
		if w.stats.Failing == nil {
			w.stats.Since = time.Now()
			w.log.Warn("applying failed, trying again until it works", "error", failing)
		}
		w.stats.Failing = failing
	case attempt > 1:
		w.log.Info("applying works again", "attempts", attempt, "after", time.Since(w.stats.Since).Round(time.Millisecond))
		fallthrough
	default:
		w.stats.Failing, w.stats.Since = nil, time.Time{}
	}
}

// wants says whether the event is of a table of the view. Its topic says so already, unless someone else writes there.
func (w *worker) wants(e *Event) bool {
	for _, t := range w.view.Tables {
		if t.Schema == e.Schema && t.Name == e.Table {
			return true
		}
	}
	return false
}

// deadLetter parks the record in the queue, and then announces it as an exception, before its offset is passed.
// e is nil for a record that could not be decoded.
func (w *worker) deadLetter(ctx context.Context, r *Record, e *Event, cause error, attempts int) error {
	d := newDeadLetter(w.view.ViewID, w.claim, r, e, cause, attempts)
	w.log.Error("an event can never apply; it is in the dead-letter queue", "id", d.ID(), "key", string(r.Key), "error", cause)
	queue := w.r.cfg.Names.DLQ()
	err := retry(ctx, w.log, "writing to the dead-letter queue", func() error {
		_, err := w.r.bus.Append(ctx, queue, 0, []Record{d.record()})
		if errors.Is(err, ErrTooLarge) {
			d.Value = nil // what is left says where the payload lies
			_, err = w.r.bus.Append(ctx, queue, 0, []Record{d.record()})
		}
		return err
	})
	if err != nil {
		return stopped(ctx, err)
	}
	w.mu.Lock()
	w.stats.DeadLettered++
	w.mu.Unlock()
	x := Exception{View: d.View, Topic: d.Topic, Partition: d.Partition, Offset: d.Offset, Shard: d.Shard, Mark: d.mark()}
	if e != nil {
		x.Key = string(r.Key)
	}
	return w.except(ctx, x)
}

// except announces an exception. It must be there before an Applied passes it.
func (w *worker) except(ctx context.Context, x Exception) error {
	if x.Offset >= 0 && w.full() {
		// Said for each, since a replay of the whole queue may have cleared it meanwhile.
		x = Exception{View: x.View, Topic: x.Topic, Partition: x.Partition, Offset: unboundedOffset}
	}
	w.remember(x)
	topic := w.r.cfg.Names.Levels()
	err := retry(ctx, w.log, "announcing an exception", func() error {
		_, err := w.r.bus.Append(ctx, topic, 0, []Record{x.record()})
		return err
	})
	return stopped(ctx, err)
}

// full says whether so many exceptions of the partition are listed that one must stand for the next.
func (w *worker) full() bool {
	if w.listed >= exceptionsPerPartition && w.r.cfg.Levels != nil {
		// Some may have been replayed or discarded by hand.
		w.listed = len(w.r.cfg.Levels.Exceptions(w.view.ViewID, w.claim.Topic, w.claim.Partition))
	}
	full := w.listed >= exceptionsPerPartition
	if full && !w.warned {
		w.log.Warn("too many dead letters to list: session reads of the view are refused until they are replayed or discarded",
			"limit", exceptionsPerPartition)
	}
	w.warned = full
	return full
}

func (w *worker) remember(x Exception) {
	if x.Offset < 0 {
		return
	}
	w.listed++
	if x.Key != "" {
		w.missing[x.Key] = append(w.missing[x.Key], x)
	}
}

// superseded takes the exceptions off the list that a newer state of their key has made obsolete.
func (w *worker) superseded(r *Record, e *Event) []Exception {
	if len(w.missing) == 0 {
		return nil
	}
	list := w.missing[string(r.Key)]
	var gone []Exception
	kept := list[:0]
	for _, x := range list {
		if x.Offset < r.Offset && x.Shard == e.Source.Shard && !e.Mark().Less(x.Mark) {
			x.Cleared = true
			gone = append(gone, x)
			w.listed--
			continue
		}
		kept = append(kept, x)
	}
	if len(kept) == 0 {
		delete(w.missing, string(r.Key))
	} else {
		w.missing[string(r.Key)] = kept
	}
	return gone
}

func stopped(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return errStopped
	}
	return err
}

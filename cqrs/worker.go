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

func stopped(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return errStopped
	}
	return err
}

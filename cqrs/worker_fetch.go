package cqrs

import (
	"context"
	"errors"
	"fmt"
)

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

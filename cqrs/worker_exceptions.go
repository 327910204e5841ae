package cqrs

import (
	"context"
	"errors"
)

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

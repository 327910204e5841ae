package cqrs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/tidemarkdb/tidemark/internal/lsn"
)

// DeadLetter is an event that a view could not apply, with its cause and its origin.
type DeadLetter struct {
	View      ViewID    `json:"view"`
	Topic     string    `json:"topic"`
	Partition int       `json:"partition"`
	Offset    int64     `json:"offset"`
	Key       []byte    `json:"key"`   // of the original record
	Value     []byte    `json:"value"` // of the original record; nil when it was too large to repeat
	Shard     string    `json:"shard,omitempty"`
	Epoch     lsn.Epoch `json:"epoch"`
	LSN       string    `json:"lsn,omitempty"`
	Cause     string    `json:"cause"`
	Attempts  int       `json:"attempts"`
	At        time.Time `json:"at"`
}

// ID names the dead letter: VIEW@GENERATION/TOPIC/PARTITION/OFFSET.
func (d *DeadLetter) ID() string {
	return fmt.Sprintf("%s/%s/%d/%d", d.View, d.Topic, d.Partition, d.Offset)
}

// newDeadLetter takes shard and position from the event, or from the headers of a record that could not be decoded.
func newDeadLetter(view ViewID, c Claim, r *Record, e *Event, cause error, attempts int) DeadLetter {
	d := DeadLetter{
		View: view, Topic: c.Topic, Partition: c.Partition, Offset: r.Offset, Key: r.Key, Value: r.Value,
		Cause: cause.Error(), Attempts: attempts, At: time.Now().UTC().Truncate(time.Millisecond),
	}
	if e != nil {
		d.Shard, d.Epoch, d.LSN = e.Source.Shard, e.Source.Epoch, e.Source.Commit.String()
		return d
	}
	d.Shard = string(r.Header(HeaderShard))
	if n, err := strconv.ParseUint(string(r.Header(HeaderEpoch)), 10, 16); err == nil && lsn.Epoch(n) <= lsn.MaxEpoch {
		d.Epoch = lsn.Epoch(n)
	}
	if l, err := lsn.Parse(string(r.Header(HeaderLSN))); err == nil {
		d.LSN = l.String()
	}
	return d
}

// mark is zero, and so before every session's mark, when the position is not known.
func (d *DeadLetter) mark() lsn.Mark {
	l, err := lsn.Parse(d.LSN)
	if err != nil {
		return lsn.Mark{}
	}
	return lsn.Mark{Epoch: d.Epoch, LSN: l}
}

func (d *DeadLetter) record() Record {
	return Record{Key: []byte(d.ID()), Value: mustJSON(d)}
}

// DLQ is the dead-letter queue: a compacted topic in which an event lies until it is replayed or discarded, which a
// tombstone records.
type DLQ struct {
	bus   Bus
	names Names
}

// NewDLQ opens the queue.
func NewDLQ(bus Bus, names Names) *DLQ { return &DLQ{bus: bus, names: names} }

// ErrNoDeadLetter says that the queue has no such event (any more).
var ErrNoDeadLetter = errors.New("no such dead letter; `tidemark dlq list` shows what there is")

// List returns what lies in the queue for a view (empty: all views), oldest first, without payloads. It stops at limit
// and then says that there are more.
func (q *DLQ) List(ctx context.Context, view string, limit int) (letters []DeadLetter, more bool, err error) {
	at := map[string]int{} // index into letters
	err = q.scan(ctx, func(id string, d *DeadLetter) {
		i, listed := at[id]
		switch {
		case d == nil && listed:
			letters[i].Topic = "" // replayed or discarded
			delete(at, id)
		case d == nil || view != "" && d.View.Name != view:
		case listed:
			letters[i] = *d
			letters[i].Value = nil
		case len(at) >= limit:
			more = true
		default:
			d.Value = nil
			at[id] = len(letters)
			letters = append(letters, *d)
		}
	})
	kept := letters[:0]
	for i := range letters {
		if letters[i].Topic != "" {
			kept = append(kept, letters[i])
		}
	}
	return kept, more, err
}

// Show returns one event with its payload.
func (q *DLQ) Show(ctx context.Context, id string) (DeadLetter, error) {
	var found *DeadLetter
	err := q.scan(ctx, func(other string, d *DeadLetter) {
		if other == id {
			found = d
		}
	})
	switch {
	case err != nil:
		return DeadLetter{}, err
	case found == nil:
		return DeadLetter{}, fmt.Errorf("%s: %w", id, ErrNoDeadLetter)
	case found.Value == nil:
		if err := q.original(ctx, found); err != nil {
			return *found, fmt.Errorf("%s: its payload was too large for the queue, and is not in its topic any more: %w", id, err)
		}
	}
	return *found, nil
}

// Replay applies the event through its view's projector, under the same version check as any event, so that it cannot
// undo a newer state and may be repeated. Then it leaves the queue and sessions may rely on the view again.
func (q *DLQ) Replay(ctx context.Context, id string, p Projector) error {
	d, err := q.Show(ctx, id)
	if err != nil {
		return err
	}
	e, err := DecodeEvent(d.Value)
	if err != nil {
		return fmt.Errorf("replay %s: %w", id, err)
	}
	e.Partition = d.Partition
	if errs := p.Apply(ctx, []Event{e}); len(errs) > 0 && errs[0] != nil {
		return fmt.Errorf("replay %s: %w", id, errs[0])
	}
	return q.acknowledge(ctx, &d)
}

// Discard takes the event out of the queue without applying it: the view stays without it, and sessions may rely on the
// view again.
func (q *DLQ) Discard(ctx context.Context, id string) error {
	d, err := q.Show(ctx, id)
	if err != nil && d.Topic == "" {
		return err
	}
	return q.acknowledge(ctx, &d)
}

// acknowledge clears the exception first: an event that is in the queue without one is replayed again without harm.
func (q *DLQ) acknowledge(ctx context.Context, d *DeadLetter) error {
	fail := func(err error) error { return fmt.Errorf("acknowledge %s: %w", d.ID(), err) }
	say := func(topic string, r Record) error {
		_, err := q.bus.Append(ctx, topic, 0, []Record{r})
		return err
	}
	gone := Exception{View: d.View, Topic: d.Topic, Partition: d.Partition, Offset: d.Offset, Cleared: true}
	if err := say(q.names.Levels(), gone.record()); err != nil {
		return fail(err)
	}
	if err := say(q.names.DLQ(), Record{Key: []byte(d.ID())}); err != nil {
		return fail(err)
	}
	// The exception that stands for those which were too many to list goes with the last of them.
	many := Exception{View: d.View, Topic: d.Topic, Partition: d.Partition, Offset: unboundedOffset, Cleared: true}
	if left, err := q.holds(ctx, d); err != nil || left {
		return err
	}
	if err := say(q.names.Levels(), many.record()); err != nil {
		return fail(err)
	}
	// A worker may have added one since we looked, and said so before we cleared it.
	if left, err := q.holds(ctx, d); err != nil || !left {
		return err
	}
	many.Cleared = false
	if err := say(q.names.Levels(), many.record()); err != nil {
		return fail(err)
	}
	return nil
}

// holds says whether the queue has an event of the same partition of the same view.
func (q *DLQ) holds(ctx context.Context, like *DeadLetter) (bool, error) {
	left := map[string]bool{}
	err := q.scan(ctx, func(id string, d *DeadLetter) {
		delete(left, id)
		if d != nil && d.View == like.View && d.Topic == like.Topic && d.Partition == like.Partition {
			left[id] = true
		}
	})
	return len(left) > 0, err
}

// scan reads the whole queue and calls f for each record in order, with nil for a tombstone.
func (q *DLQ) scan(ctx context.Context, f func(id string, d *DeadLetter)) error {
	topic := q.names.DLQ()
	bounds, err := q.bus.Bounds(ctx, topic)
	if errors.Is(err, ErrNoTopic) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the dead-letter queue: %w", err)
	}
	for offset := bounds[0].First; offset < bounds[0].End; {
		b, err := q.bus.Fetch(ctx, topic, 0, offset, followBytes, followWait)
		if err != nil {
			return fmt.Errorf("read the dead-letter queue: %w", err)
		}
		for i := range b.Records {
			r := &b.Records[i]
			if r.Value == nil {
				f(string(r.Key), nil)
				continue
			}
			d := new(DeadLetter)
			if err := json.Unmarshal(r.Value, d); err != nil {
				return fmt.Errorf("read the dead-letter queue: offset %d: %w", r.Offset, err)
			}
			f(string(r.Key), d)
		}
		offset = b.Next
	}
	return nil
}

// original reads the payload where it came from.
func (q *DLQ) original(ctx context.Context, d *DeadLetter) error {
	b, err := q.bus.Fetch(ctx, d.Topic, d.Partition, d.Offset, 1, followWait)
	switch {
	case err != nil:
		return err
	case len(b.Records) == 0 || b.Records[0].Offset != d.Offset:
		return ErrOutOfRange
	}
	d.Value = b.Records[0].Value
	return nil
}

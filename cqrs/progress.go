package cqrs

import (
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/tidemarkdb/tidemark/internal/lsn"
)

// ViewID names one generation of a view. A rebuilt view is a new generation with its own store, group and levels.
type ViewID struct {
	Name       string `json:"view"`
	Generation uint32 `json:"generation"`
}

func (v ViewID) String() string {
	return v.Name + "@" + strconv.FormatUint(uint64(v.Generation), 10)
}

// Progress says how far capture of one shard has published: every event of a transaction whose position is not beyond
// Mark lies below End in its partition, and has been acknowledged by all in-sync replicas. A topic that is not listed
// gets no events from this shard.
type Progress struct {
	Shard string
	Mark  lsn.Mark
	Ends  map[string][]int64 // topic -> end offset of every partition
}

// Applied says that a view's store holds, durably and readable by key, the effect of every event of one partition
// below Offset, or an Exception for it.
type Applied struct {
	View      ViewID
	Topic     string
	Partition int
	Offset    int64
	// Reset says that the partition is read again from Offset (its group had no offset, or one beyond its bounds), so
	// that what was said before about it no longer holds.
	Reset bool
}

// Exception is an event that is not in a view although its offset is passed: it lies in the dead-letter queue. Reads of
// its key whose mark has reached the event must not trust the view, and neither must scans.
type Exception struct {
	View      ViewID
	Topic     string
	Partition int
	Offset    int64
	Key       string // canonical JSON; empty: any key may be concerned
	Shard     string // empty: any
	Mark      lsn.Mark
	Cleared   bool // the event was replayed, or a newer state of its key was applied
}

// The three travel as JSON records of the compacted system topics; these are their wire forms.

type progressJSON struct {
	Shard string             `json:"shard"`
	Epoch lsn.Epoch          `json:"epoch"`
	LSN   string             `json:"lsn"`
	Ends  map[string][]int64 `json:"ends"`
}

type appliedJSON struct {
	ViewID
	Topic     string `json:"topic"`
	Partition int    `json:"partition"`
	Applied   int64  `json:"applied"`
	Reset     bool   `json:"reset,omitempty"`
}

type exceptionJSON struct {
	ViewID
	Topic     string    `json:"topic"`
	Partition int       `json:"partition"`
	Offset    int64     `json:"offset"`
	Key       string    `json:"key,omitempty"`
	Shard     string    `json:"shard,omitempty"`
	Epoch     lsn.Epoch `json:"epoch"`
	LSN       string    `json:"lsn"`
}

func (p *Progress) record() Record {
	return Record{Key: []byte(p.Shard), Value: mustJSON(progressJSON{Shard: p.Shard, Epoch: p.Mark.Epoch, LSN: p.Mark.LSN.String(), Ends: p.Ends})}
}

func parseProgress(r *Record) (Progress, error) {
	var j progressJSON
	if err := json.Unmarshal(r.Value, &j); err != nil {
		return Progress{}, fmt.Errorf("progress record: %w", err)
	}
	l, err := lsn.Parse(j.LSN)
	if err != nil {
		return Progress{}, fmt.Errorf("progress record of shard %q: %w", j.Shard, err)
	}
	return Progress{Shard: j.Shard, Mark: lsn.Mark{Epoch: j.Epoch, LSN: l}, Ends: j.Ends}, nil
}

// Keys in the levels topic begin with what the record is.
const (
	appliedKey   = "applied"
	exceptionKey = "exception"
)

func (a *Applied) record() Record {
	return Record{
		Key:   mustJSON([]any{appliedKey, a.View.Name, a.View.Generation, a.Topic, a.Partition}),
		Value: mustJSON(appliedJSON{ViewID: a.View, Topic: a.Topic, Partition: a.Partition, Applied: a.Offset, Reset: a.Reset}),
	}
}

// record has no value, so that compaction forgets the exception, when it is cleared.
func (x *Exception) record() Record {
	r := Record{Key: mustJSON([]any{exceptionKey, x.View.Name, x.View.Generation, x.Topic, x.Partition, x.Offset})}
	if !x.Cleared {
		r.Value = mustJSON(exceptionJSON{
			ViewID: x.View, Topic: x.Topic, Partition: x.Partition, Offset: x.Offset,
			Key: x.Key, Shard: x.Shard, Epoch: x.Mark.Epoch, LSN: x.Mark.LSN.String(),
		})
	}
	return r
}

// parseLevel reads a record of the levels topic: an Applied, or an Exception.
func parseLevel(r *Record) (any, error) {
	var kind, view, topic string
	var generation uint32
	var partition int
	var offset int64
	key := []any{&kind, &view, &generation, &topic, &partition, &offset}
	if err := json.Unmarshal(r.Key, &key); err != nil {
		return nil, fmt.Errorf("levels record: key: %w", err)
	}
	id := ViewID{Name: view, Generation: generation}
	switch {
	case kind == appliedKey && r.Value != nil:
		var j appliedJSON
		if err := json.Unmarshal(r.Value, &j); err != nil {
			return nil, fmt.Errorf("levels record of view %s: %w", id, err)
		}
		return Applied{View: id, Topic: topic, Partition: partition, Offset: j.Applied, Reset: j.Reset}, nil
	case kind == appliedKey: // the view's generation was dropped
		return Applied{View: id, Topic: topic, Partition: partition, Reset: true}, nil
	case kind == exceptionKey:
		x := Exception{View: id, Topic: topic, Partition: partition, Offset: offset, Cleared: r.Value == nil}
		if x.Cleared {
			return x, nil
		}
		var j exceptionJSON
		if err := json.Unmarshal(r.Value, &j); err != nil {
			return nil, fmt.Errorf("levels record of view %s: %w", id, err)
		}
		l, err := lsn.Parse(j.LSN)
		if err != nil {
			return nil, fmt.Errorf("levels record of view %s: %w", id, err)
		}
		x.Key, x.Shard, x.Mark = j.Key, j.Shard, lsn.Mark{Epoch: j.Epoch, LSN: l}
		return x, nil
	}
	return nil, fmt.Errorf("levels record: unknown kind %q", kind)
}

// mustJSON marshals values that this package made of strings and numbers, which cannot fail.
func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("marshal %T: %v", v, err))
	}
	return b
}

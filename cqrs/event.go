// Package cqrs carries committed changes to read models: the event, the projector that applies events, the view that
// serves what was applied, and the level that says how far a view has come. It knows no broker and no store.
package cqrs

import (
	"encoding/json"
	"time"

	"github.com/tidemarkdb/tidemark/internal/lsn"
	"github.com/tidemarkdb/tidemark/replication"
)

// Event is one row change as it travels on the bus: a record of a table's topic.
type Event struct {
	Op      replication.Op
	Schema  string
	Table   string
	Key     Row // the primary key's columns; nil for an event of a whole table
	Before  Row // nil when unknown or none
	After   Row // nil for deletes and truncates
	Source  Source
	Version lsn.Version // (epoch, commit LSN): orders the states of one row
	Last    bool        // false: superseded by a later change of the same key in the same transaction; projections skip it

	Partition int // of the topic that the event was read from; not part of the record
}

// Source says where an event comes from. (Epoch, Commit, Ordinal) identifies it within a shard.
type Source struct {
	Shard      string
	Epoch      lsn.Epoch
	Commit     lsn.LSN
	Ordinal    int
	XID        uint32
	CommitTime time.Time
}

// Row is a row's columns in the table's order, each value in the JSON form that docs/events.md documents.
type Row []Field

// Field is one column of a Row.
type Field struct {
	Name  string
	Value json.RawMessage
}

// Get returns a column's JSON value, nil when the row has no such column.
func (r Row) Get(name string) json.RawMessage {
	for i := range r {
		if r[i].Name == name {
			return r[i].Value
		}
	}
	return nil
}

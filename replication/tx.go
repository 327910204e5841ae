// Package replication turns one shard's write-ahead log into committed transactions: it owns a logical replication
// slot, takes the initial snapshot that joins the stream without gap or repetition, decodes pgoutput, and confirms
// positions only when its consumer has made them durable elsewhere.
package replication

import (
	"time"

	"github.com/tidemarkdb/tidemark/internal/lsn"
)

// Op is the kind of one row change.
type Op byte

// The letters are those of Debezium's envelope, which consumers know.
const (
	Create   Op = 'c'
	Update   Op = 'u'
	Delete   Op = 'd'
	Snapshot Op = 'r' // read by the initial snapshot
	Truncate Op = 't'
)

// Tx is one committed transaction, or one chunk of a snapshot (all of whose changes have Op Snapshot), in commit order.
type Tx struct {
	Shard      string
	Epoch      lsn.Epoch
	Commit     lsn.LSN   // position of the commit record; for a snapshot the slot's consistent point
	End        lsn.LSN   // first position after the commit record: what is confirmed when the transaction is durable
	XID        uint32    // top-level transaction id; 0 for a snapshot
	CommitTime time.Time // zero for a snapshot
	Changes    []Change
}

// Change is the effect on one row, or a TRUNCATE of one table (Old and New nil).
type Change struct {
	Op       Op
	Relation *Relation
	Ordinal  int  // position in the transaction, from 0: (epoch, commit LSN, ordinal) identifies the change
	Last     bool // false: a later change of the same key in the same transaction supersedes this one
	Old      []Value
	New      []Value
}

// Relation is a table as the stream described it. It is immutable; a changed table is a new Relation.
type Relation struct {
	OID     uint32
	Schema  string
	Name    string
	Columns []Column
}

// Column of a Relation, in the table's order.
type Column struct {
	Name    string
	TypeOID uint32
	Type    string // as format_type() prints it without typmod: "numeric", "text[]", "mood"
	TypeMod int32
	Key     bool // part of the primary key
}

// Value is a column's value in PostgreSQL's text form. Bytes are nil for NULL.
type Value struct {
	Bytes     []byte
	Unchanged bool // an unchanged TOAST value that the stream left out; never seen under REPLICA IDENTITY FULL
}

// Null says whether the value is SQL's NULL.
func (v Value) Null() bool { return v.Bytes == nil && !v.Unchanged }

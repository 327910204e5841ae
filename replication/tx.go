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
	Sweep    Op = 's' // a repeated snapshot is complete: rows of the table that are older than it were deleted meanwhile
)

// WholeTable says whether a change of this kind concerns a table, and has no row and no key.
func (o Op) WholeTable() bool { return o == Truncate || o == Sweep }

// Tx is one committed transaction, or one chunk of a snapshot (all of whose changes have Op Snapshot), or the end of a snapshot
// that is not the shard's first (a Sweep for each table), in commit order.
//
// A transaction of more changes than Config.PartChanges arrives in parts, one behind the other with nothing between,
// all with the same Commit. A part before the last has More set and End equal to Commit: acknowledging it confirms
// nothing of the transaction, so that a restart repeats it from its beginning.
//
// For a snapshot Commit is 8 bytes below the slot's consistent point: below the commit record of every transaction
// that the slot will ever stream (one may begin exactly at the consistent point), so any streamed change wins over a
// snapshot row by its version, in whatever order they arrive.
type Tx struct {
	Shard      string
	Epoch      lsn.Epoch
	Commit     lsn.LSN   // position of the commit record; for a snapshot just below the slot's consistent point
	End        lsn.LSN   // first position after the commit record: what is confirmed when the transaction is durable; 0 for a snapshot
	XID        uint32    // top-level transaction id; 0 for a snapshot
	CommitTime time.Time // zero for a snapshot
	More       bool      // further parts of the same transaction follow; only the last part has More false and the true End
	Changes    []Change
}

// Change is the effect on one row, or a TRUNCATE or sweep of one table (Old and New nil).
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

	// What the catalog says of a type that is not built in; zero for built-in types, which JSON knows by their OID.
	Base  uint32 // the type under a domain, else TypeOID
	Elem  uint32 // the element's base type if Base is an array
	Delim byte   // what separates the elements of an array; 0 means ','
}

// Value is a column's value in PostgreSQL's text form. Bytes are nil for NULL.
type Value struct {
	Bytes     []byte
	Unchanged bool // an unchanged TOAST value that the stream left out; never seen under REPLICA IDENTITY FULL
}

// Null says whether the value is SQL's NULL.
func (v Value) Null() bool { return v.Bytes == nil && !v.Unchanged }

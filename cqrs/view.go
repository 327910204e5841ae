package cqrs

import "context"

// View is a read model that can be queried like a table. The same interface will serve the admin tables.
type View interface {
	Name() string
	Columns() []Column
	// Scan calls emit for each row, in the order asked for; each value is in PostgreSQL's text form, nil for NULL. The row is valid
	// until emit returns. For a Query with Count, one row with one value is emitted.
	// A query that the store cannot answer exactly as asked fails with an error that wraps ErrUnsupported.
	Scan(ctx context.Context, q Query, emit func(row [][]byte) error) error
	// Refresh makes visible to Scan all that Apply had acknowledged before the call. Lookups by whole key need none.
	Refresh(ctx context.Context) error
}

// Column of a view. OID and TypeMod are PostgreSQL's, so that clients decode it as the table's own column.
type Column struct {
	Name    string
	OID     uint32
	TypeMod int32
	Key     bool
	Enum    bool // a user-defined enum, whose text decides equality
}

// Query is a scan with what is pushed down. All predicates must hold.
type Query struct {
	Columns []string // in output order
	Where   []Predicate
	Order   []Order
	Limit   int64 // -1: none
	Offset  int64
	Count   bool // count(*) of the matching rows instead of rows
}

// Predicate compares a column with values in PostgreSQL's text form.
type Predicate struct {
	Column string // for Match: a column, or "search" for every full-text column
	Op     Compare
	Values []string // one, or any number for In, none for IsNull and NotNull
}

// Compare is a predicate's operator.
type Compare uint8

// The operators that views know.
const (
	Eq Compare = iota
	Ne
	Lt
	Le
	Gt
	Ge
	In
	IsNull
	NotNull
	Prefix // LIKE 'abc%'
	Match  // full text, the @@ operator
)

// Order is one sort key.
type Order struct {
	Column     string
	Desc       bool
	NullsFirst bool
}

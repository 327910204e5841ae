package router

// Scan is a SELECT from a read model, all values bound.
type Scan struct {
	View    string       // the read model's name, behind its schema and a dot when that is not public
	Columns []ScanColumn // the output, in order; for Count one column
	Where   []ScanPredicate
	Order   []ScanOrder
	Limit   int64 // -1: none
	Offset  int64
	Count   bool // count(*) of the matching rows
}

// ScanColumn is one output column.
type ScanColumn struct {
	Name    string // as the client sees it: the alias, else the column's name, "count" for count(*)
	Column  string // of the read model; empty for count(*)
	OID     uint32
	TypeMod int32
}

// ScanPredicate compares a column with values in PostgreSQL's text form.
type ScanPredicate struct {
	Column string // for Match a column, or "search" for every full-text column
	Op     Compare
	Values []string // one, none for IsNull and NotNull, any number for In: with none of them no row matches (= NULL)
}

// Compare is a predicate's operator. The numbers are those of cqrs.Compare.
type Compare uint8

// The operators that read models know.
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
	Prefix // LIKE 'abc%'; the value is what precedes the %
	Match  // full text, the @@ operator
)

var compareNames = [...]string{
	Eq: "=", Ne: "<>", Lt: "<", Le: "<=", Gt: ">", Ge: ">=", In: "in", IsNull: "is null", NotNull: "is not null", Prefix: "starts with", Match: "@@",
}

func (c Compare) String() string { return compareNames[c] }

// ScanOrder is one sort key.
type ScanOrder struct {
	Column     string
	Desc       bool
	NullsFirst bool
}

package router

// Catalog is what the router knows of one database: read from a server, immutable once handed to New. Make a new
// Catalog, and a new Router, when the schema changes.
type Catalog struct {
	Tables    []Table
	Views     []View
	Functions []Function
	Settings  []string // with a dot in their names, that functions make
	Models    []Model
	Paths     []Path
	Symbols   map[string]*Code // what operators run, and casts to types, by name; by the empty name, what statements may run that show neither
	Events    Code             // what event triggers run
}

// Code is what some code says by itself. New follows it to what it runs, see follow.go.
type Code struct {
	Leaves Flags // what it may leave in the session: of Dirty, Opaque and Keeps; or Executes what that has prepared
	Names  []Use
}

// Use is what code names: a relation with its Schema, or a word of its text, in lower case, that stands for all functions and relations
// of that name, unless it is Calling.
type Use struct {
	Schema, Name string
	Way          Way
	Within       bool // only what that runs counts: its rows are where the code runs (a partition, a foreign key's action)
}

// Way is what is done with a name.
type Way uint8

// The ways. Writing includes reading; of a materialized view it is REFRESH.
const (
	Reading Way = iota
	Writing
	Truncating
	Calling // a function
)

var wayNames = [...]string{"reading", "writing", "truncating", "calling"}

func (w Way) String() string { return wayNames[w] }

// Table is a relation with its columns in order: a table of any kind, or a view, which is then also among the Views.
// System catalogs need not be listed.
type Table struct {
	Schema, Name string
	Root         Name // a partition's topmost table, whose place in the map is the partition's own; empty for others
	Columns      []Column
	Runs         [3]Code // by Way: what that runs, or reads
}

// Column of a table.
type Column struct {
	Name          string
	OID           uint32 // type
	TypeMod       int32
	Collation     string // collname when it is not the type's default
	Deterministic bool   // pg_collation.collisdeterministic; true for types without collation
	Default       bool   // it has a default, or is an identity or generated column
	Generated     bool   // GENERATED ALWAYS AS (...): no data is given for it
	Volatile      bool   // its default is not immutable, or it is an identity column: two servers may compute different values
}

// View is a view or materialized view with every table that it reads, through other views too. A materialized view is
// listed as a Table.
type View struct {
	Schema, Name string
	BaseTables   []Name
	Volatile     bool // it calls a volatile function
}

// Name of a table, view or function with its schema.
type Name struct{ Schema, Name string }

func (n Name) String() string { return n.Schema + "." + n.Name }

// Volatility is pg_proc.provolatile.
type Volatility byte

// The volatilities.
const (
	Immutable Volatility = 'i'
	Stable    Volatility = 's'
	Volatile  Volatility = 'v'
)

// Function is a function or procedure by name; overloads are listed one by one, and the most volatile one counts.
type Function struct {
	Schema, Name string
	Volatility   Volatility
	User         bool     // not one of PostgreSQL's own (its oid is 16384 or greater)
	Aggregate    bool     // pg_proc.prokind = 'a'
	OIDs         []uint32 // of the user's own, and of those in leaving
	Code         Code
}

// Model is a read model that is queried as a table.
type Model struct {
	Schema, Name string // the schema is "public" when empty
	Own          bool   // not a read model: a table of Tidemark's own state
	Columns      []ModelColumn
}

// ModelColumn is a column of a read model, typed as the column of the table that it comes from.
type ModelColumn struct {
	Name    string
	OID     uint32
	TypeMod int32
}

package router

// Catalog is what the router knows of one database: read from a server, immutable once handed to New. Make a new
// Catalog, and a new Router, when the schema changes.
type Catalog struct {
	Tables    []Table
	Views     []View
	Functions []Function
	Settings  []string // with a dot in their names, that functions make
	Keepers   []uint32 // OIDs of functions that keep state in their server process, see keeps.go
	// Using are the functions whose code names tables: names by OID.
	Using  map[uint32]string
	Models []Model
}

// Table is a relation with its columns in order: a table of any kind, or a view, which is then also among the Views.
// System catalogs need not be listed.
type Table struct {
	Schema, Name string
	Root         Name // a partition's topmost table, whose place in the map is the partition's own; empty for others
	Columns      []Column
	// Traces: writing to it runs a function that may leave traces in the session: a trigger's, a default's, a constraint's.
	// ReadTraces: reading it does, by a policy.
	Traces, ReadTraces bool
	// Keeps, ReadKeeps: ... a function that keeps state there which nobody can take away. Opaque, ReadOpaque: ... an opaque one.
	Keeps, ReadKeeps, Opaque, ReadOpaque bool
	// Executes, ReadExecutes: ... one that may execute what its client has prepared.
	Executes, ReadExecutes bool
	// Runs: functions, in lower case, that a write to it runs and whose code names tables. ReadRuns: ... a read too.
	Runs, ReadRuns []string
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
	Set          bool     // pg_proc.proretset
	Opaque       bool     // it may make a setting whose name cannot be read in its code
	Keeps        bool     // it may keep state in its server process, see keeps.go
	Executes     bool     // it runs statements by text, among which may be an EXECUTE of what its client has prepared
	Uses, Writes []string // tables and views that its code names, or writes, in lower case and without schemas; see reach.go
}

// Model is a read model that is queried as a table.
type Model struct {
	Schema, Name string // the schema is "public" when empty
	Columns      []ModelColumn
}

// ModelColumn is a column of a read model, typed as the column of the table that it comes from.
type ModelColumn struct {
	Name    string
	OID     uint32
	TypeMod int32
}

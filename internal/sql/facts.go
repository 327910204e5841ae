package sql

import pg "github.com/pganalyze/pg_query_go/v6"

// Facts are what a statement says, read once from its syntax tree. They know no catalog: names are as written (folded
// as PostgreSQL folds them), and a reference to a column is not yet resolved. Facts are immutable once made.
type Facts struct {
	Command Command
	// Of is the statement inside EXPLAIN, PREPARE, DECLARE CURSOR, COPY (query) TO, CREATE TABLE AS; Unknown for others. All facts
	// about tables, functions and so on are then those of that statement.
	Of        Command
	Relations []Relation
	Blocks    []Block // query blocks; Blocks[0] is the outermost
	Equals    []Equal
	Outers    []Outer
	Writes    []Write
	Functions []FunctionCall
	Symbols   []string // operators, and types to which something is cast, by name
	Flags     Flags
	Params    int   // the greatest parameter number
	Uses      []int // how often each parameter occurs, by number; Uses[0] is unused

	// Structural are the literals that decide what the statement means, by index into the scanner's literals: two
	// statements of one shape have these facts only if they agree in them.
	Structural []int

	Tx      *Tx
	Setting *Setting
	// SetConfigs are a SELECT's calls of set_config, if each of them is known to run, once, and with what.
	SetConfigs []*Setting
	Copy       *Copy
	Name       string   // of the prepared statement, cursor or channel, "" for ALL; the new one of a table or view
	Types      []string // PREPARE: the declared types of its parameters, by name in pg_type; "?" for those that cannot be followed
	Args       []Value  // EXECUTE: the arguments
	Unusual    string   // why the statement cannot be planned at all, "" when it can
	OneServer  string   // why it cannot be planned for several shards, though it can for one; "" when it can
	Code       string   // what DO runs, and what an object that DDL makes will run or read
	Bare       []string // DDL: the tables, views, indexes and sequences that it is about, if none has a schema before its name
	Analyzes   bool     // EXPLAIN (ANALYZE): the statement inside does run

	node *pg.Node
	b    *builder
}

// Flags are yes-or-no facts about a statement.
type Flags uint32

// The flags.
const (
	Locking      Flags = 1 << iota // FOR UPDATE, FOR SHARE, ... anywhere
	ModifyCTE                      // a WITH query that changes data
	Temporary                      // creates, changes or drops a temporary object, by its name or kind
	WithHold                       // DECLARE ... WITH HOLD
	NoTxBlock                      // PostgreSQL refuses it inside a transaction block
	AllOfIt                        // DISCARD ALL, DEALLOCATE ALL, CLOSE ALL, UNLISTEN *
	Returning                      // RETURNING
	OnConflict                     // INSERT ... ON CONFLICT
	Recursive                      // WITH RECURSIVE
	SchemaChange                   // may change the catalog
	CurrentOf                      // WHERE CURRENT OF cursor
	Materialize                    // CREATE MATERIALIZED VIEW
	LargeObject                    // COMMENT ON LARGE OBJECT, GRANT, ALTER and SECURITY LABEL of such
	LikeOthers                     // CREATE TABLE (LIKE table)
)

// Relation is a table (or view) that the statement names. Names that mean a WITH query are not listed.
type Relation struct {
	Schema, Name string
	Alias        string // the name that columns are qualified with
	Block        int
	Renamed      bool // its columns or itself go by other names (AS x(a, b), alias of a join): no reference can be resolved
	Target       bool // it is written to
	NotQuery     bool // named by a utility statement, not in FROM
}

// Features of a query block.
type Features uint16

// The features.
const (
	Distinct Features = 1 << iota
	Group             // GROUP BY
	Having
	Sort  // ORDER BY
	Limit // LIMIT, OFFSET, FETCH
	Window
	SetOperation // it is UNION, INTERSECT, EXCEPT of its arms
	ValuesList   // VALUES
	FromFunction // a function, XMLTABLE, JSON_TABLE in FROM
	FromSubquery // a subquery or WITH query in FROM
)

// Block is a SELECT with its own FROM, or the body of INSERT, UPDATE, DELETE, MERGE.
type Block struct {
	Parent   int // the enclosing block, whose columns can be referred to; -1 for none
	Features Features
	// Opaque: it has sources other than Relations (subqueries, functions, WITH queries), whose columns are not known.
	Opaque bool
	// Visible: a reference in this block can see the columns of its parent (a subquery in an expression, or LATERAL).
	Visible bool
}

// Column is a reference to a column, resolved by the innermost block that knows it.
type Column struct {
	Schema, Table, Name string // Schema and Table are empty when not given
	Block               int    // where it is written
}

// ValueKind says what an expression is.
type ValueKind uint8

// The kinds of values.
const (
	Other    ValueKind = iota // anything not known before it runs
	Null                      // NULL
	Lit                       // a literal, by its index: Slot
	Param                     // a parameter: its number from 1 in Param
	Fixed                     // a constant that is part of the shape: Text
	Default                   // DEFAULT
	ColumnOf                  // a column: Ref
)

// Value is an expression as far as a router cares.
type Value struct {
	Kind     ValueKind
	Slot     int
	Param    int
	Negative bool   // -5: a minus sign stands before the literal
	Quoted   bool   // Fixed: it was a string
	Text     string // Fixed
	Cast     string // the type that it is cast to ("int8", "text"); "?" for a cast that cannot be followed
	Ref      Column
}

// Equal is a condition that must hold: Left = Right, or Left = one of Right.
type Equal struct {
	Left  Column
	Right []Value // never empty; a column only when alone
	// Restricts are the relations whose rows are dropped when it does not hold, by index: all of a block's for WHERE, those of
	// the nullable side for the ON of an outer join.
	Restricts []int
}

// Outer is an outer join: rows of Kept survive without a partner in Nullable.
type Outer struct {
	Kept, Nullable []int
	Full           bool
}

// Write is an INSERT, UPDATE, DELETE or MERGE, also one inside of WITH.
type Write struct {
	Command  Command
	Relation int
	Columns  []string // INSERT: as listed, none when not listed; UPDATE: those that are set
	// Rows are an INSERT's values. For INSERT ... SELECT it is one row, the SELECT's output, and Query is set. None for DEFAULT VALUES.
	Rows  [][]Value
	Query bool
	Star  bool     // the SELECT's output has a * so that positions are not known
	Sets  []string // columns that ON CONFLICT DO UPDATE sets to something else than EXCLUDED has there
}

// FunctionCall is a call, by name.
type FunctionCall struct {
	Schema, Name string
	Block        int
	Aggregate    bool // its syntax shows that it is an aggregate: count(*), DISTINCT, FILTER, WITHIN GROUP, ORDER BY
	Over         bool
	Keyword      bool   // CURRENT_TIMESTAMP and its like, which are stable
	Local        bool   // set_config whose last argument is the constant true
	Sets         string // the setting that set_config names, where that is a constant
	OfServer     bool   // current_setting of what a standby says otherwise than its primary, or of a name that is not a constant
}

// TxOp is what a transaction command does.
type TxOp uint8

// The transaction commands.
const (
	Begin TxOp = iota
	Commit
	Rollback
	Savepoint
	Release
	RollbackTo
	SetTransaction
	PrepareTransaction
	CommitPrepared
	RollbackPrepared
)

// Tx are the facts of a transaction command.
type Tx struct {
	Op                   TxOp
	Start                bool // Begin: it is written START TRANSACTION
	Chain                bool
	Isolation            string
	ReadOnly, Deferrable *bool
	Name                 string
}

// SettingOp is what a statement does to a setting.
type SettingOp uint8

// The operations on settings.
const (
	SetTo SettingOp = iota
	Reset
	ResetAll
	ShowOne
	ShowAll
)

// Setting are the facts of SET, RESET, SHOW and of a set_config.
type Setting struct {
	Op       SettingOp
	Name     string
	Values   []string
	Local    bool
	Function bool // set_config(...)
	// Function: the parameters that are the value, the name, and whether it is local; 0 for what is not a parameter.
	Param, NameParam, LocalParam int

	ToDefault bool // Reset was written as SET ... TO DEFAULT
}

// Copy are the facts of COPY.
type Copy struct {
	From    bool
	Stdio   bool // STDIN or STDOUT, not a file or program
	Columns []string
	Query   bool
	Options []Option
	Where   bool
}

// Option is an option in parentheses.
type Option struct{ Name, Value string }

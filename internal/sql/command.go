// Package sql reads SQL: a scanner that turns a statement into its shape and literals, and a parser (pg_query_go, which
// only this package imports) that turns a shape into facts: what the statement is, which tables, keys and functions it names.
package sql

// Command is what kind of statement it is.
type Command uint8

// The commands.
const (
	Unknown Command = iota
	Empty           // no statement at all: "" or ";"
	Select          // also VALUES and TABLE
	Insert
	Update
	Delete
	Merge
	DDL     // CREATE, ALTER, DROP, COMMENT, GRANT, REVOKE, SECURITY LABEL, REFRESH MATERIALIZED VIEW, ...
	Utility // VACUUM, ANALYZE, CLUSTER, REINDEX, CHECKPOINT: maintenance that is the same on every shard
	Truncate
	Transaction
	Set // SET, RESET
	Show
	CopyFrom
	CopyTo
	Prepare // the SQL statement, not the message
	Execute
	Deallocate
	Discard
	Listen
	Notify
	Unlisten
	Declare
	Fetch // and MOVE
	ClosePortal
	Lock
	Call
	Do
	Explain
	SetConstraints
	SetSnapshot
	Load
	CreateTableAs // also SELECT INTO, CREATE MATERIALIZED VIEW
)

var commandNames = [...]string{
	Unknown: "unknown", Empty: "empty", Select: "SELECT", Insert: "INSERT", Update: "UPDATE", Delete: "DELETE", Merge: "MERGE",
	DDL: "DDL", Utility: "utility", Truncate: "TRUNCATE TABLE", Transaction: "transaction", Set: "SET", Show: "SHOW", CopyFrom: "COPY FROM", CopyTo: "COPY TO",
	Prepare: "PREPARE", Execute: "EXECUTE", Deallocate: "DEALLOCATE", Discard: "DISCARD", Listen: "LISTEN", Notify: "NOTIFY",
	Unlisten: "UNLISTEN", Declare: "DECLARE CURSOR", Fetch: "FETCH", ClosePortal: "CLOSE CURSOR", Lock: "LOCK TABLE", Call: "CALL", Do: "DO",
	Explain: "EXPLAIN", SetConstraints: "SET CONSTRAINTS", SetSnapshot: "SET TRANSACTION SNAPSHOT", Load: "LOAD", CreateTableAs: "CREATE TABLE AS",
}

// String is the command's name in SQL; its tag in CommandComplete may add to it.
func (c Command) String() string {
	if int(c) < len(commandNames) {
		return commandNames[c]
	}
	return "unknown"
}

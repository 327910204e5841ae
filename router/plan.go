// Package router turns SQL into plans: which shards a statement goes to, how it gets there, or why it is refused. It is
// pure: (shape of a statement, shard map, catalog) -> immutable Plan. Nothing downstream reads SQL again.
package router

import (
	"slices"

	"github.com/tidemarkdb/tidemark/internal/sql"
	"github.com/tidemarkdb/tidemark/sharding"
)

// Kind is the way a statement runs.
type Kind uint8

// The kinds of plans. For each: what Plan.Shards means.
const (
	// Refuse: nothing runs; answer with Plan.Refusal. No shards.
	Refuse Kind = iota
	// Nothing: an empty query; answer EmptyQueryResponse, unless the session has a server to ask. No shards.
	Nothing
	// Route: exactly one shard, forwarded untouched.
	Route
	// AnyShard: forwarded untouched to any one of Shards; the first is preferred. No sharded table takes part.
	AnyShard
	// Scatter: a SELECT whose rows are those of all Shards, concatenated in any order.
	Scatter
	// Broadcast: the same statement on each of Shards (all of the map), all or nothing: inside a transaction on each, unless
	// FlagNoTx forbids it. The answer is the first shard's.
	Broadcast
	// CopyIn: COPY FROM STDIN whose lines go to shards by Plan.Copy. Shards are all that can receive lines.
	CopyIn
	// Tx: transaction control, see Plan.Tx. No shards: the session knows where its transaction is.
	Tx
	// Setting: SET, RESET, SHOW or set_config of a session setting, see Plan.Setting. Shards is where a SHOW is asked, and
	// where a SET is tried when the session holds no connection: the default shard.
	Setting
	// ViewScan: a SELECT from a read model, see Plan.Scan. No shards.
	ViewScan
	// OfPrepared: PREPARE, EXECUTE or DEALLOCATE, see Plan.Prepared. No shards: the session knows the statement.
	OfPrepared
)

var kindNames = [...]string{
	Refuse: "Refuse", Nothing: "Nothing", Route: "Route", AnyShard: "AnyShard", Scatter: "Scatter", Broadcast: "Broadcast",
	CopyIn: "CopyIn", Tx: "Tx", Setting: "Setting", ViewScan: "ViewScan", OfPrepared: "OfPrepared",
}

func (k Kind) String() string { return kindNames[k] }

// Access says which of a shard's endpoints may answer outside of a transaction.
type Access uint8

// Write is the primary; Read may be a replica.
const (
	Write Access = iota
	Read
)

func (a Access) String() string {
	if a == Read {
		return "read"
	}
	return "write"
}

// Flags are what an engine must know beside the place.
type Flags uint32

const (
	// Writes: it may change data, so a mark is taken behind its commit.
	Writes Flags = 1 << iota
	// Dirty: it may leave traces in the server connection that cannot be seen on the wire (user functions, DO, CALL,
	// set_config): clean the connection with DISCARD ALL before it returns to the pool.
	Dirty
	// Pin: it leaves state in the server connection on purpose (temporary table, session advisory lock, WITH HOLD, LOAD): the
	// session keeps this connection.
	Pin
	// Neutral: which shard answers makes no difference, and it sees nothing of a transaction's own work: a transaction need
	// not be pinned to a shard by it, and it may run on the shard that a transaction is already pinned to.
	Neutral
	// Here: it speaks of state in the connection that the session holds (FETCH, CLOSE, DISCARD, SET CONSTRAINTS, pg_my_temp_schema()), or
	// of nothing else: run it there. Without one, the first of Shards answers, with PostgreSQL's own error. Beside Neutral it only shows
	// the state.
	Here
	// NoTx: PostgreSQL refuses it inside a transaction block (VACUUM, CREATE INDEX CONCURRENTLY, ...).
	NoTx
	// Schema: it changes the catalog; read the catalog again after it.
	Schema
	// Discards: DISCARD ALL or DEALLOCATE ALL: the session's own prepared statements (and for DISCARD ALL its settings) go too.
	Discards
	// ShowsPrepared: it reads pg_prepared_statements: the connection must have the session's own, under their own names.
	ShowsPrepared
	// Listens: LISTEN or UNLISTEN: it changes the channels that the session listens to, see Plan.Channel.
	Listens
	// ShowsChannels: it reads pg_listening_channels(): the connection must listen to what the session listens to.
	ShowsChannels
	// Opaque: it may make settings whose names nobody can know, so that they cannot be carried to another connection.
	Opaque
	// LastValue: it asks for a number that a sequence gave earlier on the same connection: currval() or lastval().
	LastValue
	// Keeps: it may leave state in the server process that nothing shows and nothing takes away: the session keeps this
	// connection, and nobody gets it afterwards.
	Keeps
	// Executes: its code runs statements by text, which may EXECUTE or DEALLOCATE what the session has prepared: the connection must have
	// that under its own names.
	Executes
	// Meets: sessions meet at what it does, a lock of the transaction or a notification: on the primary.
	Meets
	// Restates: code that it runs may change search_path or the role, unseen: what names mean behind it only the server knows.
	Restates
	// Resets: that code may do so by a RESET. Servers do not know the role of a client's startup message, to which a RESET returns.
	Resets
)

var flagNames = [...]string{"writes", "dirty", "pin", "neutral", "here", "no-tx", "schema", "discards", "shows-prepared", "listens", "shows-channels", "opaque", "last-value", "keeps", "executes", "meets", "restates", "resets"}

// leftByRunning are the flags of what happens only if the statement is run, not planned.
const leftByRunning = Writes | Dirty | Pin | Opaque | Keeps | Executes | Meets | Restates | Resets

// Plan says how one execution of one statement runs. It is immutable and shared between sessions.
type Plan struct {
	Kind    Kind
	Command sql.Command
	Tag     string // the command tag, where it does not depend on the result: "BEGIN", "SET", "CREATE TABLE"
	Access  Access
	Flags   Flags
	Shards  []int  // indices into the map's shards
	Reason  string // one line for SHOW tidemark.route: why there
	Refusal *Refusal
	Tx      *TxControl
	// Bare are of a Broadcast: what it changes or drops, without schemas. If the session has temporary ones of these names it is about them,
	// and runs where they are, unless there is a Refusal: then that is for it.
	Bare []string
	// Settings are of DO: the names with a dot that it may set.
	Settings []string
	Setting  *SettingChange
	Copy     *Copy
	Scan     *Scan
	// Channel is that of LISTEN and UNLISTEN; empty for UNLISTEN *.
	Channel string
	// Prepared is set for OfPrepared.
	Prepared *Prepared
	// ByPath: it names something that is found elsewhere under another search_path.
	ByPath bool

	shards *sharding.Map
}

// Plain says that nothing but its place has to be known of it: it is forwarded to one shard, and leaves nothing behind.
func (p *Plan) Plain() bool {
	return p.Flags == 0 && (p.Kind == Route || p.Kind == AnyShard) && p.Setting == nil && len(p.Bare) == 0
}

// Covers says whether q runs in the same place as p, and leaves nothing behind that p does not. primaries: there are no replicas.
func (p *Plan) Covers(q *Plan, primaries bool) bool {
	one := func(x *Plan) bool { return (x.Kind == Route || x.Kind == AnyShard) && len(x.Shards) == 1 }
	same := p.Kind == q.Kind || one(p) && one(q)
	return p == q || same && (primaries || p.Access == q.Access) && q.Flags&^(p.Flags|Neutral) == 0 && slices.Equal(p.Shards, q.Shards)
}

// OnPrimary says that the plan is for the primary even in a transaction that reads on a replica: it does, or may do, what others are
// to notice, or what the session keeps. What changes rows is none of these: it fails there as in any read-only transaction.
func (p *Plan) OnPrimary() bool {
	switch p.Command {
	case sql.Insert, sql.Update, sql.Delete, sql.Merge:
		return false
	case sql.Notify, sql.Listen:
		return true
	}
	return p.Flags&(Pin|Keeps|Opaque|Dirty|Meets) != 0
}

// Has says whether all of the flags f are set.
func (p *Plan) Has(f Flags) bool { return p.Flags&f == f }

// Shard is the name of the i-th of p.Shards.
func (p *Plan) Shard(i int) string { return p.shards.Shards()[p.Shards[i]].Name }

// Refusal is the error that answers a refused statement.
type Refusal struct {
	Code     string // SQLSTATE: mostly 0A000; 42601 for a syntax error; 22P02, 22003 for a key that PostgreSQL would refuse
	Message  string // what is not supported or wrong
	Detail   string // why
	Hint     string // what to do
	Position int    // in characters from 1 within the query string, 0 when unknown
	Unread   bool   // it cannot be read, for its syntax mostly, which PostgreSQL says before anything else
}

func (r *Refusal) Error() string { return r.Message }

// TxOp is a transaction command.
type TxOp uint8

// The transaction commands.
const (
	Begin    TxOp = iota // BEGIN and START TRANSACTION
	Commit               // COMMIT and END
	Rollback             // ROLLBACK and ABORT
	Savepoint
	Release
	RollbackTo
	SetTransaction // SET TRANSACTION ...: characteristics of the transaction that is open
)

var txOpNames = [...]string{
	Begin: "begin", Commit: "commit", Rollback: "rollback", Savepoint: "savepoint", Release: "release", RollbackTo: "rollback to",
	SetTransaction: "set transaction",
}

func (o TxOp) String() string { return txOpNames[o] }

// TxControl is a transaction command with its options. The statement's own text can be forwarded as it is.
type TxControl struct {
	Op         TxOp
	Chain      bool   // COMMIT or ROLLBACK ... AND CHAIN
	Isolation  string // "read committed", "serializable", ...; empty when not given
	ReadOnly   Tristate
	Deferrable Tristate
	Name       string // Savepoint, Release, RollbackTo
}

// Ends says whether it ends a transaction, also where AND CHAIN begins the next.
func (c *TxControl) Ends() bool { return c.Op == Commit || c.Op == Rollback }

// Tristate is an option that may be left out.
type Tristate uint8

// The states of an option.
const (
	Unset Tristate = iota
	On
	Off
)

// SettingOp is what a statement does to a setting.
type SettingOp uint8

// The operations on settings.
const (
	SetOp SettingOp = iota
	ResetOp
	ResetAll
	ShowOp
	ShowAll
)

var settingOpNames = [...]string{SetOp: "set", ResetOp: "reset", ResetAll: "reset all", ShowOp: "show", ShowAll: "show all"}

func (o SettingOp) String() string { return settingOpNames[o] }

// SettingChange is a SET, RESET or SHOW.
type SettingChange struct {
	Op     SettingOp
	Name   string   // lower case, as pg_settings spells it: "search_path", "role", "session_authorization", "timezone", "tidemark.consistency"
	Values []string // SetOp: the value's parts, unquoted ("a", "b" for search_path = a, b); none for TO DEFAULT, which is ResetOp
	Local  bool     // SET LOCAL: until the transaction ends
	Own    bool     // the name begins with "tidemark.": Tidemark answers, no server is asked
	// Function: it was a set_config(name, value, local) of a SELECT. Kind is then AnyShard: run the statement, and remember
	// the setting for the session, and those after it in the SELECT.
	Function bool
	Next     *SettingChange
}

// seeds says whether it does what setseed() does: that is no setting which could be carried to another connection.
func (s *SettingChange) seeds() bool { return s.Op == SetOp && s.Name == Seed }

// Seed is the setting that is no setting: to set it is to call setseed(), and nothing shows it.
const Seed = "seed"

// Value is the setting's value as one string, as SHOW would print a list.
func (s *SettingChange) Value() string {
	switch len(s.Values) {
	case 0:
		return ""
	case 1:
		return s.Values[0]
	}
	v := s.Values[0]
	for _, x := range s.Values[1:] {
		v += ", " + x
	}
	return v
}

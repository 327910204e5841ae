package router

import (
	"strings"

	"github.com/tidemarkdb/tidemark/internal/sql"
)

// calls is what the functions that a statement calls mean for its plan.
type calls struct {
	volatile  bool     // some function is: the primary answers
	harmless  bool     // those that are volatile only make values (random) or wait: any primary will do
	writes    bool     // something may change data
	dirty     bool     // something may change the session unseen
	pin       bool     // something leaves state in the connection on purpose
	leaves    Flags    // ... of Dirty, Opaque, Keeps, Executes, Restates and Resets
	user      bool     // some function is the user's own, and may read tables
	meets     bool     // sessions meet at what it does
	here      bool     // something asks for state of the connection, or takes some away
	sets      bool     // set_config is called, or pg_settings updated
	shows     bool     // something shows state of the connection
	aggregate string   // an aggregate that is called
	unsafe    string   // a function that must not run on several shards
	unstable  string   // a function whose result may differ between shards
	onDefault string   // a function whose effect is looked for on the default shard
	names     []string // functions of the user's own that need something of certain shards
	refusal   *Refusal

	showsPrepared bool // pg_prepared_statements is read
	showsChannels bool // pg_listening_channels() is called
	lastValue     bool // currval() or lastval() is called
}

// What PostgreSQL's own volatile functions do cannot be read from the catalog. Those that are not listed may write and
// leave traces.
var (
	// makesValues only make values, or wait.
	makesValues = set("random", "random_normal", "clock_timestamp", "timeofday", "gen_random_uuid", "uuidv4", "uuidv7", "pg_sleep", "pg_sleep_for", "pg_sleep_until")
	// sequences work on a sequence; each shard has its own.
	sequences = set("nextval", "setval")
	// asksConnection ask for what the connection did before.
	asksConnection = set("pg_advisory_unlock", "pg_advisory_unlock_shared", "pg_advisory_unlock_all")
	// showsConnection show what the connection has, or are views of that.
	showsConnection = set("pg_my_temp_schema", "pg_is_other_temp_schema", "pg_cursors", "pg_locks")
	// sessionLocks are held until the session ends.
	sessionLocks = set("pg_advisory_lock", "pg_advisory_lock_shared", "pg_try_advisory_lock", "pg_try_advisory_lock_shared")
	// meeting are effects that sessions meet at: on one shard, the default one.
	meeting = set("pg_notify", "pg_advisory_xact_lock", "pg_advisory_xact_lock_shared", "pg_try_advisory_xact_lock", "pg_try_advisory_xact_lock_shared")
	// ownTransaction are stable in name, but bind the transaction that asks to its shard.
	ownTransaction = set("txid_current", "pg_current_xact_id", "pg_export_snapshot")
	// readsTables are stable in name, but read tables and views, which run what they run.
	readsTables = set("table_to_xml", "table_to_xml_and_xmlschema", "schema_to_xml", "schema_to_xml_and_xmlschema", "database_to_xml", "database_to_xml_and_xmlschema")
	// perServer are stable, but each server has its own answer; harmless where tables are not read with them.
	serverInfo = set("pg_is_in_recovery", "pg_current_wal_lsn", "pg_current_wal_insert_lsn", "pg_current_wal_flush_lsn")
)

var pgSettings = Name{"pg_catalog", "pg_settings"}

func set(names ...string) map[string]bool {
	m := make(map[string]bool, len(names))
	for _, n := range names {
		m[n] = true
	}
	return m
}

func (s *statement) calls() calls {
	c := calls{harmless: true}
	sharded := s.anySplit(indices(len(s.rels)))
	for _, call := range s.f.Functions {
		f, found := s.r.function(s.ses, call)
		label := call.Name + "()"
		if (f.Aggregate || call.Aggregate) && !call.Over && call.Block == 0 && c.aggregate == "" {
			c.aggregate = label
		}
		own := f.Schema == "pg_catalog" && !f.User
		c.showsPrepared = c.showsPrepared || own && call.Name == "pg_prepared_statement"
		c.showsChannels = c.showsChannels || own && call.Name == "pg_listening_channels"
		if f.Volatility != Immutable && c.unstable == "" {
			c.unstable = label
		}
		if keepers[call.Name] {
			c.leaves |= Keeps
		}
		if !found {
			c.leaves |= Restates | Resets
		}
		if d := s.r.code.function(s.ses, call.Name); f.User {
			c.leaves |= d.leaves
			if d.reach != (reach{}) {
				c.names, c.user = append(c.names, call.Name), true
			}
			if d.part != "" {
				c.unsafe = label
			}
		}
		if f.User && f.Volatility != Immutable {
			c.user = true
			if c.unsafe == "" {
				c.unsafe = label
			}
		}
		switch name := call.Name; {
		case own && (serverInfo[name] || call.OfServer):
			c.volatile = true
		case own && ownTransaction[name]:
			c.volatile, c.harmless = true, false
		case own && name == "pg_listening_channels":
			c.volatile, c.harmless, c.here, c.unsafe = true, false, true, label
		case own && showsConnection[name]:
			c.volatile, c.shows, c.unsafe = true, true, label
		case f.Volatility != Volatile && !(own && readsTables[name]):
		case own && makesValues[name]:
			c.volatile = true
		case own && sequences[name]:
			c.volatile, c.harmless, c.writes, c.unsafe = true, false, true, label
			if !sharded {
				c.onDefault = label
			}
		case own && (name == "currval" || name == "lastval"):
			c.volatile, c.harmless, c.here, c.unsafe, c.lastValue = true, false, true, label, true
		case own && asksConnection[name]:
			c.volatile, c.harmless, c.here, c.unsafe = true, false, true, label
		case own && sessionLocks[name]:
			c.volatile, c.harmless, c.pin, c.unsafe, c.onDefault = true, false, true, label, label
		case own && meeting[name]:
			c.volatile, c.harmless, c.meets, c.unsafe, c.onDefault = true, false, true, label, label
		case own && name == "setseed":
			c.volatile, c.harmless, c.unsafe = true, false, label
		case own && name == "set_config" && (call.Local || s.f.SetConfigs != nil):
			c.volatile, c.harmless, c.dirty, c.sets, c.unsafe = true, false, true, true, label
			if s.f.SetConfigs == nil {
				c.leaves |= Restates
			}
		case own && name == "set_config" && strings.HasPrefix(call.Sets, "tidemark."):
			c.refusal = ownByFunction(call.Sets)
		case own && name == "set_config" && len(s.all()) == 1:
			// Which setting is made, and whether any, only the server knows: pg_dump takes the name from pg_settings, for those that have it.
			c.volatile, c.harmless, c.dirty, c.sets = true, false, true, true
			c.leaves |= Dirty | Keeps | Opaque | Restates | Resets
		case own && name == "set_config":
			// A setting that is changed unseen would be lost with the server connection.
			c.refusal = refuse("set_config in a larger query is not supported", "It changes the session, whose settings Tidemark must know to carry them from one server connection to the next.",
				"Use SET, or SELECT set_config(name, value, local) without FROM and with constants or parameters; with local = true it may stand anywhere.")
		case own && strings.HasPrefix(name, "lo_"):
			c.volatile, c.harmless, c.writes, c.unsafe, c.onDefault = true, false, true, label, label
		default:
			c.volatile, c.harmless, c.writes, c.dirty, c.unsafe = true, false, true, true, label
			if own { // query_to_xml() and the like run what they are given
				c.leaves |= Restates | Resets
			}
		}
	}
	for i := range s.rels {
		if r := s.f.Relations[i]; r.Name == "pg_prepared_statements" && (r.Schema == "" || r.Schema == "pg_catalog") {
			c.showsPrepared = true
		}
		c.shows = c.shows || s.rels[i].place == anywhere && systemSchema(s.rels[i].name.Schema) && showsConnection[s.rels[i].name.Name]
		if v := s.r.names.views[s.rels[i].name]; v != nil && v.Volatile {
			c.volatile, c.harmless, c.writes, c.dirty = true, false, true, true
		}
	}
	for _, w := range s.f.Writes {
		if rel := &s.rels[w.Relation]; rel.name == pgSettings { // UPDATE of it calls set_config
			c.volatile, c.harmless, c.dirty, c.sets = true, false, true, true
			c.leaves |= Restates | Resets
		}
	}
	if len(s.f.Writes) > 0 && s.f.Command == sql.Explain && !s.f.Analyzes {
		c.writes = false
	}
	return c
}

func indices(n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = i
	}
	return out
}

package router

import (
	"fmt"
	"strings"

	"github.com/tidemarkdb/tidemark/internal/sql"
	"github.com/tidemarkdb/tidemark/sharding"
)

// compile plans a statement as far as it can be planned without values.
func (r *Router) compile(ses *Session, f *sql.Facts) *compiled {
	s := r.statement(ses, f)
	if ref := s.unreadable(); ref != nil {
		return s.fixed(ref)
	}
	if f.OneServer != "" && len(s.all()) > 1 {
		return s.fixed(refuse(f.OneServer, "Tidemark cannot run it on several shards as one PostgreSQL would.", "Run it on the shards directly."))
	}
	if f.Unusual != "" {
		return s.fixed(refuse(f.Unusual, "Tidemark cannot run it on several shards as one PostgreSQL would.", "Run it on the shards directly."))
	}
	switch f.Command {
	case sql.Select:
		if len(s.rels) == 1 && s.rels[0].place == model {
			return s.viewScan()
		}
		if f.SetConfigs != nil {
			return s.setConfigs()
		}
		return s.compiled(s.query())
	case sql.Insert, sql.Update, sql.Delete, sql.Merge:
		return s.compiled(s.query())
	case sql.Explain:
		return s.explain()
	case sql.Prepare:
		return s.prepared(PrepareOp)
	case sql.Declare:
		return s.declare()
	case sql.CreateTableAs:
		if f.Of == sql.Execute {
			return s.prepared(CreateOp)
		}
		return s.createTableAs()
	case sql.CopyTo:
		return s.copyTo()
	case sql.CopyFrom:
		return s.copyFrom()
	case sql.Transaction:
		return s.transaction()
	case sql.Set, sql.Show:
		return s.setting()
	case sql.DDL:
		return s.ddl()
	case sql.Utility:
		return s.maintenance()
	case sql.Truncate:
		return s.truncate()
	case sql.Lock:
		return s.lock()
	case sql.Execute:
		return s.prepared(ExecuteOp)
	case sql.Deallocate:
		if f.Flags&sql.AllOfIt != 0 {
			return s.discards("DEALLOCATE ALL", Discards)
		}
		return s.prepared(DeallocateOp)
	case sql.Discard:
		if f.Flags&sql.AllOfIt != 0 {
			return s.discards("DISCARD ALL", Discards|NoTx)
		}
		return s.here(0)
	case sql.Fetch, sql.ClosePortal, sql.SetConstraints, sql.SetSnapshot:
		return s.here(0)
	case sql.Unlisten:
		return s.channel(s.here(Listens))
	case sql.Listen:
		return s.channel(s.onDefault(Listens, "LISTEN and NOTIFY meet on the default shard"))
	case sql.Notify:
		return s.onDefault(0, "LISTEN and NOTIFY meet on the default shard")
	case sql.Load:
		return s.here(Pin | Dirty | Keeps)
	case sql.Call, sql.Do:
		return s.code()
	}
	return s.fixed(refuse(fmt.Sprintf("%s is not supported", f.Command), "Tidemark does not know how it runs on several shards.", "Run it on the shards directly."))
}

func (s *statement) fixed(ref *Refusal) *compiled {
	return s.fixedPlan(&Plan{Kind: Refuse, Refusal: ref})
}

func (s *statement) fixedPlan(p *Plan) *compiled {
	p = s.plan(p)
	return &compiled{generic: p, always: p, cost: planCost}
}

// here is for statements about state in the connection that the session holds.
func (s *statement) here(flags Flags) *compiled {
	return s.fixedPlan(&Plan{Kind: AnyShard, Flags: Here | flags, Shards: s.r.oneShard[s.r.m.Default()], Reason: "state of the session's own connection"})
}

// discards is here for what the session may answer itself.
func (s *statement) discards(tag string, flags Flags) *compiled {
	c := s.here(flags)
	c.generic.Tag = tag
	return c
}

// channel notes which channel a LISTEN or UNLISTEN names.
func (s *statement) channel(c *compiled) *compiled {
	c.generic.Channel = s.f.Name
	return c
}

func (s *statement) onDefault(flags Flags, reason string) *compiled {
	return s.fixedPlan(&Plan{Kind: Route, Flags: flags, Shards: s.r.oneShard[s.r.m.Default()], Reason: reason})
}

// code is DO and CALL.
func (s *statement) code() *compiled {
	does, names := s.r.code.text(s.ses, s.f.Code)
	at := where{shard: s.r.m.Default()}
	ref := does.refusal("this DO", "Its code", hintDo, at)
	if s.f.Command == sql.Call {
		called := s.calls()
		if does.leaves, ref = called.leaves, called.refusal; ref == nil {
			ref = s.needs(called, at)
		}
	}
	if ref != nil {
		return s.fixed(ref)
	}
	flags := Writes | Dirty | does.leaves
	c := s.onDefault(flags, "what the code does is not known; it runs on the default shard")
	c.generic.Settings = names
	for _, name := range names {
		c.cost += int64(len(name)) + 16
	}
	return c
}

func (s *statement) setConfigs() *compiled {
	local := true
	for _, set := range s.f.SetConfigs {
		local = local && set.LocalParam == 0 && set.Local
	}
	for _, call := range s.f.Functions {
		if f := s.r.function(s.ses, call); !local && call.Name != "set_config" && (f.User || f.Schema != "pg_catalog" && !call.Keyword || makesRows[call.Name]) {
			return s.fixed(refuse(fmt.Sprintf("set_config together with %s() is not supported", call.Name), "Whether the setting is made may depend on the rows that the function returns, or on what it does.",
				"Use two statements."))
		}
	}
	o := s.query()
	if o.unkeyed.Kind != AnyShard && o.unkeyed.Kind != Route {
		return s.compiled(o)
	}
	p := *o.unkeyed
	p.Flags = p.Flags&^Neutral | Dirty | Here
	p.Shards, p.Reason = s.r.oneShard[s.r.m.Default()], "a setting of the session"
	var params []*sql.Setting
	p.Setting, params = settingChanges(s.f.SetConfigs)
	for change := p.Setting; change != nil; change = change.Next {
		if change.Own {
			return s.fixed(ownByFunction(change.Name))
		}
		if change.seeds() {
			p.Flags |= Keeps
		}
	}
	c := s.fixedPlan(&p)
	if params != nil {
		c.always, c.settings = nil, params
	}
	return c
}

// makesRows are functions of PostgreSQL's own that return a set, which may be empty: then nothing beside them is computed.
var makesRows = set("generate_series", "generate_subscripts", "unnest", "regexp_matches", "regexp_split_to_table", "string_to_table",
	"json_array_elements", "json_array_elements_text", "jsonb_array_elements", "jsonb_array_elements_text", "json_each", "jsonb_each",
	"json_each_text", "jsonb_each_text", "json_object_keys", "jsonb_object_keys", "jsonb_path_query", "jsonb_path_query_tz",
	"json_populate_recordset", "jsonb_populate_recordset", "json_to_recordset", "jsonb_to_recordset", "pg_options_to_table", "aclexplode", "_pg_expandarray")

// settingChanges are the changes that calls of set_config make, and the calls again if values are missing in some.
func settingChanges(calls []*sql.Setting) (first *SettingChange, params []*sql.Setting) {
	next := &first
	for _, set := range calls {
		*next = &SettingChange{Name: set.Name, Values: set.Values, Local: set.Local, Function: true, Own: own(set.Name)}
		if set.Op == sql.Reset {
			(*next).Op = ResetOp
		}
		next = &(*next).Next
		if set.Param > 0 || set.NameParam > 0 || set.LocalParam > 0 {
			params = calls
		}
	}
	return first, params
}

// bindSettings fills the parameters into calls of set_config; NULL as the value is the default.
func (c *compiled) bindSettings(src *source) *Plan {
	p := *c.generic
	p.Setting, _ = settingChanges(c.settings)
	change := p.Setting
	for _, set := range c.settings {
		for _, n := range []int{set.Param, set.NameParam, set.LocalParam} {
			if n > len(src.values) {
				return c.generic
			}
			if n > 0 && n <= len(src.unknown) && src.unknown[n-1] {
				p.Kind, p.Setting = Refuse, nil
				p.Refusal = refuse("set_config with a computed argument is not supported", "The session's settings must be known to carry them from one server connection to the next.", "Give the arguments as constants.")
				return &p
			}
		}
		if n := set.Param; n > 0 {
			if v := src.values[n-1]; v == nil {
				change.Op, change.Values = ResetOp, nil
			} else {
				change.Values = []string{string(v)}
			}
		}
		if n := set.NameParam; n > 0 {
			change.Name = strings.ToLower(string(src.values[n-1]))
			change.Own = own(change.Name)
		}
		if n := set.LocalParam; n > 0 {
			change.Local = isTrue(src.values[n-1])
		}
		if change.Own {
			p.Kind, p.Setting, p.Refusal = Refuse, nil, ownByFunction(change.Name)
			return &p
		}
		if change.seeds() {
			p.Flags |= Keeps
		}
		change = change.Next
	}
	return &p
}

// isTrue reads a boolean in either format; what is none fails on the server.
func isTrue(v []byte) bool {
	switch s := strings.ToLower(strings.TrimSpace(string(v))); s {
	case "\x01", "1", "on":
		return true
	default:
		return s != "" && (strings.HasPrefix("true", s) || strings.HasPrefix("yes", s))
	}
}

func ownByFunction(name string) *Refusal {
	return refuse(fmt.Sprintf("set_config of %s is not supported", name), "It is a setting of Tidemark's own, and servers, which run the function, do not know it.", "Use SET.")
}

func own(setting string) bool { return strings.HasPrefix(setting, "tidemark.") }

func (s *statement) explain() *compiled {
	if s.f.Of == sql.Execute {
		return s.prepared(ExplainOp)
	}
	o := s.query()
	if flags := s.explainCreates(); flags != 0 && o.unkeyed.Kind != Refuse {
		return s.fixedPlan(&Plan{Kind: Route, Flags: flags | o.flags, Shards: s.all(), Reason: "the only shard"})
	}
	if o.unkeyed.Kind == Broadcast {
		if s.f.Analyzes {
			return s.fixed(refuse("EXPLAIN ANALYZE of a write to a reference table is not supported", "It would run on every shard.", "Use EXPLAIN without ANALYZE."))
		}
		o.unkeyed = s.plan(&Plan{Kind: AnyShard, Shards: s.all(), Reason: o.unkeyed.Reason})
	}
	if !s.f.Analyzes {
		o.flags &^= leftByRunning
		if o.unkeyed.Kind != Refuse {
			p := *o.unkeyed
			p.Flags &^= leftByRunning
			o.unkeyed = &p
		}
	}
	return s.compiled(o)
}

// explainCreates are the flags of an EXPLAIN ANALYZE that makes a table, on the only shard; 0 of others.
func (s *statement) explainCreates() Flags {
	switch {
	case !s.f.Analyzes || s.f.Flags&sql.SchemaChange == 0:
		return 0
	case s.f.Flags&sql.Temporary != 0 || s.createsTemporary():
		return Writes | Schema | Pin
	}
	return Writes | Schema
}

func (s *statement) declare() *compiled {
	o := s.query()
	if s.f.Flags&sql.WithHold != 0 {
		o.flags, o.access = o.flags|Pin, Write // the session stays on that connection
	}
	if k := o.unkeyed.Kind; k == Route || k == AnyShard {
		p := *o.unkeyed
		p.Flags = p.Flags&^Neutral | o.flags
		if o.flags&Pin != 0 {
			p.Access = Write
		}
		p.Kind, p.Shards = Route, p.Shards[:1]
		o.unkeyed = &p
	}
	return s.compiled(o)
}

func (s *statement) createTableAs() *compiled {
	o := s.query()
	if o.unkeyed.Kind == Refuse && len(o.keys) == 0 {
		return s.compiled(o)
	}
	for i := range s.rels {
		rel := &s.rels[i]
		if rel.place == split || rel.NotQuery && (rel.place == everywhere || rel.place == model) {
			return s.fixed(refuse("creating a table from a query is not supported where sharded or reference tables take part",
				fmt.Sprintf("The new table would be made on one shard, and %s is on several.", rel.name), "Create the table first, then fill it with INSERT or COPY."))
		}
	}
	flags := Writes | Schema
	if s.f.Flags&sql.Temporary != 0 || s.createsTemporary() {
		flags = Writes | Pin // the catalog is of what all sessions see
	}
	shard := s.r.m.Default()
	if o.only >= 0 && o.only != shard {
		return s.fixed(refuse("creating a table from a query on another shard is not supported", "New tables outside the shard map live on the default shard, and "+o.reason+".", "Create the table first, then copy the rows."))
	}
	return s.fixedPlan(&Plan{Kind: Route, Flags: flags | o.flags, Shards: s.r.oneShard[shard], Reason: "a new table outside the shard map lives on the default shard"})
}

var txOps = map[sql.TxOp]TxOp{
	sql.Begin: Begin, sql.Commit: Commit, sql.Rollback: Rollback, sql.Savepoint: Savepoint, sql.Release: Release,
	sql.RollbackTo: RollbackTo, sql.SetTransaction: SetTransaction,
}

// PrepareTransaction is the tag of that command's plan.
const PrepareTransaction = "PREPARE TRANSACTION"

var txTags = [...]string{
	Begin: "BEGIN", Commit: "COMMIT", Rollback: "ROLLBACK", Savepoint: "SAVEPOINT", Release: "RELEASE", RollbackTo: "ROLLBACK",
	SetTransaction: "SET",
}

func (s *statement) transaction() *compiled {
	t := s.f.Tx
	op, ok := txOps[t.Op]
	switch {
	case ok:
	case len(s.all()) > 1:
		return s.fixed(refuse("two-phase commit by the client is not supported with several shards", "A prepared transaction belongs to one server, and its name does not say to which.", "Use BEGIN and COMMIT."))
	case t.Op == sql.PrepareTransaction:
		c := s.here(Writes)
		c.generic.Tag = PrepareTransaction
		return c
	default:
		return s.onDefault(Writes|NoTx, "the only shard")
	}
	tag := txTags[op]
	if t.Start {
		tag = "START TRANSACTION"
	}
	return s.fixedPlan(&Plan{Kind: Tx, Tag: tag, Tx: &TxControl{
		Op: op, Chain: t.Chain, Isolation: t.Isolation, ReadOnly: tristate(t.ReadOnly), Deferrable: tristate(t.Deferrable), Name: t.Name,
	}})
}

func tristate(b *bool) Tristate {
	switch {
	case b == nil:
		return Unset
	case *b:
		return On
	}
	return Off
}

func (s *statement) setting() *compiled {
	set := s.f.Setting
	c := &SettingChange{Name: set.Name, Values: set.Values, Local: set.Local, Own: own(set.Name)}
	p := &Plan{Kind: Setting, Setting: c, Shards: s.r.oneShard[s.r.m.Default()]}
	switch set.Op {
	case sql.SetTo:
		c.Op, p.Tag = SetOp, "SET"
		if c.seeds() {
			p.Flags |= Keeps
		}
	case sql.Reset:
		c.Op, p.Tag = ResetOp, "RESET"
		if set.ToDefault {
			p.Tag = "SET" // SET x TO DEFAULT
		}
	case sql.ResetAll:
		c.Op, p.Tag = ResetAll, "RESET"
	case sql.ShowOne:
		c.Op, p.Tag = ShowOp, "SHOW"
	case sql.ShowAll:
		c.Op, p.Tag = ShowAll, "SHOW"
	}
	return s.fixedPlan(p)
}

func (s *statement) ddl() *compiled {
	f := s.f
	flags := Writes
	if f.Flags&sql.SchemaChange != 0 {
		flags |= Schema
	}
	if f.Flags&sql.Materialize != 0 { // REFRESH: it lives where it was created
		if ref := s.needs(calls{}, where{shard: s.r.m.Default()}); ref != nil {
			return s.fixed(ref)
		}
		return s.fixedPlan(&Plan{Kind: Route, Flags: flags | s.leaves(), Shards: s.r.oneShard[s.r.m.Default()], Reason: "materialized views live on the default shard"})
	}
	if f.Flags&sql.Temporary != 0 {
		for i := range f.Relations {
			for _, t := range s.r.m.Tables() {
				if t.Name == f.Relations[i].Name && t.Kind != sharding.Local {
					return s.fixed(refuse(fmt.Sprintf("a temporary table named %s is not supported", t.Name), "It would hide the table of that name, by which statements are routed.", "Choose another name."))
				}
			}
		}
		return s.fixedPlan(&Plan{Kind: Route, Flags: flags&^Schema | Pin, Shards: s.r.oneShard[s.r.m.Default()], Reason: "temporary objects live on the default shard"})
	}
	if s.onlyTemporary() {
		return s.fixedPlan(&Plan{Kind: Route, Flags: flags | Pin, Shards: s.r.oneShard[s.r.m.Default()], Reason: "temporary objects live on the default shard"})
	}
	if s.createsTemporary() { // if it creates anything without a schema before its name
		if len(s.all()) > 1 {
			return s.fixed(refuse("DDL with pg_temp first in the search_path is not supported with several shards", "What it creates without a schema before its name would be temporary, and temporary objects live on the default shard.", "Write pg_temp. before the name of what is temporary, and leave it out of the search_path."))
		}
		flags |= Pin
	}
	if f.Flags&sql.NoTxBlock != 0 {
		flags |= NoTx
	}
	for i := range s.rels {
		if s.rels[i].place == model {
			return s.fixed(refuse(fmt.Sprintf("DDL on read model %s is not supported", s.rels[i].name), "Read models are declared in Tidemark's configuration.", "Change the configuration."))
		}
	}
	return s.fixedPlan(&Plan{Kind: Broadcast, Flags: flags, Shards: s.all(), Bare: f.Bare, Reason: "DDL goes to every shard"})
}

// createsTemporary says whether what is created without a schema before its name is temporary.
func (s *statement) createsTemporary() bool { return len(s.ses.path) > 0 && s.ses.path[0] == "pg_temp" }

// onlyTemporary says whether all that the statement names is in the session's temporary schema.
func (s *statement) onlyTemporary() bool {
	for i := range s.f.Relations {
		if s.f.Relations[i].Schema != "pg_temp" {
			return false
		}
	}
	return len(s.f.Relations) > 0
}

// maintenance is VACUUM, ANALYZE, CLUSTER, REINDEX, CHECKPOINT.
func (s *statement) maintenance() *compiled {
	flags := Flags(0)
	if s.f.Flags&sql.NoTxBlock != 0 {
		flags |= NoTx
	}
	only := -1
	for i := range s.rels {
		switch {
		case s.rels[i].place != onOne:
			only = -2
		case only == -1 || only == s.rels[i].shard:
			only = s.rels[i].shard
		default:
			only = -2
		}
	}
	if only >= 0 {
		return s.fixedPlan(&Plan{Kind: Route, Flags: flags, Shards: s.r.oneShard[only], Reason: fmt.Sprintf("%s lives on shard %s", s.rels[0].name, s.shardName(only))})
	}
	return s.fixedPlan(&Plan{Kind: Broadcast, Flags: flags, Shards: s.all(), Reason: "maintenance goes to every shard"})
}

func (s *statement) truncate() *compiled {
	local, many := -1, false
	for i := range s.rels {
		switch rel := &s.rels[i]; {
		case rel.place == model || rel.place == derived:
			return s.fixed(refuse(fmt.Sprintf("TRUNCATE of %s is not supported", rel.name), "It is not a table.", ""))
		case rel.place != onOne:
			many = true
		case local >= 0 && local != rel.shard:
			return s.fixed(tablesApart("TRUNCATE"))
		default:
			local = rel.shard
		}
	}
	if many && local >= 0 {
		return s.fixed(refuse("TRUNCATE of sharded and local tables together is not supported", "They live on different shards.", "Use one TRUNCATE for each."))
	}
	if ref := s.needs(calls{}, where{shard: local, all: many}); ref != nil {
		return s.fixed(ref)
	}
	if many {
		return s.fixedPlan(&Plan{Kind: Broadcast, Flags: Writes | s.leaves(), Shards: s.all(), Reason: "TRUNCATE of a table that is on every shard"})
	}
	return s.fixedPlan(&Plan{Kind: Route, Flags: Writes | s.leaves(), Shards: s.r.oneShard[local], Reason: fmt.Sprintf("%s lives on shard %s", s.rels[0].name, s.shardName(local))})
}

func (s *statement) lock() *compiled {
	for i := range s.rels {
		if s.rels[i].place != onOne && len(s.r.m.Shards()) > 1 {
			return s.fixed(refuse(fmt.Sprintf("LOCK of %s is not supported", s.rels[i].name), "The table is on several shards, and a transaction runs on one.", "Lock rows with SELECT ... FOR UPDATE by their key."))
		}
		if s.rels[i].shard != s.rels[0].shard {
			return s.fixed(tablesApart("LOCK"))
		}
	}
	return s.fixedPlan(&Plan{Kind: Route, Shards: s.r.oneShard[s.rels[0].shard], Reason: fmt.Sprintf("%s lives on shard %s", s.rels[0].name, s.shardName(s.rels[0].shard))})
}

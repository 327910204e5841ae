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
	if f.Unusual != "" {
		return s.fixed(refuse(f.Unusual, "Tidemark cannot run it on several shards as one PostgreSQL would.", "Run it on the shards directly."))
	}
	switch f.Command {
	case sql.Select:
		if len(s.rels) == 1 && s.rels[0].place == model {
			return s.viewScan()
		}
		if f.Setting != nil {
			return s.setConfig()
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
	case sql.Fetch, sql.ClosePortal, sql.Unlisten, sql.SetConstraints:
		return s.here(0)
	case sql.Listen:
		return s.onDefault(Pin, "LISTEN and NOTIFY meet on the default shard")
	case sql.Notify:
		return s.onDefault(0, "LISTEN and NOTIFY meet on the default shard")
	case sql.Load:
		return s.here(Pin | Dirty)
	case sql.Call, sql.Do:
		return s.onDefault(Writes|Dirty, "what the code does is not known; it runs on the default shard")
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

func (s *statement) onDefault(flags Flags, reason string) *compiled {
	return s.fixedPlan(&Plan{Kind: Route, Flags: flags, Shards: s.r.oneShard[s.r.m.Default()], Reason: reason})
}

func (s *statement) setConfig() *compiled {
	set := s.f.Setting
	p := &Plan{
		Kind: AnyShard, Flags: Dirty | Here, Shards: s.r.oneShard[s.r.m.Default()], Reason: "a setting of the session",
		Setting: &SettingChange{Name: set.Name, Values: set.Values, Local: set.Local, Function: true, Own: own(set.Name)},
	}
	c := s.fixedPlan(p)
	if set.Param > 0 {
		c.always, c.setting = nil, set.Param
	}
	return c
}

// bindSetting is set_config with a parameter as the value; NULL is the default.
func (c *compiled) bindSetting(src *source) *Plan {
	if c.setting > len(src.values) {
		return c.generic
	}
	change := *c.generic.Setting
	if v := src.values[c.setting-1]; v == nil {
		change.Op, change.Values = ResetOp, nil
	} else {
		change.Values = []string{string(v)}
	}
	p := *c.generic
	p.Setting = &change
	return &p
}

func own(setting string) bool { return strings.HasPrefix(setting, "tidemark.") }

func (s *statement) explain() *compiled {
	if s.f.Of == sql.Execute {
		return s.prepared(ExplainOp)
	}
	o := s.query()
	if o.unkeyed.Kind == Broadcast {
		if s.f.Analyzes {
			return s.fixed(refuse("EXPLAIN ANALYZE of a write to a reference table is not supported", "It would run on every shard.", "Use EXPLAIN without ANALYZE."))
		}
		o.unkeyed = s.plan(&Plan{Kind: AnyShard, Shards: s.all(), Reason: o.unkeyed.Reason})
	}
	if !s.f.Analyzes {
		o.flags &^= Writes | Dirty | Pin
		if o.unkeyed.Kind != Refuse {
			p := *o.unkeyed
			p.Flags &^= Writes | Dirty | Pin
			o.unkeyed = &p
		}
	}
	return s.compiled(o)
}

func (s *statement) declare() *compiled {
	o := s.query()
	if s.f.Flags&sql.WithHold != 0 {
		o.flags |= Pin
	}
	if k := o.unkeyed.Kind; k == Route || k == AnyShard {
		p := *o.unkeyed
		p.Flags = p.Flags&^Neutral | o.flags
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
	if s.f.Flags&sql.Temporary != 0 {
		flags |= Pin
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

var txTags = [...]string{
	Begin: "BEGIN", Commit: "COMMIT", Rollback: "ROLLBACK", Savepoint: "SAVEPOINT", Release: "RELEASE", RollbackTo: "ROLLBACK",
	SetTransaction: "SET",
}

func (s *statement) transaction() *compiled {
	t := s.f.Tx
	op, ok := txOps[t.Op]
	if !ok {
		return s.fixed(refuse("two-phase commit by the client is not supported", "PREPARE TRANSACTION and its relatives belong to one server, and Tidemark shares connections between sessions.", "Use BEGIN and COMMIT."))
	}
	return s.fixedPlan(&Plan{Kind: Tx, Tag: txTags[op], Tx: &TxControl{
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
		return s.fixedPlan(&Plan{Kind: Route, Flags: flags, Shards: s.r.oneShard[s.r.m.Default()], Reason: "materialized views live on the default shard"})
	}
	if f.Flags&sql.Temporary != 0 {
		for i := range f.Relations {
			for _, t := range s.r.m.Tables() {
				if t.Name == f.Relations[i].Name && t.Kind != sharding.Local {
					return s.fixed(refuse(fmt.Sprintf("a temporary table named %s is not supported", t.Name), "It would hide the table of that name, by which statements are routed.", "Choose another name."))
				}
			}
		}
		return s.fixedPlan(&Plan{Kind: Route, Flags: flags | Pin, Shards: s.r.oneShard[s.r.m.Default()], Reason: "temporary objects live on the default shard"})
	}
	if f.Flags&sql.NoTxBlock != 0 {
		flags |= NoTx
	}
	for i := range s.rels {
		if s.rels[i].place == model {
			return s.fixed(refuse(fmt.Sprintf("DDL on read model %s is not supported", s.rels[i].name), "Read models are declared in Tidemark's configuration.", "Change the configuration."))
		}
	}
	return s.fixedPlan(&Plan{Kind: Broadcast, Flags: flags, Shards: s.all(), Reason: "DDL goes to every shard"})
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
	switch {
	case many && local >= 0:
		return s.fixed(refuse("TRUNCATE of sharded and local tables together is not supported", "They live on different shards.", "Use one TRUNCATE for each."))
	case many:
		return s.fixedPlan(&Plan{Kind: Broadcast, Flags: Writes, Shards: s.all(), Reason: "TRUNCATE of a table that is on every shard"})
	}
	return s.fixedPlan(&Plan{Kind: Route, Flags: Writes, Shards: s.r.oneShard[local], Reason: fmt.Sprintf("%s lives on shard %s", s.rels[0].name, s.shardName(local))})
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

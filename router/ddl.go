package router

import (
	"fmt"

	"github.com/tidemarkdb/tidemark/internal/sql"
	"github.com/tidemarkdb/tidemark/sharding"
)

func (s *statement) ddl() *compiled {
	f := s.f
	flags := Writes
	if f.Flags&sql.SchemaChange != 0 {
		flags |= Schema | s.r.code.events
		c := s.calls()
		if c.refusal != nil {
			return s.fixed(c.refusal)
		}
		for i := range s.rels { // ALTER TABLE computes defaults and checks
			flags |= s.r.code.relation(s.ses, s.rels[i].name, Writing).leaves
		}
		if flags |= c.leaves | s.leaves(); c.dirty || c.pin {
			flags |= Dirty
		}
	}
	if f.Flags&sql.Materialize != 0 { // REFRESH: it lives where it was created
		if ref := s.needs(calls{}, where{shard: s.r.m.Default()}); ref != nil {
			return s.fixed(ref)
		}
		return s.fixedPlan(&Plan{Kind: Route, Flags: flags | s.leaves(), Shards: s.r.oneShard[s.r.m.Default()], Reason: "materialized views live on the default shard"})
	}
	if f.Flags&sql.LargeObject != 0 {
		return s.fixedPlan(&Plan{Kind: Route, Flags: flags, Shards: s.r.oneShard[s.r.m.Default()], Reason: "large objects live on the default shard"})
	}
	hidden := s.hides(f.Name)
	if hidden == nil {
		hidden = s.runsTemporary()
	}
	if f.Flags&sql.Temporary != 0 {
		for i := 0; i < len(f.Relations) && hidden == nil; i++ {
			hidden = s.hides(f.Relations[i].Name)
		}
		if hidden != nil {
			return s.fixed(hidden)
		}
		return s.fixedPlan(&Plan{Kind: Route, Flags: flags&^Schema | Pin, Shards: s.r.oneShard[s.r.m.Default()], Reason: "temporary objects live on the default shard"})
	}
	if s.onlyTemporary() {
		if hidden != nil {
			return s.fixed(hidden)
		}
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
	return s.fixedPlan(&Plan{Kind: Broadcast, Flags: flags, Shards: s.all(), Bare: f.Bare, Refusal: hidden, Reason: "DDL goes to every shard"})
}

// hides refuses a temporary table of a name by which statements are routed.
func (s *statement) hides(name string) *Refusal {
	for _, t := range s.r.m.Tables() {
		if t.Name == name && t.Kind != sharding.Local {
			return refuse(fmt.Sprintf("a temporary table named %s is not supported", t.Name), "It would hide the table of that name, by which statements are routed.", "Choose another name.")
		}
	}
	return nil
}

// runsTemporary refuses a temporary object that runs or reads what the default shard, where it would live, does not have, or a permanent
// one that would be made there after a temporary one.
func (s *statement) runsTemporary() *Refusal {
	switch {
	case s.f.Flags&sql.LikeOthers != 0 && s.f.Flags&sql.Temporary == 0 && len(s.all()) > 1:
		return refuse("a table like a temporary one is not supported with several shards", "It would be made on every shard, and the temporary one is on the default shard alone.", "Write its columns out.")
	case s.f.Code == "":
		return nil
	}
	does, _ := s.r.code.text(s.ses, s.f.Code)
	return does.refusal("this temporary object", "What it runs or reads", hintDo, where{shard: s.r.m.Default()})
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
		for i := range s.rels {
			if ref := s.hides(s.rels[i].Relation.Name); s.rels[i].NotQuery && ref != nil {
				return s.fixed(ref)
			}
		}
	}
	shard := s.r.m.Default()
	if o.only >= 0 && o.only != shard {
		return s.fixed(refuse("creating a table from a query on another shard is not supported", "New tables outside the shard map live on the default shard, and "+o.reason+".", "Create the table first, then copy the rows."))
	}
	return s.fixedPlan(&Plan{Kind: Route, Flags: flags | o.flags, Shards: s.r.oneShard[shard], Reason: "a new table outside the shard map lives on the default shard"})
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

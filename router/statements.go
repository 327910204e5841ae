package router

import (
	"fmt"

	"github.com/tidemarkdb/tidemark/internal/sql"
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
	return &compiled{generic: p, always: p, params: s.f.Params, cost: planCost}
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
		switch {
		case o.flags&Pin != 0:
			p.Kind, p.Shards, p.Access = Route, p.Shards[:1], Write
		case p.Flags&Neutral != 0:
			p.Shards = s.all()
		}
		p.Flags = p.Flags&^Neutral | o.flags
		o.unkeyed = &p
	}
	return s.compiled(o)
}

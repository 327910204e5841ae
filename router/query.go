package router

import (
	"fmt"

	"github.com/tidemarkdb/tidemark/internal/sql"
)

// outcome is the plan of a query before its values are known.
type outcome struct {
	keys    []*key // all must lead to one shard
	only    int    // -1, or the shard that a local table asks for
	unkeyed *Plan  // what to do when the keys cannot be read, and when there is none
	access  Access
	flags   Flags
	reason  string
}

// query plans SELECT, INSERT, UPDATE, DELETE and MERGE, also inside EXPLAIN and the like.
func (s *statement) query() outcome {
	o := outcome{only: -1}
	command := s.f.Command
	if s.f.Of != sql.Unknown {
		command = s.f.Of
	}
	if ref := s.models(); ref != nil {
		return s.refused(ref)
	}
	calls := s.calls()
	s.accessOf(&o, command, calls)
	if calls.refusal != nil {
		return s.refused(calls.refusal)
	}
	var sharded, local, replicas []int
	for i := range s.rels {
		rel := &s.rels[i]
		switch rel.place {
		case split:
			if why := rel.unfit(); why != "" {
				return s.refused(&Refusal{Code: "55000", Message: "table " + rel.name.String() + " cannot be routed", Detail: why + ".", Hint: "Correct the shard map or the table."})
			}
			sharded = append(sharded, i)
		case derived:
			if len(s.r.m.Shards()) > 1 {
				return s.refused(refuse(
					fmt.Sprintf("view %s is not supported", rel.name),
					"It reads sharded tables, or local tables of different shards, and each shard would answer from its own part alone.",
					"Query the tables beneath it.",
				))
			}
		case onOne:
			if !rel.NotQuery {
				local = append(local, i)
			}
		case everywhere:
			replicas = append(replicas, i)
		}
	}
	if ref := s.writes(sharded); ref != nil {
		return s.refused(ref)
	}
	if p := s.referenceWrite(sharded, local, calls); p != nil {
		if ref := s.needs(calls, where{shard: -1, all: true}); ref != nil && p.Kind != Refuse {
			return s.refused(ref)
		}
		return outcome{only: -1, unkeyed: p, access: p.Access, flags: p.Flags}
	}
	if calls.onDefault != "" {
		o.only, o.reason = s.r.m.Default(), calls.onDefault+" works on the default shard"
	}
	for _, i := range local {
		if o.only >= 0 && o.only != s.rels[i].shard {
			return s.refused(refuse(
				"tables or functions of different shards in one statement are not supported",
				fmt.Sprintf("%s lives on shard %s, and %s.", s.rels[i].name, s.shardName(s.rels[i].shard), o.reason),
				"Use one statement for each, or make one of the tables a reference table.",
			))
		}
		o.only, o.reason = s.rels[i].shard, fmt.Sprintf("%s lives on shard %s", s.rels[i].name, s.shardName(s.rels[i].shard))
	}
	at := where{shard: o.only, keyed: len(sharded) > 0}
	if len(sharded) == 0 {
		o.unkeyed = s.unsharded(&o, replicas, calls)
		if o.unkeyed.Kind == Route {
			at.shard = o.unkeyed.Shards[0]
		}
	}
	if ref := s.needs(calls, at); ref != nil {
		return s.refused(ref)
	}
	if len(sharded) > 0 {
		s.keyed(&o, command, sharded, calls)
	}
	return o
}

func (s *statement) shardName(i int) string { return s.r.m.Shards()[i].Name }

func (s *statement) refused(ref *Refusal) outcome {
	return outcome{only: -1, unkeyed: s.plan(&Plan{Kind: Refuse, Refusal: ref})}
}

// plan completes a plan with what all plans of the statement share.
func (s *statement) plan(p *Plan) *Plan {
	p.Command = s.f.Command
	p.ByPath = s.byPath
	p.shards = s.r.m
	return p
}

// models refuses what a read model cannot take part in. A SELECT from one alone never comes here.
func (s *statement) models() *Refusal {
	for i := range s.rels {
		if m := s.rels[i].model; s.rels[i].place == model && m.Own {
			return refuse(
				fmt.Sprintf("table %s cannot be used in this statement", s.rels[i].name),
				"A table of Tidemark's own answers a SELECT from it alone: no joins, no subqueries, no writes, no EXPLAIN or cursors.",
				"Select from it on its own.",
			)
		} else if m != nil {
			return refuse(
				fmt.Sprintf("read model %s cannot be used in this statement", s.rels[i].name),
				"A read model answers a SELECT from it alone: no joins, no subqueries, no writes, no EXPLAIN or cursors.",
				"Select from the read model on its own, or use the tables that it is made from.",
			)
		}
	}
	return nil
}

// accessOf decides between primary and replica, and the flags that calls bring.
func (s *statement) accessOf(o *outcome, command sql.Command, c calls) {
	o.access = Read
	if command != sql.Select || s.f.Flags&(sql.Locking|sql.ModifyCTE|sql.CurrentOf) != 0 || c.volatile {
		o.access = Write
	}
	if command != sql.Select || s.f.Flags&(sql.ModifyCTE|sql.Locking) != 0 || c.writes {
		o.flags |= Writes
	}
	if c.dirty {
		o.flags |= Dirty
	}
	if c.pin {
		o.flags |= Pin
	}
	if c.meets {
		o.flags |= Meets
	}
	o.flags |= c.leaves | s.leaves()
	if c.here || c.shows {
		o.flags |= Here
	}
	if c.showsPrepared {
		o.flags |= ShowsPrepared
	}
	if c.showsChannels {
		o.flags |= ShowsChannels
	}
	if c.lastValue {
		o.flags |= LastValue
	}
}

func (s *statement) all() []int { return s.r.everyShard }

// unsharded plans a statement without sharded tables.
func (s *statement) unsharded(o *outcome, replicas []int, c calls) *Plan {
	p := &Plan{Access: o.access, Flags: o.flags, Reason: o.reason}
	switch {
	case o.only >= 0:
		p.Kind, p.Shards = Route, s.r.oneShard[o.only]
	case c.user || o.access == Write && !c.harmless || o.flags&(Dirty|Pin|Keeps) != 0 || c.here || s.f.Flags&sql.Locking != 0:
		// Functions of the user and the like see the shard that they run on: always the same one.
		p.Kind, p.Shards, p.Reason = Route, s.r.oneShard[s.r.m.Default()], "no sharded table, and not safe to run just anywhere"
		switch {
		case c.here:
			p.Kind = AnyShard
		case c.sets && !c.user: // it is the transaction's, wherever that is
			p.Kind, p.Shards = AnyShard, s.all()
		}
	case len(replicas) > 0:
		p.Kind, p.Shards, p.Reason = AnyShard, s.all(), fmt.Sprintf("reference table %s is on every shard", s.rels[replicas[0]].name)
	default:
		p.Kind, p.Shards, p.Flags, p.Reason = AnyShard, s.r.oneShard[s.r.m.Default()], p.Flags|Neutral, "no table of the shard map"
		for i := range s.rels {
			if s.rels[i].place == anywhere && systemSchema(s.rels[i].name.Schema) {
				// Catalogs are read where DDL was seen last: on the primary.
				p.Access, p.Reason = Write, "system catalog"
			}
		}
	}
	return s.plan(p)
}

// keyed plans a statement with sharded tables: one shard when all of them are confined, else scattered or refused.
func (s *statement) keyed(o *outcome, command sql.Command, sharded []int, c calls) {
	if len(s.r.m.Shards()) == 1 {
		o.unkeyed = s.plan(&Plan{Kind: Route, Access: o.access, Flags: o.flags, Shards: s.r.oneShard[0], Reason: "the only shard"})
		return
	}
	complete := true
	for _, i := range sharded {
		k := s.pins[i]
		if k == nil {
			complete = false
			continue
		}
		dup := false
		for _, have := range o.keys {
			dup = dup || have == k
		}
		if !dup {
			o.keys = append(o.keys, k)
		}
	}
	if !complete {
		o.keys = nil
	}
	if why := s.scatterProblem(command, o, sharded, c); why != nil {
		o.unkeyed = s.plan(&Plan{Kind: Refuse, Refusal: why})
		return
	}
	o.unkeyed = s.plan(&Plan{Kind: Scatter, Access: o.access, Flags: o.flags, Shards: s.all(), Reason: fmt.Sprintf("no condition confines %s to one shard", s.rels[sharded[0]].name)})
}

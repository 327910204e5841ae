package router

import (
	"cmp"
	"fmt"

	"github.com/tidemarkdb/tidemark/internal/sql"
)

// A function runs on one shard, and sees of a sharded table what is there: a wrong answer, or a row on a shard where nobody looks for
// it. So code that needs of other shards what the one where it runs has not is refused.

// reach is what code uses that is not the same on every shard: the first table of each kind, "" for none.
type reach struct {
	part       string // a sharded table
	copy       string // a reference table that it writes
	one, other lives  // tables that live on one shard, and not both on the same
}

// lives is a table that lives on one shard.
type lives struct {
	table string
	shard int
}

func (x reach) or(y reach) reach {
	x.part, x.copy = cmp.Or(x.part, y.part), cmp.Or(x.copy, y.copy)
	for _, l := range []lives{y.one, y.other} {
		switch {
		case l.table == "" || l.shard == x.one.shard && x.one.table != "":
		case x.one.table == "":
			x.one = l
		case x.other.table == "":
			x.other = l
		}
	}
	return x
}

// reachOf is, by Way, what who names that relation uses of it. What a view reads is what its query names.
func (r *Router) reachOf(n Name) (by [Calling]reach) {
	if len(r.m.Shards()) == 1 || r.names.views[n] != nil {
		return by
	}
	rel := relation{}
	r.at(&rel, n)
	for way := range by {
		x := &by[way]
		switch {
		case rel.place == split:
			x.part = n.String()
		case rel.place == everywhere && Way(way) != Reading:
			x.copy = n.String()
		case rel.place == onOne:
			x.one = lives{fmt.Sprintf("%s, which lives on shard %s", n, r.m.Shards()[rel.shard].Name), rel.shard}
		}
	}
	return by
}

// where says where code runs.
type where struct {
	shard int  // -1: the statement does not say
	keyed bool // for rows of a sharded table, with which they are, or of a statement with its key
	all   bool // on every shard
}

// What to do about code that is refused.
const (
	hintFunction = "Call it in a statement with a condition on the key of a sharded table, and have it use rows of that shard only; or run its statements from the client."
	hintTable    = "Have the shard map say that the tables are sharded by the same key, or are reference tables; or run the statements of the code from the client."
	hintPlace    = "Have the shard map say that the table is sharded by the same key, or is a reference table."
	hintDo       = "Run its statements from the client."
)

// refusal says why code must not run there; nil when it may. code is what names the tables, for the message.
func (x reach) refusal(what, code, hint string, at where) *Refusal {
	no := func(why, hint string, args ...any) *Refusal {
		return refuse(what+" is not supported", code+" "+fmt.Sprintf(why, args...), hint)
	}
	for _, l := range []lives{x.one, x.other} {
		switch {
		case l.table == "" || l.shard == at.shard:
		case at.shard >= 0:
			return no("names %s, and it would run on another.", "Name the table in statements of the client.", l.table)
		case at.keyed:
			return no("names %s, and it would run on the shard of a key.", hintPlace, l.table)
		default:
			return no("names %s, and it would run on every shard, or on any of them.", hintPlace, l.table)
		}
	}
	switch {
	case x.copy != "" && !at.all:
		return no("writes %s, which is on every shard, and it would run on one.", "Write the table by a statement of the client.", x.copy)
	case x.part != "" && at.shard < 0 && !at.keyed:
		return no("names %s, of which each shard has a part, and it would run on every shard, or on any of them.", hint, x.part)
	case x.part != "" && !at.keyed:
		return no("names %s, of which each shard has a part, and nothing confines the statement to the shard of a key.", hint, x.part)
	}
	return nil
}

// needs says why the code that a statement runs must not run there: functions that it calls, and what using its tables runs.
func (s *statement) needs(c calls, at where) *Refusal {
	for _, name := range c.names {
		if ref := s.r.code.function(s.ses, name).refusal("the function "+name+"()", "Its code", hintFunction, at); ref != nil {
			return ref
		}
	}
	for i := range s.rels {
		rel := &s.rels[i]
		at := at
		at.keyed = rel.place == split
		if ref := rel.does.refusal(fmt.Sprintf("%s %s", s.way(rel), rel.name), s.culprit(rel, at), hintTable, at); ref != nil {
			return ref
		}
	}
	return nil
}

// leaves is what using the statement's relations may leave in the session, and its operators and casts, of whatever types they are.
func (s *statement) leaves() (f Flags) {
	if len(s.r.code.symbols) > 0 {
		f = s.r.code.symbols[""]
		for _, name := range s.f.Symbols {
			f |= s.r.code.symbols[name]
		}
	}
	for i := range s.rels {
		f |= s.rels[i].does.leaves
	}
	return f
}

// culprit names the code that using a relation runs and that must not run there.
func (s *statement) culprit(rel *relation, at where) string {
	if t := s.r.names.tables[rel.name]; t != nil {
		for _, use := range t.Runs[s.way(rel)].Names {
			if f := s.r.code.functions[use.Name]; use.Schema == "" && f.refusal("", "", "", at) != nil {
				return "It runs " + use.Name + "(), whose code"
			}
		}
	}
	return "What it runs or reads"
}

// way is how the statement uses a relation.
func (s *statement) way(rel *relation) Way {
	switch {
	case !rel.Target:
		return Reading
	case s.f.Command == sql.Truncate:
		return Truncating
	}
	return Writing
}

// CallByOID is what a FunctionCall of that function, which runs on the default shard, may leave in the session, or why it is refused.
func (r *Router) CallByOID(oid uint32) (leaves Flags, ref *Refusal) {
	name := r.code.byOID[oid]
	d := r.code.functions[name]
	return d.leaves, d.refusal("the function "+name+"()", "Its code", hintFunction, where{shard: r.m.Default()})
}

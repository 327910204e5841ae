package router

import (
	"fmt"

	"github.com/tidemarkdb/tidemark/internal/sql"
)

// scatterProblem says why a statement that is not confined to a shard cannot run on all of them with its rows
// concatenated; nil when it can.
func (s *statement) scatterProblem(command sql.Command, o *outcome, sharded []int, c calls) *Refusal {
	first := &s.rels[sharded[0]]
	for _, i := range sharded {
		if s.pins[i] == nil {
			first = &s.rels[i]
			break
		}
	}
	for _, i := range sharded {
		if s.rels[i].Target && s.pins[i] == nil {
			return noKey(command.String()+" of", s.rels[i].name.String(), s.rels[i].table.Column, len(s.r.m.Shards()))
		}
	}
	if command != sql.Select {
		return noKey(command.String()+" that reads", first.name.String(), first.table.Column, len(s.r.m.Shards()))
	}
	no := func(what, why string) *Refusal {
		return refuse(what+" over several shards is not supported", why, fmt.Sprintf(hintKey, first.name.Name+"."+first.table.Column))
	}
	switch {
	case s.f.Command != sql.Select:
		return no(s.f.Command.String(), fmt.Sprintf("The query reads all shards of %s, and only a plain SELECT can.", first.name))
	case s.f.Flags&sql.ModifyCTE != 0:
		return no("a data-modifying WITH", "A write that touches several shards cannot be atomic here.")
	case s.f.Flags&sql.Locking != 0:
		return no("SELECT ... FOR UPDATE or FOR SHARE", "Row locks belong to a transaction, and a transaction runs on one shard.")
	case s.f.Flags&sql.Recursive != 0:
		return no("WITH RECURSIVE", "Each shard would see only its own rows.")
	case o.only >= 0:
		return no("a join with a local table or function", o.reason+", and the other shards do not have it.")
	}
	top := s.f.Blocks[0].Features
	for _, f := range []struct {
		is        sql.Features
		what, why string
	}{
		{sql.SetOperation, "UNION, INTERSECT or EXCEPT", "Rows of different shards would have to be compared."},
		{sql.Distinct, "DISTINCT", "Equal rows of different shards would have to be merged."},
		{sql.Group, "GROUP BY", "Groups of different shards would have to be merged."},
		{sql.Having, "HAVING", "Groups of different shards would have to be merged."},
		{sql.Window, "a window function", "It needs the rows of all shards together."},
		{sql.Sort, "ORDER BY", "The rows of the shards would have to be merged in order."},
		{sql.Limit, "LIMIT or OFFSET", "Each shard would count its own rows."},
		{sql.FromFunction, "a function in FROM", "Its rows would come from every shard."},
		{sql.FromSubquery, "a subquery or WITH query in FROM", "Each shard would compute it from its own rows alone."},
	} {
		if top&f.is != 0 {
			return no(f.what, f.why)
		}
	}
	if c.aggregate != "" {
		return no("the aggregate "+c.aggregate, "Each shard would aggregate its own rows.")
	}
	if c.unsafe != "" {
		return no("the function "+c.unsafe, "It is volatile or the user's own, and may read tables of which each shard has only a part.")
	}
	for _, i := range sharded {
		if s.rels[i].Block != 0 {
			return no("a subquery on sharded table "+s.rels[i].name.String(), "Each shard would see only its own rows of it.")
		}
	}
	for _, j := range s.f.Outers {
		if j.Full {
			return no("FULL JOIN", "Rows without a partner on one shard may have one on another.")
		}
	}
	if !s.colocated(sharded) {
		return no("a join that is not on the shard keys", "Rows of different shards would have to be joined.")
	}
	for _, j := range s.f.Outers {
		if s.anySplit(j.Nullable) && !s.anySplit(j.Kept) {
			return no("an outer join that keeps rows of a reference table", "Rows without a partner on one shard may have one on another.")
		}
	}
	for i := range s.rels {
		if systemSchema(s.rels[i].name.Schema) {
			return no("a join with a system catalog", "Each shard has its own.")
		}
	}
	return nil // subqueries over reference tables are the same on every shard
}

func (s *statement) anySplit(rels []int) bool {
	for _, i := range rels {
		if s.rels[i].place == split {
			return true
		}
	}
	return false
}

// colocated says whether all rows that make one row of the output are on one shard: from some relation, all others are
// reached by equalities between keys.
func (s *statement) colocated(sharded []int) bool {
	for _, root := range sharded {
		reached := map[int]bool{root: true}
		for changed := true; changed; {
			changed = false
			for _, e := range s.edges {
				if reached[e.from] && !reached[e.to] {
					reached[e.to], changed = true, true
				}
			}
		}
		all := true
		for _, i := range sharded {
			all = all && reached[i]
		}
		if all {
			return true
		}
	}
	return false
}

package router

import (
	"fmt"

	"github.com/tidemarkdb/tidemark/internal/sql"
)

// What query.go asks of statements that write.

// writes refuses writes that cannot be confined to a shard.
func (s *statement) writes(sharded []int) *Refusal {
	many := len(s.r.m.Shards()) > 1
	for _, w := range s.f.Writes {
		rel := &s.rels[w.Relation]
		if rel.place != split || !many {
			continue
		}
		k := rel.table.Column
		switch w.Command {
		case sql.Merge:
			return refuse("MERGE into a sharded table is not supported",
				fmt.Sprintf("Rows of %s that match on no shard would be inserted by every shard.", rel.name),
				"Use INSERT ... ON CONFLICT, or UPDATE and DELETE by key.")
		case sql.Update:
			if contains(w.Columns, k) {
				return s.keyChange(rel)
			}
		case sql.Insert:
			if contains(w.Sets, k) {
				return s.keyChange(rel)
			}
			if ref := s.insertProblem(w); ref != nil {
				return ref
			}
		}
	}
	return nil
}

func (s *statement) keyChange(rel *relation) *Refusal {
	return refuse(fmt.Sprintf("changing the shard key %s of %s is not supported", rel.table.Column, rel.name),
		"The row would belong to another shard afterwards, and would have to be moved there.",
		"Delete the row and insert it with its new key.")
}

// insertProblem says why the shard of an INSERT's rows cannot be known.
func (s *statement) insertProblem(w sql.Write) *Refusal {
	rel := &s.rels[w.Relation]
	k := rel.table.Column
	if s.pins[w.Relation] != nil {
		for _, v := range s.pins[w.Relation].values {
			if v.Kind == sql.Null && s.pins[w.Relation].stored {
				return s.nullKey(rel)
			}
		}
		return nil
	}
	const hint = "Name the columns, and give the key as a literal or a parameter."
	if len(w.Rows) == 0 {
		return refuse(fmt.Sprintf("INSERT into %s without its shard key %s is not supported", rel.name, k),
			"DEFAULT VALUES leaves the key to a default, which only the server could compute, and only after a shard is chosen.", hint)
	}
	at := s.keyPosition(w)
	switch {
	case at < 0 && len(w.Columns) == 0 && rel.columns == nil:
		return refuse(fmt.Sprintf("INSERT into %s without a column list is not supported", rel.name),
			"The columns of the table are not known, so the shard key cannot be found among the values.", hint)
	case at < 0:
		return refuse(fmt.Sprintf("INSERT into %s without its shard key %s is not supported", rel.name, k),
			"The key is left to its default, which only the server could compute, and only after a shard is chosen.", hint)
	case w.Star:
		return refuse(fmt.Sprintf("INSERT ... SELECT into %s is not supported in this form", rel.name),
			"Which output column is the shard key is not known: the query has a *, VALUES, or is a set operation.", "Name the columns of the SELECT one by one.")
	}
	for _, row := range w.Rows {
		if at >= len(row) {
			return refuse(fmt.Sprintf("INSERT into %s without its shard key %s is not supported", rel.name, k), "A row has fewer values than there are columns.", hint)
		}
		switch row[at].Kind {
		case sql.Default:
			return refuse(fmt.Sprintf("a DEFAULT shard key %s in INSERT into %s is not supported", k, rel.name),
				"The default is computed by the server, and only after a shard is chosen.", hint)
		case sql.Other, sql.ColumnOf:
			return refuse(fmt.Sprintf("a computed shard key %s in INSERT into %s is not supported", k, rel.name),
				"The value is computed by the server, and only after a shard is chosen.", hint)
		}
	}
	return nil
}

func (s *statement) nullKey(rel *relation) *Refusal {
	return &Refusal{
		Code:    "23502",
		Message: fmt.Sprintf("null value in column \"%s\" of relation \"%s\" violates the rule that a shard key is not null", rel.table.Column, rel.name.Name),
		Detail:  "A row without a key belongs to no shard.",
	}
}

// referenceWrite plans a write to a reference table: the same statement on every shard, all or nothing. nil when the
// statement writes to none.
func (s *statement) referenceWrite(sharded, local []int, c calls) *Plan {
	target := -1
	for i := range s.rels {
		if s.rels[i].Target && s.rels[i].place == everywhere && !s.rels[i].NotQuery {
			target = i
		}
	}
	if target < 0 || len(s.r.m.Shards()) == 1 {
		return nil
	}
	no := func(detail, hint string) *Plan {
		return s.plan(&Plan{Kind: Refuse, Refusal: refuse(fmt.Sprintf("this write to reference table %s is not supported", s.rels[target].name), detail, hint)})
	}
	switch {
	case len(sharded) > 0 || len(local) > 0:
		return no("A reference table is written on every shard, and the statement also names a table that is not the same on all of them.", "Use constants, or other reference tables.")
	case len(s.f.Writes) > 1:
		return no("Several tables are written by one statement.", "Use one statement for each table.")
	case c.unstable != "":
		return no(fmt.Sprintf("Each shard would compute %s for itself, with different results.", c.unstable), "Compute the value in the application and pass it as a constant.")
	case s.f.Flags&sql.CurrentOf != 0:
		return no("A cursor is open on one shard only.", "Name the row by its key.")
	}
	for _, w := range s.f.Writes {
		if problem := s.defaults(w); problem != "" {
			return no(problem, "Give the column a value in the statement.")
		}
		if w.Query {
			for _, b := range s.f.Blocks {
				if b.Features&sql.Limit != 0 {
					return no("LIMIT may choose different rows on each shard.", "Name the rows by their keys.")
				}
			}
		}
	}
	return s.plan(&Plan{Kind: Broadcast, Flags: Writes, Shards: s.all(), Reason: fmt.Sprintf("reference table %s is written on every shard", s.rels[target].name)})
}

// defaults says which volatile default an INSERT would leave to each shard.
func (s *statement) defaults(w sql.Write) string {
	if w.Command != sql.Insert {
		return ""
	}
	rel := &s.rels[w.Relation]
	for i, c := range rel.columns {
		if !c.Volatile {
			continue
		}
		given := -1
		for j, name := range w.Columns {
			if name == c.Name {
				given = j
			}
		}
		if len(w.Columns) == 0 {
			given = i
		}
		missing := given < 0 || len(w.Rows) == 0
		for _, row := range w.Rows {
			missing = missing || given >= len(row) && !w.Star || given >= 0 && given < len(row) && row[given].Kind == sql.Default
		}
		if missing {
			return fmt.Sprintf("Each shard would compute its own default for column %s, with different results.", c.Name)
		}
	}
	return ""
}

package sql

import (
	"slices"

	pg "github.com/pganalyze/pg_query_go/v6"
)

func (b *builder) insertStmt(s *pg.InsertStmt, parent int, ctes *cte) int {
	blk := b.block(parent, parent >= 0)
	ctes = b.with(s.WithClause, parent, false, ctes)
	sc := scope{blk, ctes}
	w := Write{Command: Insert, Relation: b.relation(s.Relation, sc, true)[0]}
	for _, c := range s.Cols {
		t := c.GetResTarget()
		w.Columns = append(w.Columns, t.GetName())
		if len(t.GetIndirection()) > 0 {
			b.oneServer("INSERT into an element or field of a column is not supported")
		}
	}
	if sel := s.SelectStmt.GetSelectStmt(); sel != nil {
		if len(sel.ValuesLists) > 0 && sel.WithClause == nil {
			for _, row := range sel.ValuesLists {
				items := row.GetList().GetItems()
				values := make([]Value, len(items))
				for i, item := range items {
					values[i] = b.value(item, blk)
					b.expr(item, sc)
				}
				w.Rows = append(w.Rows, values)
			}
			if len(sel.SortClause) > 0 || sel.LimitCount != nil || sel.LimitOffset != nil {
				b.oneServer("INSERT of VALUES with ORDER BY, LIMIT or OFFSET is not supported")
			}
		} else {
			inner := b.query(s.SelectStmt, blk, false, ctes)
			w.Query = true
			w.Star = sel.Op != pg.SetOperation_SETOP_NONE || len(sel.ValuesLists) > 0
			row := make([]Value, len(sel.TargetList))
			for i, t := range sel.TargetList {
				val := t.GetResTarget().GetVal()
				row[i] = b.value(val, inner)
				if star(val) {
					w.Star = true
				}
			}
			w.Rows = [][]Value{row}
		}
	}
	if c := s.OnConflictClause; c != nil {
		b.f.Flags |= OnConflict
		w.Sets = b.assigned(slices.DeleteFunc(slices.Clone(c.TargetList), keepsExcluded))
		b.exprs(c.TargetList, sc)
		b.expr(c.WhereClause, sc)
		if c.Infer != nil {
			b.exprs(c.Infer.IndexElems, sc)
			b.expr(c.Infer.WhereClause, sc)
		}
	}
	b.returning(s.ReturningList, sc)
	b.f.Writes = append(b.f.Writes, w)
	return blk
}

// keepsExcluded says whether an ON CONFLICT DO UPDATE sets a column to what the row that was to be inserted has there.
func keepsExcluded(target *pg.Node) bool {
	t := target.GetResTarget()
	f := t.GetVal().GetColumnRef().GetFields()
	return len(f) == 2 && len(t.GetIndirection()) == 0 && f[0].GetString_().GetSval() == "excluded" && f[1].GetString_().GetSval() == t.GetName()
}

func star(n *pg.Node) bool {
	for _, f := range n.GetColumnRef().GetFields() {
		if f.GetAStar() != nil {
			return true
		}
	}
	return n.GetAIndirection() != nil
}

func (b *builder) assigned(targets []*pg.Node) (names []string) {
	for _, t := range targets {
		names = append(names, t.GetResTarget().GetName())
	}
	return names
}

func (b *builder) returning(list []*pg.Node, sc scope) {
	if len(list) > 0 {
		b.f.Flags |= Returning
		b.exprs(list, sc)
	}
}

func (b *builder) updateStmt(s *pg.UpdateStmt, parent int, ctes *cte) int {
	blk := b.block(parent, parent >= 0)
	sc := scope{blk, b.with(s.WithClause, parent, false, ctes)}
	w := Write{Command: Update, Relation: b.relation(s.Relation, sc, true)[0], Columns: b.assigned(s.TargetList)}
	b.from(s.FromClause, sc)
	b.where(s.WhereClause, sc)
	b.exprs(s.TargetList, sc)
	b.returning(s.ReturningList, sc)
	b.f.Writes = append(b.f.Writes, w)
	return blk
}

func (b *builder) deleteStmt(s *pg.DeleteStmt, parent int, ctes *cte) int {
	blk := b.block(parent, parent >= 0)
	sc := scope{blk, b.with(s.WithClause, parent, false, ctes)}
	w := Write{Command: Delete, Relation: b.relation(s.Relation, sc, true)[0]}
	b.from(s.UsingClause, sc)
	b.where(s.WhereClause, sc)
	b.returning(s.ReturningList, sc)
	b.f.Writes = append(b.f.Writes, w)
	return blk
}

func (b *builder) mergeStmt(s *pg.MergeStmt, parent int, ctes *cte) int {
	blk := b.block(parent, parent >= 0)
	sc := scope{blk, b.with(s.WithClause, parent, false, ctes)}
	w := Write{Command: Merge, Relation: b.relation(s.Relation, sc, true)[0]}
	b.fromItem(s.SourceRelation, sc)
	b.expr(s.JoinCondition, sc)
	b.exprs(s.MergeWhenClauses, sc)
	b.returning(s.ReturningList, sc)
	b.f.Writes = append(b.f.Writes, w)
	return blk
}

// into makes SELECT INTO what it is: CREATE TABLE AS.
func (b *builder) into(c *pg.IntoClause) {
	b.f.Of = b.f.Command
	b.f.Command = CreateTableAs
	b.f.Flags |= SchemaChange
	b.utilityRelation(c.Rel)
	b.temporary(c.Rel)
}

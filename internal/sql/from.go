package sql

import pg "github.com/pganalyze/pg_query_go/v6"

// from reads a FROM list and gives the relations in it.
func (b *builder) from(items []*pg.Node, sc scope) (rels []int) {
	for _, n := range items {
		rels = append(rels, b.fromItem(n, sc)...)
	}
	return rels
}

func (b *builder) fromItem(n *pg.Node, sc scope) []int {
	blk := &b.f.Blocks[sc.block]
	switch e := n.GetNode().(type) {
	case *pg.Node_RangeVar:
		return b.relation(e.RangeVar, sc, false)
	case *pg.Node_JoinExpr:
		return b.join(e.JoinExpr, sc)
	case *pg.Node_RangeSubselect:
		blk.Opaque = true
		blk.Features |= FromSubquery
		if e.RangeSubselect.Lateral {
			b.query(e.RangeSubselect.Subquery, sc.block, true, sc.ctes)
		} else { // it sees what the whole SELECT sees, not its neighbours
			b.query(e.RangeSubselect.Subquery, blk.Parent, blk.Visible, sc.ctes)
		}
	case *pg.Node_RangeTableSample:
		rels := b.fromItem(e.RangeTableSample.Relation, sc)
		b.exprs(e.RangeTableSample.Args, sc)
		b.expr(e.RangeTableSample.Repeatable, sc)
		return rels
	default: // a function, XMLTABLE, JSON_TABLE
		blk.Opaque = true
		blk.Features |= FromFunction
		b.expr(n, sc)
	}
	return nil
}

func (b *builder) relation(r *pg.RangeVar, sc scope, target bool) []int {
	if r.Catalogname != "" {
		b.unusual("naming a table with its database is not supported: %s.%s.%s", r.Catalogname, r.Schemaname, r.Relname)
	}
	if !target && r.Schemaname == "" && sc.ctes.has(r.Relname) {
		b.f.Blocks[sc.block].Opaque = true
		b.f.Blocks[sc.block].Features |= FromSubquery
		return nil
	}
	rel := Relation{Schema: r.Schemaname, Name: r.Relname, Alias: r.Relname, Block: sc.block, Target: target}
	if r.Alias != nil {
		rel.Alias = r.Alias.Aliasname
		rel.Renamed = len(r.Alias.Colnames) > 0
	}
	b.f.Relations = append(b.f.Relations, rel)
	return []int{len(b.f.Relations) - 1}
}

func (b *builder) join(j *pg.JoinExpr, sc scope) []int {
	left := b.fromItem(j.Larg, sc)
	right := b.fromItem(j.Rarg, sc)
	both := append(append([]int(nil), left...), right...)
	restricts := both
	switch j.Jointype {
	case pg.JoinType_JOIN_INNER:
	case pg.JoinType_JOIN_LEFT:
		restricts = right
		b.f.Outers = append(b.f.Outers, Outer{Kept: left, Nullable: right})
	case pg.JoinType_JOIN_RIGHT:
		restricts = left
		b.f.Outers = append(b.f.Outers, Outer{Kept: right, Nullable: left})
	default:
		restricts = nil
		b.f.Outers = append(b.f.Outers, Outer{Kept: left, Nullable: right, Full: true})
	}
	if j.Quals != nil {
		b.conditions(j.Quals, sc.block, restricts)
		b.expr(j.Quals, sc)
	}
	for _, name := range strs(j.UsingClause) {
		b.using(name, left, right, restricts, sc.block)
	}
	if j.IsNatural {
		b.natural(left, right)
	}
	if j.Alias != nil {
		for _, r := range both {
			b.f.Relations[r].Renamed = true
		}
	}
	return both
}

// using makes USING (name) an equality, when both sides are a single table: else it is not known whose column it is.
func (b *builder) using(name string, left, right, restricts []int, block int) {
	if len(left) != 1 || len(right) != 1 {
		return
	}
	l, r := b.f.Relations[left[0]], b.f.Relations[right[0]]
	b.f.Equals = append(b.f.Equals, Equal{
		Left:      Column{Table: l.Alias, Name: name, Block: block},
		Right:     []Value{{Kind: ColumnOf, Ref: Column{Table: r.Alias, Name: name, Block: block}}},
		Restricts: restricts,
	})
}

// natural joins by columns that only the catalog knows; nothing can be concluded from names in it.
func (b *builder) natural(left, right []int) {
	for _, list := range [][]int{left, right} {
		for _, r := range list {
			b.f.Relations[r].Renamed = b.f.Relations[r].Renamed || len(left) != 1 || len(right) != 1
		}
	}
}

func (b *builder) where(n *pg.Node, sc scope) {
	if n == nil {
		return
	}
	var all []int
	for i, r := range b.f.Relations {
		if r.Block == sc.block {
			all = append(all, i)
		}
	}
	b.conditions(n, sc.block, all)
	b.expr(n, sc)
}

// conditions gathers the equalities that must hold for n to be true.
func (b *builder) conditions(n *pg.Node, block int, restricts []int) {
	if len(restricts) == 0 {
		return
	}
	switch e := n.GetNode().(type) {
	case *pg.Node_BoolExpr:
		if e.BoolExpr.Boolop == pg.BoolExprType_AND_EXPR {
			for _, a := range e.BoolExpr.Args {
				b.conditions(a, block, restricts)
			}
		}
	case *pg.Node_AExpr:
		x := e.AExpr
		names := strs(x.Name)
		if len(names) != 1 && (len(names) != 2 || names[0] != "pg_catalog") || names[len(names)-1] != "=" {
			return
		}
		switch x.Kind {
		case pg.A_Expr_Kind_AEXPR_OP:
			l, r := b.value(x.Lexpr, block), b.value(x.Rexpr, block)
			if l.Kind != ColumnOf {
				l, r = r, l
			}
			if l.Kind == ColumnOf && r.Kind != Other && r.Kind != Default {
				b.f.Equals = append(b.f.Equals, Equal{Left: l.Ref, Right: []Value{r}, Restricts: restricts})
			}
		case pg.A_Expr_Kind_AEXPR_IN:
			l := b.value(x.Lexpr, block)
			list := x.Rexpr.GetList().GetItems()
			if l.Kind != ColumnOf || len(list) == 0 {
				return
			}
			right := make([]Value, len(list))
			for i, item := range list {
				if right[i] = b.value(item, block); right[i].Kind == Other || right[i].Kind == Default || right[i].Kind == ColumnOf {
					return
				}
			}
			b.f.Equals = append(b.f.Equals, Equal{Left: l.Ref, Right: right, Restricts: restricts})
		}
	}
}

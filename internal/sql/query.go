package sql

import (
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"
)

// maxNesting bounds subqueries within subqueries.
const maxNesting = 200

// maxParams is what the wire protocol can count (PQ_QUERY_PARAM_MAX_LIMIT).
const maxParams = 65535

// query reads a SELECT, INSERT, UPDATE, DELETE or MERGE into blocks. parent is the enclosing block, -1 for none; visible says
// that parent's columns can be referred to.
func (b *builder) query(n *pg.Node, parent int, visible bool, ctes *cte) int {
	b.within++
	defer func() { b.within-- }()
	if b.within > maxNesting {
		b.unusual("subqueries nested more than %d deep are not supported", maxNesting)
		return 0
	}
	switch e := n.GetNode().(type) {
	case *pg.Node_SelectStmt:
		return b.selectStmt(e.SelectStmt, parent, visible, ctes)
	case *pg.Node_InsertStmt:
		return b.insertStmt(e.InsertStmt, parent, ctes)
	case *pg.Node_UpdateStmt:
		return b.updateStmt(e.UpdateStmt, parent, ctes)
	case *pg.Node_DeleteStmt:
		return b.deleteStmt(e.DeleteStmt, parent, ctes)
	case *pg.Node_MergeStmt:
		return b.mergeStmt(e.MergeStmt, parent, ctes)
	}
	b.unusual("a query of this form is not supported")
	return b.block(parent, visible)
}

// with reads WITH queries and gives the names that the statement behind them sees. parent's columns are visible in
// them only as far as they are around the statement itself.
func (b *builder) with(w *pg.WithClause, parent int, visible bool, ctes *cte) *cte {
	if w == nil {
		return ctes
	}
	if w.Recursive {
		b.f.Flags |= Recursive
		for _, n := range w.Ctes {
			ctes = &cte{n.GetCommonTableExpr().GetCtename(), ctes}
		}
	}
	for _, n := range w.Ctes {
		c := n.GetCommonTableExpr()
		if c.GetCtequery().GetSelectStmt() == nil {
			b.f.Flags |= ModifyCTE
		}
		b.query(c.GetCtequery(), parent, visible, ctes)
		if c.SearchClause != nil || c.CycleClause != nil {
			b.oneServer("SEARCH and CYCLE clauses of WITH RECURSIVE are not supported")
		}
		if !w.Recursive {
			ctes = &cte{c.Ctename, ctes}
		}
	}
	return ctes
}

func (b *builder) selectStmt(s *pg.SelectStmt, parent int, visible bool, ctes *cte) int {
	blk := b.block(parent, visible)
	ctes = b.with(s.WithClause, parent, visible, ctes)
	sc := scope{blk, ctes}
	var feat Features
	if len(s.SortClause) > 0 {
		feat |= Sort
	}
	if s.LimitCount != nil || s.LimitOffset != nil {
		feat |= Limit
	}
	if len(s.LockingClause) > 0 {
		b.f.Flags |= Locking
	}
	if s.IntoClause != nil {
		b.into(s.IntoClause)
	}
	if s.Op != pg.SetOperation_SETOP_NONE && s.Op != pg.SetOperation_SET_OPERATION_UNDEFINED {
		feat |= SetOperation
		b.f.Blocks[blk].Opaque = true
		// An arm is a block of its own beside this one; it sees what this one sees.
		b.arm(s.Larg, parent, visible, ctes)
		b.arm(s.Rarg, parent, visible, ctes)
	}
	if len(s.ValuesLists) > 0 {
		feat |= ValuesList
	}
	if len(s.DistinctClause) > 0 {
		feat |= Distinct
	}
	if len(s.GroupClause) > 0 {
		feat |= Group
	}
	if s.HavingClause != nil {
		feat |= Having
	}
	if len(s.WindowClause) > 0 {
		feat |= Window
	}
	b.f.Blocks[blk].Features |= feat
	b.from(s.FromClause, sc)
	b.where(s.WhereClause, sc)
	for _, list := range [][]*pg.Node{s.TargetList, s.DistinctClause, s.GroupClause, s.WindowClause, s.ValuesLists, s.SortClause, {s.HavingClause, s.LimitCount, s.LimitOffset}} {
		b.exprs(list, sc)
	}
	return blk
}

func (b *builder) arm(s *pg.SelectStmt, parent int, visible bool, ctes *cte) {
	if s != nil {
		b.query(&pg.Node{Node: &pg.Node_SelectStmt{SelectStmt: s}}, parent, visible, ctes)
	}
}

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

func (b *builder) exprs(list []*pg.Node, sc scope) {
	for _, n := range list {
		b.expr(n, sc)
	}
}

// expr walks an expression for function calls, subqueries and parameters.
func (b *builder) expr(n *pg.Node, sc scope) {
	if n == nil || n.Node == nil {
		return
	}
	switch e := n.Node.(type) {
	case *pg.Node_AConst, *pg.Node_ColumnRef, *pg.Node_String_, *pg.Node_Integer, *pg.Node_Float, *pg.Node_SetToDefault, *pg.Node_AStar, *pg.Node_TypeName:
		return
	case *pg.Node_ParamRef:
		n := int(e.ParamRef.Number)
		b.f.Params = max(b.f.Params, n)
		if n > 0 && n <= maxParams {
			for len(b.f.Uses) <= n {
				b.f.Uses = append(b.f.Uses, 0)
			}
			b.f.Uses[n]++
		}
		return
	case *pg.Node_SelectStmt:
		b.query(n, sc.block, true, sc.ctes)
		return
	case *pg.Node_SubLink:
		b.expr(e.SubLink.Testexpr, sc)
		b.query(e.SubLink.Subselect, sc.block, true, sc.ctes)
		return
	case *pg.Node_RangeVar:
		b.relation(e.RangeVar, sc, false)
		return
	case *pg.Node_CurrentOfExpr:
		b.f.Flags |= CurrentOf
		return
	case *pg.Node_FuncCall:
		b.call(e.FuncCall, sc)
	case *pg.Node_SqlvalueFunction: // CURRENT_DATE, CURRENT_USER and the like: calls without parentheses
		name := strings.ToLower(strings.TrimPrefix(e.SqlvalueFunction.Op.String(), "SVFOP_"))
		b.f.Functions = append(b.f.Functions, FunctionCall{Schema: "pg_catalog", Name: name, Block: sc.block, Keyword: true})
	case *pg.Node_JsonObjectAgg, *pg.Node_JsonArrayAgg, *pg.Node_GroupingFunc, *pg.Node_GroupingSet:
		b.f.Blocks[sc.block].Features |= Group
	case *pg.Node_AExpr:
		b.expr(e.AExpr.Lexpr, sc)
		b.expr(e.AExpr.Rexpr, sc)
		return
	case *pg.Node_List:
		b.exprs(e.List.Items, sc)
		return
	}
	children(n.ProtoReflect(), func(c *pg.Node) {
		// A Node is a oneof around the message: children of a Node are found through its message.
		b.expr(c, sc)
	})
}

// ofServer are the settings that recovery makes others of.
var ofServer = map[string]bool{"transaction_read_only": true, "in_hot_standby": true}

func (b *builder) call(c *pg.FuncCall, sc scope) {
	names := strs(c.Funcname)
	if len(names) == 0 {
		return
	}
	f := FunctionCall{Name: names[len(names)-1], Block: sc.block, Over: c.Over != nil}
	if len(names) > 1 {
		f.Schema = names[len(names)-2]
	}
	if f.Name == "set_config" && len(c.Args) == 3 {
		f.Local = c.Args[2].GetAConst().GetBoolval().GetBoolval()
	}
	if f.Name == "current_setting" && len(c.Args) > 0 {
		name, ok := b.literalText(c.Args[0])
		f.OfServer = !ok || ofServer[strings.ToLower(name)]
	}
	f.Aggregate = c.AggStar || c.AggDistinct || c.AggFilter != nil || c.AggWithinGroup || len(c.AggOrder) > 0
	if f.Over {
		b.f.Blocks[sc.block].Features |= Window
	}
	b.f.Functions = append(b.f.Functions, f)
}

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
		w.Sets = b.assigned(c.TargetList)
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
	if c.Rel.GetRelpersistence() == "t" {
		b.f.Flags |= Temporary
	}
}

func (b *builder) utilityRelation(r *pg.RangeVar) {
	if r != nil {
		b.f.Relations = append(b.f.Relations, Relation{Schema: r.Schemaname, Name: r.Relname, Alias: r.Relname, Target: true, NotQuery: true, Block: -1})
	}
}

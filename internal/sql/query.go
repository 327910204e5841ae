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
		b.symbol(e.SubLink.OperName)
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
	case *pg.Node_TypeCast:
		b.symbol(e.TypeCast.TypeName.GetNames())
	case *pg.Node_AExpr:
		b.symbol(e.AExpr.Name)
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

// symbol notes an operator or type; a schema before it does not matter.
func (b *builder) symbol(name []*pg.Node) {
	if names := strs(name); len(names) > 0 {
		b.f.Symbols = append(b.f.Symbols, names[len(names)-1])
	}
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
		if name, ok := b.literalText(c.Args[0]); ok {
			f.Sets = settingName(name)
		}
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

func (b *builder) utilityRelation(r *pg.RangeVar) {
	if r != nil {
		b.f.Relations = append(b.f.Relations, Relation{Schema: r.Schemaname, Name: r.Relname, Alias: r.Relname, Target: true, NotQuery: true, Block: -1})
	}
}

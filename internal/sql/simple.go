package sql

import (
	"fmt"
	"strconv"

	pg "github.com/pganalyze/pg_query_go/v6"
)

// Simple is a SELECT from one table in a form that a read model can answer: columns, a conjunction of comparisons with
// constants, sort keys, limits, or count(*).
type Simple struct {
	Columns []Output
	Where   []Predicate
	Order   []OrderBy
	Limit   *Value // nil: none
	Offset  *Value
	Count   bool
}

// Output is one column of the output.
type Output struct {
	Name   string // what it is called
	Column string // "" for count(*)
	Star   bool   // all columns of the table; Name and Column are empty
}

// Predicate compares a column with constants.
type Predicate struct {
	Column string
	Op     Compare
	Values []Value
}

// Compare is a predicate's operator.
type Compare uint8

// The operators, in the order of router.Compare and cqrs.Compare.
const (
	Eq Compare = iota
	Ne
	Lt
	Le
	Gt
	Ge
	In
	IsNull
	NotNull
	Prefix // LIKE; the value is the whole pattern
	Match  // @@
)

// OrderBy is a sort key.
type OrderBy struct {
	Column     string
	Desc       bool
	NullsFirst bool
}

// Simple gives a SELECT in that form, or the reason why it is not in it. Call it before the Facts are shared: it may
// add to Structural.
func (f *Facts) Simple() (s *Simple, reason string) {
	sel := f.node.GetSelectStmt()
	if f.Command != Select || sel == nil {
		return nil, "only SELECT can read it"
	}
	r := &reader{b: f.b, rel: f.Relations[0], out: &Simple{}}
	r.selectStmt(sel)
	return r.out, r.reason
}

type reader struct {
	b      *builder
	rel    Relation
	out    *Simple
	reason string // the first thing that does not fit
}

func (r *reader) no(format string, args ...any) {
	if r.reason == "" {
		r.reason = fmt.Sprintf(format, args...)
	}
}

func (r *reader) selectStmt(s *pg.SelectStmt) {
	switch {
	case s.Op != pg.SetOperation_SETOP_NONE && s.Op != pg.SetOperation_SET_OPERATION_UNDEFINED:
		r.no("UNION, INTERSECT and EXCEPT are not supported")
	case s.WithClause != nil:
		r.no("WITH is not supported")
	case len(s.DistinctClause) > 0:
		r.no("DISTINCT is not supported")
	case len(s.GroupClause) > 0 || s.HavingClause != nil:
		r.no("GROUP BY and HAVING are not supported")
	case len(s.WindowClause) > 0:
		r.no("window functions are not supported")
	case len(s.LockingClause) > 0:
		r.no("row locks are not supported")
	case s.IntoClause != nil:
		r.no("SELECT INTO is not supported")
	case len(s.TargetList) == 0:
		r.no("a SELECT without output columns is not supported")
	case len(s.FromClause) != 1 || s.FromClause[0].GetRangeVar() == nil || r.rel.Renamed:
		r.no("joins and subqueries are not supported")
	case s.LimitOption == pg.LimitOption_LIMIT_OPTION_WITH_TIES:
		r.no("WITH TIES is not supported")
	}
	if r.reason != "" {
		return
	}
	for _, t := range s.TargetList {
		r.output(t.GetResTarget())
	}
	r.where(s.WhereClause)
	for _, o := range s.SortClause {
		r.order(o.GetSortBy())
	}
	r.out.Limit = r.limit(s.LimitCount, "LIMIT")
	r.out.Offset = r.limit(s.LimitOffset, "OFFSET")
	if r.out.Count && (len(r.out.Columns) != 1 || len(r.out.Order) > 0 || r.out.Limit != nil || r.out.Offset != nil) {
		r.no("count(*) beside other columns, ORDER BY or LIMIT is not supported")
	}
}

// column is the name of a reference to one of the table's columns.
func (r *reader) column(n *pg.Node) (string, bool) {
	ref := n.GetColumnRef()
	if ref == nil {
		return "", false
	}
	c, ok := column(ref, 0)
	if !ok || c.Table != "" && c.Table != r.rel.Alias || c.Schema != "" && c.Schema != r.rel.Schema {
		return "", false
	}
	return c.Name, true
}

func (r *reader) output(t *pg.ResTarget) {
	if ref := t.GetVal().GetColumnRef(); ref != nil && star(t.GetVal()) {
		if len(ref.Fields) == 2 && ref.Fields[0].GetString_().GetSval() != r.rel.Alias || len(ref.Fields) > 2 {
			r.no("an output column is of another table")
		}
		r.out.Columns = append(r.out.Columns, Output{Star: true})
		return
	}
	if c := t.GetVal().GetFuncCall(); c != nil && c.AggStar && c.Over == nil && c.AggFilter == nil {
		if names := strs(c.Funcname); names[len(names)-1] == "count" {
			name := t.Name
			if name == "" {
				name = "count"
			}
			r.out.Count = true
			r.out.Columns = append(r.out.Columns, Output{Name: name})
			return
		}
	}
	name, ok := r.column(t.GetVal())
	if !ok {
		r.no("an output column is neither a column nor count(*)")
		return
	}
	out := Output{Name: t.Name, Column: name}
	if out.Name == "" {
		out.Name = name
	}
	r.out.Columns = append(r.out.Columns, out)
}

func (r *reader) add(column string, op Compare, values ...Value) {
	for _, v := range values {
		if v.Kind != Lit && v.Kind != Param && v.Kind != Fixed && v.Kind != Null {
			r.no("a condition compares column %q with something that is neither a literal nor a parameter", column)
		}
	}
	r.out.Where = append(r.out.Where, Predicate{column, op, values})
}

func (r *reader) where(n *pg.Node) {
	const shape = "a condition is not a column compared with a constant, joined by AND"
	if n == nil {
		return
	}
	switch e := n.Node.(type) {
	case *pg.Node_BoolExpr:
		switch e.BoolExpr.Boolop {
		case pg.BoolExprType_AND_EXPR:
			for _, a := range e.BoolExpr.Args {
				r.where(a)
			}
			return
		case pg.BoolExprType_NOT_EXPR:
			if c, ok := r.column(e.BoolExpr.Args[0]); ok {
				r.add(c, Eq, Value{Kind: Fixed, Text: "f", Cast: "bool"})
				return
			}
		}
	case *pg.Node_ColumnRef:
		if c, ok := r.column(n); ok {
			r.add(c, Eq, Value{Kind: Fixed, Text: "t", Cast: "bool"})
			return
		}
	case *pg.Node_NullTest:
		if c, ok := r.column(e.NullTest.Arg); ok {
			op := IsNull
			if e.NullTest.Nulltesttype == pg.NullTestType_IS_NOT_NULL {
				op = NotNull
			}
			r.add(c, op)
			return
		}
	case *pg.Node_AExpr:
		if r.comparison(e.AExpr) {
			return
		}
	}
	r.no(shape)
}

var operators = map[string]Compare{"=": Eq, "<>": Ne, "!=": Ne, "<": Lt, "<=": Le, ">": Gt, ">=": Ge, "@@": Match}

var flipped = map[Compare]Compare{Eq: Eq, Ne: Ne, Lt: Gt, Le: Ge, Gt: Lt, Ge: Le}

func (r *reader) comparison(x *pg.A_Expr) bool {
	names := strs(x.Name)
	if len(names) == 0 {
		return false
	}
	name := names[len(names)-1]
	left, isColumn := r.column(x.Lexpr)
	switch x.Kind {
	case pg.A_Expr_Kind_AEXPR_OP:
		op, ok := operators[name]
		if !ok {
			return false
		}
		if isColumn {
			r.add(left, op, r.b.value(x.Rexpr, 0))
			return true
		}
		if right, ok := r.column(x.Rexpr); ok && op != Match {
			r.add(right, flipped[op], r.b.value(x.Lexpr, 0))
			return true
		}
	case pg.A_Expr_Kind_AEXPR_IN:
		if isColumn && name == "=" {
			var values []Value
			for _, i := range x.Rexpr.GetList().GetItems() {
				values = append(values, r.b.value(i, 0))
			}
			r.add(left, In, values...)
			return true
		}
	case pg.A_Expr_Kind_AEXPR_BETWEEN:
		if bounds := x.Rexpr.GetList().GetItems(); isColumn && len(bounds) == 2 {
			r.add(left, Ge, r.b.value(bounds[0], 0))
			r.add(left, Le, r.b.value(bounds[1], 0))
			return true
		}
	case pg.A_Expr_Kind_AEXPR_LIKE:
		if isColumn && name == "~~" {
			r.add(left, Prefix, r.b.value(x.Rexpr, 0))
			return true
		}
	}
	return false
}

func (r *reader) order(s *pg.SortBy) {
	if len(s.UseOp) > 0 {
		r.no("ORDER BY USING is not supported")
		return
	}
	name, ok := r.column(s.Node)
	if ok {
		for _, o := range r.out.Columns { // an output name goes before a column of the table
			if ref := s.Node.GetColumnRef(); len(ref.Fields) == 1 && o.Name == name && o.Column != "" {
				name = o.Column
				break
			}
		}
	} else if text, constant := r.b.literalText(s.Node); constant {
		i, err := strconv.Atoi(text)
		if err != nil || i < 1 || i > len(r.out.Columns) || r.out.Columns[i-1].Star || r.out.Columns[i-1].Column == "" {
			r.no("ORDER BY position %s is not an output column", text)
			return
		}
		for _, o := range r.out.Columns[:i] {
			if o.Star {
				r.no("ORDER BY by position behind a * is not supported")
			}
		}
		name = r.out.Columns[i-1].Column
	} else {
		r.no("ORDER BY of an expression is not supported")
		return
	}
	o := OrderBy{Column: name, Desc: s.SortbyDir == pg.SortByDir_SORTBY_DESC}
	switch s.SortbyNulls {
	case pg.SortByNulls_SORTBY_NULLS_FIRST:
		o.NullsFirst = true
	case pg.SortByNulls_SORTBY_NULLS_LAST:
	default:
		o.NullsFirst = o.Desc
	}
	r.out.Order = append(r.out.Order, o)
}

func (r *reader) limit(n *pg.Node, what string) *Value {
	if n == nil {
		return nil
	}
	v := r.b.value(n, 0)
	switch v.Kind {
	case Null: // LIMIT NULL and LIMIT ALL
		return nil
	case Lit, Param, Fixed:
		return &v
	}
	r.no("%s of an expression is not supported", what)
	return nil
}

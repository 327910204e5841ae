package sql

import (
	"sort"
	"strconv"

	pg "github.com/pganalyze/pg_query_go/v6"
)

// slot is the literal that a constant at a byte offset of the text was written as; negative when a lone minus sign
// stands before it, which the grammar folds into the constant.
func (b *builder) slot(location int32) (slot int, negative, ok bool) {
	i := sort.Search(len(b.lits), func(i int) bool { return b.lits[i].Start >= location })
	if i == len(b.lits) || location < 0 || b.kept {
		return 0, false, false
	}
	if b.lits[i].Start == location {
		return i, false, true
	}
	for j, c := range b.text[location:b.lits[i].Start] {
		if j == 0 && c != '-' || j > 0 && class[c] != cSpace {
			return 0, false, false
		}
	}
	return i, true, true
}

// constant is the value of a constant node.
func (b *builder) constant(c *pg.A_Const) Value {
	if c.Isnull {
		return Value{Kind: Null}
	}
	if slot, neg, ok := b.slot(c.Location); ok {
		return Value{Kind: Lit, Slot: slot, Negative: neg}
	}
	// No slot: the literal is part of the shape, unless signs hide it (- -5), which is not worth following.
	number := b.kept || int(c.Location) < len(b.text) && c.Location >= 0 && (class[b.text[c.Location]] == cDigit || b.text[c.Location] == '.')
	switch v := c.Val.(type) {
	case *pg.A_Const_Ival:
		if !number {
			return Value{}
		}
		return Value{Kind: Fixed, Text: strconv.Itoa(int(v.Ival.Ival))}
	case *pg.A_Const_Fval:
		if !number {
			return Value{}
		}
		return Value{Kind: Fixed, Text: v.Fval.Fval}
	case *pg.A_Const_Sval:
		return Value{Kind: Fixed, Text: v.Sval.Sval, Quoted: true}
	case *pg.A_Const_Boolval:
		t := "f"
		if v.Boolval.Boolval {
			t = "t"
		}
		return Value{Kind: Fixed, Text: t, Cast: "bool"}
	}
	return Value{}
}

// literalText is a constant's text, which makes its literal structural: the facts hang on it.
func (b *builder) literalText(n *pg.Node) (string, bool) {
	c := n.GetAConst()
	if c == nil {
		return "", false
	}
	v := b.constant(c)
	switch v.Kind {
	case Fixed:
		return v.Text, true
	case Lit:
		b.f.Structural = append(b.f.Structural, v.Slot)
		raw, ok := b.lits[v.Slot].Value(b.text, nil)
		if v.Negative {
			return "-" + string(raw), ok
		}
		return string(raw), ok
	}
	return "", false
}

// value is what an expression is to a router.
func (b *builder) value(n *pg.Node, block int) Value {
	switch e := n.GetNode().(type) {
	case *pg.Node_AConst:
		return b.constant(e.AConst)
	case *pg.Node_ParamRef:
		return Value{Kind: Param, Param: int(e.ParamRef.Number)}
	case *pg.Node_SetToDefault:
		return Value{Kind: Default}
	case *pg.Node_ColumnRef:
		if ref, ok := column(e.ColumnRef, block); ok {
			return Value{Kind: ColumnOf, Ref: ref}
		}
	case *pg.Node_TypeCast:
		v := b.value(e.TypeCast.Arg, block)
		name := typeName(e.TypeCast.TypeName)
		switch {
		case v.Kind == ColumnOf || v.Kind == Other:
			return Value{}
		case v.Kind == Null:
			return v
		case v.Cast != "" && v.Cast != name:
			v.Cast = "?"
		default:
			v.Cast = name
		}
		return v
	}
	return Value{}
}

// typeName is a built-in type's name in pg_type, "?" for what cannot be followed: modifiers, arrays, other schemas.
func typeName(t *pg.TypeName) string {
	if t == nil || t.Setof || t.PctType || len(t.Typmods) > 0 || len(t.ArrayBounds) > 0 {
		return "?"
	}
	names := strs(t.Names)
	switch {
	case len(names) == 1:
		return names[0]
	case len(names) == 2 && names[0] == "pg_catalog":
		return names[1]
	}
	return "?"
}

func column(c *pg.ColumnRef, block int) (Column, bool) {
	names := make([]string, 0, 3)
	for _, f := range c.Fields {
		s := f.GetString_()
		if s == nil {
			return Column{}, false
		}
		names = append(names, s.Sval)
	}
	switch len(names) {
	case 1:
		return Column{Name: names[0], Block: block}, true
	case 2:
		return Column{Table: names[0], Name: names[1], Block: block}, true
	case 3:
		return Column{Schema: names[0], Table: names[1], Name: names[2], Block: block}, true
	}
	return Column{}, false
}

func strs(list []*pg.Node) []string {
	var out []string
	for _, n := range list {
		out = append(out, n.GetString_().GetSval())
	}
	return out
}

package sql

import (
	"errors"
	"fmt"
	"math"
	"sort"
	"strconv"
	"unicode/utf8"

	pg "github.com/pganalyze/pg_query_go/v6"
	"github.com/pganalyze/pg_query_go/v6/parser"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// SyntaxError is the parser's error.
type SyntaxError struct {
	Message  string
	Position int // in characters from 1, 0 when unknown
}

func (e *SyntaxError) Error() string { return e.Message }

// Parsed is one statement of a parsed query string.
type Parsed struct {
	Facts      *Facts
	Start, End int // its bytes in the text
}

// Parse reads a query string into the facts of its statements. It costs tens of microseconds for each kilobyte. s must
// have scanned the same text; nil when the text cannot be scanned, which leaves only the error. Names and values in the facts
// are the text's own bytes, whatever their encoding. Errors are *SyntaxError and *TooComplexError.
func Parse(text []byte, s *Scanner) ([]Parsed, error) {
	if err := tooComplex(text); err != nil {
		return nil, err
	}
	var tree *pg.ParseResult
	var err error
	whole := true
	if s != nil {
		if short := shorten(text, s.Literals); short != nil {
			tree, err = parse(short.text)
			if err != nil {
				var se *SyntaxError
				if errors.As(err, &se) {
					se.Message, se.Position = short.message(se.Message), short.position(se.Position)
				}
				return nil, err
			}
			whole = !short.restore(tree)
		}
	}
	if whole {
		tree, err = parse(text)
	}
	if s == nil {
		return nil, malformed(text, err)
	}
	if err != nil {
		return nil, err
	}
	var out []Parsed
	for i, raw := range tree.Stmts {
		b := &builder{text: text, lits: s.Literals}
		start, end := int(raw.StmtLocation), int(raw.StmtLocation)+int(raw.StmtLen)
		if raw.StmtLen == 0 {
			end = len(text)
		}
		if len(tree.Stmts) == len(s.Statements) {
			span := s.Statements[i]
			start, end, b.kept = span.Start, span.End, span.First == span.After
		} else if len(tree.Stmts) == 1 {
			start, end = s.Statements[0].Start, s.Statements[len(s.Statements)-1].End
		}
		f := b.statement(raw.Stmt)
		out = append(out, Parsed{f, start, end})
	}
	return out, nil
}

// malformed is the error of a text that cannot be scanned; the parser has said err of it. It lets pass letters behind a parameter, which
// PostgreSQL does not.
func malformed(text []byte, err error) error {
	var s Scanner
	s.Scan(text)
	at := Characters(text, s.junk.Start)
	if s.junk.End == 0 {
		at = math.MaxInt
	}
	var se *SyntaxError
	switch {
	case err != nil && (!errors.As(err, &se) || se.Position < at):
		return err
	case s.junk.End == 0:
		return &SyntaxError{Message: "a token of the statement is malformed"}
	}
	return &SyntaxError{fmt.Sprintf("trailing junk after parameter at or near \"%s\"", text[s.junk.Start:s.junk.End]), at}
}

// parse is the parser's tree of a text in any encoding.
func parse(text []byte) (*pg.ParseResult, error) {
	var wide *widened
	str := string(text)
	if !utf8.ValidString(str) {
		wide = widen(text)
		str = wide.text
	}
	tree, err := pg.Parse(str)
	if err != nil {
		var pe *parser.Error
		if errors.As(err, &pe) {
			if wide != nil {
				pe.Message = bytesOf(pe.Message)
			}
			return nil, &SyntaxError{pe.Message, pe.Cursorpos}
		}
		return nil, &TooComplexError{"stack depth limit exceeded"} // the tree is too deep for what carries it from C to Go
	}
	if wide != nil {
		wide.narrow(tree)
	}
	return tree, nil
}

// Characters is the position of a byte offset in characters from 1, as error positions count.
func Characters(text []byte, offset int) int {
	return utf8.RuneCount(text[:min(offset, len(text))]) + 1
}

// builder gathers the facts of one statement.
type builder struct {
	text []byte
	lits []Literal
	f    *Facts
	kept bool // no literal of the statement was replaced: all are part of its shape
	// within is the nesting of subqueries, bounded so that no statement can exhaust the stack.
	within int
}

// scope is where an expression stands: its block, and the WITH queries that its tables may mean.
type scope struct {
	block int
	ctes  *cte
}

type cte struct {
	name string
	next *cte
}

func (c *cte) has(name string) bool {
	for ; c != nil; c = c.next {
		if c.name == name {
			return true
		}
	}
	return false
}

func (b *builder) statement(n *pg.Node) *Facts {
	b.f = &Facts{node: n, b: b}
	b.top(n)
	sort.Ints(b.f.Structural)
	return b.f
}

func (b *builder) unusual(format string, args ...any) {
	if b.f.Unusual == "" {
		b.f.Unusual = fmt.Sprintf(format, args...)
	}
}

// oneServer is for what a single shard's server may well run: what the facts say of the statement is true, and not enough for several.
func (b *builder) oneServer(format string, args ...any) {
	if b.f.OneServer == "" {
		b.f.OneServer = fmt.Sprintf(format, args...)
	}
}

func (b *builder) block(parent int, visible bool) int {
	b.f.Blocks = append(b.f.Blocks, Block{Parent: parent, Visible: visible})
	return len(b.f.Blocks) - 1
}

// children calls visit for each node directly below a message, whatever its type. It is the way through every kind of
// node that this package does not know by name, so that no function call or subquery escapes it.
func children(m protoreflect.Message, visit func(*pg.Node)) {
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if fd.Kind() != protoreflect.MessageKind {
			return true
		}
		each := func(m protoreflect.Message) {
			if n, ok := m.Interface().(*pg.Node); ok {
				visit(n)
				return
			}
			if s, ok := m.Interface().(*pg.SelectStmt); ok {
				visit(&pg.Node{Node: &pg.Node_SelectStmt{SelectStmt: s}})
				return
			}
			children(m, visit)
		}
		if fd.IsList() {
			for i := range v.List().Len() {
				each(v.List().Get(i).Message())
			}
			return true
		}
		each(v.Message())
		return true
	})
}

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

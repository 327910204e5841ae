package cqrs

import (
	"fmt"
	"math"
	"strings"

	"github.com/jackc/pgx/v5/pgtype"
)

// Filter decides a query's predicates over rows in memory. A predicate on NULL is not true, as in SQL; literals are
// read as values of the column's type.
type Filter struct {
	tests []test
}

type test struct {
	index  int // of the column in a row
	column Column
	op     Compare
	spans  []Span // Integer types: any of them
	keys   []SortKey
	set    map[SortKey]bool // In, and Ne over Bytes and Equality types
	prefix string
}

// NewFilter prepares predicates for rows that hold cols in order. The error wraps ErrUnsupported when a predicate
// cannot be decided exactly, and names the column, the reason and what works.
func NewFilter(cols []Column, where []Predicate) (*Filter, error) {
	f := &Filter{}
	for _, p := range where {
		i := columnIndex(cols, p.Column)
		if p.Op == Match {
			return nil, fmt.Errorf("%w: full-text search on %q; query a read model in Elasticsearch for it", ErrUnsupported, p.Column)
		}
		if i < 0 {
			return nil, fmt.Errorf("read model has no column %q", p.Column)
		}
		t, err := newTest(cols[i], p)
		if err != nil {
			return nil, err
		}
		t.index = i
		f.tests = append(f.tests, t)
	}
	return f, nil
}

func newTest(c Column, p Predicate) (test, error) {
	t := test{column: c, op: p.Op}
	if err := c.Supports(p); err != nil {
		return t, err
	}
	switch p.Op {
	case IsNull, NotNull:
		return t, nil
	case Prefix:
		t.prefix = p.Values[0]
		return t, nil
	}
	if c.Class() == Integer {
		spans, err := c.Spans(p.Op, p.Values)
		t.spans = spans
		return t, err
	}
	t.set = make(map[SortKey]bool, len(p.Values))
	for _, v := range p.Values {
		k, err := c.SortKey(v)
		if err != nil {
			return t, fmt.Errorf("%w: %w", ErrUnsupported, err)
		}
		t.keys = append(t.keys, k)
		t.set[k] = true
	}
	return t, nil
}

// Supports says whether the predicate can be decided exactly from the column's text form.
func (c Column) Supports(p Predicate) error {
	want, got := 1, len(p.Values)
	switch p.Op {
	case IsNull, NotNull:
		return nil
	case In:
		want = got
	}
	if got != want {
		return fmt.Errorf("predicate on %s has %d values, want %d", c.Name, got, want)
	}
	class, ok := c.Class(), false
	switch p.Op {
	case Eq, Ne, In:
		ok = class != Opaque
	case Lt, Le, Gt, Ge:
		ok = class == Integer || class == Bytes
	case Prefix:
		ok = c.IsText() && c.OID != pgtype.BPCharOID // LIKE sees a char(n)'s padding, equality does not
	}
	if !ok {
		return fmt.Errorf("%w: this comparison on column %s, whose type (oid %d) does not decide it by its text; IS NULL works, and other filters beside it",
			ErrUnsupported, c.Name, c.OID)
	}
	return nil
}

// IsText says whether the column holds text that full-text search and LIKE apply to.
func (c Column) IsText() bool {
	switch c.OID {
	case pgtype.TextOID, pgtype.VarcharOID, pgtype.BPCharOID, pgtype.NameOID:
		return true
	}
	return false
}

// Match decides all predicates for one row. The error is of a value that is not of its column's type.
func (f *Filter) Match(row [][]byte) (bool, error) {
	for i := range f.tests {
		ok, err := f.tests[i].match(row[f.tests[i].index])
		if !ok || err != nil {
			return false, err
		}
	}
	return true, nil
}

func (t *test) match(value []byte) (bool, error) {
	switch {
	case t.op == IsNull:
		return value == nil, nil
	case value == nil:
		return false, nil
	case t.op == NotNull:
		return true, nil
	case t.op == Prefix:
		return strings.HasPrefix(string(value), t.prefix), nil
	}
	k, err := t.column.SortKey(string(value))
	if err != nil {
		return false, err
	}
	if t.column.Class() == Integer {
		for _, s := range t.spans {
			if s.Lo <= k.N && k.N <= s.Hi {
				return true, nil
			}
		}
		return false, nil
	}
	switch t.op {
	case Ne:
		return !t.set[k], nil
	case Eq, In:
		return t.set[k], nil
	case Lt:
		return k.Compare(t.keys[0]) < 0, nil
	case Le:
		return k.Compare(t.keys[0]) <= 0, nil
	case Gt:
		return k.Compare(t.keys[0]) > 0, nil
	case Ge:
		return k.Compare(t.keys[0]) >= 0, nil
	}
	return false, fmt.Errorf("unknown comparison %d", t.op)
}

// Span is an inclusive range of SortKey.N.
type Span struct{ Lo, Hi int64 }

// Spans turns a comparison with values of an Integer type into the ranges of keys that satisfy it, each within the
// column's Bounds: none for something that nothing can equal, such as 1.5 in an integer column.
func (c Column) Spans(op Compare, values []string) ([]Span, error) {
	lo, hi := c.Bounds()
	var out []Span
	add := func(s Span) {
		if s.Lo, s.Hi = max(s.Lo, lo), min(s.Hi, hi); s.Lo <= s.Hi {
			out = append(out, s)
		}
	}
	for _, v := range values {
		n, exact, beyond, err := c.position(v)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrUnsupported, err)
		}
		switch {
		case beyond < 0: // every key is greater than v
			if op == Ne || op == Gt || op == Ge {
				add(Span{lo, hi})
			}
			continue
		case beyond > 0:
			if op == Ne || op == Lt || op == Le {
				add(Span{lo, hi})
			}
			continue
		}
		switch op {
		case Eq, In:
			if exact {
				add(Span{n, n})
			}
		case Ne:
			if !exact {
				add(Span{lo, hi})
				continue
			}
			if n > math.MinInt64 {
				add(Span{lo, n - 1})
			}
			if n < math.MaxInt64 {
				add(Span{n + 1, hi})
			}
		case Lt:
			if !exact {
				add(Span{lo, n})
			} else if n > math.MinInt64 {
				add(Span{lo, n - 1})
			}
		case Le:
			add(Span{lo, n})
		case Gt:
			if n < math.MaxInt64 {
				add(Span{n + 1, hi})
			}
		case Ge:
			if exact {
				add(Span{n, hi})
			} else if n < math.MaxInt64 {
				add(Span{n + 1, hi})
			}
		default:
			return nil, fmt.Errorf("unknown comparison %d", op)
		}
	}
	return out, nil
}

// position places a literal among the keys: the greatest key not above it, and whether they are equal; or beyond
// (-1, 1) what a key can be. Integer columns are compared with any number; the others with values of their type.
func (c Column) position(literal string) (n int64, exact bool, beyond int, err error) {
	switch c.OID {
	case pgtype.Int2OID, pgtype.Int4OID, pgtype.Int8OID, pgtype.OIDOID:
		d, err := parseDecimal(literal)
		if err != nil {
			return 0, false, 0, fmt.Errorf("column %s: %q is not a number", c.Name, clip(literal))
		}
		n, exact, beyond = d.floor()
		return n, exact, beyond, nil
	}
	k, err := c.SortKey(literal)
	return k.N, true, 0, err
}

func columnIndex(cols []Column, name string) int {
	for i := range cols {
		if cols[i].Name == name {
			return i
		}
	}
	return -1
}

// Needs lists the columns that a query reads, by index in cols and in that order: those it returns, filters and sorts by.
func (q Query) Needs(cols []Column) ([]int, error) {
	used := make([]bool, len(cols))
	mark := func(name string) error {
		i := columnIndex(cols, name)
		if i < 0 {
			return fmt.Errorf("read model has no column %q", name)
		}
		used[i] = true
		return nil
	}
	for _, name := range q.Columns {
		if err := mark(name); err != nil {
			return nil, err
		}
	}
	for _, p := range q.Where {
		if p.Op == Match { // names a full-text field, which need not be a column
			continue
		}
		if err := mark(p.Column); err != nil {
			return nil, err
		}
	}
	for _, o := range q.Order {
		if err := mark(o.Column); err != nil {
			return nil, err
		}
	}
	var out []int
	for i, u := range used {
		if u {
			out = append(out, i)
		}
	}
	return out, nil
}

package cqrstest

import (
	"fmt"
	"math/big"
	"math/rand/v2"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/tidemarkdb/tidemark/cqrs"
)

// The reference: rows of Go values, filtered and sorted with Go's own arithmetic, sharing no code with package cqrs.

// domain is a type with some values, in text form, to draw rows and literals from, and its order.
type domain struct {
	column  cqrs.Column
	texts   []string
	compare func(a, b string) int
}

// domains have few values each, so that predicates hit, and the awkward ones among them.
func domains() []domain {
	return []domain{
		{cqrs.Column{Name: "id", OID: pgtype.Int8OID, Key: true}, nil, byNumber},
		{cqrs.Column{Name: "small", OID: pgtype.Int2OID}, []string{"-32768", "-1", "0", "5", "32767"}, byNumber},
		{cqrs.Column{Name: "i4", OID: pgtype.Int4OID}, []string{"-2147483648", "-7", "0", "7", "2147483647"}, byNumber},
		{cqrs.Column{Name: "i8", OID: pgtype.Int8OID}, []string{"-9223372036854775807", "0", "9007199254740992", "9007199254740993", "9223372036854775806"}, byNumber},
		{cqrs.Column{Name: "n", OID: pgtype.NumericOID}, []string{
			"-12345678901234567890.5", "-1.50", "-1.5", "0", "0.1", "0.10000000000000000001", "1.0", "1", "12345678901234567890.000000001", "12345678901234567890.000000002", "1e400",
		}, byNumber},
		{cqrs.Column{Name: "f8", OID: pgtype.Float8OID}, []string{"-Infinity", "-1.5", "0", "1e-300", "0.1", "1e+20", "Infinity", "NaN"}, byFloat},
		{cqrs.Column{Name: "b", OID: pgtype.BoolOID}, []string{"f", "t"}, strings.Compare},
		{cqrs.Column{Name: "s", OID: pgtype.TextOID}, []string{"", " ", "A", "a", "ab", "abc", "b", "é", "日本", "😀", "x\ny\"z\\"}, strings.Compare},
		{cqrs.Column{Name: "v", OID: pgtype.VarcharOID}, []string{"red", "Red", "red shoes"}, strings.Compare},
		{cqrs.Column{Name: "c", OID: pgtype.BPCharOID}, []string{"a    ", "ab   ", "b    "}, strings.Compare},
		{cqrs.Column{Name: "d", OID: pgtype.DateOID}, []string{"-infinity", "0044-03-15 BC", "1969-12-31", "2024-02-29", "2024-03-01", "12024-01-01", "infinity"}, byMoment},
		{cqrs.Column{Name: "ts", OID: pgtype.TimestampOID}, []string{"-infinity", "1900-01-01 00:00:00", "2024-02-29 12:00:00", "2024-02-29 12:00:00.000001", "infinity"}, byMoment},
		{cqrs.Column{Name: "tz", OID: pgtype.TimestamptzOID}, []string{"-infinity", "1969-12-31 23:59:59.999999+00", "2024-02-29 12:00:00+00", "2024-02-29 12:00:00.000001+00", "infinity"}, byMoment},
		{cqrs.Column{Name: "u", OID: pgtype.UUIDOID}, []string{"00000000-0000-0000-0000-000000000000", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "ffffffff-ffff-ffff-ffff-ffffffffffff"}, strings.Compare},
		{cqrs.Column{Name: "mood", OID: 99999, Enum: true}, []string{"sad", "ok", "happy"}, nil},
	}
}

func byNumber(a, b string) int {
	x, ok1 := new(big.Rat).SetString(a)
	y, ok2 := new(big.Rat).SetString(b)
	if !ok1 || !ok2 {
		panic(fmt.Sprint("not numbers: ", a, " ", b))
	}
	return x.Cmp(y)
}

func byFloat(a, b string) int {
	rank := func(s string) int { return slices.Index([]string{"-Infinity", "", "Infinity", "NaN"}, s) }
	ra, rb := max(rank(a), -1), max(rank(b), -1)
	if ra < 0 {
		ra = 1
	}
	if rb < 0 {
		rb = 1
	}
	if ra != rb || ra != 1 {
		return ra - rb
	}
	return byNumber(a, b)
}

func byMoment(a, b string) int {
	at := func(s string) time.Time {
		switch s {
		case "infinity":
			return time.Date(300000, 1, 1, 0, 0, 0, 0, time.UTC)
		case "-infinity":
			return time.Date(-300000, 1, 1, 0, 0, 0, 0, time.UTC)
		case "0044-03-15 BC":
			return time.Date(-43, 3, 15, 0, 0, 0, 0, time.UTC)
		case "12024-01-01":
			return time.Date(12024, 1, 1, 0, 0, 0, 0, time.UTC)
		}
		for _, layout := range []string{"2006-01-02", "2006-01-02 15:04:05.999999", "2006-01-02 15:04:05.999999+00"} {
			if t, err := time.Parse(layout, s); err == nil {
				return t
			}
		}
		panic("not a moment: " + s)
	}
	return at(a).Compare(at(b))
}

// table is the reference's rows: one text or nil (NULL) for each domain.
type table struct {
	domains []domain
	rows    [][]any
}

// newTable fills n rows, a fifth of all values NULL.
func newTable(r *rand.Rand, n int) *table {
	t := &table{domains: domains()}
	for i := range n {
		row := []any{fmt.Sprint(i - n/2)}
		for _, d := range t.domains[1:] {
			if r.IntN(5) == 0 {
				row = append(row, nil)
			} else {
				row = append(row, d.texts[r.IntN(len(d.texts))])
			}
		}
		t.rows = append(t.rows, row)
	}
	return t
}

func (t *table) columns() []cqrs.Column {
	var cols []cqrs.Column
	for _, d := range t.domains {
		cols = append(cols, d.column)
	}
	return cols
}

func (t *table) index(name string) int {
	return slices.IndexFunc(t.domains, func(d domain) bool { return d.column.Name == name })
}

// holds decides one predicate for one row.
func (t *table) holds(p cqrs.Predicate, row []any) bool {
	i := t.index(p.Column)
	d, v := t.domains[i], row[i]
	switch {
	case p.Op == cqrs.IsNull:
		return v == nil
	case v == nil:
		return false
	case p.Op == cqrs.NotNull:
		return true
	case p.Op == cqrs.Prefix:
		return strings.HasPrefix(v.(string), p.Values[0])
	}
	compare := d.compare
	if compare == nil {
		compare = strings.Compare
	}
	for _, lit := range p.Values {
		c := compare(v.(string), lit)
		if map[cqrs.Compare]bool{
			cqrs.Eq: c == 0, cqrs.In: c == 0, cqrs.Ne: c != 0,
			cqrs.Lt: c < 0, cqrs.Le: c <= 0, cqrs.Gt: c > 0, cqrs.Ge: c >= 0,
		}[p.Op] {
			return true
		}
	}
	return false
}

// answer filters, sorts by the query's order and then by id, and cuts.
func (t *table) answer(q cqrs.Query) [][]any {
	var out [][]any
	for _, row := range t.rows {
		if !slices.ContainsFunc(q.Where, func(p cqrs.Predicate) bool { return !t.holds(p, row) }) {
			out = append(out, row)
		}
	}
	sort.SliceStable(out, func(i, j int) bool {
		for _, o := range q.Order {
			k := t.index(o.Column)
			a, b := out[i][k], out[j][k]
			var c int
			switch {
			case a == nil && b == nil:
			case a == nil || b == nil:
				c = 1
				if (a == nil) == o.NullsFirst {
					c = -1
				}
				if c != 0 {
					return c < 0
				}
			default:
				if c = t.domains[k].compare(a.(string), b.(string)); o.Desc {
					c = -c
				}
			}
			if c != 0 {
				return c < 0
			}
		}
		return false
	})
	out = out[min(int(q.Offset), len(out)):]
	if q.Limit >= 0 {
		out = out[:min(int(q.Limit), len(out))]
	}
	return out
}

// predicate draws one that the column's type has.
func (t *table) predicate(r *rand.Rand) cqrs.Predicate {
	i := r.IntN(len(t.domains))
	d := t.domains[i]
	literal := func() string {
		if d.texts == nil {
			return fmt.Sprint(r.IntN(len(t.rows)) - len(t.rows)/2)
		}
		return d.texts[r.IntN(len(d.texts))]
	}
	ops := []cqrs.Compare{cqrs.Eq, cqrs.Ne, cqrs.In, cqrs.IsNull, cqrs.NotNull}
	if d.compare != nil {
		ops = append(ops, cqrs.Lt, cqrs.Le, cqrs.Gt, cqrs.Ge)
	}
	switch d.column.OID {
	case pgtype.TextOID, pgtype.VarcharOID:
		ops = append(ops, cqrs.Prefix)
	}
	p := cqrs.Predicate{Column: d.column.Name, Op: ops[r.IntN(len(ops))]}
	switch p.Op {
	case cqrs.IsNull, cqrs.NotNull:
	case cqrs.In:
		for range r.IntN(4) {
			p.Values = append(p.Values, literal())
		}
	case cqrs.Prefix:
		v := []rune(literal())
		p.Values = []string{string(v[:r.IntN(len(v)+1)])}
	default:
		p.Values = []string{literal()}
		if d.column.OID == pgtype.Int4OID && r.IntN(4) == 0 {
			p.Values = []string{[]string{"0.5", "-7.5", "99999999999", "-1e30"}[r.IntN(4)]}
		}
	}
	return p
}

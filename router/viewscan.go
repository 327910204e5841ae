package router

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/tidemarkdb/tidemark/internal/sql"
)

// search is the name that stands for every full-text column of a read model: WHERE search @@ 'red shoes'.
const search = "search"

// scanTemplate is a ViewScan that waits for values.
type scanTemplate struct {
	plan   *Plan // with a Scan that has columns and order
	where  []scanCondition
	limit  *sql.Value
	offset *sql.Value
	params []uint32
	own    bool // the table is Tidemark's own
}

type scanCondition struct {
	column string
	oid    uint32
	op     sql.Compare
	values []sql.Value
}

func (s *statement) viewScan() *compiled {
	m := s.rels[0].model
	simple, reason := s.f.Simple()
	no := func(why string) *compiled {
		hint := "A read model answers SELECT columns or count(*) FROM it WHERE column = value AND ... ORDER BY columns LIMIT n; for more, use the tables that it is made from."
		if m.Own {
			hint = "A table of Tidemark's own answers SELECT columns or count(*) FROM it WHERE column = value AND ... ORDER BY columns LIMIT n; beside = there are <>, <, >, IN, LIKE 'abc%' and IS NULL."
		}
		return s.fixed(refuse(fmt.Sprintf("this SELECT from %s is not supported", m), why+".", hint))
	}
	if reason != "" {
		return no(strings.ToUpper(reason[:1]) + reason[1:])
	}
	col := func(name string) *ModelColumn {
		for i := range m.Columns {
			if m.Columns[i].Name == name {
				return &m.Columns[i]
			}
		}
		return nil
	}
	missing := func(name string) *compiled {
		return s.fixed(&Refusal{Code: "42703", Message: fmt.Sprintf("column \"%s\" does not exist", name), Detail: fmt.Sprintf("The columns of %s are %s.", m, modelColumns(m))})
	}
	scan := &Scan{View: m.path(), Limit: -1, Count: simple.Count}
	for _, o := range simple.Columns {
		switch {
		case o.Star:
			for _, c := range m.Columns {
				scan.Columns = append(scan.Columns, ScanColumn{c.Name, c.Name, c.OID, c.TypeMod})
			}
		case o.Column == "":
			scan.Columns = append(scan.Columns, ScanColumn{Name: o.Name, OID: oidInt8, TypeMod: -1})
		default:
			c := col(o.Column)
			if c == nil {
				return missing(o.Column)
			}
			scan.Columns = append(scan.Columns, ScanColumn{o.Name, c.Name, c.OID, c.TypeMod})
		}
	}
	for _, o := range simple.Order {
		if col(o.Column) == nil {
			return missing(o.Column)
		}
		scan.Order = append(scan.Order, ScanOrder(o))
	}
	t := &scanTemplate{limit: simple.Limit, offset: simple.Offset, own: m.Own}
	for _, p := range simple.Where {
		if m.Own && p.Op == sql.Match {
			return no("It has no full-text search")
		}
		c := scanCondition{column: p.Column, op: p.Op, values: p.Values, oid: oidText}
		if mc := col(p.Column); mc != nil {
			if c.op != sql.Match {
				c.oid = mc.OID
			}
		} else if p.Column != search || p.Op != sql.Match {
			return missing(p.Column)
		}
		for _, v := range p.Values {
			t.param(v, c.oid)
		}
		t.where = append(t.where, c)
	}
	for _, v := range []*sql.Value{simple.Limit, simple.Offset} {
		if v != nil {
			t.param(*v, oidInt8)
		}
	}
	t.plan = s.plan(&Plan{Kind: ViewScan, Access: Read, Scan: scan, Reason: m.String()})
	return &compiled{generic: t.plan, scan: t, cost: 2*planCost + int64(len(scan.Columns))*60}
}

// String is how errors and reasons name it.
func (m *Model) String() string {
	if m.Own {
		return "table " + m.Name
	}
	return "read model " + m.Name
}

func modelColumns(m *Model) string {
	names := make([]string, len(m.Columns))
	for i, c := range m.Columns {
		names[i] = c.Name
	}
	return strings.Join(names, ", ")
}

func (t *scanTemplate) param(v sql.Value, oid uint32) {
	if v.Kind != sql.Param || v.Param < 1 {
		return
	}
	for len(t.params) < v.Param {
		t.params = append(t.params, 0)
	}
	if t.params[v.Param-1] == 0 {
		t.params[v.Param-1] = oid
	}
}

// Type OIDs whose text form has one spelling here (pg_type.dat).
const (
	oidBool = 16
	oidInt8 = 20
	oidInt2 = 21
	oidInt4 = 23
)

// bind is the scan with its values.
func (t *scanTemplate) bind(src *source) *Plan {
	scan := *t.plan.Scan
	scan.Where = make([]ScanPredicate, 0, len(t.where))
	for _, c := range t.where {
		p := ScanPredicate{Column: c.column, Op: Compare(c.op)}
		null := false
		for i := range c.values {
			v, isNull, ref := t.text(src, &c.values[i], c.oid)
			if ref != nil {
				return t.refuse(ref)
			}
			if isNull {
				null = true // no comparison with NULL is true; one value of an IN list just never matches
				continue
			}
			p.Values = append(p.Values, v)
		}
		if null && c.op != sql.In {
			p.Op, p.Values = In, nil
		}
		if c.op == sql.Prefix && !null {
			if ref := like(&p, t.own); ref != nil {
				return t.refuse(ref)
			}
		}
		scan.Where = append(scan.Where, p)
	}
	for _, n := range []struct {
		v    *sql.Value
		to   *int64
		none int64
		code string
		what string
	}{{t.limit, &scan.Limit, -1, "2201W", "LIMIT"}, {t.offset, &scan.Offset, 0, "2201X", "OFFSET"}} {
		if n.v == nil {
			continue
		}
		text, null, ref := t.text(src, n.v, oidInt8)
		if ref != nil {
			return t.refuse(ref)
		}
		*n.to = n.none
		if null {
			continue
		}
		num, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return t.refuse(&Refusal{Code: "22P02", Message: fmt.Sprintf("invalid input syntax for type bigint: \"%s\"", text)})
		}
		if num < 0 {
			return t.refuse(&Refusal{Code: n.code, Message: n.what + " must not be negative"})
		}
		*n.to = num
	}
	p := *t.plan
	p.Scan = &scan
	return &p
}

func (t *scanTemplate) refuse(ref *Refusal) *Plan {
	p := *t.plan
	p.Kind, p.Refusal, p.Scan = Refuse, ref, nil
	return &p
}

// like turns a LIKE pattern into what read models know: a prefix, or equality.
func like(p *ScanPredicate, own bool) *Refusal {
	pattern := p.Values[0]
	i := strings.IndexAny(pattern, `%_\`)
	switch {
	case i < 0:
		p.Op = Eq
		return nil
	case i == len(pattern)-1 && pattern[i] == '%':
		p.Values = []string{pattern[:i]}
		return nil
	}
	if own {
		return refuse("this LIKE pattern is not supported by tables of Tidemark's own", "Only a prefix followed by % can be looked up.", `Write LIKE 'abc%'.`)
	}
	return refuse("this LIKE pattern is not supported by read models", "Only a prefix followed by % can be looked up.", `Write LIKE 'abc%', or search full text with @@.`)
}

// text is a value in the text form of the column's type.
func (t *scanTemplate) text(src *source, v *sql.Value, oid uint32) (text string, null bool, ref *Refusal) {
	data, format, kind, _ := src.value(v)
	if v.Kind == sql.Null || v.Kind == sql.Param && data == nil {
		if v.Kind == sql.Param && v.Param > len(src.values) {
			return "", false, &Refusal{Code: "08P01", Message: fmt.Sprintf("bind message supplies %d parameters, but the statement requires %d", len(src.values), v.Param)}
		}
		return "", true, nil
	}
	if data == nil && kind == opaque {
		return "", false, &Refusal{Code: "22P02", Message: "a literal of the statement cannot be read"}
	}
	text = string(data)
	if format == 1 {
		declared := oid
		if i := v.Param - 1; i < len(src.oids) && src.oids[i] != 0 {
			declared = src.oids[i]
		}
		var ok bool
		if text, ok = binaryText(declared, data); !ok {
			return "", false, refuse("this binary parameter is not supported by read models", fmt.Sprintf("Its type has OID %d.", declared), "Send it in text format.")
		}
	}
	return canonical(text, oid)
}

// canonical is the one spelling of integers and booleans; other types are left as they are.
func canonical(text string, oid uint32) (string, bool, *Refusal) {
	switch oid {
	case oidInt2, oidInt4, oidInt8:
		n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
		if err != nil {
			return "", false, &Refusal{Code: "22P02", Message: fmt.Sprintf("invalid input syntax for type bigint: \"%s\"", text)}
		}
		return strconv.FormatInt(n, 10), false, nil
	case oidBool:
		switch strings.ToLower(strings.TrimSpace(text)) {
		case "t", "true", "yes", "y", "on", "1":
			return "t", false, nil
		case "f", "false", "no", "n", "off", "0":
			return "f", false, nil
		}
		return "", false, &Refusal{Code: "22P02", Message: fmt.Sprintf("invalid input syntax for type boolean: \"%s\"", text)}
	}
	return text, false, nil
}

var types = pgtype.NewMap()

// binaryText turns a value from binary into text format.
func binaryText(oid uint32, data []byte) (string, bool) {
	switch {
	case oid == oidInt2 && len(data) == 2:
		return strconv.Itoa(int(int16(binary.BigEndian.Uint16(data)))), true
	case oid == oidInt4 && len(data) == 4:
		return strconv.Itoa(int(int32(binary.BigEndian.Uint32(data)))), true
	case oid == oidInt8 && len(data) == 8:
		return strconv.FormatInt(int64(binary.BigEndian.Uint64(data)), 10), true
	case oid == oidText || oid == oidVarchar:
		return string(data), true
	}
	typ, ok := types.TypeForOID(oid)
	if !ok {
		return "", false
	}
	v, err := typ.Codec.DecodeDatabaseSQLValue(types, oid, pgtype.BinaryFormatCode, data)
	if err != nil {
		return "", false
	}
	switch x := v.(type) {
	case string:
		return x, true
	case int64:
		return strconv.FormatInt(x, 10), true
	case float64:
		return strconv.FormatFloat(x, 'g', -1, 64), true
	case bool:
		return strconv.FormatBool(x), true
	case time.Time:
		switch oid {
		case pgtype.DateOID:
			return x.Format("2006-01-02"), true
		case pgtype.TimestampOID:
			return x.Format("2006-01-02 15:04:05.999999"), true
		}
		return x.UTC().Format("2006-01-02 15:04:05.999999-07"), true
	}
	return "", false
}

// path is what Scan.View names the model by: with its schema, unless that is public.
func (m *Model) path() string {
	if m.Schema == "" || m.Schema == "public" {
		return m.Name
	}
	return m.Schema + "." + m.Name
}

package cqrstest

import (
	"fmt"
	"sort"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/tidemarkdb/tidemark/cqrs"
)

// Every type comes back as it went in.
func testTypes(t *testing.T, s Suite) {
	values := map[string]struct {
		oid   uint32
		texts []string
	}{
		"bool":        {pgtype.BoolOID, []string{"t", "f"}},
		"int2":        {pgtype.Int2OID, []string{"-32768", "32767"}},
		"int4":        {pgtype.Int4OID, []string{"-2147483648", "2147483647"}},
		"int8":        {pgtype.Int8OID, []string{"-9223372036854775808", "9223372036854775807", "9007199254740993"}},
		"float4":      {pgtype.Float4OID, []string{"0.1", "-3.4028235e+38", "NaN", "Infinity", "1e-45"}},
		"float8":      {pgtype.Float8OID, []string{"0.1", "-1.7976931348623157e+308", "NaN", "-Infinity", "5e-324", "1e+15", "-0"}},
		"numeric":     {pgtype.NumericOID, []string{"0.10", "123456789012345678901234567890.123456789", "-0.00000000000000000000000000001", "NaN", "Infinity", "-Infinity", "1" + strings.Repeat("0", 2000), strings.Repeat("9", 40000)}},
		"text":        {pgtype.TextOID, []string{"", " ", "a\nb\r\n\t\"\\/<>&", "日本語 😀 é", "\u2028\u0001", "null", "NULL", strings.Repeat("long ", 20000)}},
		"varchar":     {pgtype.VarcharOID, []string{"x"}},
		"bpchar":      {pgtype.BPCharOID, []string{"ab   "}},
		"date":        {pgtype.DateOID, []string{"2024-02-29", "infinity", "-infinity", "0044-03-15 BC", "5874897-12-31", "0001-01-01"}},
		"time":        {pgtype.TimeOID, []string{"00:00:00", "23:59:59.999999", "24:00:00"}},
		"timetz":      {pgtype.TimetzOID, []string{"12:00:00+02"}},
		"timestamp":   {pgtype.TimestampOID, []string{"2024-02-29 23:59:59.999999", "2024-01-01 00:00:00", "infinity", "-infinity", "4713-01-01 00:00:00 BC", "294276-12-31 23:59:59.999999"}},
		"timestamptz": {pgtype.TimestamptzOID, []string{"2024-02-29 23:59:59.999999+00", "1969-12-31 00:00:00+00", "infinity", "-infinity", "0044-03-15 12:00:00+00 BC"}},
		"interval":    {pgtype.IntervalOID, []string{"1 year 2 mons 3 days 04:05:06.789", "-00:00:01"}},
		"uuid":        {pgtype.UUIDOID, []string{"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"}},
		"bytea":       {pgtype.ByteaOID, []string{`\x`, `\x00ff10`, `\x` + strings.Repeat("ab", 50000)}},
		"jsonb": {pgtype.JSONBOID, []string{
			`{"a": 1, "b": [1, 2.50, null, "x"], "nested": {"deep": {"er": true}}}`, `[]`, `"scalar"`, `12345678901234567890.123456789012345678901234567890`,
			`{"": "", "a.b": 1, "unicode": "é\n😀"}`, `[{"a": 1}, 2]`, `1.0`, `true`,
		}},
		"json":        {pgtype.JSONOID, []string{`{"b":1,   "a" : 2, "a":3}`, "[1,\n 2]", `"x"`}},
		"text[]":      {pgtype.TextArrayOID, []string{"{}", "{a,b}", `{"a b",NULL,"NULL","",",","{}","\"\\"}`, "{{a,b},{c,d}}", "[0:1]={x,y}"}},
		"int4[]":      {pgtype.Int4ArrayOID, []string{"{}", "{1,NULL,3}", "{{1,2},{3,4}}", "[5:6]={1,2}"}},
		"bool[]":      {pgtype.BoolArrayOID, []string{"{t,f,NULL}", "[2:3]={t,f}"}},
		"float8[]":    {pgtype.Float8ArrayOID, []string{"{1.5,NaN,Infinity}"}},
		"numeric[]":   {pgtype.NumericArrayOID, []string{"{1.50,123456789012345678901234567890,NaN}"}},
		"tstz[]":      {pgtype.TimestamptzArrayOID, []string{`{"2024-02-29 23:59:59.999999+00",infinity,NULL}`}},
		"uuid[]":      {pgtype.UUIDArrayOID, []string{"{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}"}},
		"jsonb[]":     {pgtype.JSONBArrayOID, []string{`{"{\"a\": 1}","[1, 2]"}`}},
		"bytea[]":     {pgtype.ByteaArrayOID, []string{`{"\\x00ff"}`}},
		"int4range":   {pgtype.Int4rangeOID, []string{"[1,10)", "empty"}},
		"inet":        {pgtype.InetOID, []string{"10.0.0.0/8"}},
		"point":       {pgtype.PointOID, []string{"(1,2)"}},
		"bit":         {pgtype.VarbitOID, []string{"0101"}},
		"tsvector":    {3614, []string{"'fat':2 'rat':3"}},
		"xml":         {pgtype.XMLOID, []string{"<a>b</a>"}},
		"money":       {790, []string{"$1,000.00"}},
		"enum":        {99999, []string{"happy"}},
		"int8multi":   {pgtype.Int8multirangeOID, []string{"{[1,3),[5,7)}"}},
		"interval[]":  {pgtype.IntervalArrayOID, []string{`{"1 day",01:00:00}`}},
		"numeric key": {pgtype.NumericOID, []string{"7.50"}},
	}
	names := make([]string, 0, len(values))
	most := 0
	for name, v := range values {
		names, most = append(names, name), max(most, len(v.texts))
	}
	sort.Strings(names)
	cols := []cqrs.Column{{Name: "id", OID: pgtype.Int8OID, Key: true}}
	for _, name := range names {
		cols = append(cols, cqrs.Column{Name: name, OID: values[name].oid, Enum: name == "enum"})
	}
	b := s.bench(t, cols...)
	// Row i has each column's i-th value, NULL when there is none; the last row is all NULL.
	var events []cqrs.Event
	want := map[string][]any{}
	for i := range most + 1 {
		row := []any{strconv.Itoa(i)}
		for _, name := range names {
			if texts := values[name].texts; i < len(texts) {
				row = append(row, texts[i])
			} else {
				row = append(row, nil)
			}
		}
		want[strconv.Itoa(i)] = row
		events = append(events, b.put(base, row...))
	}
	b.apply(events...)
	check := func(how string, q cqrs.Query, n int) {
		t.Helper()
		for _, c := range cols {
			q.Columns = append(q.Columns, c.Name)
		}
		seen := 0
		err := b.Scan(b.ctx, q, func(row [][]byte) error {
			seen++
			for i, text := range want[string(row[0])] {
				got := any(string(row[i]))
				if row[i] == nil {
					got = nil
				}
				if got != text {
					t.Errorf("%s: row %s, %s: got %.200q, want %.200q", how, row[0], cols[i].Name, got, text)
				}
			}
			return nil
		})
		if err != nil || seen != n {
			t.Errorf("%s: %d rows, want %d; error %v", how, seen, n, err)
		}
	}
	check("scan", cqrs.Query{Limit: -1}, most+1)
	for i := range most + 1 {
		check("by key", cqrs.Query{Limit: -1, Where: []cqrs.Predicate{{Column: "id", Op: cqrs.Eq, Values: []string{strconv.Itoa(i)}}}}, 1)
	}
	for _, c := range cols[1:] { // alone, so that stores that read a part of a row are seen to
		got := b.rows(cqrs.Query{Columns: []string{"id", c.Name}, Where: []cqrs.Predicate{{Column: c.Name, Op: cqrs.NotNull}}, Order: []cqrs.Order{{Column: "id"}}, Limit: -1})
		var texts []string
		for i, text := range values[c.Name].texts {
			texts = append(texts, strconv.Itoa(i)+"|"+text)
		}
		if d := cmp.Diff(texts, got); d != "" {
			t.Errorf("%s alone: %.2000s", c.Name, d)
		}
	}
}

// Rows are found by their whole key at once, in whatever form it is written; equal keys are one row.
func testKeys(t *testing.T, s Suite) {
	b := s.bench(t,
		cqrs.Column{Name: "a", OID: pgtype.TextOID, Key: true}, cqrs.Column{Name: "n", OID: pgtype.NumericOID, Key: true},
		cqrs.Column{Name: "at", OID: pgtype.TimestamptzOID, Key: true}, cqrs.Column{Name: "v", OID: pgtype.TextOID})
	const at = "2024-01-01 00:00:00+00"
	long := strings.Repeat("k", 2000)
	var events []cqrs.Event
	for i, a := range []string{"", "x", "x|1", `x\`, `x\|`, "sha256:", long, long + "2", "日本"} {
		events = append(events, b.put(base, a, "1.50", at, "v"+strconv.Itoa(i)), b.put(base, a, "2", "infinity", "w"+strconv.Itoa(i)))
	}
	if errs := b.Apply(b.ctx, events); errs != nil {
		t.Fatal(errs)
	}
	get := func(a, n, at string, more ...cqrs.Predicate) []string {
		t.Helper()
		return b.rows(cqrs.Query{Columns: []string{"v"}, Limit: -1, Where: append([]cqrs.Predicate{
			{Column: "a", Op: cqrs.Eq, Values: []string{a}}, {Column: "n", Op: cqrs.Eq, Values: []string{n}}, {Column: "at", Op: cqrs.Eq, Values: []string{at}},
		}, more...)})
	}
	for _, tc := range []struct {
		got  []string
		want []string
	}{
		{get("x", "1.5", "2024-01-01 01:00:00+01"), []string{"v1"}}, // without a refresh
		{get("", "1.500", at), []string{"v0"}},
		{get("x|1", "15e-1", at), []string{"v2"}},
		{get("x", "2", "infinity"), []string{"w1"}},
		{get(long, "1.5", at), []string{"v6"}},
		{get(long+"2", "1.5", at), []string{"v7"}},
		{get("nobody", "1.5", at), nil},
		{get("x", "1.5", at, cqrs.Predicate{Column: "v", Op: cqrs.Ne, Values: []string{"v1"}}), nil},
		{get("x", "1.5", at, cqrs.Predicate{Column: "a", Op: cqrs.Eq, Values: []string{"y"}}), nil},
	} {
		if d := cmp.Diff(tc.want, tc.got); d != "" {
			t.Error(d)
		}
	}
	b.apply(b.put(base+1, "x", "1.500", at, "same key, other scale"), b.del(base+1, "x|1", "1.5", at))
	if d := cmp.Diff([]string{"same key, other scale"}, get("x", "1.5", at)); d != "" {
		t.Error(d)
	}
	if got := b.rows(cqrs.Query{Count: true}); got[0] != "17" {
		t.Errorf("count %s, want 17", got[0])
	}
	if got := b.rows(cqrs.Query{Count: true, Where: []cqrs.Predicate{
		{Column: "a", Op: cqrs.Eq, Values: []string{"x"}}, {Column: "n", Op: cqrs.Eq, Values: []string{"2"}}, {Column: "at", Op: cqrs.Eq, Values: []string{"infinity"}},
	}}); got[0] != "1" {
		t.Errorf("count by key %s, want 1", got[0])
	}

	one := s.benchAt(t, s.Addr, idAndNote()...)
	one.Store = s.Open(t, one.Name()+"-one", one.cols, s.Addr)
	t.Cleanup(func() { _ = one.Close() })
	for i := range 5 {
		if errs := one.Apply(one.ctx, []cqrs.Event{one.put(base, strconv.Itoa(i), "n"+strconv.Itoa(i))}); errs != nil {
			t.Fatal(errs)
		}
	}
	got := one.rows(cqrs.Query{Columns: []string{"note"}, Limit: 2, Offset: 1, Order: []cqrs.Order{{Column: "id", Desc: true}}, Where: []cqrs.Predicate{
		{Column: "id", Op: cqrs.In, Values: []string{"4", "1", "3", "1", "77"}},
	}})
	if d := cmp.Diff([]string{"n3", "n1"}, got); d != "" {
		t.Error(d)
	}
}

// Values beyond what a store can index are filtered and counted as any other.
func testLong(t *testing.T, s Suite) {
	b := s.bench(t, cqrs.Column{Name: "id", OID: pgtype.Int8OID, Key: true}, cqrs.Column{Name: "s", OID: pgtype.TextOID}, cqrs.Column{Name: "n", OID: pgtype.NumericOID})
	long, wide := strings.Repeat("a", 40000), strings.Repeat("é😀", 5000)
	digits := strings.Repeat("7", 50000)
	b.apply(
		b.put(base, "1", "a", "1"), b.put(base, "2", long, "2"), b.put(base, "3", long+"b", "3"), b.put(base, "4", wide, digits),
		b.put(base, "5", nil, digits+"8"), b.put(base, "6", "b", nil), b.put(base, "7", strings.Repeat("a", 8191), "7"), b.put(base, "8", strings.Repeat("a", 8192), "8"))
	for _, tc := range []struct {
		where []cqrs.Predicate
		want  []string
	}{
		{[]cqrs.Predicate{{Column: "s", Op: cqrs.Eq, Values: []string{long}}}, []string{"2"}},
		{[]cqrs.Predicate{{Column: "s", Op: cqrs.Ne, Values: []string{long}}}, []string{"1", "3", "4", "6", "7", "8"}},
		{[]cqrs.Predicate{{Column: "s", Op: cqrs.Gt, Values: []string{long}}}, []string{"3", "4", "6"}},
		{[]cqrs.Predicate{{Column: "s", Op: cqrs.Prefix, Values: []string{"aa"}}}, []string{"2", "3", "7", "8"}},
		{[]cqrs.Predicate{{Column: "s", Op: cqrs.Prefix, Values: []string{long[:9000]}}}, []string{"2", "3"}},
		{[]cqrs.Predicate{{Column: "s", Op: cqrs.In, Values: []string{wide, "b"}}}, []string{"4", "6"}},
		{[]cqrs.Predicate{{Column: "s", Op: cqrs.IsNull}}, []string{"5"}},
		{[]cqrs.Predicate{{Column: "s", Op: cqrs.NotNull}, {Column: "n", Op: cqrs.IsNull}}, []string{"6"}},
		{[]cqrs.Predicate{{Column: "n", Op: cqrs.Gt, Values: []string{"7"}}}, []string{"4", "5", "8"}},
		{[]cqrs.Predicate{{Column: "n", Op: cqrs.Eq, Values: []string{digits}}}, []string{"4"}},
	} {
		q := cqrs.Query{Columns: []string{"id"}, Where: tc.where, Order: []cqrs.Order{{Column: "id"}}, Limit: -1}
		if d := cmp.Diff(tc.want, b.rows(q)); d != "" {
			t.Errorf("%s: %s", describe(q), d)
		}
		q.Limit = 2
		if d := cmp.Diff(tc.want[:min(2, len(tc.want))], b.rows(q)); d != "" {
			t.Errorf("%s: %s", describe(q), d)
		}
		q.Count = true
		if got := b.rows(q); got[0] != fmt.Sprint(len(tc.want)) {
			t.Errorf("%s: got %s, want %d", describe(q), got[0], len(tc.want))
		}
	}
	// Sorting by them is right or refused.
	q := cqrs.Query{Columns: []string{"id"}, Order: []cqrs.Order{{Column: "s"}}, Limit: -1}
	if got, err := b.try(q); err == nil {
		if d := cmp.Diff([]string{"1", "7", "8", "2", "3", "6", "4", "5"}, got); d != "" {
			t.Errorf("%s: %s", describe(q), d)
		}
	} else {
		b.wantUnsupported(q)
	}
}

package cqrstest

import (
	"fmt"
	"math/rand/v2"
	"slices"
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

const tableSeed = 42

// tableBench loads the reference's rows into the store.
func (s Suite) tableBench(t *testing.T, n int) (*bench, *table, *rand.Rand) {
	t.Helper()
	r := rand.New(rand.NewPCG(tableSeed, uint64(n)))
	ref := newTable(r, n)
	b := s.bench(t, ref.columns()...)
	var events []cqrs.Event
	for _, row := range ref.rows {
		events = append(events, b.put(base, row...))
	}
	// Tombstones must be invisible to every query.
	for i := range 20 {
		events = append(events, b.del(base, strconv.Itoa(1_000_000+i)))
	}
	b.apply(events...)
	return b, ref, r
}

func texts(rows [][]any) []string {
	var out []string
	for _, row := range rows {
		line := make([]string, len(row))
		for i, v := range row {
			if line[i] = null; v != nil {
				line[i] = v.(string)
			}
		}
		out = append(out, strings.Join(line, "|"))
	}
	return out
}

// Random conjunctions of every predicate on every type, against the reference.
func testPredicates(t *testing.T, s Suite) {
	b, ref, r := s.tableBench(t, 300)
	unindexed := func(p cqrs.Predicate) bool {
		return p.Op != cqrs.IsNull && p.Op != cqrs.NotNull && slices.Contains(s.Unindexed, ref.domains[ref.index(p.Column)].column.OID)
	}
	for range 400 {
		var q cqrs.Query
		for range 1 + r.IntN(3) {
			if p := ref.predicate(r); !unindexed(p) {
				q.Where = append(q.Where, p)
			}
		}
		q.Limit = -1
		want := texts(ref.answer(q))
		got := b.rows(q)
		sort.Strings(want)
		sort.Strings(got)
		if d := cmp.Diff(want, got); d != "" {
			t.Fatalf("seed %d: %s (-want +got):\n%s", tableSeed, describe(q), d)
		}
		q.Count = true
		if got := b.rows(q); got[0] != strconv.Itoa(len(want)) {
			t.Fatalf("seed %d: %s: got %s, want %d", tableSeed, describe(q), got[0], len(want))
		}
	}
}

// Order by every ordered type, both ways, NULLs at both ends, with LIMIT and OFFSET.
func testOrder(t *testing.T, s Suite) {
	b, ref, r := s.tableBench(t, 200)
	var names []string
	for _, d := range ref.domains {
		if d.compare != nil && !slices.Contains(s.Unindexed, d.column.OID) {
			names = append(names, d.column.Name)
		}
	}
	for i := range 120 {
		q := cqrs.Query{Limit: -1}
		for j := range 1 + r.IntN(3) {
			name := names[r.IntN(len(names))]
			if j == 0 {
				name = names[i%len(names)]
			}
			q.Order = append(q.Order, cqrs.Order{Column: name, Desc: r.IntN(2) == 0, NullsFirst: r.IntN(2) == 0})
		}
		q.Order = append(q.Order, cqrs.Order{Column: "id"}) // makes the answer unique
		if r.IntN(2) == 0 {
			q.Limit, q.Offset = int64(r.IntN(30)), int64(r.IntN(20))
		}
		if r.IntN(3) == 0 {
			q.Where = append(q.Where, cqrs.Predicate{Column: "b", Op: cqrs.Eq, Values: []string{"true"}})
		}
		want := texts(ref.answer(withBool(q)))
		if d := cmp.Diff(want, b.rows(q)); d != "" {
			t.Fatalf("seed %d: %s (-want +got):\n%s", tableSeed, describe(q), d)
		}
	}
	// Without ORDER BY any rows will do, but as many as asked for, and each once.
	got := b.rows(cqrs.Query{Columns: []string{"id"}, Limit: 50, Offset: 170})
	if len(got) != 30 || len(slices.Compact(slices.Sorted(slices.Values(got)))) != 30 {
		t.Errorf("LIMIT 50 OFFSET 170 of 200 rows gives %d: %v", len(got), got)
	}
	if got := b.rows(cqrs.Query{Limit: 0}); got != nil {
		t.Errorf("LIMIT 0 gives %v", got)
	}
}

// withBool writes the literal as the reference's texts are.
func withBool(q cqrs.Query) cqrs.Query {
	q.Where = slices.Clone(q.Where)
	for i := range q.Where {
		q.Where[i].Values = []string{"t"}
	}
	return q
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

func testFullText(t *testing.T, s Suite) {
	b := s.bench(t, cqrs.Column{Name: "id", OID: pgtype.Int8OID, Key: true}, cqrs.Column{Name: "title", OID: pgtype.TextOID}, cqrs.Column{Name: "body", OID: pgtype.VarcharOID})
	b.apply(
		b.put(base, "1", "Red Shoes", "leather, size 42"), b.put(base, "2", "Blue shoes", "with red laces"), b.put(base, "3", "Red hat", nil),
		b.put(base, "4", "Blue hat", "wool"), b.put(base, "5", "Red shoes", "gone"), b.del(base+1, "5"))
	match := func(column, words string, more ...cqrs.Predicate) cqrs.Query {
		return cqrs.Query{
			Columns: []string{"id"}, Order: []cqrs.Order{{Column: "id"}}, Limit: -1,
			Where: append([]cqrs.Predicate{{Column: column, Op: cqrs.Match, Values: []string{words}}}, more...),
		}
	}
	if !s.FullText {
		b.wantUnsupported(match("search", "red shoes"))
		return
	}
	for _, tc := range []struct {
		q    cqrs.Query
		want []string
	}{
		{match("search", "red shoes"), []string{"1", "2"}},
		{match("title", "red shoes"), []string{"1"}},
		{match("title", "RED"), []string{"1", "3"}},
		{match("body", "leather"), []string{"1"}},
		{match("search", "nothing like this"), nil},
		{match("search", "hat", cqrs.Predicate{Column: "body", Op: cqrs.NotNull}), []string{"4"}},
		{match("search", "hat", cqrs.Predicate{Column: "id", Op: cqrs.Eq, Values: []string{"3"}}), []string{"3"}},
	} {
		if d := cmp.Diff(tc.want, b.rows(tc.q)); d != "" {
			t.Errorf("%s: %s", describe(tc.q), d)
		}
		tc.q.Count = true
		if got := b.rows(tc.q); got[0] != strconv.Itoa(len(tc.want)) {
			t.Errorf("%s: got %s, want %d", describe(tc.q), got[0], len(tc.want))
		}
	}
	// The best first without ORDER BY: "red" twice and alone beats "red" among other words.
	best := match("search", "red")
	best.Order = nil
	if got := b.rows(best); len(got) != 3 {
		t.Errorf("%s: got %v, want 3 rows", describe(best), got)
	}
	// By key and full text at once sees what was just applied.
	if errs := b.Apply(b.ctx, []cqrs.Event{b.put(base, "9", "fresh paint", nil)}); errs != nil {
		t.Fatal(errs)
	}
	if d := cmp.Diff([]string{"9"}, b.rows(match("title", "fresh", cqrs.Predicate{Column: "id", Op: cqrs.Eq, Values: []string{"9"}}))); d != "" {
		t.Error(d)
	}
	b.wantUnsupported(match("id", "1"))
}

// What cannot be answered exactly is refused, by name, and what does not exist is an error.
func testRefused(t *testing.T, s Suite) {
	b := s.bench(t, cqrs.Column{Name: "id", OID: pgtype.Int8OID, Key: true}, cqrs.Column{Name: "span", OID: pgtype.IntervalOID}, cqrs.Column{Name: "doc", OID: pgtype.JSONBOID},
		cqrs.Column{Name: "tags", OID: pgtype.TextArrayOID}, cqrs.Column{Name: "mood", OID: 99999, Enum: true}, cqrs.Column{Name: "c", OID: pgtype.BPCharOID})
	b.apply(b.put(base, "1", "1 mon", "{}", "{}", "ok", "x  "))
	for _, q := range []cqrs.Query{
		{Where: []cqrs.Predicate{{Column: "span", Op: cqrs.Eq, Values: []string{"30 days"}}}},
		{Where: []cqrs.Predicate{{Column: "doc", Op: cqrs.Eq, Values: []string{"{}"}}}},
		{Where: []cqrs.Predicate{{Column: "tags", Op: cqrs.Ne, Values: []string{"{}"}}}},
		{Where: []cqrs.Predicate{{Column: "mood", Op: cqrs.Lt, Values: []string{"ok"}}}},
		{Where: []cqrs.Predicate{{Column: "c", Op: cqrs.Prefix, Values: []string{"x"}}}},
		{Where: []cqrs.Predicate{{Column: "id", Op: cqrs.Eq, Values: []string{"abc"}}}},
		{Order: []cqrs.Order{{Column: "span"}}},
		{Order: []cqrs.Order{{Column: "mood"}}},
		{Order: []cqrs.Order{{Column: "doc"}}},
	} {
		q.Columns, q.Limit = []string{"id"}, -1
		b.wantUnsupported(q)
	}
	for _, q := range []cqrs.Query{
		{Columns: []string{"nope"}},
		{Columns: []string{"id"}, Where: []cqrs.Predicate{{Column: "nope", Op: cqrs.IsNull}}},
		{Columns: []string{"id"}, Order: []cqrs.Order{{Column: "nope"}}},
	} {
		q.Limit = -1
		if _, err := b.try(q); err == nil || !strings.Contains(err.Error(), `"nope"`) {
			t.Errorf("%s: got %v, want an error that names the column", describe(q), err)
		}
	}
	stop := fmt.Errorf("stop")
	if err := b.Scan(b.ctx, cqrs.Query{Columns: []string{"id"}, Limit: -1}, func([][]byte) error { return stop }); err == nil || !strings.Contains(err.Error(), "stop") {
		t.Errorf("emit's error is lost: %v", err)
	}
}

// Results larger than any page: every row once, in order, counted.
func testPages(t *testing.T, s Suite) {
	const rows = 25_000
	b := s.bench(t, cqrs.Column{Name: "id", OID: pgtype.Int8OID, Key: true}, cqrs.Column{Name: "g", OID: pgtype.Int4OID}, cqrs.Column{Name: "pad", OID: pgtype.TextOID})
	pad := strings.Repeat("p", 100)
	for from := 0; from < rows; from += 5000 {
		var events []cqrs.Event
		for i := from; i < from+5000; i++ {
			events = append(events, b.put(base, strconv.Itoa(i), strconv.Itoa(i%7), pad))
		}
		for i, err := range b.Apply(b.ctx, events) {
			if err != nil {
				t.Fatalf("event %d: %v", from+i, err)
			}
		}
	}
	b.visible()
	scan := func(q cqrs.Query) []int {
		t.Helper()
		q.Columns = []string{"id"}
		ids := make([]int, 0, rows)
		if err := b.Scan(b.ctx, q, func(row [][]byte) error {
			id, err := strconv.Atoi(string(row[0]))
			ids = append(ids, id)
			return err
		}); err != nil {
			t.Fatalf("%s: %v", describe(q), err)
		}
		return ids
	}
	ids := scan(cqrs.Query{Limit: -1})
	slices.Sort(ids)
	if len(ids) != rows || len(slices.Compact(ids)) != rows {
		t.Errorf("a full scan gives %d rows, %d different, want %d", len(ids), len(slices.Compact(ids)), rows)
	}
	ids = scan(cqrs.Query{Limit: -1, Order: []cqrs.Order{{Column: "g", Desc: true}, {Column: "id"}}})
	if !slices.IsSortedFunc(ids, func(a, b int) int {
		if a%7 != b%7 {
			return b%7 - a%7
		}
		return a - b
	}) || len(ids) != rows {
		t.Errorf("the sorted scan gives %d rows, or not in order", len(ids))
	}
	ids = scan(cqrs.Query{Limit: 3000, Offset: 20_000, Order: []cqrs.Order{{Column: "id"}}})
	if len(ids) != 3000 || ids[0] != 20_000 || ids[2999] != 22_999 {
		t.Errorf("LIMIT 3000 OFFSET 20000 gives %d rows from %d", len(ids), ids[0])
	}
	for where, want := range map[string]string{"": "25000", "3": "3571"} {
		q := cqrs.Query{Count: true}
		if where != "" {
			q.Where = []cqrs.Predicate{{Column: "g", Op: cqrs.Eq, Values: []string{where}}}
		}
		if got := b.rows(q); got[0] != want {
			t.Errorf("count where g = %q: got %s, want %s", where, got[0], want)
		}
	}
}

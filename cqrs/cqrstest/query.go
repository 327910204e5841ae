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

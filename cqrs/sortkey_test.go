package cqrs

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgtype"
)

// Each list is in PostgreSQL's ascending order, without equal neighbours.
func TestSortKeyOrder(t *testing.T) {
	for name, tc := range map[string]struct {
		oid    uint32
		values []string
	}{
		"int8":    {pgtype.Int8OID, []string{"-9223372036854775808", "-1", "0", "7", "9223372036854775807"}},
		"bool":    {pgtype.BoolOID, []string{"f", "t"}},
		"float8":  {pgtype.Float8OID, []string{"-Infinity", "-1e+308", "-1.5", "-1e-300", "0", "5e-324", "1.5", "1e+20", "Infinity", "NaN"}},
		"float4":  {pgtype.Float4OID, []string{"-Infinity", "-2", "0", "0.1", "0.10000001", "Infinity", "NaN"}},
		"numeric": {pgtype.NumericOID, []string{"-Infinity", "-1e+100", "-100", "-99.5", "-1.23", "-1.2", "-1", "-0.123", "-0.12", "-0.00001", "0", "1e-300", "0.00001", "0.12", "0.123", "1", "1.2", "1.23", "9", "10", "99999999999999999999.000000000001", "99999999999999999999.1", "1e131071", "Infinity", "NaN"}},
		"date":    {pgtype.DateOID, []string{"-infinity", "4713-01-01 BC", "0001-12-31 BC", "0001-01-01", "1999-12-31", "2000-01-01", "2024-02-29", "5874897-12-31", "infinity"}},
		"timestamp": {pgtype.TimestampOID, []string{
			"-infinity", "4713-01-01 00:00:00 BC", "1969-12-31 23:59:59.999999", "1970-01-01", "2024-01-01 00:00:00", "2024-01-01 00:00:00.000001", "2024-01-01T00:00:00.1",
			"294276-12-31 23:59:59.999999", "infinity",
		}},
		"timestamptz": {pgtype.TimestamptzOID, []string{"-infinity", "2024-01-01 02:00:00+05:30", "2023-12-31 20:31:00Z", "2024-01-01 00:00:00+00", "2023-12-31 20:00:00-04:30", "infinity"}},
		"time":        {pgtype.TimeOID, []string{"00:00", "00:00:00.5", "23:59:59.999999", "24:00:00"}},
		"text":        {pgtype.TextOID, []string{"", " ", "A", "B", "a", "aa", "b", "é", "日本", "😀"}},
		"uuid":        {pgtype.UUIDOID, []string{"00000000-0000-0000-0000-000000000000", "0A000000-0000-0000-0000-000000000000", "{ffffffffffffffffffffffffffffffff}"}},
		"bytea":       {pgtype.ByteaOID, []string{`\x`, `\x00`, `\x0001`, `\x01`, `\xFF`}},
	} {
		t.Run(name, func(t *testing.T) {
			c := Column{Name: "c", OID: tc.oid}
			var keys []SortKey
			for _, v := range tc.values {
				k, err := c.SortKey(v)
				if err != nil {
					t.Fatal(err)
				}
				keys = append(keys, k)
			}
			for i := range keys {
				for j := range keys {
					want := cmpInt(i, j)
					if got := keys[i].Compare(keys[j]); got != want {
						t.Errorf("compare %q with %q: got %d, want %d", tc.values[i], tc.values[j], got, want)
					}
				}
			}
		})
	}
}

func cmpInt(a, b int) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func TestSortKeyOfNumericIsArithmetic(t *testing.T) {
	const seed = 7
	r := rand.New(rand.NewPCG(seed, seed))
	c := Column{Name: "n", OID: pgtype.NumericOID}
	for range 5000 {
		// Equal scales, so that integers decide.
		a, b := r.Int64N(2_000_000)-1_000_000, r.Int64N(2_000)-1_000
		ka, err1 := c.SortKey(fmt.Sprintf("%de-4", a))
		kb, err2 := c.SortKey(fmt.Sprintf("%de-4", b))
		if err1 != nil || err2 != nil {
			t.Fatal(err1, err2)
		}
		if got, want := ka.Compare(kb), cmpInt(int(a), int(b)); got != want {
			t.Fatalf("seed %d: compare %de-4 with %de-4: got %d, want %d", seed, a, b, got, want)
		}
	}
}

func TestCanonical(t *testing.T) {
	for _, tc := range []struct {
		oid      uint32
		in, want string
	}{
		{pgtype.Int4OID, " 007", "7"},
		{pgtype.NumericOID, "1.500", "1.5"},
		{pgtype.NumericOID, "-0.0", "0"},
		{pgtype.NumericOID, "12e3", "12000"},
		{pgtype.NumericOID, "0.00120", "0.0012"},
		{pgtype.NumericOID, "nan", "NaN"},
		{pgtype.UUIDOID, "{A0EEBC99-9C0B4EF8-BB6D6BB9BD380A11}", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"},
		{pgtype.BPCharOID, "ab   ", "ab"},
		{pgtype.TextOID, " ab ", " ab "},
		{pgtype.TimestamptzOID, "2024-01-01 01:00:00.50+01", "2024-01-01 00:00:00.5Z"},
		{pgtype.TimestampOID, "2024-01-01", "2024-01-01 00:00:00"},
		{pgtype.DateOID, "2024-02-29", "2024-02-29"},
		{pgtype.DateOID, "infinity", "infinity"},
		{pgtype.DateOID, "0044-03-15 BC", "-746117"},
		{pgtype.BoolOID, "on", "true"},
		{pgtype.Float8OID, "1.50", "1.5"},
		{pgtype.Float8OID, "-2.25e+10", "-2.25e+10"},
	} {
		got, err := Column{Name: "c", OID: tc.oid}.Canonical(tc.in)
		if err != nil || got != tc.want {
			t.Errorf("canonical %q (oid %d): got %q, %v; want %q", tc.in, tc.oid, got, err, tc.want)
		}
	}
}

func TestSortKeyRefuses(t *testing.T) {
	for _, tc := range []struct {
		oid  uint32
		text string
	}{
		{pgtype.Int4OID, "2147483648"},
		{pgtype.Int8OID, "x"},
		{pgtype.BoolOID, "maybe"},
		{pgtype.NumericOID, "1.2.3"},
		{pgtype.NumericOID, ""},
		{pgtype.NumericOID, "1e999999"},
		{pgtype.NumericOID, "0x10"},
		{pgtype.DateOID, "2024-02-30"},
		{pgtype.DateOID, "yesterday"},
		{pgtype.DateOID, "2024-01-01 10:00"},
		{pgtype.TimestampOID, "2024-01-01 25:00"},
		{pgtype.TimestamptzOID, "2024-01-01 10:00 Europe/Berlin"},
		{pgtype.TimeOID, "10"},
		{pgtype.UUIDOID, "12"},
		{pgtype.ByteaOID, "abc"},
		{pgtype.Float8OID, "0x1p-2"},
	} {
		if k, err := (Column{Name: "c", OID: tc.oid}).SortKey(tc.text); err == nil {
			t.Errorf("oid %d accepts %q as %v", tc.oid, tc.text, k)
		}
	}
}

func TestSpans(t *testing.T) {
	whole := Span{-2147483648, 2147483647}
	for _, tc := range []struct {
		op     Compare
		values []string
		want   []Span
	}{
		{Eq, []string{"5"}, []Span{{5, 5}}},
		{Eq, []string{"1.5"}, nil},
		{Eq, []string{"5.0"}, []Span{{5, 5}}},
		{Eq, []string{"3000000000"}, nil},
		{Ne, []string{"3000000000"}, []Span{whole}},
		{Ne, []string{"5"}, []Span{{-2147483648, 4}, {6, 2147483647}}},
		{Lt, []string{"1.5"}, []Span{{-2147483648, 1}}},
		{Le, []string{"-1.5"}, []Span{{-2147483648, -2}}},
		{Gt, []string{"1.5"}, []Span{{2, 2147483647}}},
		{Ge, []string{"-1.5"}, []Span{{-1, 2147483647}}},
		{Ge, []string{"-1e30"}, []Span{whole}},
		{Gt, []string{"1e30"}, nil},
		{Lt, []string{"-2147483648"}, nil},
		{In, []string{"1", "3", "9e99"}, []Span{{1, 1}, {3, 3}}},
	} {
		got, err := Column{Name: "c", OID: pgtype.Int4OID}.Spans(tc.op, tc.values)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(tc.want, got); d != "" {
			t.Errorf("op %d %v: %s", tc.op, tc.values, d)
		}
	}
	if _, err := (Column{Name: "c", OID: pgtype.Int4OID}).Spans(Eq, []string{"x"}); !errors.Is(err, ErrUnsupported) {
		t.Errorf("got %v, want ErrUnsupported", err)
	}
}

func TestRowID(t *testing.T) {
	one := []Column{{Name: "a", OID: pgtype.TextOID, Key: true}, {Name: "b", OID: pgtype.TextOID}}
	two := []Column{{Name: "a", OID: pgtype.TextOID, Key: true}, {Name: "b", OID: pgtype.TextOID, Key: true}}
	id := func(cols []Column, v map[string]string) string {
		got, err := RowID(cols, func(c Column) ([]byte, error) { return []byte(v[c.Name]), nil })
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	seen := map[string]string{}
	for _, v := range []map[string]string{
		{"a": "x|", "b": "y"}, {"a": "x", "b": "|y"}, {"a": `x\`, "b": "|y"}, {"a": `x\|`, "b": "y"}, {"a": "", "b": ""}, {"a": "|", "b": ""},
	} {
		got := id(two, v)
		if other, dup := seen[got]; dup {
			t.Errorf("%v and %s have the same id %q", v, other, got)
		}
		seen[got] = fmt.Sprint(v)
	}
	if got := id(one, map[string]string{"a": "x|y"}); got != "x|y" {
		t.Errorf("a key of one column is its text, got %q", got)
	}
	long := make([]byte, 600)
	for i := range long {
		long[i] = 'k'
	}
	hash := id(one, map[string]string{"a": string(long)})
	if len(hash) > MaxRowID || hash == id(one, map[string]string{"a": hash}) {
		t.Errorf("the id of a long key is %q, which the key of that text must not share", hash)
	}
	if got := id(one, map[string]string{"a": ""}); got == "" {
		t.Error("an empty key has an empty id")
	}
}

func TestLookupIDs(t *testing.T) {
	one := []Column{{Name: "id", OID: pgtype.Int8OID, Key: true}, {Name: "v", OID: pgtype.TextOID}}
	two := []Column{{Name: "a", OID: pgtype.Int8OID, Key: true}, {Name: "b", OID: pgtype.Int8OID, Key: true}}
	for _, tc := range []struct {
		cols  []Column
		where []Predicate
		want  []string
	}{
		{one, []Predicate{{"id", Eq, []string{"007"}}}, []string{"7"}},
		{one, []Predicate{{"v", Eq, []string{"x"}}, {"id", In, []string{"1", "2", "1"}}}, []string{"1", "2"}},
		{one, []Predicate{{"id", Gt, []string{"7"}}}, nil},
		{two, []Predicate{{"b", Eq, []string{"2"}}, {"a", Eq, []string{"1"}}}, []string{"1|2"}},
		{two, []Predicate{{"a", Eq, []string{"1"}}}, nil},
	} {
		got, _ := LookupIDs(tc.cols, tc.where)
		if d := cmp.Diff(tc.want, got); d != "" {
			t.Errorf("%v: %s", tc.where, d)
		}
	}
}

package cqrs

import (
	"testing"

	"github.com/jackc/pgx/v5/pgtype"
)

func TestLookupKey(t *testing.T) {
	id := Column{Name: "id", OID: pgtype.Int8OID, Key: true}
	code := Column{Name: "code", OID: pgtype.TextOID, Key: true}
	price := Column{Name: "price", OID: pgtype.NumericOID, Key: true}
	other := Column{Name: "n", OID: pgtype.Int8OID}
	eq := func(column, value string) Predicate {
		return Predicate{Column: column, Op: Eq, Values: []string{value}}
	}
	for _, tc := range []struct {
		cols  []Column
		where []Predicate
		want  string
	}{
		{[]Column{id, other}, []Predicate{eq("id", "42")}, `{"id":42}`},
		{[]Column{id, other}, []Predicate{eq("n", "1"), eq("id", " 042")}, `{"id":42}`},
		{[]Column{code, other, id}, []Predicate{eq("id", "7"), eq("code", `a"b`)}, `{"code":"a\"b","id":7}`},
		{[]Column{id, code}, []Predicate{eq("id", "7")}, ""},
		{[]Column{id}, []Predicate{{Column: "id", Op: In, Values: []string{"1", "2"}}}, ""},
		{[]Column{id}, []Predicate{{Column: "id", Op: Ge, Values: []string{"1"}}}, ""},
		{[]Column{price}, []Predicate{eq("price", "1.50")}, ""}, // 1.5 and 1.50 are equal, and are two spellings
		{[]Column{other}, []Predicate{eq("n", "1")}, ""},
	} {
		if got := LookupKey(tc.cols, tc.where); got != tc.want {
			t.Errorf("%v: %s, want %s", tc.where, got, tc.want)
		}
	}
}

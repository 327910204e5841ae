package router

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestWords(t *testing.T) {
	for text, want := range map[string][]string{
		"insert into Orders values (1)":                      {"insert", "into", "orders!", "values", "1"},
		`INSERT INTO public."orders"(a)`:                     {"insert", "into", "public!", "orders!", "a"},
		"update only s.t set a = new.id":                     {"update", "only!", "s!", "t!", "set", "a", "new", "id"},
		"delete from t using u":                              {"delete", "from", "t!", "using", "u"},
		"select a from t into b for update of t":             {"select", "a", "from", "t", "into", "b", "for", "update", "of!", "t"},
		"execute 'truncate table ' || t; merge into only x":  {"execute", "truncate", "table!", "t!", "merge", "into", "only!", "x!"},
		"copy t from stdin":                                  {"copy", "t!", "from", "stdin"},
		"select straße, größe from \"Tisch\" -- and nothing": {"select", "straße", "größe", "from", "tisch", "and", "nothing"},
	} {
		var got []string
		words(text, func(word string, written bool) {
			if written {
				word += "!"
			}
			got = append(got, word)
		})
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s: %s", text, d)
		}
	}
}

// What functions use is known through the functions that they name, in circles too.
func TestReadUses(t *testing.T) {
	c := &Catalog{
		Tables:    []Table{{Schema: "public", Name: "Orders"}, {Schema: "public", Name: "notes"}},
		Functions: []Function{{Name: "lower"}, {Name: "A", User: true}, {Name: "b", User: true}, {Name: "c", User: true}, {Name: "idle", User: true}},
	}
	code := [][2]string{{"A", "select b()"}, {"b", "select c(); select from notes"}, {"c", "select a(); delete from orders"}, {"idle", "select lower('X')"}}
	err := c.readUses(func(query string, each func([][]byte) error) error {
		switch query {
		case rulesQuery:
			return nil
		case allCodeQuery:
		case fmt.Sprintf(usingQuery, literals([]string{"A", "b", "c"})):
			return each([][]byte{[]byte("20000"), []byte("b")})
		default:
			return each([][]byte{[]byte("public"), []byte("notes"), []byte("A"), []byte("f")})
		}
		for _, f := range code {
			if err := each([][]byte{[]byte(f[0]), []byte(f[1])}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(map[uint32]string{20000: "b"}, c.Using); d != "" {
		t.Error(d)
	}
	for _, f := range c.Functions {
		slices.Sort(f.Uses)
		want := Function{Name: f.Name, User: f.User}
		if f.User && f.Name != "idle" {
			want.Uses, want.Writes = []string{"notes", "orders"}, []string{"orders"}
		}
		if d := cmp.Diff(want, f); d != "" {
			t.Errorf("%s: %s", f.Name, d)
		}
	}
	if d := cmp.Diff(Table{Schema: "public", Name: "notes", Runs: []string{"a"}}, c.Tables[1]); d != "" {
		t.Error(d)
	}
}

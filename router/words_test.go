package router

import (
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
		"execute 'truncate table ' || t; merge into only x":  {"execute", "truncate", "table?", "t?", "merge", "into", "only!", "x!"},
		"truncate a, s.b; select a, b from c":                {"truncate", "a?", "s?", "b?", "select", "a", "b", "from", "c"},
		"refresh materialized view concurrently m":           {"refresh", "materialized", "view", "concurrently!", "m!"},
		`say 5"; insert into "price-list" select 1`:          {"say", "5", "; insert into ", "insert", "into", "price-list!", "price!", "list", "select", "1"},
		"copy t from stdin":                                  {"copy", "t!", "from", "stdin"},
		"select straße, größe from \"Tisch\" -- and nothing": {"select", "straße", "größe", "from", "tisch", "and", "nothing"},
	} {
		var got []string
		words(fold(text), func(word string, way Way) {
			got = append(got, word+[...]string{"", "!", "?"}[way])
		})
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s: %s", text, d)
		}
	}
}

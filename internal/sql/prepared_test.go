package sql

import "testing"

func TestStatementName(t *testing.T) {
	for _, tc := range []struct{ text, keyword, name, want string }{
		{"execute p", "execute", "p", "p"},
		{"EXECUTE /* x */ P (1)", "execute", "p", "P"},
		{`-- a comment: execute q
		 execute "A ""b"(1, 'x')`, "execute", `A "b`, `"A ""b"`},
		{"explain (analyze, verbose) execute p(1)", "execute", "p", "p"},
		{"create table execute as execute p", "execute", "p", "p"},
		{"deallocate prepare p", "prepare", "p", "p"},
		{"deallocate p", "deallocate", "p", "p"},
		{"prepare p (int) as select 'execute p'", "prepare", "p", "p"},
		{`execute U&"p"`, "execute", "p", ""},
		{"execute", "execute", "p", ""},
		{"select 'execute p'", "execute", "p", ""},
		{"select $$execute p$$ /* execute p", "execute", "p", ""},
	} {
		start, end, ok := StatementName([]byte(tc.text), tc.keyword, tc.name)
		if got := tc.text[start:end]; got != tc.want || ok != (tc.want != "") {
			t.Errorf("%s: %q %v, want %q", tc.text, got, ok, tc.want)
		}
	}
}

func TestSplitPrepare(t *testing.T) {
	for _, tc := range []struct{ text, types, query string }{
		{"prepare p as select 1", "", "select 1"},
		{"prepare p (int, numeric(3, 1)) as /* x */ select $1", "int, numeric(3, 1)", "select $1"},
		{`prepare p(text) AS(select 1)`, "text", "(select 1)"},
		{"prepare p select 1", "", ""},
		{"prepare p (int", "", ""},
		{"prepare p as", "", ""},
	} {
		got, ok := SplitPrepare([]byte(tc.text), len("prepare p"))
		if ok != (tc.query != "") || ok && (got.Types != tc.types || tc.text[got.Query:] != tc.query) {
			t.Errorf("%s: %+v %v", tc.text, got, ok)
		}
	}
}

package sql

import "testing"

func TestConforming(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{`SELECT 'a'`, `SELECT 'a'`},
		{`SELECT 'a\'b'`, `SELECT E'a\'b'`},
		{`SELECT 'a\\', 'b', 'c\n'`, `SELECT E'a\\', 'b', E'c\n'`},
		{`SELECT E'\'', '\''`, `SELECT E'\'', E'\''`},
		{`SELECT'\''`, `SELECT E'\''`},
		{`SELECT N'\''`, `SELECT Nchar E'\''`},
		{"SELECT 'a'\n'\\'b'", "SELECT E'a'\n'\\'b'"},
		{`SELECT "a\", '\t'`, `SELECT "a\", E'\t'`},
		{`SELECT $$\'$$, $x$'\$x$, $1, '\t'`, `SELECT $$\'$$, $x$'\$x$, $1, E'\t'`},
		{"SELECT 1 -- '\\\n, '\\t' /* '\\ /* ' */ */", "SELECT 1 -- '\\\n, E'\\t' /* '\\ /* ' */ */"},
		{`SELECT U&'\0061', u&"\0061", '\t'`, `SELECT U&'\0061', u&"\0061", E'\t'`},
		{`SELECT X'1f', B'01', 1e'\t'`, `SELECT X'1f', B'01', 1e E'\t'`},
		{`SELECT 'a\'`, `SELECT E'a\'`},
		{`SELECT '\'; DROP TABLE t --'`, `SELECT E'\'; DROP TABLE t --'`},
		{`'\''`, `E'\''`},
		{`n'\'', xn'\''`, `nchar E'\'', xn E'\''`},
		{`SELECT E'\`, `SELECT E'\`},
		{`SELECT '\`, `SELECT E'\`},
		{`SELECT "\`, `SELECT "\`},
		{`/* \`, `/* \`},
	} {
		if got := string(Conforming([]byte(c.text))); got != c.want {
			t.Errorf("%s\nbecame %s\nwant   %s", c.text, got, c.want)
		}
	}
}

package sql

import (
	"strings"
	"testing"

	pg "github.com/pganalyze/pg_query_go/v6"
)

// visible writes a shape's placeholders as letters.
func visible(shape []byte) string {
	return strings.NewReplacer("\x01", "<i>", "\x02", "<d>", "\x03", "<s>").Replace(string(shape))
}

func TestScan(t *testing.T) {
	for _, c := range []struct {
		sql, shape string
		values     []string
	}{
		{"", "", nil},
		{" ; ;", "", nil},
		{"SELECT 1", "SELECT <i>", []string{"1"}},
		{"SELECT  1 ,\n\t'a''b' -- no\n, 2.5e-3", "SELECT <i> , <s> , <d>", nil},
		{"select 'a' /* x /* y */ ' */ ,$1", "select <s> ,$1", []string{"a"}},
		{"SELECT E'a\\nb\\'c', e'\\x41\\u00e9\\101'", "SELECT <s>, <s>", []string{"a\nb'c", "AéA"}},
		{"SELECT 'a'\n  'b' -- c\n 'd'", "SELECT <s>", []string{"abd"}},
		{"SELECT 'a' 'b'", "SELECT <s> <s>", []string{"a", "b"}},
		{"SELECT $$a'b$$, $x$a$$b$x$", "SELECT <s>, <s>", []string{"a'b", "a$$b"}},
		{"SELECT a$b$c FROM \"x'y\"\"z\" WHERE d=-1", "SELECT a$b$c FROM \"x'y\"\"z\" WHERE d=-<i>", []string{"1"}},
		{"SELECT 1_000, 0x1F, .5, 1., 1..2", "SELECT <i>, <i>, <d>, <d>, <i>..<i>", []string{"1_000", "0x1F", ".5", "1.", "1", "2"}},
		{"SELECT t.x, a[1:2], b'01', X'1F', 5", "SELECT t.x, a[<i>:<i>], b'01', X'1F', 5", []string{"1", "2"}},
		{"SELECT U&'d!0061' UESCAPE '!', 1", "SELECT U&'d!0061' UESCAPE '!', 1", nil},
		{"SELECT 'a\\'", "SELECT <s>", []string{`a\`}},
		{"SELECT N'x'", "SELECT N<s>", []string{"x"}},
		{"SET x = 'y'; SELECT 1", "SET x = 'y';SELECT <i>", []string{"1"}},
		{"CREATE TABLE t (a varchar(10) DEFAULT 'x')", "CREATE TABLE t (a varchar(10) DEFAULT 'x')", nil},
		{"(SELECT 1) UNION (SELECT 2)", "(SELECT <i>) UNION (SELECT <i>)", []string{"1", "2"}},
		{"SELECT 1;;SELECT '2' ; ", "SELECT <i>;SELECT <s>;", []string{"1", "2"}},
		{"SELECT 3*/*x*/4", "SELECT <i>* <i>", []string{"3", "4"}},
		{"CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2)", "CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2)", nil},
	} {
		var s Scanner
		if !s.Scan([]byte(c.sql)) {
			t.Errorf("%q: not scanned", c.sql)
			continue
		}
		if got := visible(s.Shape); got != c.shape {
			t.Errorf("%q:\n got %q\nwant %q", c.sql, got, c.shape)
		}
		if c.values == nil {
			continue
		}
		var got []string
		for _, l := range s.Literals {
			v, ok := l.Value([]byte(c.sql), nil)
			if !ok {
				t.Errorf("%q: literal at %d has no value", c.sql, l.Start)
			}
			got = append(got, string(v))
		}
		if strings.Join(got, "|") != strings.Join(c.values, "|") {
			t.Errorf("%q: values %q, want %q", c.sql, got, c.values)
		}
	}
}

func TestScanRefuses(t *testing.T) {
	for _, sql := range []string{"SELECT 'a", "SELECT \"a", "SELECT $$a", "SELECT 123abc", "SELECT /* a", "SELECT E'a\\'", "SELECT 0x", "SELECT 1e", "SELECT $1a", "SELECT \x01"} {
		var s Scanner
		if s.Scan([]byte(sql)) {
			t.Errorf("%q: scanned as %q", sql, visible(s.Shape))
		}
	}
}

func TestScanAllocatesNothing(t *testing.T) {
	var s Scanner
	sql := []byte("SELECT id, total FROM orders WHERE customer_id = 1234567 AND state = 'paid' ORDER BY id LIMIT 10")
	s.Scan(sql)
	if n := testing.AllocsPerRun(100, func() { s.Scan(sql) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzScan compares with PostgreSQL's own scanner: wherever that one finds literals, so does ours, and the same ones.
func FuzzScan(f *testing.F) {
	for _, s := range []string{
		"SELECT 1, 'a', 2.5 FROM t WHERE a=-1 -- x", "select e'\\'' 'x'\n'y', $$z$$, $1", "SELECT .5e3, 1..2, a.b, 0x1f, 1_0",
		"SELECT 'a' -- c\n 'b'", "SELECT u&'x' uescape '!'", "select b'1', x'f', n'z'", "SELECT /* /* */ */ 1", "select a$1, $a$ $a$, $1",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, sql string) {
		if strings.ContainsAny(sql, "\x00\x01\x02\x03") {
			t.Skip("bytes that no statement holds")
		}
		sql = "SELECT " + sql
		theirs, err := pg.Scan(sql)
		var s Scanner
		ok := s.Scan([]byte(sql))
		if err != nil || !ok {
			return // a token that one of them refuses: such a statement is parsed, and the parser's word counts
		}
		if len(s.Statements) != 1 || strings.Contains(sql, ";") {
			return
		}
		var want []Literal
		for _, tok := range theirs.Tokens {
			switch tok.Token {
			case pg.Token_ICONST, pg.Token_FCONST, pg.Token_SCONST:
				want = append(want, Literal{Start: tok.Start, End: tok.End})
			case pg.Token_BCONST, pg.Token_XCONST, pg.Token_USCONST, pg.Token_UIDENT:
				return // literals stay from here on
			case pg.Token_SQL_COMMENT:
				return // pg_query's scanner, unlike PostgreSQL's, does not continue a string behind a comment
			}
		}
		if len(want) != len(s.Literals) {
			t.Fatalf("%q: %d literals, PostgreSQL finds %d: %v %v", sql, len(s.Literals), len(want), s.Literals, want)
		}
		for i, l := range s.Literals {
			if l.Start != want[i].Start || l.End != want[i].End {
				t.Fatalf("%q: literal %d at %d-%d, PostgreSQL has it at %d-%d", sql, i, l.Start, l.End, want[i].Start, want[i].End)
			}
		}
	})
}

func BenchmarkScan(b *testing.B) {
	var s Scanner
	sql := []byte("SELECT abalance FROM pgbench_accounts WHERE aid = 1234567;")
	b.ReportAllocs()
	for b.Loop() {
		s.Scan(sql)
	}
}

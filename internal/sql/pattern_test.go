package sql

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// patternOf scans sql and makes a pattern of it.
func patternOf(s *Scanner, sql string) (Pattern, bool) {
	if !s.Scan([]byte(sql)) {
		return Pattern{}, false
	}
	p := s.Pattern(string(s.Shape))
	return p, p.Len() > 0
}

// sameAsScanned fails where a text that matches p would be scanned otherwise.
func sameAsScanned(t *testing.T, p *Pattern, text string) (matches bool) {
	t.Helper()
	var a, b Scanner
	if !a.Matches(p, []byte(text)) {
		return false
	}
	if !b.Scan([]byte(text)) {
		t.Fatalf("%q matches %q, but is malformed", text, visible([]byte(p.shape)))
	}
	if string(b.Shape) != p.shape || !slices.Equal(a.Literals, b.Literals) || !slices.Equal(a.Statements, b.Statements) {
		t.Fatalf("%q matches %q\nas        %v %v\nscanned %q %v %v", text, visible([]byte(p.shape)), a.Literals, a.Statements, visible(b.Shape), b.Literals, b.Statements)
	}
	return true
}

func TestMatches(t *testing.T) {
	for _, c := range []struct {
		of, text string
		want     bool
	}{
		{"SELECT abalance FROM pgbench_accounts WHERE aid = 1;", "SELECT abalance FROM pgbench_accounts WHERE aid = 4711;", true},
		{"SELECT abalance FROM pgbench_accounts WHERE aid = 1;", "SELECT abalance FROM pgbench_accounts WHERE aid = 4711", false},
		{"SELECT abalance FROM pgbench_accounts WHERE aid = 1", "SELECT abalance FROM pgbench_accounts WHERE aid = 4711e1", false},
		{"SELECT abalance FROM pgbench_accounts WHERE aid = 1", "SELECT abalance FROM pgbench_accounts WHERE aid = 4711 ", false},
		{"SELECT abalance FROM pgbench_accounts WHERE aid = 1", "SELECT abalance FROM pgbench_accounts WHERE aid = ", false},
		{"SELECT abalance FROM pgbench_accounts WHERE aid = 1", "SELECT abalance FROM pgbench_accounts WHERE aid = 'a'", false},
		{"SELECT  a /* b */ FROM t", "SELECT a FROM t", true},
		{"INSERT INTO t VALUES (1, 'a', 'b')", "INSERT INTO t VALUES (22, '', 'it is')", true},
		{"INSERT INTO t VALUES (1, 'a', 'b')", "INSERT INTO t VALUES (22, 'it''s', 'x')", false},
		{"INSERT INTO t VALUES (1, 'a')", "INSERT INTO t VALUES (1, 'a\n')", true},
		{"SELECT 'a'::text", "SELECT 'bcd'::text", true},
		{"SELECT E'a'", "SELECT 'b'", true},
		{"SELECT 'a'", "SELECT E'b'", false},
		{"UPDATE t SET a = a + -5 WHERE b = 1", "UPDATE t SET a = a + -77 WHERE b = 22", true},
		{"SELECT 0x1F", "SELECT 10", true},
		{"SELECT 0x1F.a", "SELECT 10.a", false},
		{"SELECT 1.5", "SELECT 1.5", false},
		{"SET a = 'b'", "SET a = 'b'", true},
		{"SET a = 'b'", "SET a = 'c'", false},
		{"SELECT 1; SELECT 2", "SELECT 1; SELECT 2", false},
		{"SELECT \"\x01\", 1", "SELECT \"5\", 1", false},
		{"SELECT \"\x01\"", "SELECT \"5\"", false},
		{"SELECT x'ff', 1", "SELECT x'ff', 1", true},
		{"SELECT x'ff', 1", "SELECT x'ff', 2", false},
	} {
		var s Scanner
		p, ok := patternOf(&s, c.of)
		if got := ok && sameAsScanned(t, &p, c.text); got != c.want {
			t.Errorf("%q, then %q: matches %v, want %v", c.of, c.text, got, c.want)
		}
	}
}

func TestMatchesAllocatesNothing(t *testing.T) {
	var s Scanner
	p, _ := patternOf(&s, "SELECT id FROM orders WHERE customer_id = 1 AND state = 'paid'")
	text := []byte("SELECT id FROM orders WHERE customer_id = 1234567 AND state = 'new'")
	if n := testing.AllocsPerRun(100, func() {
		if !s.Matches(&p, text) {
			t.Fatal("no match")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestMatchesScans puts pieces of SQL together at random, and other literals in their places.
func TestMatchesScans(t *testing.T) {
	pieces := strings.Split(`SELECT ~a~ ~1~22~0x1F~1_0~.5~1.~2e3~'a'~''~'it''s'~E'\''~e'a'~x'f'~b'1'~n'z'~u&'x'~U&"x"~$$z$$~$a$b$a$~$1~"q"~"1"~"'"~,~(~)~=~-~+~*~/~.~..~::~;~--c`+"\n"+`~/*d*/~`+"\n"+`~[~]~|~<~>~%~e~x~u&~_~\~`+"\x01"+`~"`+"\x01"+`"~é`, "~")
	literals := []string{"7", "0", "123", "'b'", "''", "'1'", "'--'", "'/*'", "E'b'", "1.5", "0x2", "'a''b'", "$$c$$"}
	random := rand.New(rand.NewPCG(1, 2))
	matched := 0
	for range 300_000 {
		var b strings.Builder
		b.WriteString([]string{"SELECT ", "insert ", "SET ", ""}[random.IntN(4)])
		for range 1 + random.IntN(7) {
			b.WriteString(pieces[random.IntN(len(pieces))])
		}
		var s Scanner
		p, ok := patternOf(&s, b.String())
		if !ok {
			continue
		}
		for range 3 {
			var other strings.Builder
			for i := range len(p.shape) {
				if c := p.shape[i]; c > stringMark || c == 0 {
					other.WriteByte(c)
				} else {
					other.WriteString(literals[random.IntN(len(literals))])
				}
			}
			if sameAsScanned(t, &p, other.String()) {
				matched++
			}
		}
	}
	if matched < 10_000 {
		t.Errorf("only %d texts matched", matched)
	}
}

// FuzzMatches says of two texts, where the second matches the pattern of the first, that they are scanned alike.
func FuzzMatches(f *testing.F) {
	f.Add("SELECT 1 FROM t WHERE a = 'b'", "SELECT 2 FROM t WHERE a = 'c'")
	f.Add("SELECT 0x1F.a", "SELECT 1.a")
	f.Fuzz(func(t *testing.T, of, text string) {
		var s Scanner
		if p, ok := patternOf(&s, of); ok {
			sameAsScanned(t, &p, text)
			sameAsScanned(t, &p, of)
		}
	})
}

func BenchmarkMatches(b *testing.B) {
	var s Scanner
	for _, n := range []int{1, 6} {
		of := "SELECT id, total FROM orders WHERE customer_id IN (" + strings.Repeat("1, ", n-1) + "1) AND state = 'paid'"
		p, _ := patternOf(&s, of)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				s.Matches(&p, []byte(of))
			}
		})
	}
}

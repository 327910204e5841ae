package sql

import (
	"errors"
	"math/rand"
	"strings"
	"testing"
	"time"
)

// chains nest in every way in which PostgreSQL's grammar lets a tree grow without end.
func chains(n int) map[string]string {
	r := strings.Repeat
	return map[string]string{
		"parentheses": "select " + r("(", n) + "1" + r(")", n), "operators": "select 1" + r("+1", n), "signs": "select " + r("- ", n) + "a",
		"not": "select " + r("not ", n) + "true", "strings": "select 'a'" + r("||'a'", n), "unions": "select 1" + r(" union all select 1", n),
		"unions of lists": "select 1, 2 or 3" + r(" union all select 1, 2 or 3", n), "arrays": "select " + r("array[", n) + "1" + r("]", n),
		"subqueries": r("select (", n) + "1" + r(")", n), "case": "select " + r("case when true then ", n) + "1" + r(" end", n),
		"sums of cases": "select 1" + r(" + case when true then 1 end", n), "functions": "select " + r("abs(", n) + "1" + r(")", n), "casts": "select 1" + r("::int", n),
		"from": "select * from " + r("(select * from ", n) + "t" + r(") x", n), "joins": "select * from t" + r(" join t on true and true", n),
		"with": "select " + r("(with a as (select ", n) + "1" + r(") select 1)", n), "is null": "select 1" + r(" is null", n),
		"collate": "select 'a'" + r(` collate "C"`, n), "between": "select 1" + r(" between 1 and 2 is null", n), "time zones": "select now()" + r(" at time zone 'utc'", n),
		"columns named as keywords": "select a.b" + r(" + a.when", n), "in brackets": "select (" + "a.end" + r(" + a.end", n) + ")",
		"ends": "select " + r("(", n/10) + "a" + r(".end + a", n), "in": "select 1" + r(" in (1)", n), "operator()": "select 1" + r(" operator(pg_catalog.+) 1", n),
		"behind escapes": `select e'\''` + r("||e'\\''", n), "behind comments": "select 1" + r(" /* ' */ -- '\n + 1", n), "behind dollars": "select $a$'$a$" + r("||$a$'$a$", n),
		"comments": "select " + r("/*", n) + r("*/", n) + "1", "comments in a row": "select " + r("/**/", n) + "1", "never closed": "select " + r("/*", n),
		"several statements": r("select 1;", 10) + "select 1" + r("+1", n), "like": "select 'a'" + r(" like 'a'", n), "is distinct": "select 1" + r(" is distinct from 1", n),
	}
}

// No text ends the process, or takes it for long: PostgreSQL's parser would overflow the stack of its thread.
func TestTooComplex(t *testing.T) {
	for name, text := range chains(200_000) {
		var s *Scanner
		if x := (&Scanner{}); x.Scan([]byte(text)) {
			s = x
		}
		start := time.Now()
		_, err := Parse([]byte(text), s)
		var tc *TooComplexError
		var se *SyntaxError
		if !errors.As(err, &tc) && !errors.As(err, &se) {
			t.Errorf("%s: %v after %v", name, err, time.Since(start))
		}
	}
	for name, text := range chains(50) {
		var s Scanner
		if !s.Scan([]byte(text)) {
			continue
		}
		if _, err := Parse([]byte(text), &s); errors.As(err, new(*TooComplexError)) {
			t.Errorf("%s, a few: %v", name, err)
		}
	}
	// Long statements that are not deep.
	r := strings.Repeat
	for name, text := range map[string]string{
		"rows": "insert into t values (1, -1, 'a' || 'b')" + r(", (1, -1, 'a' || 'b')", 20_000), "conditions": "select 1 where a = 1" + r(" or a = 1 and b between 1 and 2", 20_000),
		"a list": "select 1 where a in (1" + r(", -1", 20_000) + ")", "a case": "select case " + r("when a = 1 then -1 ", 20_000) + "end",
		"statements": r("select 1+1 union select 2;", 10_000), "a banner": "/" + r("*", 20_000) + "/ select 1", "a string": "select '" + r("+", 20_000) + "'",
	} {
		if err := tooComplex([]byte(text)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Whatever pieces a text is made of, the parser survives what tooComplex lets through.
func TestTooComplexIsEnough(t *testing.T) {
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewSource(seed))
	pieces := []string{
		"+1", "-a", "::int", " is null", " and a", " or a", ", a", " between 1 and 2", " union select a", " collate \"x\"", " in (a)", "[1]", ".b", " at time zone 'x'",
		" like 'a'", " + case when a then b end", " + (a)", " from t", " join t on a", " then ", " when ", " end", "(", ")", "case ", "/* a */", "--\n", "'a'", "$$a$$", " not a", " + a.and", " as when",
	}
	for range 10 {
		few := make([]string, 1+rnd.Intn(3))
		for i := range few {
			few[i] = pieces[rnd.Intn(len(pieces))]
		}
		text := []byte("select a" + strings.Repeat(strings.Join(few, ""), 150_000/len(few)))
		var s *Scanner
		if x := (&Scanner{}); x.Scan(text) {
			s = x
		}
		_, _ = Parse(text, s) // it returns
	}
}

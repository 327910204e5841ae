package sql

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
)

// A text with long literals has the tree, and the errors, that it has when it is parsed as it is.
func TestShorten(t *testing.T) {
	long := func(s string) string { return "'" + strings.Repeat(s, longLiteral) + "'" }
	for _, tc := range []struct {
		text string
		cuts int
	}{
		{"SELECT " + long("x"), 1},
		{"SELECT 1, " + long("x") + ", a, " + long("it''s ") + " FROM t WHERE b = 'short'; SELECT a + " + long("y") + ", 5 FROM t", 3},
		{"INSERT INTO t (a, b) VALUES (1, " + long("ä") + "), (2, 'b'), (3, " + long("c") + ") RETURNING a", 2},
		{"UPDATE t SET a = " + long("x") + "::json, b = CAST(" + long("y") + " AS text) WHERE k = 7 /* " + strings.Repeat("z", 100) + " */", 2},
		{"SELECT " + long("\xe9") + ", '\xe9', \xe9 FROM t", 1}, // no UTF-8
		{"SELECT N" + long("x") + ", date " + long("y") + ", interval " + long("z") + " day", 3},
		{"SELECT set_config('a.b', " + long("x") + ", false)", 1},
		{"WITH d AS (SELECT " + long("x") + " AS a) SELECT * FROM d ORDER BY " + long("y"), 2},
		{"SELECT E" + long(`\x41`) + ", $$" + long("x") + "$$, B" + long("1"), 0},
		{"SELECT " + long("a") + "\n" + long("b"), 0}, // one literal of two segments
		{"SELECT 'ä', " + long("ä") + ", FROM t", 1},  // errors
		{"SELECT a FROM t WHERE " + long("ä") + " " + long("x") + " b", 2},
		{"SELECT " + long("x") + " FROM", 1},
		{"SELECT 'é\xe9', " + long("\xe9") + ", FROM t", 1},
	} {
		var s Scanner
		if !s.Scan([]byte(tc.text)) {
			t.Fatalf("%.100q cannot be scanned", tc.text)
		}
		what := fmt.Sprintf("%.60q … %q", tc.text, tc.text[max(0, len(tc.text)-60):])
		short := shorten([]byte(tc.text), s.Literals)
		if short == nil || tc.cuts == 0 {
			if short != nil || tc.cuts > 0 {
				t.Errorf("%s: want %d marks", what, tc.cuts)
			}
			continue
		}
		if len(short.cuts) != tc.cuts || len(short.text) >= longLiteral {
			t.Errorf("%s: %d marks, %d bytes", what, len(short.cuts), len(short.text))
		}
		want, wantErr := parse([]byte(tc.text))
		got, err := parse(short.text)
		if wantErr != nil {
			var w, e *SyntaxError
			if !errors.As(wantErr, &w) {
				t.Fatalf("%s: %v", what, wantErr)
			}
			_, err := Parse([]byte(tc.text), &s)
			if !errors.As(err, &e) || *e != *w {
				t.Errorf("%s: %.200v, want %.200v", what, err, w)
			}
			continue
		}
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if !short.restore(got) || !proto.Equal(got, want) {
			t.Errorf("%s: another tree:\n%.2000v\nwant\n%.2000v", what, got, want)
		}
	}
}

// Where a literal does not come out of the parser as it is, the text is parsed as it is.
func TestShortenGivesUp(t *testing.T) {
	text := "SELECT U&" + "'" + strings.Repeat("x", longLiteral) + "'"
	s := &shortened{whole: []byte(text), cuts: []cut{{mark: nonce + "-0-" + nonce}}}
	tree, err := parse([]byte("SELECT 'a" + s.cuts[0].mark + "'"))
	if err != nil {
		t.Fatal(err)
	}
	if s.restore(tree) {
		t.Error("a mark within a literal passes")
	}
	if tree, err = parse([]byte("SELECT 1")); err != nil {
		t.Fatal(err)
	}
	s.bad = false
	if s.restore(tree) {
		t.Error("a mark that is lost passes")
	}
}

func TestScannerLimit(t *testing.T) {
	s := Scanner{Limit: 1000}
	if !s.Scan([]byte(strings.Repeat("select 1;", 100_000))) {
		t.Fatal("cannot be scanned")
	}
	if len(s.Shape) <= 1000 || len(s.Shape) > 1100 || len(s.Statements) > 200 {
		t.Errorf("%d bytes, %d statements", len(s.Shape), len(s.Statements))
	}
}

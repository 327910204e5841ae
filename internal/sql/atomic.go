package sql

import "strings"

// AtomicBody says whether the text is one CREATE FUNCTION or PROCEDURE whose body is SQL, BEGIN ATOMIC ... END, and nothing else: the
// semicolons in it end no statement. The scanner does not know that, and the parser only of what it can parse. psql counts in the same
// way (psqlscan.l).
func AtomicBody(text []byte) bool {
	if !strings.EqualFold(FirstWord(text), "create") {
		return false
	}
	depth, parens, ended, words := 0, 0, false, 0
	last, routine := "", false
	for i := 0; ; {
		start, end, kind := token(text, i)
		if kind == tokenNone {
			return ended
		}
		i = end
		if ended {
			if string(text[start:end]) != ";" {
				return false
			}
			continue
		}
		word := ""
		switch {
		case kind == tokenWord:
			word = strings.ToLower(string(text[start:end]))
			words++
		case text[start] == '(':
			parens++
		case text[start] == ')':
			parens--
		case text[start] == ';' && depth == 0:
			return false
		}
		switch {
		case word == "function" || word == "procedure":
			routine = routine || words <= 4 // CREATE OR REPLACE FUNCTION
		case depth == 0 && word == "atomic" && last == "begin" && routine && parens == 0, depth > 0 && word == "case":
			depth++
		case depth > 0 && word == "end":
			depth--
			ended = depth == 0
		}
		last = word
	}
}

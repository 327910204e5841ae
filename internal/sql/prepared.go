package sql

import (
	"strings"
)

// Where SQL's PREPARE, EXECUTE and DEALLOCATE have the name and the parts of a statement. The syntax tree has no positions
// for them, and a proxy that gives statements names of its own must put those in their place.

// PreparedParts are the parts of a PREPARE, by their bytes in its text.
type PreparedParts struct {
	Types   string // between the parentheses behind the name; empty without any
	TypesAt int    // where they begin
	Query   int    // where the statement begins that is prepared; it goes on to the end
}

// StatementName finds the name of the prepared statement that a PREPARE, EXECUTE or DEALLOCATE is about, also inside EXPLAIN
// and CREATE TABLE AS: text[start:end], quotes included. keyword is the word before it, in lower case; name is what the
// parser has read. ok is false when the name is written in a way that is not followed: U&"...".
func StatementName(text []byte, keyword, name string) (start, end int, ok bool) {
	behind := false
	for i := 0; ; {
		from, to, kind := token(text, i)
		if kind == tokenNone {
			return 0, 0, false
		}
		if behind && kind != tokenOther && folded(text[from:to], kind, name) {
			return from, to, true
		}
		behind = kind == tokenWord && strings.EqualFold(string(text[from:to]), keyword)
		i = to
	}
}

// FirstWord is the word that a statement begins with, in lower case; empty when it begins with something else.
func FirstWord(text []byte) string {
	from, to, kind := token(text, 0)
	if kind != tokenWord {
		return ""
	}
	return Lower(string(text[from:to]))
}

// SplitPrepare finds the parts of a PREPARE whose name ends at nameEnd.
func SplitPrepare(text []byte, nameEnd int) (p PreparedParts, ok bool) {
	from, to, kind := token(text, nameEnd)
	if kind == tokenOther && text[from] == '(' {
		open, depth := to, 1
		for depth > 0 {
			from, to, kind = token(text, to)
			switch {
			case kind == tokenNone:
				return p, false
			case kind == tokenOther && text[from] == '(':
				depth++
			case kind == tokenOther && text[from] == ')':
				depth--
			}
		}
		p.Types = strings.TrimSpace(string(text[open:from]))
		p.TypesAt = open + strings.Index(string(text[open:from]), p.Types)
		from, to, kind = token(text, to)
	}
	if kind != tokenWord || !strings.EqualFold(string(text[from:to]), "as") {
		return p, false
	}
	p.Query, _, kind = token(text, to)
	return p, kind != tokenNone
}

type tokenKind uint8

const (
	tokenNone   tokenKind = iota // the end of the text, or something malformed
	tokenWord                    // a key word or a plain identifier
	tokenQuoted                  // an identifier in quotes
	tokenOther                   // a string, a number, or one character of anything else
)

// token finds the next token from i on.
func token(text []byte, i int) (start, end int, kind tokenKind) {
	for i < len(text) {
		c := text[i]
		switch k := class[c]; {
		case k == cSpace:
			i++
		case c == '-' && i+1 < len(text) && text[i+1] == '-':
			i = lineEnd(text, i)
		case c == '/' && i+1 < len(text) && text[i+1] == '*':
			if i = blockEnd(text, i); i < 0 {
				return 0, 0, tokenNone
			}
		case k == cWord:
			end := i + 1
			for end < len(text) && inWord[text[end]] {
				end++
			}
			if end < len(text) && text[end] == '\'' && end == i+1 {
				end, _ = quoted(text, end, c|0x20 == 'e')
				return i, end, other(end)
			}
			return i, end, tokenWord
		case c == '"':
			end := identEnd(text, i)
			if end < 0 {
				return 0, 0, tokenNone
			}
			return i, end, tokenQuoted
		case c == '\'':
			end, _ := quoted(text, i, false)
			return i, end, other(end)
		case c == '$':
			if end := dollarEnd(text, i); end > 0 {
				return i, end, tokenOther
			}
			return i, i + 1, tokenOther
		default:
			return i, i + 1, tokenOther
		}
	}
	return 0, 0, tokenNone
}

func other(end int) tokenKind {
	if end < 0 {
		return tokenNone
	}
	return tokenOther
}

// maxName is how much of an identifier PostgreSQL keeps (NAMEDATALEN - 1), in bytes.
const maxName = 63

// folded says whether an identifier as it is written means the name.
func folded(ident []byte, kind tokenKind, name string) bool {
	s := string(ident)
	if kind == tokenQuoted {
		s = strings.ReplaceAll(s[1:len(s)-1], `""`, `"`)
	} else {
		s = Lower(s)
	}
	return s == name || len(s) > maxName && len(name) > maxName-4 && strings.HasPrefix(s, name) // cut at a character
}

// Lower folds the letters of ASCII and no others, whatever the encoding.
func Lower(s string) string {
	for i := range len(s) {
		if s[i] < 'A' || s[i] > 'Z' {
			continue
		}
		b := []byte(s)
		for ; i < len(b); i++ {
			if b[i] >= 'A' && b[i] <= 'Z' {
				b[i] += 'a' - 'A'
			}
		}
		return string(b)
	}
	return s
}

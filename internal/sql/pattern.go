package sql

import (
	"bytes"
	"strings"
)

// Pattern is the shape of one statement, made ready to recognise texts that are written like it byte for byte, but for their literals.
// Clients send such texts again and again, and to compare them takes a twentieth of what it takes to scan them.
type Pattern struct {
	shape string  // empty: nothing matches
	marks []int32 // where literals stand in it
}

// Pattern is that of the text that was scanned last, whose shape is given as a string that stays. It matches nothing where what a text
// means is not obvious from its bytes: several statements, literals that stand by others.
func (s *Scanner) Pattern(shape string) Pattern {
	if len(s.Statements) != 1 || shape == "" || s.depth != 0 { // where parentheses do not match a semicolon may not end it
		return Pattern{}
	}
	marks := make([]int32, 0, len(s.Literals))
	for i := range len(shape) {
		c := shape[i]
		switch {
		case c == 0 || c > stringMark:
			continue
		case c == decimalMark || i > 0 && !apart(shape[i-1]) || i+1 < len(shape) && !apart(shape[i+1]):
			return Pattern{}
		}
		marks = append(marks, int32(i))
	}
	if len(marks) != len(s.Literals) { // one stands in a quoted name
		return Pattern{}
	}
	return Pattern{shape, marks}
}

// Len is the length of the shape in bytes; 0: nothing matches.
func (p *Pattern) Len() int { return len(p.shape) }

// Size is about what it takes in memory beside the shape, in bytes.
func (p *Pattern) Size() int { return 4 * cap(p.marks) }

// apart says whether a literal of whatever value stays one beside c. A shape has no comments, so that -- and /* are not in it.
func apart(c byte) bool {
	switch class[c] {
	case cSpace, cOpen, cClose, cSemicolon:
		return true
	}
	return strings.IndexByte(",=<>+-*/|%:[]", c) >= 0
}

// Matches says whether Scan would find the pattern's shape in text. Literals and Statements are then as it would leave them; Shape is not.
func (s *Scanner) Matches(p *Pattern, text []byte) bool {
	if p.shape == "" {
		return false
	}
	at, from := 0, 0 // in text, in the shape
	lits := s.Literals[:0]
	for _, mark := range p.marks {
		n := int(mark) - from
		if len(text)-at <= n || string(text[at:at+n]) != p.shape[from:mark] {
			return false
		}
		at += n
		l := Literal{Start: int32(at)}
		if p.shape[mark] == integerMark {
			for at < len(text) && text[at]-'0' < 10 {
				at++
			}
			if at == int(l.Start) {
				return false
			}
		} else {
			if text[at] != '\'' {
				return false
			}
			end := bytes.IndexByte(text[at+1:], '\'')
			if end < 0 {
				return false
			}
			l.Kind = String
			at += end + 2
		}
		l.End = int32(at)
		lits = append(lits, l)
		from = int(mark) + 1
	}
	if string(text[at:]) != p.shape[from:] {
		return false
	}
	end := len(text)
	if text[end-1] == ';' {
		end--
	}
	s.Literals = lits
	s.Statements = append(s.Statements[:0], Span{0, end, 0, len(lits)})
	return true
}

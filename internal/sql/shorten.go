package sql

import (
	"crypto/rand"
	"fmt"
	"strings"
	"unicode/utf8"

	pg "github.com/pganalyze/pg_query_go/v6"
)

// The parser keeps some six copies of a literal, two of them for as long as the tree lives, and a literal may have many megabytes. So
// a long one is parsed as a mark that stands for it, and the tree, the places in it and errors are put right afterwards: they are what
// they would have been. Where that cannot be, for a mark has not come out of the parser whole, the text is parsed as it is.

// longLiteral is the length in bytes from which a literal is parsed as a mark.
const longLiteral = 16 << 10

// nonce makes marks that no text has by accident, or by guessing.
var nonce = rand.Text()

// shortened is a text with marks in place of long literals.
type shortened struct {
	whole []byte // the client's text
	text  []byte // what is parsed
	cuts  []cut
	bad   bool // a mark was found within something else
}

// cut is one of the literals.
type cut struct {
	mark     string
	at       int // where the mark stands in the parsed text
	from, to int // what it stands for in the client's, without the quotes
	found    bool
}

// shorten puts marks in the place of long literals; nil when there is none.
func shorten(text []byte, lits []Literal) *shortened {
	var s *shortened
	last := 0
	for _, l := range lits {
		if l.Kind != String || l.Continued || l.End-l.Start < longLiteral {
			continue
		}
		if s == nil {
			s = &shortened{whole: text}
		}
		from, to := int(l.Start)+1, int(l.End)-1
		s.text = append(s.text, text[last:from]...)
		mark := fmt.Sprintf("%s-%d-%s", nonce, len(s.cuts), nonce)
		s.cuts = append(s.cuts, cut{mark: mark, at: len(s.text), from: from, to: to})
		s.text = append(s.text, mark...)
		last = to
	}
	if s != nil {
		s.text = append(s.text, text[last:]...)
	}
	return s
}

// offset is where in the client's text a byte of the parsed one stands.
func (s *shortened) offset(at int) int {
	for i := len(s.cuts) - 1; i >= 0; i-- {
		if c := &s.cuts[i]; at >= c.at+len(c.mark) {
			return at - (c.at + len(c.mark)) + c.to
		} else if at > c.at { // within a mark
			return c.from
		}
	}
	return at
}

// position is an error's, in characters from 1.
func (s *shortened) position(at int) int {
	if at <= 0 {
		return at
	}
	b := 0 // the byte of that character in the parsed text
	for ; at > 1 && b < len(s.text); at-- {
		_, size := utf8.DecodeRune(s.text[b:])
		b += size
	}
	return Characters(s.whole, s.offset(b))
}

// value is the string that a literal means.
func (s *shortened) value(c *cut) string {
	return strings.ReplaceAll(string(s.whole[c.from:c.to]), "''", "'")
}

// restore puts the tree right. It says whether that could be done.
func (s *shortened) restore(tree *pg.ParseResult) bool {
	r := reworded{s.word, s.offset}
	r.tree(tree)
	for i := range s.cuts {
		s.bad = s.bad || !s.cuts[i].found
	}
	return !s.bad
}

// word gives the literal for a mark. A mark within something else ends it all.
func (s *shortened) word(str string) (literal string, goOn bool) {
	if !strings.Contains(str, nonce) {
		return str, true
	}
	for i := range s.cuts {
		if c := &s.cuts[i]; str == c.mark {
			c.found = true
			return s.value(c), true
		}
	}
	s.bad = true
	return str, false
}

// message is an error's, which may have quoted a literal.
func (s *shortened) message(text string) string {
	if strings.Contains(text, nonce) {
		for i := range s.cuts {
			c := &s.cuts[i]
			text = strings.ReplaceAll(text, c.mark, string(s.whole[c.from:c.to]))
		}
	}
	return text
}

package sql

import (
	"strings"
	"unicode/utf8"

	pg "github.com/pganalyze/pg_query_go/v6"
)

// The parser takes UTF-8 alone, and clients may speak other encodings. In all that are let in (see router.NewSession) each byte of a
// character outside of ASCII has its high bit set, so none of them means anything to SQL: whatever they are, they are letters. Text
// that is not UTF-8 is parsed with two bytes for each of them, of U+0080 to U+00FF, and the tree is put back to the client's own bytes.
// Whether they are characters at all the server says.

// widened is such a text.
type widened struct {
	text  string
	bytes []int // offsets in text of the bytes that became two
}

func widen(text []byte) *widened {
	w := &widened{}
	var b strings.Builder
	for _, c := range text {
		if c >= utf8.RuneSelf {
			w.bytes = append(w.bytes, b.Len())
		}
		b.WriteRune(rune(c))
	}
	w.text = b.String()
	return w
}

// offset is where in the client's text a byte of the parsed one stands.
func (w *widened) offset(at int) int {
	n := 0
	for lo, hi := 0, len(w.bytes); lo < hi; { // how many stand before it
		mid := (lo + hi) / 2
		if w.bytes[mid] < at {
			lo, n = mid+1, mid+1
		} else {
			hi = mid
		}
	}
	return at - n
}

func (w *widened) narrow(tree *pg.ParseResult) {
	r := reworded{func(s string) (string, bool) { return bytesOf(s), true }, w.offset}
	r.tree(tree)
}

// bytesOf takes back what widen did to a part of the text.
func bytesOf(s string) string {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			b := make([]byte, 0, len(s))
			for _, r := range s {
				b = append(b, byte(r))
			}
			return string(b)
		}
	}
	return s
}

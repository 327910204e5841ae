package sql

// Scanner turns a query string into its shape: the text with literals replaced by placeholders, and comments and blanks
// by single spaces. Two strings of one shape parse alike. It follows the lexical rules of PostgreSQL's scan.l, with
// standard_conforming_strings on. A Scanner is reused: results are valid until the next Scan.
//
// Literals are replaced only in statements whose meaning does not hang on them (SELECT, INSERT, UPDATE, DELETE, ...);
// in all others (DDL, SET, COPY, ...) they stay. Where a SELECT's meaning hangs on a literal after all (ORDER BY 1),
// its Facts say so, see Facts.Structural.
type Scanner struct {
	Shape      []byte
	Literals   []Literal
	Statements []Span

	// Limit is the length in bytes of a shape from which nobody wants to know the rest: Scan ends there, and says nothing of what
	// follows. 0: there is none.
	Limit int

	hide bool // replace literals in all statements, see Redact

	// Of the statement that is being read:
	start int  // its first byte
	run   int  // what lies behind belongs to the shape as it is, and was not copied yet
	first int  // its first literal
	keep  bool // whether its literals stay
	known bool // ... which its first word decides
	depth int  // of parentheses, of the whole text
	junk  Span // a parameter with letters behind it, $1a, for which Scan has returned false; empty: there was none
}

// Span is one statement of a query string.
type Span struct {
	Start, End   int // bytes of the text, without blanks around and the semicolon
	First, After int // its literals: Literals[First:After]
}

// Literal is a literal's place in the text.
type Literal struct {
	Start, End int32 // quotes included
	Kind       LiteralKind
	Continued  bool // 'a' newline 'b': segments that PostgreSQL joins
}

// LiteralKind says how a literal is written.
type LiteralKind uint8

// The kinds of literals.
const (
	Integer LiteralKind = iota // also 0x1F, 1_000
	Decimal                    // with a point or an exponent
	String                     // 'a''b'
	Escape                     // E'a\nb'
	Dollar                     // $tag$a$tag$
)

// Placeholders in shapes. None of these bytes is valid in SQL outside of quotes.
const (
	integerMark = 0x01
	decimalMark = 0x02
	stringMark  = 0x03
)

// classes of bytes
const (
	cOther = iota
	cSpace
	cWord
	cDigit
	cSingle
	cDouble
	cDollar
	cMinus
	cSlash
	cDot
	cSemicolon
	cOpen
	cClose
	cMark // bytes that could be mistaken for placeholders
)

var class = func() (t [256]uint8) {
	for _, c := range []byte(" \t\n\r\f\v") {
		t[c] = cSpace
	}
	for c := 'a'; c <= 'z'; c++ {
		t[c], t[c-32] = cWord, cWord
	}
	t['_'] = cWord
	for c := 0x80; c <= 0xff; c++ {
		t[c] = cWord
	}
	for c := '0'; c <= '9'; c++ {
		t[c] = cDigit
	}
	t['\''], t['"'], t['$'], t['-'], t['/'], t['.'], t[';'], t['('], t[')'] = cSingle, cDouble, cDollar, cMinus, cSlash, cDot, cSemicolon, cOpen, cClose
	t['['], t[']'] = cOther, cOther
	for _, c := range []byte{0, integerMark, decimalMark, stringMark} {
		t[c] = cMark
	}
	return t
}()

// inWord are the bytes that a word goes on with.
var inWord = func() (t [256]bool) {
	for c, k := range class {
		t[c] = k == cWord || k == cDigit || k == cDollar
	}
	return t
}()

// none is the end of the last token of a statement that has none.
const none = -2

// Scan reads a query string of any number of statements. It returns false when a token is malformed (an unterminated
// quote, 123abc): the parser then has the error message.
func (s *Scanner) Scan(text []byte) bool {
	s.Shape, s.Literals, s.Statements, s.depth = s.Shape[:0], s.Literals[:0], s.Statements[:0], 0
	s.junk = Span{}
	s.begin()
	end := none // of the last token
	for i := 0; i < len(text); {
		k := class[text[i]]
		switch k {
		case cSpace:
			i++
			continue
		case cMinus, cSlash:
			next := commentEnd(text, i)
			if next < 0 {
				return false
			}
			if next > i {
				i = next
				continue
			}
		case cSemicolon:
			if s.depth == 0 {
				if s.finish(text, end) {
					s.Shape = append(s.Shape, ';')
				}
				s.begin()
				end = none
				i++
				continue
			}
		}
		if i != end && (i != end+1 || text[end] != ' ') {
			s.gap(text, i, end)
		}
		switch {
		case k != cWord:
			i = s.token(text, i, k)
		case s.known && (i+1 == len(text) || text[i+1] != '\'' && text[i+1] != '&'):
			i = wordEnd(text, i)
		default:
			i = s.word(text, i)
		}
		if i < 0 {
			return false
		}
		if end = i; s.Limit > 0 && len(s.Shape)+end-s.run > s.Limit {
			break
		}
	}
	s.finish(text, end)
	return true
}

func (s *Scanner) begin() {
	s.first, s.keep, s.known = len(s.Literals), !s.hide, false
}

// finish ends the statement that is being read, if there is one.
func (s *Scanner) finish(text []byte, end int) bool {
	if end < 0 {
		return false
	}
	s.Statements = append(s.Statements, Span{s.start, end, s.first, len(s.Literals)})
	s.Shape = append(s.Shape, text[s.run:end]...)
	return true
}

// gap begins a statement, or takes note of blanks and comments that are not just a space.
func (s *Scanner) gap(text []byte, i, end int) {
	if end < 0 {
		s.start = i
	} else {
		s.Shape = append(append(s.Shape, text[s.run:end]...), ' ')
	}
	s.run = i
}

// literal puts a mark in place of text[from:to] if literals are replaced.
func (s *Scanner) literal(text []byte, from, to int, mark byte, l Literal) {
	if s.keep || to < 0 {
		return
	}
	l.Start, l.End = int32(from), int32(to)
	s.Literals = append(s.Literals, l)
	s.Shape = append(append(s.Shape, text[s.run:from]...), mark)
	s.run = to
}

// word is behind the word at i, or behind the string or identifier that it is the prefix of; -1 when that does not end.
func (s *Scanner) word(text []byte, i int) int {
	from := i
	if i+1 < len(text) && text[i+1] == '\'' {
		continued := false
		switch text[i] | 0x20 {
		case 'e':
			i, continued = quoted(text, i+1, true)
			s.literal(text, from, i, stringMark, Literal{Kind: Escape, Continued: continued})
			return i
		case 'b', 'x':
			i, _ = quoted(text, i+1, false)
			if s.keep = !s.hide; s.hide { // rare; a bit string goes on after a newline as strings do
				s.literal(text, from, i, stringMark, Literal{})
			}
			return i
		}
	}
	if text[i]|0x20 == 'u' && i+2 < len(text) && text[i+1] == '&' && (text[i+2] == '\'' || text[i+2] == '"') {
		s.keep, s.known = !s.hide, true // UESCAPE may follow, which decides what the rest means
		if text[i+2] == '"' {
			return identEnd(text, i+2)
		}
		i, _ = quoted(text, i+2, false)
		s.literal(text, from, i, stringMark, Literal{})
		return i
	}
	i = wordEnd(text, i)
	if !s.known {
		s.keep, s.known = !s.hide && !replaces(text[from:i]), true
	}
	return i
}

// token is behind the token at i, which is of class k and no word; -1 when it is malformed.
func (s *Scanner) token(text []byte, i int, k uint8) int {
	from := i
	switch k {
	case cSingle:
		i, continued := quoted(text, i, false)
		s.literal(text, from, i, stringMark, Literal{Kind: String, Continued: continued})
		return i
	case cDouble:
		return identEnd(text, i)
	case cDigit:
		i, kind := number(text, i)
		s.literal(text, from, i, integerMark+byte(kind), Literal{Kind: kind})
		return i
	case cDot:
		switch {
		case i+1 == len(text):
		case class[text[i+1]] == cDigit:
			i, kind := number(text, i)
			s.literal(text, from, i, decimalMark, Literal{Kind: kind})
			return i
		case text[i+1] == '.':
			return i + 2 // 1..2 is a number, a range and a number
		}
	case cDollar:
		if i+1 < len(text) && class[text[i+1]] == cDigit {
			for i++; i < len(text) && class[text[i]] == cDigit; i++ {
			}
			if i < len(text) && class[text[i]] == cWord {
				s.junk = Span{Start: from, End: wordEnd(text, i)}
				return -1
			}
			return i
		}
		i = dollarEnd(text, i)
		s.literal(text, from, i, stringMark, Literal{Kind: Dollar})
		return i
	case cOpen:
		s.depth++
	case cClose:
		s.depth--
	case cMark:
		return -1
	}
	return i + 1
}

// replaces says whether a statement that begins with this word can be known by its shape.
func replaces(word []byte) bool {
	var low [8]byte
	if len(word) < 4 || len(word) > len(low) {
		return false
	}
	for i, c := range word {
		low[i] = c | 0x20
	}
	switch string(low[:len(word)]) {
	case "select", "insert", "update", "delete", "with", "values", "merge", "explain", "execute", "call":
		return true
	}
	return false
}

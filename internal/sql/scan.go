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

func wordByte(c byte) bool { k := class[c]; return k == cWord || k == cDigit || c == '$' }

// Scan reads a query string of any number of statements. It returns false when a token is malformed (an unterminated
// quote, 123abc): the parser then has the error message.
func (s *Scanner) Scan(text []byte) bool {
	shape, lits := s.Shape[:0], s.Literals[:0]
	s.Statements = s.Statements[:0]
	start, end, first := -1, 0, 0 // the statement that is being read
	keep, known := !s.hide, false // whether its literals stay; decided by its first word
	depth := 0
	blank := false
	limit := s.Limit
	if limit == 0 {
		limit = len(text) + 1
	}
	n := len(text)
	i := 0
	for i < n {
		c := text[i]
		from := i
		k := class[c]
		if len(shape) > limit {
			break
		}
		if k == cSpace {
			blank = true
			i++
			continue
		}
		if k == cMinus && i+1 < n && text[i+1] == '-' {
			i = lineEnd(text, i)
			blank = true
			continue
		}
		if k == cSlash && i+1 < n && text[i+1] == '*' {
			if i = blockEnd(text, i); i < 0 {
				return false
			}
			blank = true
			continue
		}
		if k == cSemicolon && depth == 0 {
			if start >= 0 {
				s.Statements = append(s.Statements, Span{start, end, first, len(lits)})
				shape = append(shape, ';')
			}
			start, first = -1, len(lits)
			keep, known, blank = !s.hide, false, false
			i++
			continue
		}
		if start < 0 {
			start = i
			blank = false
		}
		if blank {
			shape = append(shape, ' ')
			blank = false
		}
		mark := byte(0)
		kind := Integer
		continued := false
		switch k {
		case cWord:
			if i+1 < n && text[i+1] == '\'' {
				switch c | 0x20 {
				case 'e':
					if i, continued = quoted(text, i+1, true); i < 0 {
						return false
					}
					mark, kind = stringMark, Escape
				case 'b', 'x':
					if i, _ = quoted(text, i+1, false); i < 0 {
						return false
					}
					keep = !s.hide // rare; a bit string goes on after a newline as strings do
					if s.hide {
						mark = stringMark
					}
				}
			} else if c|0x20 == 'u' && i+2 < n && text[i+1] == '&' && (text[i+2] == '\'' || text[i+2] == '"') {
				if text[i+2] == '"' {
					i = identEnd(text, i+2)
				} else {
					i, _ = quoted(text, i+2, false)
				}
				if i < 0 {
					return false
				}
				if text[from+2] == '\'' && s.hide {
					mark = stringMark
				}
				keep, known = !s.hide, true // UESCAPE may follow, which decides what the rest means
			}
			if i == from {
				i++
				for i < n && wordByte(text[i]) {
					i++
				}
				if !known {
					keep, known = !s.hide && !replaces(text[from:i]), true
				}
			}
		case cSingle:
			if i, continued = quoted(text, i, false); i < 0 {
				return false
			}
			mark, kind = stringMark, String
		case cDouble:
			if i = identEnd(text, i); i < 0 {
				return false
			}
		case cDigit:
			if i, kind = number(text, i); i < 0 {
				return false
			}
			mark = integerMark + byte(kind)
		case cDot:
			if i+1 < n && class[text[i+1]] == cDigit {
				if i, kind = number(text, i); i < 0 {
					return false
				}
				mark = decimalMark
			} else if i+1 < n && text[i+1] == '.' {
				i += 2 // 1..2 is a number, a range and a number
			} else {
				i++
			}
		case cDollar:
			if i+1 < n && class[text[i+1]] == cDigit {
				i++
				for i < n && class[text[i]] == cDigit {
					i++
				}
				if i < n && class[text[i]] == cWord {
					return false
				}
			} else if i = dollarEnd(text, i); i < 0 {
				return false
			} else {
				mark, kind = stringMark, Dollar
			}
		case cOpen:
			depth++
			i++
		case cClose:
			depth--
			i++
		case cMark:
			return false
		default:
			i++
		}
		end = i
		if mark != 0 && !keep {
			lits = append(lits, Literal{int32(from), int32(i), kind, continued})
			shape = append(shape, mark)
		} else if i == from+1 {
			shape = append(shape, c)
		} else {
			shape = append(shape, text[from:i]...)
		}
	}
	if start >= 0 {
		s.Statements = append(s.Statements, Span{start, end, first, len(lits)})
	}
	s.Shape, s.Literals = shape, lits
	return true
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

func lineEnd(text []byte, i int) int {
	for i < len(text) && text[i] != '\n' && text[i] != '\r' {
		i++
	}
	return i
}

// blockEnd is behind a comment, which may hold others; -1 when it does not end.
func blockEnd(text []byte, i int) int {
	depth := 0
	for i+1 < len(text) {
		switch {
		case text[i] == '/' && text[i+1] == '*':
			depth++
			i += 2
		case text[i] == '*' && text[i+1] == '/':
			depth--
			i += 2
			if depth == 0 {
				return i
			}
		default:
			i++
		}
	}
	return -1
}

// quoted is behind a string whose opening quote is at i, and behind the segments that continue it.
func quoted(text []byte, i int, escapes bool) (end int, continued bool) {
	n := len(text)
	i++
	for i < n {
		switch c := text[i]; {
		case c == '\\' && escapes:
			i += 2
		case c != '\'':
			i++
		case i+1 < n && text[i+1] == '\'':
			i += 2
		default:
			i++
			next := continuation(text, i)
			if next < 0 {
				return i, continued
			}
			continued = true
			i = next + 1
		}
	}
	return -1, false
}

// continuation is the position of the quote that opens the next segment of a string that ended before i: blanks and
// line comments with at least one newline lie between. -1 when there is none.
func continuation(text []byte, i int) int {
	newline := false
	for i < len(text) {
		switch c := text[i]; {
		case c == '\n' || c == '\r':
			newline = true
			i++
		case class[c] == cSpace:
			i++
		case c == '-' && i+1 < len(text) && text[i+1] == '-':
			i = lineEnd(text, i)
		case c == '\'' && newline:
			return i
		default:
			return -1
		}
	}
	return -1
}

func identEnd(text []byte, i int) int {
	for i++; i < len(text); i++ {
		if text[i] != '"' {
			continue
		}
		if i+1 < len(text) && text[i+1] == '"' {
			i++
			continue
		}
		return i + 1
	}
	return -1
}

// dollarEnd is behind a dollar-quoted string that begins at i; -1 when none begins there or it does not end.
func dollarEnd(text []byte, i int) int {
	t := i + 1
	for t < len(text) && text[t] != '$' {
		if k := class[text[t]]; k != cWord && (k != cDigit || t == i+1) {
			return -1
		}
		t++
	}
	if t >= len(text) {
		return -1
	}
	tag := text[i : t+1]
	for j := t + 1; j+len(tag) <= len(text); j++ {
		if text[j] == '$' && string(text[j:j+len(tag)]) == string(tag) {
			return j + len(tag)
		}
	}
	return -1
}

// number is behind a number at i; -1 when a letter follows it, which PostgreSQL calls trailing junk.
func number(text []byte, i int) (int, LiteralKind) {
	n := len(text)
	kind := Integer
	if text[i] == '0' && i+1 < n {
		base := 0
		switch text[i+1] | 0x20 {
		case 'x':
			base = 16
		case 'o':
			base = 8
		case 'b':
			base = 2
		}
		if base != 0 {
			j := digits(text, i+2, base, true)
			if j == i+2 || j < n && (class[text[j]] == cWord || class[text[j]] == cDigit) {
				return -1, kind
			}
			return j, kind
		}
	}
	i = digits(text, i, 10, false)
	if i < n && text[i] == '.' && (i+1 >= n || text[i+1] != '.') {
		kind = Decimal
		i = digits(text, i+1, 10, false)
	}
	if i < n && text[i]|0x20 == 'e' {
		j := i + 1
		if j < n && (text[j] == '+' || text[j] == '-') {
			j++
		}
		k := digits(text, j, 10, false)
		if k == j {
			return -1, kind
		}
		i, kind = k, Decimal
	}
	if i < n && class[text[i]] == cWord {
		return -1, kind
	}
	return i, kind
}

// digits is behind a run of digits with single underscores between them, and before the first one where lead allows it.
func digits(text []byte, i, base int, lead bool) int {
	valid := func(j int) bool {
		if j >= len(text) {
			return false
		}
		switch c := text[j]; {
		case c >= '0' && c <= '9':
			return int(c-'0') < base
		case base == 16:
			return c|0x20 >= 'a' && c|0x20 <= 'f'
		}
		return false
	}
	from := i
	for i < len(text) {
		if valid(i) {
			i++
		} else if text[i] == '_' && (lead || i > from) && valid(i+1) {
			i += 2
		} else {
			break
		}
	}
	return i
}

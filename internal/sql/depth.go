package sql

// maxDepth bounds how deep the tree of a statement may nest. PostgreSQL's parser builds a tree of any depth for chains such
// as 1+1+1…, and walks it recursively in C afterwards, where a stack that overflows ends the process: nothing can catch
// it. PostgreSQL itself checks the stack at each step (max_stack_depth) and gives up at about such a depth. A level takes
// less than 400 bytes there, so this is safe on stacks of 2 MB, the least that a thread gets on Linux.
const maxDepth = 5000

// maxComments bounds comments that begin within one run of operator characters, such as /**//**//**/: PostgreSQL's scanner
// reads on to the end of the run at each of them.
const maxComments = 100

// TooComplexError says that a statement is not given to the parser, because that could take the stack or hours.
type TooComplexError struct{ Message string }

func (e *TooComplexError) Error() string { return e.Message }

// tooComplex is the error for a query string that must not be given to the parser, or nil.
func tooComplex(text []byte) error {
	switch {
	case tooDeep(text):
		return &TooComplexError{"stack depth limit exceeded"}
	case tooManyComments(text):
		return &TooComplexError{"too many comments in a row"}
	}
	return nil
}

// tooManyComments says whether a run of operator characters has more comments than maxComments. Quotes are not looked at:
// who has such a run in a string can send it as a parameter.
func tooManyComments(text []byte) bool {
	if len(text) <= 2*maxComments {
		return false
	}
	starts := 0
	for i := 0; i < len(text); i++ {
		if !operatorByte(text[i]) {
			starts = 0
			continue
		}
		if text[i] == '/' && i+1 < len(text) && text[i+1] == '*' {
			if starts++; starts > maxComments {
				return true
			}
			i++
		}
	}
	return false
}

// tooDeep says whether the tree of a query string could nest deeper than maxDepth. It never errs on the low side, also
// for text that is no SQL; it may refuse text that PostgreSQL could take, of thousands of operators in one expression.
//
// Each pair of brackets, and each CASE … END, is a level. Within a level an expression is as deep as it has operators,
// plus the deepest level in it; a comma, AND, OR and the parts of a CASE begin another one beside it. Joins and set
// operations of a level nest in each other whatever lies between.
func tooDeep(text []byte) bool {
	if len(text) <= maxDepth { // every level takes a byte
		return false
	}
	levels := []level{{}}
	top := &levels[0]
	last := byte(0) // the last byte that means something
	n := len(text)
	for i := 0; i < n; {
		c := text[i]
		from := i
		switch k := class[c]; {
		case k == cSpace:
			i++
			continue
		case k == cMinus && i+1 < n && text[i+1] == '-':
			i = lineEnd(text, i)
			continue
		case k == cSlash && i+1 < n && text[i+1] == '*':
			if i = blockEnd(text, i); i < 0 {
				return false // the scanner refuses it
			}
			continue
		case k == cSingle:
			i, _ = quoted(text, i, from > 0 && text[from-1]|0x20 == 'e')
		case k == cDouble:
			i = identEnd(text, i)
		case k == cDollar && i+1 < n && class[text[i+1]] != cDigit:
			if i = dollarEnd(text, i); i < 0 {
				i = from + 1
			}
		case k == cWord:
			for i++; i < n && inWord[text[i]]; i++ {
			}
			if i < n && text[i] == '\'' && i == from+1 && c|0x20 == 'e' {
				continue // the prefix of an escape string
			}
			if last != '.' {
				levels = word(levels, text[from:i])
				top = &levels[len(levels)-1]
			}
		case k == cDigit, k == cDot, k == cDollar, k == cMark:
			i++
		case c == '(' || c == '[':
			levels = append(levels, level{})
			top = &levels[len(levels)-1]
			i++
		case c == ')' || c == ']':
			levels = closed(levels)
			top = &levels[len(levels)-1]
			i++
		case c == ',':
			top.beside()
			i++
		case c == ';':
			if len(levels) == 1 {
				*top = level{}
			}
			i++
		default:
			for i++; i < n && operatorByte(text[i]) && !commentAt(text, i); i++ {
			}
			top.operators++
		}
		if i < 0 {
			return false // a quote that does not end, likewise
		}
		last = text[i-1]
		if len(levels)+top.depth() > maxDepth {
			return true
		}
	}
	for len(levels) > 1 {
		levels = closed(levels)
	}
	return levels[0].depth() > maxDepth
}

// level is what stands between two brackets.
type level struct {
	joins     int // joins and set operations
	operators int // of the expression that is being read
	inner     int // the deepest level in it
	deepest   int // of the expressions before
	between   int // BETWEEN whose AND has not come
}

func (l *level) depth() int { return l.joins + max(l.deepest, l.operators+l.inner) }

// beside begins another expression.
func (l *level) beside() {
	l.deepest = max(l.deepest, l.operators+l.inner)
	l.operators, l.inner, l.between = 0, 0, 0
}

func closed(levels []level) []level {
	if len(levels) == 1 {
		return levels
	}
	depth := 1 + levels[len(levels)-1].depth()
	levels = levels[:len(levels)-1]
	top := &levels[len(levels)-1]
	top.inner = max(top.inner, depth)
	return levels
}

// word counts the keywords that nest.
func word(levels []level, w []byte) []level {
	top := &levels[len(levels)-1]
	var low [10]byte
	if len(w) > len(low) {
		return levels
	}
	for i, c := range w {
		low[i] = c | 0x20
	}
	switch string(low[:len(w)]) {
	case "join", "union", "intersect", "except":
		top.joins++
	case "is", "isnull", "notnull", "collate", "at", "like", "ilike", "similar", "in", "not", "operator", "overlaps":
		top.operators++
	case "between":
		top.operators++
		top.between++
	case "and":
		if top.between > 0 {
			top.between--
		} else {
			top.beside()
		}
	case "or", "when", "then", "else":
		top.beside()
	case "case":
		return append(levels, level{})
	case "end":
		return closed(levels)
	}
	return levels
}

// operatorByte says that a byte may go on an operator.
func operatorByte(c byte) bool {
	switch c {
	case '+', '*', '<', '>', '=', '~', '!', '@', '#', '%', '^', '&', '|', '`', '?', ':', '-', '/':
		return true
	}
	return false
}

func commentAt(text []byte, i int) bool {
	return i+1 < len(text) && (text[i] == '-' && text[i+1] == '-' || text[i] == '/' && text[i+1] == '*')
}

package sql

func wordEnd(text []byte, i int) int {
	for i++; i < len(text) && inWord[text[i]]; i++ {
	}
	return i
}

// commentEnd is behind the comment that begins at i; i when none does, -1 when it does not end.
func commentEnd(text []byte, i int) int {
	if i+1 < len(text) && text[i] == text[i+1] && text[i] == '-' {
		return lineEnd(text, i)
	}
	if i+1 < len(text) && text[i] == '/' && text[i+1] == '*' {
		return blockEnd(text, i)
	}
	return i
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
	j := i
	for j < n && text[j]-'0' < 10 {
		j++
	}
	if j > i && (j == n || text[j] != '.' && class[text[j]] != cWord) {
		return j, Integer // as most are
	}
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

package sql

import "bytes"

// Conforming returns a query string that was written for standard_conforming_strings = off, where a backslash in a plain
// string escapes what follows it, as one that means the same whatever that setting is: 'a\'b' becomes E'a\'b'. Without a
// backslash in a plain string it is the text itself. What is malformed stays so.
func Conforming(text []byte) []byte {
	if bytes.IndexByte(text, '\\') < 0 {
		return text
	}
	var out []byte
	copied, word := 0, -2 // where the last word began
	for i := 0; i < len(text); {
		from := i
		switch c := text[i]; {
		case class[c] == cWord:
			word = from
			if i = wordOrString(text, i); i < 0 {
				i = len(text)
			}
		case c == '\'':
			if i, _ = quoted(text, i, true); i < 0 {
				i = len(text)
			}
			if bytes.IndexByte(text[from:i], '\\') < 0 {
				break
			}
			out = append(out, text[copied:from]...)
			switch {
			case from-word == 1 && text[word]|0x20 == 'n': // N'...'; n is a name before E
				out = append(out, "char E"...)
			case from > 0 && inWord[text[from-1]]: // SELECT'...'
				out = append(out, " E"...)
			default:
				out = append(out, 'E')
			}
			copied = from
		default:
			i = skipped(text, i)
		}
	}
	if out == nil {
		return text
	}
	return append(out, text[copied:]...)
}

// wordOrString is behind a word, or behind a string that begins with a letter and has its own rules for backslashes.
func wordOrString(text []byte, i int) (end int) {
	at := func(j int, c byte) bool { return j < len(text) && text[j] == c }
	switch c := text[i] | 0x20; {
	case c == 'e' && at(i+1, '\''):
		end, _ = quoted(text, i+1, true)
		return end
	case (c == 'b' || c == 'x') && at(i+1, '\''):
		end, _ = quoted(text, i+1, false)
		return end
	case c == 'u' && at(i+1, '&') && at(i+2, '\''):
		end, _ = quoted(text, i+2, false)
		return end
	}
	for end = i + 1; end < len(text) && inWord[text[end]]; {
		end++
	}
	return end
}

// skipped is behind what begins at i and is neither a word nor a plain string.
func skipped(text []byte, i int) int {
	end := i + 1
	switch c := text[i]; {
	case c == '-' && end < len(text) && text[end] == '-':
		return lineEnd(text, i)
	case c == '/' && end < len(text) && text[end] == '*':
		end = blockEnd(text, i)
	case c == '"':
		end = identEnd(text, i)
	case c == '$':
		if d := dollarEnd(text, i); d >= 0 {
			return d
		}
	case class[c] == cDigit:
		for end < len(text) && inWord[text[end]] { // $ and letters are junk behind a number, and a string may follow it
			end++
		}
	}
	if end < 0 {
		return len(text) // it does not end
	}
	return end
}

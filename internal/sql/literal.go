package sql

import (
	"bytes"
	"unicode/utf16"
	"unicode/utf8"
)

// Quoted says whether the literal is a string: of type unknown until its context gives it a type.
func (l Literal) Quoted() bool { return l.Kind >= String }

// Value is the literal's value in PostgreSQL's text format: a number as it is written, a string without quotes and
// escapes. It is a part of text where possible, else it is appended to buf. ok is false for escapes that PostgreSQL
// would refuse.
func (l Literal) Value(text, buf []byte) (value []byte, ok bool) {
	raw := text[l.Start:l.End]
	switch l.Kind {
	case Integer, Decimal:
		return raw, true
	case Dollar:
		tag := bytes.IndexByte(raw[1:], '$') + 2
		return raw[tag : len(raw)-tag], true
	case Escape:
		raw = raw[1:]
	case String:
		if !l.Continued && bytes.IndexByte(raw[1:len(raw)-1], '\'') < 0 {
			return raw[1 : len(raw)-1], true
		}
	}
	out := buf[:0]
	escapes := l.Kind == Escape
	for i := 1; i < len(raw); {
		c := raw[i]
		switch {
		case c == '\'' && i+1 < len(raw) && raw[i+1] == '\'':
			out = append(out, '\'')
			i += 2
		case c == '\'':
			next := continuation(raw, i+1)
			if next < 0 {
				return out, true
			}
			i = next + 1
		case c == '\\' && escapes:
			if out, i, ok = unescape(out, raw, i+1); !ok {
				return nil, false
			}
		default:
			out = append(out, c)
			i++
		}
	}
	return out, true
}

// unescape reads what follows a backslash in an E” string (scan.l: xeescape, xeoctesc, xehexesc, xeunicode).
func unescape(out, raw []byte, i int) ([]byte, int, bool) {
	if i >= len(raw) {
		return nil, 0, false
	}
	c := raw[i]
	switch c {
	case 'b':
		return append(out, '\b'), i + 1, true
	case 'f':
		return append(out, '\f'), i + 1, true
	case 'n':
		return append(out, '\n'), i + 1, true
	case 'r':
		return append(out, '\r'), i + 1, true
	case 't':
		return append(out, '\t'), i + 1, true
	case 'v':
		return append(out, '\v'), i + 1, true
	case 'x':
		if v, j := hexDigits(raw, i+1, 2); j > i+1 {
			return append(out, byte(v)), j, v != 0
		}
		return append(out, c), i + 1, true
	case 'u', 'U':
		width := 4
		if c == 'U' {
			width = 8
		}
		v, j := hexDigits(raw, i+1, width)
		if j != i+1+width {
			return nil, 0, false
		}
		r := rune(v)
		if utf16.IsSurrogate(r) {
			if j+1 >= len(raw) || raw[j] != '\\' || raw[j+1] != 'u' {
				return nil, 0, false
			}
			low, k := hexDigits(raw, j+2, 4)
			if k != j+6 {
				return nil, 0, false
			}
			r, j = utf16.DecodeRune(r, rune(low)), k
		}
		if r <= 0 || !utf8.ValidRune(r) || r == utf8.RuneError {
			return nil, 0, false
		}
		return utf8.AppendRune(out, r), j, true
	}
	if c >= '0' && c <= '7' {
		v, j := 0, i
		for j < len(raw) && j < i+3 && raw[j] >= '0' && raw[j] <= '7' {
			v = v*8 + int(raw[j]-'0')
			j++
		}
		return append(out, byte(v)), j, byte(v) != 0
	}
	return append(out, c), i + 1, true
}

func hexDigits(raw []byte, i, most int) (uint32, int) {
	var v uint32
	j := i
	for j < len(raw) && j < i+most {
		switch c := raw[j]; {
		case c >= '0' && c <= '9':
			v = v<<4 | uint32(c-'0')
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			v = v<<4 | uint32(c|0x20-'a'+10)
		default:
			return v, j
		}
		j++
	}
	return v, j
}

package sharding

import (
	"bytes"
	"encoding/hex"
	"math"
)

// space is isspace() of the C locale, which the input functions of numbers skip around a value.
func space(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' }

func trim(v []byte) []byte {
	for len(v) > 0 && space(v[0]) {
		v = v[1:]
	}
	for len(v) > 0 && space(v[len(v)-1]) {
		v = v[:len(v)-1]
	}
	return v
}

// plainInt is parseInt of what most values are: some decimal digits, too few to overflow.
func plainInt(v []byte) (n int64, ok bool) {
	if len(v) == 0 || len(v) > 18 {
		return 0, false
	}
	for _, c := range v {
		if c -= '0'; c > 9 {
			return 0, false
		}
		n = n*10 + int64(c)
	}
	return n, true
}

// parseInt follows pg_strtoint64_safe (numutils.c) of PostgreSQL 16 and later: blanks around, a sign, decimal, 0x, 0o or
// 0b digits, underscores between digits. Older servers refuse the latter forms themselves.
func parseInt(t KeyType, v []byte) (int64, error) {
	if n, ok := plainInt(v); ok && (t == Int8 || n <= math.MaxInt16 || t == Int4 && n <= math.MaxInt32) {
		return n, nil
	}
	s := trim(v)
	neg := false
	if len(s) > 0 && (s[0] == '-' || s[0] == '+') {
		neg = s[0] == '-'
		s = s[1:]
	}
	base, digits := uint64(10), s
	if len(s) > 2 && s[0] == '0' {
		switch s[1] | 0x20 {
		case 'x':
			base = 16
		case 'o':
			base = 8
		case 'b':
			base = 2
		}
		if base != 10 {
			digits = s[2:]
		}
	}
	var n uint64
	seen, overflow, under := false, false, base == 10 // under: an underscore may not come next; it may behind 0x
	for _, c := range digits {
		if c == '_' {
			if under {
				return 0, badSyntax(t, v)
			}
			under = true
			continue
		}
		d, ok := digit(c)
		if !ok || d >= base {
			return 0, badSyntax(t, v)
		}
		if n > (math.MaxUint64-d)/base {
			overflow = true
		}
		n = n*base + d
		seen, under = true, false
	}
	if !seen || under {
		return 0, badSyntax(t, v)
	}
	width := 64
	switch t {
	case Int2:
		width = 16
	case Int4:
		width = 32
	}
	limit := uint64(1) << (width - 1)
	if overflow || n > limit || n == limit && !neg {
		return 0, outOfRange(t, v)
	}
	if neg {
		return -int64(n), nil
	}
	return int64(n), nil
}

func digit(c byte) (uint64, bool) {
	switch {
	case c >= '0' && c <= '9':
		return uint64(c - '0'), true
	case c >= 'a' && c <= 'f':
		return uint64(c-'a') + 10, true
	case c >= 'A' && c <= 'F':
		return uint64(c-'A') + 10, true
	}
	return 0, false
}

// parseUUID follows string_to_uuid (uuid.c): 32 hexadecimal digits, a hyphen allowed behind each group of four, braces around.
func parseUUID(v []byte) (u [16]byte, err error) {
	s := v
	braces := len(s) > 0 && s[0] == '{'
	if braces {
		s = s[1:]
	}
	for i := range u {
		if len(s) < 2 {
			return u, badSyntax(UUID, v)
		}
		hi, ok1 := digit(s[0])
		lo, ok2 := digit(s[1])
		if !ok1 || !ok2 {
			return u, badSyntax(UUID, v)
		}
		u[i] = byte(hi<<4 | lo)
		s = s[2:]
		if i%2 == 1 && i < 15 && len(s) > 0 && s[0] == '-' {
			s = s[1:]
		}
	}
	if braces {
		if len(s) == 0 || s[0] != '}' {
			return u, badSyntax(UUID, v)
		}
		s = s[1:]
	}
	if len(s) != 0 {
		return u, badSyntax(UUID, v)
	}
	return u, nil
}

// parseBytea follows byteain (varlena.c): \x and hexadecimal digits with blanks between pairs, or the escape form.
func parseBytea(v []byte) ([]byte, error) {
	if len(v) >= 2 && v[0] == '\\' && v[1] == 'x' {
		out := make([]byte, 0, len(v)/2)
		for s := v[2:]; len(s) > 0; {
			if s[0] == ' ' || s[0] == '\n' || s[0] == '\t' || s[0] == '\r' {
				s = s[1:]
				continue
			}
			if len(s) < 2 {
				return nil, &ValueError{"22023", "invalid hexadecimal data: odd number of digits"}
			}
			var b [1]byte
			if _, err := hex.Decode(b[:], s[:2]); err != nil {
				return nil, &ValueError{"22023", "invalid hexadecimal digit: " + string(s[:2])}
			}
			out = append(out, b[0])
			s = s[2:]
		}
		return out, nil
	}
	if bytes.IndexByte(v, '\\') < 0 {
		return v, nil
	}
	out := make([]byte, 0, len(v))
	for i := 0; i < len(v); i++ {
		if v[i] != '\\' {
			out = append(out, v[i])
			continue
		}
		rest := v[i+1:]
		switch {
		case len(rest) >= 1 && rest[0] == '\\':
			out = append(out, '\\')
			i++
		case len(rest) >= 3 && rest[0] >= '0' && rest[0] <= '3' && octal(rest[1]) && octal(rest[2]):
			out = append(out, (rest[0]-'0')<<6|(rest[1]-'0')<<3|(rest[2]-'0'))
			i += 3
		default:
			return nil, &ValueError{"22P02", "invalid input syntax for type bytea"}
		}
	}
	return out, nil
}

func octal(c byte) bool { return c >= '0' && c <= '7' }

// parseBool follows parse_bool_with_len (bool.c): unambiguous prefixes of true, false, yes, no, on, off, and 1, 0.
func parseBool(v []byte) (uint32, error) {
	s := bytes.ToLower(trim(v))
	prefix := func(word string, least int) bool {
		return len(s) >= least && len(s) <= len(word) && string(s) == word[:len(s)]
	}
	switch {
	case prefix("true", 1), prefix("yes", 1), prefix("on", 2), prefix("1", 1):
		return 1, nil
	case prefix("false", 1), prefix("no", 1), prefix("off", 2), prefix("0", 1):
		return 0, nil
	}
	return 0, badSyntax(Bool, v)
}

// parseOID reads plain decimal digits; oidin also takes negative numbers and other bases, which nobody writes.
func parseOID(v []byte) (uint32, error) {
	s := trim(v)
	var n uint64
	for _, c := range s {
		if c < '0' || c > '9' {
			return 0, unsupported(OID, v, "write it as decimal digits")
		}
		if n = n*10 + uint64(c-'0'); n > math.MaxUint32 {
			return 0, outOfRange(OID, v)
		}
	}
	if len(s) == 0 {
		return 0, badSyntax(OID, v)
	}
	return uint32(n), nil
}

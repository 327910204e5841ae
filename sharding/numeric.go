package sharding

import (
	"bytes"
	"encoding/binary"
	"strconv"
)

// hash_numeric_extended (numeric.c) hashes the base-10000 digits without zeros at either end, and mixes in the weight
// of the first; neither scale nor sign matters. Zero and the special values have hashes of their own.
const (
	numericSpecial = seed
	numericZero    = seed - 1
)

// maxNumericDigits bounds the digits of a key; a longer one is refused.
const maxNumericDigits = 1000

// hashDigits takes base-10000 digits as they lie in memory (two bytes each, little-endian) and the first one's weight.
func hashDigits(d []byte, weight int) uint64 {
	for len(d) > 0 && d[0] == 0 && d[1] == 0 {
		d = d[2:]
		weight--
	}
	for len(d) > 0 && d[len(d)-1] == 0 && d[len(d)-2] == 0 {
		d = d[:len(d)-2]
	}
	if len(d) == 0 {
		return numericZero
	}
	return hashBytes(d) ^ uint64(int64(weight))
}

// hashNumericText reads what numeric_in reads, but for the forms that came with PostgreSQL 16 (0x10, 1_000).
func hashNumericText(v []byte) (uint64, error) {
	s := trim(v)
	if len(s) > 0 && (s[0] == '-' || s[0] == '+') {
		s = s[1:]
	}
	for _, word := range [...]string{"nan", "infinity", "inf"} {
		if bytes.EqualFold(s, []byte(word)) {
			if word == "nan" && len(trim(v)) != len(s) {
				return 0, badSyntax(Numeric, v)
			}
			return numericSpecial, nil
		}
	}
	var buf [maxNumericDigits]byte // decimal digits
	n, point, seen := 0, -1, false
	i := 0
	for ; i < len(s); i++ {
		c := s[i]
		if c == '.' && point < 0 {
			point = n
			continue
		}
		if c < '0' || c > '9' {
			break
		}
		seen = true
		if n == 0 && c == '0' && point < 0 {
			continue
		}
		if n == len(buf) {
			return 0, unsupported(Numeric, v, "it has more than "+strconv.Itoa(maxNumericDigits)+" digits")
		}
		buf[n] = c - '0'
		n++
	}
	if !seen {
		return 0, badSyntax(Numeric, v)
	}
	if point < 0 {
		point = n
	}
	if i < len(s) {
		if s[i] == '_' || s[i]|0x20 == 'x' || s[i]|0x20 == 'o' || s[i]|0x20 == 'b' {
			return 0, unsupported(Numeric, v, "write it in plain decimal digits")
		}
		if s[i]|0x20 != 'e' {
			return 0, badSyntax(Numeric, v)
		}
		exp, err := strconv.Atoi(string(s[i+1:]))
		if err != nil {
			return 0, badSyntax(Numeric, v)
		}
		if exp > maxNumericDigits || exp < -maxNumericDigits {
			return 0, unsupported(Numeric, v, "its exponent is too large")
		}
		point += exp
	}
	return hashDecimal(buf[:n], point), nil
}

// hashDecimal groups decimal digits by four around the point, which stands behind the first point digits.
func hashDecimal(d []byte, point int) uint64 {
	for len(d) > 0 && d[0] == 0 {
		d = d[1:]
		point--
	}
	if len(d) == 0 {
		return numericZero
	}
	groups := floorDiv(point+3, 4) // base-10000 digits before the point; not positive for small fractions
	lead := groups*4 - point       // zeros that fill the first group
	var out [maxNumericDigits/4*2 + 4]byte
	n := 0
	for i := -lead; i < len(d); i += 4 {
		g := uint16(0)
		for j := i; j < i+4; j++ {
			g *= 10
			if j >= 0 && j < len(d) {
				g += uint16(d[j])
			}
		}
		binary.LittleEndian.PutUint16(out[n:], g)
		n += 2
	}
	return hashDigits(out[:n], groups-1)
}

func floorDiv(a, b int) int {
	q := a / b
	if a%b != 0 && a < 0 {
		q--
	}
	return q
}

// hashNumericBinary reads what numeric_recv reads: digit count, weight, sign, scale, digits, two bytes each.
func hashNumericBinary(v []byte) (uint64, error) {
	if len(v) < 8 {
		return 0, badBinary(Numeric, v)
	}
	n := int(binary.BigEndian.Uint16(v))
	weight := int(int16(binary.BigEndian.Uint16(v[2:])))
	sign := binary.BigEndian.Uint16(v[4:])
	scale := int(binary.BigEndian.Uint16(v[6:]))
	if len(v) != 8+2*n {
		return 0, badBinary(Numeric, v)
	}
	switch sign {
	case 0xC000, 0xD000, 0xF000:
		return numericSpecial, nil
	case 0, 0x4000:
	default:
		return 0, badBinary(Numeric, v)
	}
	if n > maxNumericDigits/4 {
		return 0, unsupported(Numeric, []byte("binary value"), "it has more than "+strconv.Itoa(maxNumericDigits)+" digits")
	}
	if extra := (n-weight-1)*4 - scale; n > 0 && extra > 0 { // numeric_recv cuts digits beyond the scale off
		unit := [...]uint16{1, 10, 100, 1000, 10000}[min(extra, 4)]
		if extra > 4 || binary.BigEndian.Uint16(v[6+2*n:])%unit != 0 {
			return 0, unsupported(Numeric, []byte("binary value"), "it has digits beyond its own scale")
		}
	}
	var out [maxNumericDigits / 4 * 2]byte
	for i := 0; i < n; i++ {
		d := binary.BigEndian.Uint16(v[8+2*i:])
		if d > 9999 {
			return 0, badBinary(Numeric, v)
		}
		binary.LittleEndian.PutUint16(out[2*i:], d)
	}
	return hashDigits(out[:2*n], weight), nil
}

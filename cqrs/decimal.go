package cqrs

import (
	"fmt"
	"strconv"
	"strings"
)

// decimal is a value of PostgreSQL's numeric: 0.DIGITS × 10^exp, exactly.
type decimal struct {
	kind   byte   // one of the kinds below, which order as the values do
	digits string // without zeros at either end; empty for zero
	exp    int
}

const (
	minusInfinity = '0'
	negative      = '1'
	zero          = '2'
	positive      = '3'
	plusInfinity  = '4'
	notANumber    = '5' // equal to itself and greater than everything (PostgreSQL manual, 8.1.2)
)

// Exponents of numeric (131,072 digits before the point, 16,383 behind it) fit into six digits with this offset.
const (
	maxExponent    = 131_072
	minExponent    = -20_000
	exponentOffset = 100_000
	exponentNines  = 999_999
)

func parseDecimal(s string) (decimal, error) {
	s = strings.TrimSpace(s)
	body, neg := strings.CutPrefix(s, "-")
	if !neg {
		body = strings.TrimPrefix(body, "+")
	}
	switch strings.ToLower(body) {
	case "nan":
		return decimal{kind: notANumber}, nil
	case "inf", "infinity":
		if neg {
			return decimal{kind: minusInfinity}, nil
		}
		return decimal{kind: plusInfinity}, nil
	}
	exp := 0
	if i := strings.IndexAny(body, "eE"); i >= 0 {
		e, err := strconv.Atoi(body[i+1:])
		if err != nil || e > 2*maxExponent || e < -2*maxExponent {
			return decimal{}, fmt.Errorf("want a number")
		}
		body, exp = body[:i], e
	}
	whole, frac, _ := strings.Cut(body, ".")
	all := whole + frac
	if all == "" || strings.Trim(all, "0123456789") != "" {
		return decimal{}, fmt.Errorf("want a number")
	}
	exp += len(whole)
	digits := strings.TrimLeft(all, "0")
	exp -= len(all) - len(digits)
	if digits = strings.TrimRight(digits, "0"); digits == "" {
		return decimal{kind: zero}, nil
	}
	if exp > maxExponent || exp < minExponent {
		return decimal{}, fmt.Errorf("the number overflows numeric")
	}
	d := decimal{kind: positive, digits: digits, exp: exp}
	if neg {
		d.kind = negative
	}
	return d, nil
}

// sortKey orders bytewise as the numbers do: kind, exponent, digits; for negative numbers each digit's complement,
// and an end mark greater than any digit because the longer one is the smaller.
func (d decimal) sortKey() string {
	switch d.kind {
	case positive:
		return fmt.Sprintf("%c%06d%s", d.kind, d.exp+exponentOffset, d.digits)
	case negative:
		b := []byte(fmt.Sprintf("%c%06d%s~", d.kind, exponentNines-(d.exp+exponentOffset), d.digits))
		for i := 7; i < len(b)-1; i++ {
			b[i] = '0' + ('9' - b[i])
		}
		return string(b)
	case 0:
		return ""
	}
	return string(d.kind)
}

// String is the shortest plain form: no exponent, no zeros that change nothing.
func (d decimal) String() string {
	switch d.kind {
	case minusInfinity:
		return "-Infinity"
	case plusInfinity:
		return "Infinity"
	case notANumber:
		return "NaN"
	case zero:
		return "0"
	}
	var b strings.Builder
	if d.kind == negative {
		b.WriteByte('-')
	}
	switch {
	case d.exp <= 0:
		b.WriteString("0.")
		b.WriteString(strings.Repeat("0", -d.exp))
		b.WriteString(d.digits)
	case d.exp >= len(d.digits):
		b.WriteString(d.digits)
		b.WriteString(strings.Repeat("0", d.exp-len(d.digits)))
	default:
		b.WriteString(d.digits[:d.exp])
		b.WriteByte('.')
		b.WriteString(d.digits[d.exp:])
	}
	return b.String()
}

// floor returns the greatest integer that is not greater than d, and whether d is that integer. Out of int64's range
// it returns the sign of the range that d lies beyond.
func (d decimal) floor() (n int64, exact bool, beyond int) {
	switch d.kind {
	case zero:
		return 0, true, 0
	case minusInfinity:
		return 0, false, -1
	case plusInfinity, notANumber:
		return 0, false, 1
	}
	sign := 1
	if d.kind == negative {
		sign = -1
	}
	if d.exp > 19 {
		return 0, false, sign
	}
	text := d.String()
	whole, frac, _ := strings.Cut(text, ".")
	n, err := strconv.ParseInt(whole, 10, 64)
	if err != nil {
		return 0, false, sign
	}
	if frac != "" && sign < 0 {
		if n == -1<<63 {
			return 0, false, -1
		}
		n--
	}
	return n, frac == "", 0
}

package engine

import (
	"encoding/binary"
	"errors"
	"strings"
)

// Signs of a numeric on the wire (numeric.c: NUMERIC_POS and so on).
const (
	numericPositive    = 0x0000
	numericNegative    = 0x4000
	numericNaN         = 0xC000
	numericInfinity    = 0xD000
	numericNegInfinity = 0xF000
)

// appendNumeric appends numeric_send's form: number of digits, weight, sign, display scale, digits in base 10,000.
func appendNumeric(text string, dst []byte) ([]byte, error) {
	switch text {
	case "NaN":
		return appendNumericHead(dst, 0, 0, numericNaN, 0), nil
	case "Infinity":
		return appendNumericHead(dst, 0, 0, numericInfinity, 0x20), nil
	case "-Infinity":
		return appendNumericHead(dst, 0, 0, numericNegInfinity, 0x20), nil
	}
	sign := uint16(numericPositive)
	body, negative := strings.CutPrefix(text, "-")
	if negative {
		sign = numericNegative
	}
	whole, frac, _ := strings.Cut(body, ".")
	if whole+frac == "" || strings.Trim(whole+frac, "0123456789") != "" {
		return dst, errors.New("want a decimal number")
	}
	scale := len(frac)
	whole = strings.TrimLeft(whole, "0")
	// Groups of four digits to both sides of the point.
	whole = strings.Repeat("0", (4-len(whole)%4)%4) + whole
	frac += strings.Repeat("0", (4-len(frac)%4)%4)
	all, weight := whole+frac, len(whole)/4-1
	for strings.HasPrefix(all, "0000") {
		all = all[4:]
		weight--
	}
	for strings.HasSuffix(all, "0000") {
		all = all[:len(all)-4]
	}
	if all == "" {
		weight, sign = 0, numericPositive
	}
	const most = 1<<15 - 1
	if len(all)/4 > most || weight > most || weight < -most || scale > most {
		return dst, errors.New("the number overflows numeric")
	}
	dst = appendNumericHead(dst, len(all)/4, weight, sign, scale)
	for ; all != ""; all = all[4:] {
		n := uint16(all[0]-'0')*1000 + uint16(all[1]-'0')*100 + uint16(all[2]-'0')*10 + uint16(all[3]-'0')
		dst = binary.BigEndian.AppendUint16(dst, n)
	}
	return dst, nil
}

func appendNumericHead(dst []byte, digits, weight int, sign uint16, scale int) []byte {
	be := binary.BigEndian
	dst = be.AppendUint16(dst, uint16(digits))
	dst = be.AppendUint16(dst, uint16(int16(weight)))
	dst = be.AppendUint16(dst, sign)
	return be.AppendUint16(dst, uint16(scale))
}

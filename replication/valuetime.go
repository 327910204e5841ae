package replication

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Dates and times. PostgreSQL prints "0044-03-15 12:00:00+00 BC" under DateStyle ISO; ISO 8601 knows no BC: its year
// 0000 is 1 BC, and years beyond four digits carry a sign ("-0043-03-15T12:00:00Z", "+12345-01-01").

var bcSuffix = []byte(" BC")

// appendISO writes a date, timestamp or timestamptz of PostgreSQL's ISO style in the form of ISO 8601.
func appendISO(dst []byte, oid uint32, text []byte) ([]byte, error) {
	if s := string(text); s == "infinity" || s == "-infinity" {
		return append(dst, s...), nil
	}
	body, bc := bytes.CutSuffix(text, bcSuffix)
	day, clock, hasClock := bytes.Cut(body, []byte(" "))
	if hasClock != (oid != oidDate) {
		return dst, badText("date or timestamp in ISO style", text)
	}
	digits, rest, ok := bytes.Cut(day, []byte("-"))
	year, err := strconv.Atoi(string(digits))
	if !ok || err != nil || year < 1 || len(rest) != len("01-02") || !isDigits(rest[:2]) || !isDigits(rest[3:]) || rest[2] != '-' {
		return dst, badText("date or timestamp in ISO style", text)
	}
	if bc {
		year = 1 - year
	}
	switch {
	case year < 0:
		dst = fmt.Appendf(dst, "-%04d-", -year)
	case year > 9999:
		dst = fmt.Appendf(dst, "+%d-", year)
	default:
		dst = append(dst, digits...)
		if bc { // 1 BC
			dst = append(dst[:len(dst)-len(digits)], "0000"...)
		}
		dst = append(dst, '-')
	}
	dst = append(dst, rest...)
	if !hasClock {
		return dst, nil
	}
	for _, b := range clock {
		if (b < '0' || b > '9') && b != ':' && b != '.' && b != '+' && b != '-' {
			return dst, badText("date or timestamp in ISO style", text)
		}
	}
	dst = append(dst, 'T')
	if oid == oidTimestamptz {
		utc, ok := bytes.CutSuffix(clock, []byte("+00"))
		if !ok {
			return dst, fmt.Errorf("%q is not in UTC: the session that read it must have TimeZone UTC", text)
		}
		dst = append(dst, utc...)
		return append(dst, 'Z'), nil
	}
	return append(dst, clock...), nil
}

// appendPGTime is appendISO's inverse: ISO 8601 as stores return it, with or without fraction, T or space, Z or offset.
func appendPGTime(dst []byte, oid uint32, iso string) ([]byte, error) {
	if iso == "infinity" || iso == "-infinity" {
		return append(dst, iso...), nil
	}
	bad := func() ([]byte, error) { return dst, badText("ISO 8601 date or time", []byte(iso)) }
	s, sign := iso, byte('+')
	if s != "" && (s[0] == '+' || s[0] == '-') {
		sign, s = s[0], s[1:]
	}
	n := 0
	for n < len(s) && s[n] >= '0' && s[n] <= '9' {
		n++
	}
	year, err := strconv.Atoi(s[:n])
	if err != nil || n < 4 {
		return bad()
	}
	rest := s[n:] // "-01-02" and, for timestamps, "T03:04:05.006Z"
	if len(rest) < 6 || rest[0] != '-' || !isDigits([]byte(rest[1:3])) || rest[3] != '-' || !isDigits([]byte(rest[4:6])) {
		return bad()
	}
	day, clock := rest[:6], rest[6:]
	bc := false
	if sign == '-' {
		year = -year
	}
	if year <= 0 {
		year, bc = 1-year, true
	}
	start := len(dst)
	dst = fmt.Appendf(dst, "%04d%s", year, day)
	if oid != oidDate {
		var offset string
		if clock, offset, err = cutClock(clock); err != nil {
			return bad()
		}
		if oid == oidTimestamptz && offset != "" && offset != "Z" && offset != "+00" && offset != "+00:00" {
			// Another offset: the store was written by someone else. Only years that time.Time prints are converted.
			t, err := time.Parse("2006-01-02T15:04:05.999999999Z07:00", fmt.Sprintf("%s%sT%s%s", s[:n], day, clock, offset))
			if err != nil || bc || n != 4 {
				return bad()
			}
			return t.UTC().AppendFormat(dst[:start], "2006-01-02 15:04:05.999999+00"), nil
		}
		dst = append(dst, ' ')
		dst = append(dst, clock...)
		if oid == oidTimestamptz {
			dst = append(dst, "+00"...)
		}
	} else if clock != "" && !isMidnight(clock) {
		return bad()
	}
	if bc {
		dst = append(dst, bcSuffix...)
	}
	return dst, nil
}

// cutClock splits "T03:04:05.100Z" into PostgreSQL's "03:04:05.1" and the offset. A missing clock is midnight.
func cutClock(s string) (clock, offset string, err error) {
	if s == "" {
		return "00:00:00", "", nil
	}
	if s[0] != 'T' && s[0] != ' ' {
		return "", "", strconv.ErrSyntax
	}
	s = s[1:]
	n := 0
	for n < len(s) && (s[n] >= '0' && s[n] <= '9' || s[n] == ':' || s[n] == '.') {
		n++
	}
	clock, offset = s[:n], s[n:]
	if len(clock) == len("03:04") {
		clock += ":00"
	}
	clock, fraction, dotted := strings.Cut(clock, ".")
	if len(clock) != len("03:04:05") || clock[2] != ':' || clock[5] != ':' || !isDigits([]byte(clock[:2]+clock[3:5]+clock[6:])) || dotted && !isDigits([]byte(fraction)) {
		return "", "", strconv.ErrSyntax
	}
	if fraction = strings.TrimRight(fraction, "0"); fraction != "" {
		clock += "." + fraction
	}
	if offset != "" && offset[0] != 'Z' && offset[0] != '+' && offset[0] != '-' {
		return "", "", strconv.ErrSyntax
	}
	return clock, offset, nil
}

func isMidnight(s string) bool {
	clock, _, err := cutClock(s)
	return err == nil && clock == "00:00:00"
}

func isDigits(b []byte) bool {
	for _, c := range b {
		if c < '0' || c > '9' {
			return false
		}
	}
	return len(b) > 0
}

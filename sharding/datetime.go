package sharding

import (
	"bytes"
	"math"
	"time"
)

// Dates and timestamps are read in ISO 8601 form only: every other form depends on DateStyle or the session's time
// zone, or on the clock ("tomorrow"). Years are 0001 to 9999.

const isoHint = "write it in ISO form, such as 2024-05-17 or 2024-05-17 10:00:00.5+02; other forms depend on the session's settings"

// days between 1970-01-01 and 2000-01-01, PostgreSQL's day 0 (POSTGRES_EPOCH_JDATE).
const epochDays = 10957

const microsPerDay = 86400 * 1000000

// parseDate is days since 2000-01-01.
func parseDate(v []byte) (int32, error) {
	s := trim(v)
	if inf, ok := infinity(s); ok {
		if inf < 0 {
			return math.MinInt32, nil
		}
		return math.MaxInt32, nil
	}
	d, rest, ok := isoDate(s)
	if !ok || len(rest) != 0 {
		return 0, unsupported(Date, v, isoHint)
	}
	if d == badDay {
		return 0, &ValueError{"22008", "date/time field value out of range: \"" + clip(v) + "\""}
	}
	return int32(d), nil
}

// parseTimestamp is microseconds since 2000-01-01, in UTC for Timestamptz.
func parseTimestamp(t KeyType, v []byte) (int64, error) {
	s := trim(v)
	if inf, ok := infinity(s); ok {
		if inf < 0 {
			return math.MinInt64, nil
		}
		return math.MaxInt64, nil
	}
	bad := func() (int64, error) { return 0, unsupported(t, v, isoHint) }
	d, s, ok := isoDate(s)
	if !ok {
		return bad()
	}
	if d == badDay {
		return 0, &ValueError{"22008", "date/time field value out of range: \"" + clip(v) + "\""}
	}
	us := d * microsPerDay
	if len(s) == 0 && t == Timestamp {
		return us, nil
	}
	if len(s) == 0 || s[0] != ' ' && s[0] != 'T' {
		return bad()
	}
	h, s, ok1 := two(s[1:], 23)
	m, s, ok2 := colonTwo(s, 59)
	if !ok1 || !ok2 {
		return bad()
	}
	us += (h*60 + m) * 60 * 1000000
	if len(s) > 0 && s[0] == ':' {
		var sec int64
		if sec, s, ok = two(s[1:], 59); !ok {
			return bad()
		}
		us += sec * 1000000
		if len(s) > 0 && s[0] == '.' {
			s = s[1:]
			unit := int64(100000)
			for len(s) > 0 && s[0] >= '0' && s[0] <= '9' {
				if unit == 0 { // PostgreSQL rounds here, by way of a double
					return bad()
				}
				us += int64(s[0]-'0') * unit
				unit /= 10
				s = s[1:]
			}
		}
	}
	if t == Timestamp {
		if len(s) != 0 {
			return bad()
		}
		return us, nil
	}
	off, s, ok := zone(s)
	if !ok || len(s) != 0 {
		return bad()
	}
	return us - off*1000000, nil
}

// zone reads Z, +HH, +HHMM or +HH:MM as seconds east of UTC.
func zone(s []byte) (int64, []byte, bool) {
	if len(s) == 1 && (s[0] == 'Z' || s[0] == 'z') {
		return 0, nil, true
	}
	if len(s) < 3 || s[0] != '+' && s[0] != '-' {
		return 0, s, false
	}
	sign := int64(1)
	if s[0] == '-' {
		sign = -1
	}
	h, s, ok := two(s[1:], 15)
	if !ok {
		return 0, s, false
	}
	var m int64
	if len(s) > 0 {
		if s[0] == ':' {
			s = s[1:]
		}
		if m, s, ok = two(s, 59); !ok {
			return 0, s, false
		}
	}
	return sign * (h*60 + m) * 60, s, true
}

func two(s []byte, most int64) (int64, []byte, bool) {
	if len(s) < 2 || s[0] < '0' || s[0] > '9' || s[1] < '0' || s[1] > '9' {
		return 0, s, false
	}
	n := int64(s[0]-'0')*10 + int64(s[1]-'0')
	return n, s[2:], n <= most
}

func colonTwo(s []byte, most int64) (int64, []byte, bool) {
	if len(s) == 0 || s[0] != ':' {
		return 0, s, false
	}
	return two(s[1:], most)
}

const badDay = math.MinInt64

// isoDate reads YYYY-MM-DD as days since 2000-01-01, badDay for a day that no month has.
func isoDate(s []byte) (int64, []byte, bool) {
	if len(s) < 10 || s[4] != '-' || s[7] != '-' {
		return 0, s, false
	}
	for _, i := range [...]int{0, 1, 2, 3, 5, 6, 8, 9} {
		if s[i] < '0' || s[i] > '9' {
			return 0, s, false
		}
	}
	num := func(b []byte) int {
		n := 0
		for _, c := range b {
			n = n*10 + int(c-'0')
		}
		return n
	}
	y, m, d := num(s[:4]), num(s[5:7]), num(s[8:10])
	if y == 0 {
		return 0, s, false
	}
	t := time.Date(y, time.Month(m), d, 0, 0, 0, 0, time.UTC)
	if t.Year() != y || int(t.Month()) != m || t.Day() != d {
		return badDay, s[10:], true
	}
	sec := t.Unix()
	return sec/86400 - epochDays, s[10:], true
}

func infinity(s []byte) (int, bool) {
	switch {
	case bytes.EqualFold(s, []byte("infinity")), bytes.EqualFold(s, []byte("+infinity")):
		return 1, true
	case bytes.EqualFold(s, []byte("-infinity")):
		return -1, true
	}
	return 0, false
}

package cqrs

import (
	"fmt"
	"strings"
	"time"
)

// PostgreSQL counts microseconds (timestamps) and days (date) from 2000-01-01.
const (
	pgEpoch      int64 = 946_684_800 // Unix time of 2000-01-01 00:00 UTC
	microsPerDay int64 = 86_400_000_000
)

// moment is a date, a time of day, or both, as PostgreSQL's ISO DateStyle writes them and ISO 8601 does.
type moment struct {
	infinite         int // -1, 0, 1
	year, month, day int // year 0 is 1 BC
	micros           int64
	zone             int // seconds east of UTC
	hasDate, hasTime bool
	hasZone          bool
}

func timestampKey(s string, withZone bool) (int64, error) {
	m, err := parseMoment(s)
	switch {
	case err != nil:
		return 0, err
	case m.infinite != 0:
		return infiniteKey(m.infinite), nil
	case !m.hasDate:
		return 0, fmt.Errorf("want a date and a time such as 2006-01-02 15:04:05")
	}
	n := m.days()*microsPerDay + m.micros
	if withZone { // a zone in a timestamp without time zone is ignored, as PostgreSQL does
		n -= int64(m.zone) * 1_000_000
	}
	return n, nil
}

func dateKey(s string) (int64, error) {
	m, err := parseMoment(s)
	switch {
	case err != nil:
		return 0, err
	case m.infinite != 0:
		return infiniteKey(m.infinite), nil
	case !m.hasDate || m.micros != 0:
		return 0, fmt.Errorf("want a date such as 2006-01-02")
	}
	return m.days(), nil
}

func timeKey(s string) (int64, error) {
	m, err := parseMoment(s)
	switch {
	case err != nil:
		return 0, err
	case m.hasDate || !m.hasTime || m.hasZone:
		return 0, fmt.Errorf("want a time such as 15:04:05")
	}
	return m.micros, nil
}

func infiniteKey(sign int) int64 {
	if sign < 0 {
		return NegInfinity
	}
	return Infinity
}

func (m moment) days() int64 {
	return floorDiv(time.Date(m.year, time.Month(m.month), m.day, 0, 0, 0, 0, time.UTC).Unix()-pgEpoch, 86400)
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b != 0 && (a < 0) != (b < 0) {
		q--
	}
	return q
}

// parseMoment reads [date][ or T][time[fraction]][zone][ BC]. Names of months, of zones and words such as 'now' are
// refused: what they mean depends on settings and on the clock.
func parseMoment(s string) (moment, error) {
	var m moment
	s = strings.TrimSpace(s)
	switch strings.ToLower(s) {
	case "infinity", "+infinity":
		return moment{infinite: 1}, nil
	case "-infinity":
		return moment{infinite: -1}, nil
	}
	bad := fmt.Errorf("want ISO 8601: 2006-01-02, 15:04:05.999999, or both, with a zone as +00, or infinity")
	body, bc := strings.CutSuffix(strings.ToUpper(s), " BC")
	p := scanner{s: body}
	if i := strings.IndexByte(body, '-'); i >= 4 && strings.IndexByte(body[:i], ':') < 0 {
		y, ok1 := p.number(4, 7)
		ok2 := p.skip('-')
		mo, ok3 := p.number(2, 2)
		ok4 := p.skip('-')
		d, ok5 := p.number(2, 2)
		if !ok1 || !ok2 || !ok3 || !ok4 || !ok5 || y == 0 || mo < 1 || mo > 12 || d < 1 || d > daysIn(y, mo, bc) {
			return m, bad
		}
		m.year, m.month, m.day, m.hasDate = y, mo, d, true
		if bc {
			m.year = 1 - y
		}
		if p.done() {
			return m, nil
		}
		if !p.skip(' ') && !p.skip('T') {
			return m, bad
		}
	} else if bc {
		return m, bad
	}
	h, ok1 := p.number(2, 2)
	ok2 := p.skip(':')
	mi, ok3 := p.number(2, 2)
	if !ok1 || !ok2 || !ok3 || h > 24 || mi > 59 {
		return m, bad
	}
	var sec, frac int
	if p.skip(':') {
		var ok bool
		if sec, ok = p.number(2, 2); !ok || sec > 60 {
			return m, bad
		}
		if p.skip('.') {
			if frac, ok = p.fraction(); !ok {
				return m, bad
			}
		}
	}
	m.hasTime = true
	m.micros = (int64(h)*3600+int64(mi)*60+int64(sec))*1_000_000 + int64(frac)
	if m.micros > microsPerDay {
		return m, bad
	}
	var ok bool
	if m.zone, m.hasZone, ok = p.zone(); !ok || !p.done() {
		return m, bad
	}
	return m, nil
}

func daysIn(year, month int, bc bool) int {
	if bc {
		year = 1 - year
	}
	return time.Date(year, time.Month(month)+1, 0, 0, 0, 0, 0, time.UTC).Day()
}

// scanner reads digits and separators.
type scanner struct {
	s string
	i int
}

func (p *scanner) done() bool { return p.i == len(p.s) }

func (p *scanner) skip(c byte) bool {
	if p.i < len(p.s) && p.s[p.i] == c {
		p.i++
		return true
	}
	return false
}

func (p *scanner) number(least, most int) (n int, ok bool) {
	start := p.i
	for p.i < len(p.s) && p.i-start < most && p.s[p.i] >= '0' && p.s[p.i] <= '9' {
		n = n*10 + int(p.s[p.i]-'0')
		p.i++
	}
	return n, p.i-start >= least
}

// fraction reads up to six digits of a second; more would have to be rounded, which is the server's business.
func (p *scanner) fraction() (micros int, ok bool) {
	start := p.i
	n, ok := p.number(1, 6)
	for d := p.i - start; d < 6; d++ {
		n *= 10
	}
	for p.skip('0') { // digits that change nothing
	}
	return n, ok
}

// zone reads Z, +00, +05:30, -04:56:02, with a blank before it or none.
func (p *scanner) zone() (seconds int, has, ok bool) {
	if p.done() {
		return 0, false, true
	}
	p.skip(' ')
	if p.skip('Z') {
		return 0, true, true
	}
	sign := 1
	if p.skip('-') {
		sign = -1
	} else if !p.skip('+') {
		return 0, false, false
	}
	h, ok := p.number(2, 2)
	if !ok {
		return 0, false, false
	}
	seconds = h * 3600
	for unit := 60; unit >= 1 && !p.done(); unit /= 60 {
		colon := p.skip(':')
		n, ok := p.number(2, 2)
		if !ok {
			return 0, false, !colon
		}
		seconds += n * unit
	}
	return sign * seconds, true, true
}

package cqrs

import (
	"encoding/hex"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
)

// Class says how the values of a type compare, and so what a store may answer about them. Every store uses the same
// keys, so that two read models of one table give the same answer.
type Class uint8

const (
	// Opaque types only know whether they are NULL: their text does not decide equality (interval, jsonb, arrays).
	Opaque Class = iota
	// Equality types are equal when their texts are, and their order is not that of the text (enums).
	Equality
	// Integer types are compared by SortKey.N: integers, bool, date, time, timestamps, floats.
	Integer
	// Bytes types are compared by SortKey.S, byte by byte: text as under the collation "C", numeric, uuid, bytea.
	Bytes
)

// SortKey orders the values of one type as PostgreSQL does. Keys of equal values are equal (==).
type SortKey struct {
	N int64
	S string
}

// Compare returns -1, 0 or 1.
func (k SortKey) Compare(o SortKey) int {
	switch {
	case k.N < o.N:
		return -1
	case k.N > o.N:
		return 1
	}
	return strings.Compare(k.S, o.S)
}

// Infinity and NegInfinity are the keys of 'infinity' and '-infinity' of date and the timestamps. They leave the two
// outermost values free, which stores use for NULL.
const (
	Infinity    int64 = math.MaxInt64 - 1
	NegInfinity int64 = math.MinInt64 + 1
)

// Class of the column's type.
func (c Column) Class() Class {
	switch c.OID {
	case pgtype.BoolOID, pgtype.Int2OID, pgtype.Int4OID, pgtype.Int8OID, pgtype.OIDOID,
		pgtype.Float4OID, pgtype.Float8OID,
		pgtype.DateOID, pgtype.TimeOID, pgtype.TimestampOID, pgtype.TimestamptzOID:
		return Integer
	case pgtype.TextOID, pgtype.VarcharOID, pgtype.NameOID, pgtype.QCharOID, pgtype.BPCharOID, pgtype.UnknownOID,
		pgtype.NumericOID, pgtype.UUIDOID, pgtype.ByteaOID:
		return Bytes
	}
	if c.Enum {
		return Equality
	}
	return Opaque
}

// Bounds are the least and the greatest SortKey.N that a value of an Integer type can have.
func (c Column) Bounds() (lo, hi int64) {
	switch c.OID {
	case pgtype.BoolOID:
		return 0, 1
	case pgtype.Int2OID:
		return math.MinInt16, math.MaxInt16
	case pgtype.Int4OID:
		return math.MinInt32, math.MaxInt32
	case pgtype.OIDOID:
		return 0, math.MaxUint32
	}
	return math.MinInt64, math.MaxInt64
}

// SortKey of a value in PostgreSQL's text form. A timestamptz without a zone is read as UTC: who knows the session's
// TimeZone adds it before. The error says what was expected.
func (c Column) SortKey(text string) (SortKey, error) {
	var k SortKey
	var err error
	switch c.OID {
	case pgtype.BoolOID:
		k.N, err = boolKey(text)
	case pgtype.Int2OID, pgtype.Int4OID, pgtype.Int8OID, pgtype.OIDOID:
		k.N, err = strconv.ParseInt(strings.TrimSpace(text), 10, 64)
		if lo, hi := c.Bounds(); err == nil && (k.N < lo || k.N > hi) {
			err = strconv.ErrRange
		}
	case pgtype.Float4OID:
		k.N, err = floatKey(text, 32)
	case pgtype.Float8OID:
		k.N, err = floatKey(text, 64)
	case pgtype.DateOID:
		k.N, err = dateKey(text)
	case pgtype.TimeOID:
		k.N, err = timeKey(text)
	case pgtype.TimestampOID, pgtype.TimestamptzOID:
		k.N, err = timestampKey(text, c.OID == pgtype.TimestamptzOID)
	case pgtype.NumericOID:
		var d decimal
		d, err = parseDecimal(text)
		k.S = d.sortKey()
	case pgtype.UUIDOID:
		k.S, err = uuidText(text)
	case pgtype.ByteaOID:
		k.S, err = byteaText(text)
	case pgtype.BPCharOID: // trailing blanks do not count (PostgreSQL manual, 8.3)
		k.S = strings.TrimRight(text, " ")
	default:
		k.S = text
	}
	if err != nil {
		return SortKey{}, fmt.Errorf("column %s: %q is not a value of its type (oid %d): %w", c.Name, clip(text), c.OID, err)
	}
	return k, nil
}

// Canonical is one text for all texts of equal values ("1.50" and "1.5", upper and lower case of a uuid). Document
// keys are made of it, so that a key is found however it is written.
func (c Column) Canonical(text string) (string, error) {
	k, err := c.SortKey(text)
	if err != nil {
		return "", err
	}
	switch c.OID {
	case pgtype.BoolOID:
		return strconv.FormatBool(k.N == 1), nil
	case pgtype.Int2OID, pgtype.Int4OID, pgtype.Int8OID, pgtype.OIDOID, pgtype.TimeOID:
		return strconv.FormatInt(k.N, 10), nil
	case pgtype.Float4OID:
		return strconv.FormatFloat(keyFloat(k.N), 'g', -1, 32), nil
	case pgtype.Float8OID:
		return strconv.FormatFloat(keyFloat(k.N), 'g', -1, 64), nil
	case pgtype.DateOID:
		return canonicalMoment(k.N, microsPerDay, "2006-01-02"), nil
	case pgtype.TimestampOID:
		return canonicalMoment(k.N, 1, "2006-01-02 15:04:05.999999"), nil
	case pgtype.TimestamptzOID:
		return canonicalMoment(k.N, 1, "2006-01-02 15:04:05.999999Z07"), nil
	case pgtype.NumericOID:
		d, err := parseDecimal(text)
		return d.String(), err
	}
	return k.S, nil
}

func clip(s string) string {
	const most = 60
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}

func boolKey(s string) (int64, error) {
	switch strings.ToLower(strings.TrimSpace(s)) {
	case "t", "true", "y", "yes", "on", "1":
		return 1, nil
	case "f", "false", "n", "no", "off", "0":
		return 0, nil
	}
	return 0, fmt.Errorf("want true or false")
}

// floatKey maps IEEE 754 bits to integers of the same order: -0 equals 0, NaN equals itself and is the greatest.
func floatKey(s string, bits int) (int64, error) {
	s = strings.TrimSpace(s)
	if strings.ContainsAny(s, "xX_pP") {
		return 0, strconv.ErrSyntax
	}
	f, err := strconv.ParseFloat(s, bits)
	switch {
	case err != nil:
		return 0, err
	case f == 0:
		return 0, nil
	case math.IsNaN(f):
		return int64(math.Float64bits(math.NaN())), nil
	}
	n := int64(math.Float64bits(f))
	if n < 0 {
		n = ^n ^ math.MinInt64
	}
	return n, nil
}

func keyFloat(n int64) float64 {
	if n < 0 {
		n = ^(n ^ math.MinInt64)
	}
	return math.Float64frombits(uint64(n))
}

func uuidText(s string) (string, error) {
	h := strings.ToLower(strings.NewReplacer("-", "", "{", "", "}", "").Replace(strings.TrimSpace(s)))
	if _, err := hex.DecodeString(h); err != nil || len(h) != 32 {
		return "", fmt.Errorf("want 32 hexadecimal digits")
	}
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:], nil
}

// byteaText is the hex form in lower case, whose order is that of the bytes.
func byteaText(s string) (string, error) {
	h, ok := strings.CutPrefix(strings.ToLower(s), `\x`)
	if !ok {
		return "", fmt.Errorf(`want the hex form, \x0123abcd`)
	}
	if _, err := hex.DecodeString(h); err != nil {
		return "", err
	}
	return `\x` + h, nil
}

// canonicalMoment prints common years for people; the others as the key's number.
func canonicalMoment(n, unit int64, layout string) string {
	switch n {
	case Infinity:
		return "infinity"
	case NegInfinity:
		return "-infinity"
	}
	perSecond := 1_000_000 / unit // of a key's units; 0 for days
	var t time.Time
	if unit == microsPerDay {
		t = time.Unix(pgEpoch+n*86400, 0)
	} else {
		sec := floorDiv(n, perSecond)
		t = time.Unix(pgEpoch+sec, (n-sec*perSecond)*1000*unit)
	}
	if t = t.UTC(); t.Year() < 1 || t.Year() > 9999 {
		return strconv.FormatInt(n, 10)
	}
	return t.Format(layout)
}

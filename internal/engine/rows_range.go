package engine

import (
	"encoding/binary"
	"errors"

	"github.com/jackc/pgx/v5/pgtype"
)

// Flags of a range on the wire (rangetypes.h).
const (
	rangeEmpty          = 0x01
	rangeLowerInclusive = 0x02
	rangeUpperInclusive = 0x04
	rangeLowerInfinite  = 0x08
	rangeUpperInfinite  = 0x10
)

var errRangeText = errors.New("malformed range")

// rangeElement is the element type of a built-in range type, or of a multirange's ranges.
func rangeElement(oid uint32) (elem uint32, multi, ok bool) {
	t, ok := knownTypes.TypeForOID(oid)
	if !ok {
		return 0, false, false
	}
	switch c := t.Codec.(type) {
	case *pgtype.RangeCodec:
		return c.ElementType.OID, false, true
	case *pgtype.MultirangeCodec:
		elem, _, ok = rangeElement(c.ElementType.OID)
		return elem, true, ok
	}
	return 0, false, false
}

// rangeText reads range_out's and multirange_out's forms (PostgreSQL manual, 8.17.5).
type rangeText struct {
	elem uint32
	in   []byte
}

// appendMultirange appends multirange_send's form: the number of ranges, and each with its length.
func appendMultirange(elem uint32, text, dst []byte) ([]byte, error) {
	p := rangeText{elem: elem, in: text}
	if !p.skip('{') {
		return dst, errRangeText
	}
	at, n := len(dst), uint32(0)
	dst = append(dst, 0, 0, 0, 0)
	for !p.skip('}') {
		if n > 0 && !p.skip(',') {
			return dst, errRangeText
		}
		start := len(dst)
		dst = append(dst, 0, 0, 0, 0)
		var err error
		if dst, err = p.one(dst); err != nil {
			return dst, err
		}
		binary.BigEndian.PutUint32(dst[start:], uint32(len(dst)-start-4))
		n++
	}
	if len(p.in) > 0 {
		return dst, errRangeText
	}
	binary.BigEndian.PutUint32(dst[at:], n)
	return dst, nil
}

// appendRange appends range_send's form: flags, then each finite bound with its length.
func appendRange(elem uint32, text, dst []byte) ([]byte, error) {
	if string(text) == "empty" {
		return append(dst, rangeEmpty), nil
	}
	p := rangeText{elem: elem, in: text}
	dst, err := p.one(dst)
	if err == nil && len(p.in) > 0 {
		err = errRangeText
	}
	return dst, err
}

func (p *rangeText) skip(c byte) bool {
	if len(p.in) > 0 && p.in[0] == c {
		p.in = p.in[1:]
		return true
	}
	return false
}

func (p *rangeText) one(dst []byte) ([]byte, error) {
	at := len(dst)
	flags := byte(0)
	dst = append(dst, 0)
	if p.skip('[') {
		flags |= rangeLowerInclusive
	} else if !p.skip('(') {
		return dst, errRangeText
	}
	dst, finite, err := p.bound(dst)
	if err != nil || !p.skip(',') {
		return dst, errors.Join(errRangeText, err)
	}
	if !finite {
		flags |= rangeLowerInfinite
	}
	if dst, finite, err = p.bound(dst); err != nil {
		return dst, errors.Join(errRangeText, err)
	}
	if !finite {
		flags |= rangeUpperInfinite
	}
	if p.skip(']') {
		flags |= rangeUpperInclusive
	} else if !p.skip(')') {
		return dst, errRangeText
	}
	dst[at] = flags
	return dst, nil
}

// bound reads up to the comma or bracket. Quotes may be doubled or escaped inside quotes; nothing at all is infinity.
func (p *rangeText) bound(dst []byte) (_ []byte, finite bool, err error) {
	var text []byte
	quoted, seen := false, false
	for len(p.in) > 0 {
		c := p.in[0]
		if !quoted && (c == ',' || c == ')' || c == ']') {
			break
		}
		p.in = p.in[1:]
		seen = true
		switch {
		case c == '\\' && len(p.in) > 0:
			text = append(text, p.in[0])
			p.in = p.in[1:]
		case c == '"' && quoted && len(p.in) > 0 && p.in[0] == '"':
			text = append(text, '"')
			p.in = p.in[1:]
		case c == '"':
			quoted = !quoted
		default:
			text = append(text, c)
		}
	}
	if !seen {
		return dst, false, nil
	}
	at := len(dst)
	if dst, err = appendBinary(p.elem, text, append(dst, 0, 0, 0, 0)); err != nil {
		return dst, true, err
	}
	binary.BigEndian.PutUint32(dst[at:], uint32(len(dst)-at-4))
	return dst, true, nil
}

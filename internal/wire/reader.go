package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
)

// ErrIncomplete is returned by decoders that work on the beginning of a message when what was asked for lies beyond the
// bytes at hand. Read more and ask again.
var ErrIncomplete = errors.New("wire: the message is not complete")

// reader walks through a body. The first failure sticks, and later reads give zero values.
type reader struct {
	b   []byte
	bad bool
	why string // PostgreSQL's message for that (pqformat.c)
}

func (r *reader) byte() byte {
	if len(r.b) < 1 {
		r.fail("no data left in message")
		return 0
	}
	c := r.b[0]
	r.b = r.b[1:]
	return c
}

func (r *reader) int16() int16 {
	if len(r.b) < 2 {
		r.fail("insufficient data left in message")
		return 0
	}
	n := int16(binary.BigEndian.Uint16(r.b))
	r.b = r.b[2:]
	return n
}

func (r *reader) int32() int32 {
	if len(r.b) < 4 {
		r.fail("insufficient data left in message")
		return 0
	}
	n := int32(binary.BigEndian.Uint32(r.b))
	r.b = r.b[4:]
	return n
}

// cstring takes the bytes up to the next zero byte, which it drops.
func (r *reader) cstring() []byte {
	i := 0
	if len(r.b) == 0 || r.b[0] != 0 { // most names are empty
		if i = bytes.IndexByte(r.b, 0); i < 0 {
			r.fail("invalid string in message")
			return nil
		}
	}
	s := r.b[:i:i]
	r.b = r.b[i+1:]
	return s
}

func (r *reader) take(n int) []byte {
	if n < 0 || len(r.b) < n {
		r.fail("insufficient data left in message")
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

// value takes a length-prefixed value; nil is NULL.
func (r *reader) value() []byte {
	n := r.int32()
	if n == -1 {
		return nil
	}
	return r.take(int(n))
}

func (r *reader) fail(why string) {
	if !r.bad {
		r.b, r.bad, r.why = nil, true, why
	}
}

// end says what was wrong with the message: too short, or bytes left over.
func (r *reader) end(message string) error {
	switch {
	case r.bad:
		return Errorf(ProtocolViolation, "%s", r.why).WithDetail("It was a %s message.", message)
	case len(r.b) > 0:
		return LeftOver(len(r.b), message)
	}
	return nil
}

// LeftOver is what is wrong with a message that has n bytes too many.
func LeftOver(n int, message string) *Error {
	return Errorf(ProtocolViolation, "invalid message format").WithDetail("%d bytes are left over behind a %s message.", n, message)
}

package wire

import "encoding/binary"

// Bind is a Bind message, whole or as much of it as has arrived: a Bind of many megabytes is streamed, and its routing
// key usually lies near the front. All fields are views.
type Bind struct {
	Portal    []byte
	Statement []byte

	formats []byte // parameter formats, 2 bytes each: none, one for all, or one each
	n       int    // parameters
	values  []byte // from the first value's length on, to the end of the bytes at hand
	results []byte // result formats; nil until whole
	whole   bool
}

// DecodeBind decodes the body of a whole Bind message and checks it from end to end.
func DecodeBind(body []byte) (b Bind, err error) {
	r := reader{b: body}
	b.head(&r)
	for range b.n {
		r.value()
	}
	b.values = b.values[:len(b.values)-len(r.b)]
	b.results = r.take(2 * int(uint16(r.int16())))
	b.whole = true
	if r.bad || len(r.b) > 0 {
		return Bind{}, r.end("Bind")
	}
	return b, nil
}

// DecodeBindPart decodes the beginning of a Bind's body, of which more is to come. It needs everything in front of the
// values: names, formats and the number of parameters; err is ErrIncomplete until that is there.
func DecodeBindPart(part []byte) (b Bind, err error) {
	r := reader{b: part}
	b.head(&r)
	if r.bad {
		return Bind{}, ErrIncomplete
	}
	return b, nil
}

// head reads what stands in front of the values; nothing counts as a parameter where it is not all there.
func (b *Bind) head(r *reader) {
	b.Portal, b.Statement = r.cstring(), r.cstring()
	b.formats = r.take(2 * int(uint16(r.int16())))
	b.n = int(uint16(r.int16()))
	b.values = r.b
}

// Check is what PostgreSQL checks between finding the statement and looking at a value (exec_bind_message).
func (b *Bind) Check() error {
	if nf := len(b.formats) / 2; nf > 1 && nf != b.n {
		return Errorf(ProtocolViolation, "bind message has %d parameter formats but %d parameters", nf, b.n)
	}
	return nil
}

// Whole says whether all of the message is at hand, and so whether every Param and the result formats can be asked for.
func (b *Bind) Whole() bool { return b.whole }

// NumParams is the number of parameters.
func (b *Bind) NumParams() int { return b.n }

// AllText says that no format of a parameter was given: all are text.
func (b *Bind) AllText() bool { return len(b.formats) == 0 }

// ParamFormat is the format of parameter i (from 0): FormatText or FormatBinary, or a number that the server will refuse.
func (b *Bind) ParamFormat(i int) int16 { return format(b.formats, i) }

// Param is the value of parameter i, counted from 0. NULL is nil; an empty value is not nil. err is ErrIncomplete when
// the value does not lie wholly within the bytes at hand. It walks over the values before i.
func (b *Bind) Param(i int) (value []byte, err error) {
	if i < 0 || i >= b.n {
		return nil, Errorf(ProtocolViolation, "bind message supplies %d parameters, but parameter $%d is needed", b.n, i+1)
	}
	rest := b.values
	for {
		if len(rest) < 4 {
			return nil, ErrIncomplete
		}
		n := int(int32(binary.BigEndian.Uint32(rest)))
		rest = rest[4:]
		if n < -1 {
			return nil, Errorf(ProtocolViolation, "invalid length %d of a parameter in a bind message", n)
		}
		if i == 0 {
			if n == -1 {
				return nil, nil
			}
			if len(rest) < n {
				return nil, ErrIncomplete
			}
			return rest[:n:n], nil
		}
		if n > 0 {
			if len(rest) < n {
				return nil, ErrIncomplete
			}
			rest = rest[n:]
		}
		i--
	}
}

// Params appends all values: NULL is nil. Only for a whole message.
func (b *Bind) Params(dst [][]byte) [][]byte {
	rest := b.values
	for range b.n {
		n := int(int32(binary.BigEndian.Uint32(rest)))
		rest = rest[4:]
		if n < 0 {
			dst = append(dst, nil)
			continue
		}
		dst = append(dst, rest[:n:n])
		rest = rest[n:]
	}
	return dst
}

// NumResultFormats is how many result formats were given: none (all text), one for all columns, or one each. Only for a
// whole message.
func (b *Bind) NumResultFormats() int { return len(b.results) / 2 }

// ResultFormat is the format asked for column i. Only for a whole message.
func (b *Bind) ResultFormat(i int) int16 { return format(b.results, i) }

func format(list []byte, i int) int16 {
	switch len(list) / 2 {
	case 0:
		return FormatText
	case 1:
		i = 0
	}
	return int16(binary.BigEndian.Uint16(list[2*i:]))
}

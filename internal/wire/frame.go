package wire

import "encoding/binary"

// HeaderLen is the length of a frame's header: the type byte and the length word.
const HeaderLen = 5

// Frame is one whole message. Body is a view of what follows the header; Len counts the header too, so the frame's bytes
// are b[:Len] of the buffer that it was found in.
type Frame struct {
	Type byte
	Body []byte
	Len  int
}

// Header reads a frame's first five bytes: its type and its whole size in bytes, header included. size is 0 while fewer
// than five bytes are at hand. err is a *Error of code 08P01 when no such message exists in that direction or its length
// cannot be; then the connection is lost, for nothing behind it can be understood.
func Header(b []byte, from Sender) (typ byte, size int, err error) {
	if len(b) < HeaderLen {
		if len(b) > 0 && messages[from&1][b[0]] == 0 {
			return b[0], 0, errUnknownType(b[0], from)
		}
		return 0, 0, nil
	}
	typ = b[0]
	t := messages[from&1][typ]
	if t == 0 {
		return typ, 0, errUnknownType(typ, from)
	}
	n := binary.BigEndian.Uint32(b[1:5])
	if n < 4 || n > uint32(t.limit()) {
		return typ, 0, errLength(typ, from, n)
	}
	return typ, int(n) + 1, nil
}

// Next finds the frame at the start of b. A whole frame gives need == 0. Otherwise need is how many bytes the frame has
// in all (HeaderLen until its header is there), Body is nil, and Type and Len are set once the header is known, so that
// a relay can stream a large frame that it need not hold.
//
// limit bounds the whole frame in bytes, for callers that must hold it (0: PostgreSQL's own limits only). err is as
// Header's, and also reports a frame over the limit.
func Next(b []byte, from Sender, limit int) (f Frame, need int, err error) {
	typ, size, err := Header(b, from)
	if err != nil {
		return Frame{}, 0, err
	}
	if size == 0 {
		return Frame{}, HeaderLen, nil
	}
	if limit > 0 && size > limit {
		return Frame{}, 0, Errorf(ProtocolViolation, "message of type %q is %d bytes long, at most %d are allowed here", typ, size, limit).Fatal()
	}
	if len(b) < size {
		return Frame{Type: typ, Len: size}, size, nil
	}
	return Frame{Type: typ, Body: b[HeaderLen:size:size], Len: size}, 0, nil
}

func errUnknownType(typ byte, from Sender) error {
	return Errorf(ProtocolViolation, "invalid %s message type %d", from, typ).Fatal()
}

func errLength(typ byte, from Sender, n uint32) error {
	return Errorf(ProtocolViolation, "invalid message length").
		WithDetail("A %s message of type %q declares %d bytes.", from, typ, int32(n)).Fatal()
}

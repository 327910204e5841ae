package wire

import (
	"bytes"
	"encoding/binary"
)

// Rename copies the front of a Parse, Bind, Describe or Close with another statement name, so that the rest of the frame
// can follow untouched, from memory or as a stream. frame is the frame's beginning, header included, with at least its
// names in it; size is its whole length, as Header gave. The new front, with a length that fits, is appended to dst; used
// is how many bytes of the original it stands for: frame[used:size] must follow.
//
// A Describe or Close of a portal names no statement and keeps its name. err is ErrIncomplete when the names are not
// at hand; size tells whether more can come.
func Rename[S Text](dst, frame []byte, size int, statement S) (out []byte, used int, err error) {
	if len(frame) < HeaderLen {
		return dst, 0, ErrIncomplete
	}
	body := frame[HeaderLen:min(len(frame), size)]
	start := 0 // of the old name in body
	switch frame[0] {
	case MsgParse:
	case MsgBind:
		i := bytes.IndexByte(body, 0)
		if i < 0 {
			return dst, 0, short(frame, size)
		}
		start = i + 1
	case MsgDescribe, MsgClose:
		if len(body) < 1 {
			return dst, 0, short(frame, size)
		}
		if body[0] != KindStatement {
			return append(dst, frame[:HeaderLen]...), HeaderLen, nil
		}
		start = 1
	default:
		return dst, 0, Errorf(InternalError, "message of type %q names no statement", frame[0])
	}
	old := bytes.IndexByte(body[start:], 0)
	if old < 0 {
		return dst, 0, short(frame, size)
	}
	used = HeaderLen + start + old + 1
	at := len(dst)
	dst = append(dst, frame[:HeaderLen+start]...)
	dst = appendCString(dst, statement)
	grown := len(dst) - at - used
	if size+grown-1 > LargeMessageLimit {
		return dst[:at], 0, Errorf(ProgramLimitExceeded, "message is too long to be given the name of a prepared statement")
	}
	binary.BigEndian.PutUint32(dst[at+1:], uint32(size-1+grown))
	return dst, used, nil
}

// short tells a name that has yet to arrive from one that never ends.
func short(frame []byte, size int) error {
	if len(frame) < size {
		return ErrIncomplete
	}
	return Errorf(ProtocolViolation, "invalid string in message")
}

// AppendRenamed appends a whole frame (header included) with another statement name.
func AppendRenamed[S Text](dst, frame []byte, statement S) ([]byte, error) {
	out, used, err := Rename(dst, frame, len(frame), statement)
	if err != nil {
		return dst, err
	}
	return append(out, frame[used:]...), nil
}

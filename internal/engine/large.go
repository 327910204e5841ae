package engine

import (
	"encoding/binary"
	"unicode/utf8"

	"github.com/tidemarkdb/tidemark/internal/wire"
)

// maxSteering bounds, in bytes, a server's message that is looked at as a whole. All that steer a session are far smaller, but
// a function can raise a notice or an error, or return a value, of up to 1 GB.
const maxSteering = 1 << 20

// large begins a message over maxSteering of which have is the beginning; false: it must wait for more of it.
//
//	notice, function's result   passed on while it comes
//	error                       its end is cut off, which is its text: code and severity stand before that
//	row                         not here: rows are passed on at any size
//	any other                   no server sends it
func (l *Link) large(r *Relay, typ byte, size int, st *stretch) bool {
	have := st.b[st.pos:]
	mute := MuteError
	switch typ {
	case wire.MsgFunctionCallResponse:
		mute = MuteRows
		fallthrough
	case wire.MsgNoticeResponse:
		e := l.first()
		l.rest, l.mute = 1+size, e == nil || e.Mute&mute != 0 && (typ != wire.MsgNoticeResponse || e.Reply == nil || !e.Reply.PassNotices)
		return true
	case wire.MsgErrorResponse:
		if len(have) < maxSteering {
			return false
		}
		st.cut(r)
		body := cut(have[wire.HeaderLen:])
		if l.message(r, typ, body, nil) {
			out := binary.BigEndian.AppendUint32(append(r.Out(), typ), uint32(4+len(body)))
			r.SetOut(append(out, body...))
		}
		l.synthetic(r, nil)
		l.rest, l.mute = 1+size, true
		return true
	}
	l.broke(l.unexpected(typ))
	return false
}

// cut makes an error's body of its beginning: the last field ends where a character does.
func cut(part []byte) []byte {
	n := len(part)
	for n > 0 && n > len(part)-utf8.UTFMax && !utf8.RuneStart(part[n-1]) {
		n--
	}
	if n > 0 && part[n-1] >= utf8.RuneSelf { // the first byte of a character whose rest is missing
		n--
	}
	body := append(make([]byte, 0, n+2), part[:n]...)
	if n > 0 && part[n-1] != 0 {
		body = append(body, 0)
	}
	return append(body, 0)
}

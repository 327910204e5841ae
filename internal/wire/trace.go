package wire

import (
	"fmt"
	"strconv"
)

// AppendTrace appends one line, without a line feed, that describes a message in the manner of libpq's PQtrace: sender,
// length without the type byte, name, fields.
//
//	F 13 Query "select 1"
//	B 5 ReadyForQuery I
//
// What differs between runs is left out as PQTRACE_REGRESS_MODE does (process ids, cancel keys, table OIDs, source lines
// of errors), and so are secrets. A broken message is shown with its bytes. For transcripts and people, not for speed.
func AppendTrace(dst []byte, from Sender, f Frame) []byte {
	side := byte('F')
	if from == Backend {
		side = 'B'
	}
	dst = append(dst, side, ' ')
	dst = strconv.AppendInt(dst, int64(f.Len-1), 10)
	dst = append(dst, ' ')
	at := len(dst)
	t := trace{reader: reader{b: f.Body}, dst: dst}
	if from == Frontend {
		t.frontend(f)
	} else {
		t.backend(f)
	}
	if t.bad || len(t.b) > 0 {
		return fmt.Appendf(t.dst[:at], "malformed %q %q", f.Type, f.Body)
	}
	return t.dst
}

// AppendStartupTrace is AppendTrace for the packets without a type byte.
func AppendStartupTrace(dst []byte, size int, s Startup) []byte {
	dst = fmt.Appendf(dst, "F %d ", size)
	switch s.Kind {
	case SSLRequest:
		return append(dst, "SSLRequest"...)
	case GSSENCRequest:
		return append(dst, "GSSENCRequest"...)
	case CancelRequest:
		return append(dst, "CancelRequest NNNN NNNN"...)
	case StartupMessage:
	}
	dst = fmt.Appendf(dst, "StartupMessage %d %d", s.Version>>16, s.Version&0xffff)
	for _, p := range s.Params {
		dst = fmt.Appendf(dst, " %q %q", p.Name, p.Value)
	}
	return dst
}

// trace writes the fields that it reads.
type trace struct {
	reader
	dst []byte
}

func (t *trace) name(s string)  { t.dst = append(t.dst, s...) }
func (t *trace) word(s string)  { t.dst = append(append(t.dst, ' '), s...) }
func (t *trace) number(n int64) { t.dst = strconv.AppendInt(append(t.dst, ' '), n, 10) }

func (t *trace) str() { t.dst = fmt.Appendf(t.dst, " %s", strconv.Quote(string(t.cstring()))) }
func (t *trace) i16() { t.number(int64(t.int16())) }
func (t *trace) i32() { t.number(int64(t.int32())) }
func (t *trace) kind() {
	t.dst = append(t.dst, ' ', t.byte())
}

// each runs f as often as the next count says.
func (t *trace) each(f func()) {
	n := int(uint16(t.int16()))
	t.number(int64(n))
	for ; n > 0 && !t.bad; n-- {
		f()
	}
}

// val shows a value: its length and its bytes, or -1 for NULL.
func (t *trace) val() {
	v := t.value()
	if v == nil {
		t.number(-1)
		return
	}
	t.dst = fmt.Appendf(t.dst, " %d '%s'", len(v), printable(v))
}

// rest shows what is left of the message.
func (t *trace) rest() {
	t.dst = fmt.Appendf(t.dst, " '%s'", printable(t.take(len(t.b))))
}

// printable escapes as libpq does: what is not printable ASCII as \xhh.
func printable(v []byte) []byte {
	out := make([]byte, 0, len(v))
	for _, c := range v {
		if c < ' ' || c > '~' {
			out = fmt.Appendf(out, `\x%02x`, c)
			continue
		}
		out = append(out, c)
	}
	return out
}

func (t *trace) frontend(f Frame) {
	switch f.Type {
	case MsgBind:
		t.name("Bind")
		t.str()
		t.str()
		t.each(t.i16)
		t.each(t.val)
		t.each(t.i16)
	case MsgClose:
		t.name("Close")
		t.kind()
		t.str()
	case MsgDescribe:
		t.name("Describe")
		t.kind()
		t.str()
	case MsgExecute:
		t.name("Execute")
		t.str()
		t.i32()
	case MsgFunctionCall:
		t.name("FunctionCall")
		t.i32()
		t.each(t.i16)
		t.each(t.val)
		t.i16()
	case MsgFlush:
		t.name("Flush")
	case MsgParse:
		t.name("Parse")
		t.str()
		t.str()
		t.each(t.i32)
	case MsgQuery:
		t.name("Query")
		t.str()
	case MsgSync:
		t.name("Sync")
	case MsgTerminate:
		t.name("Terminate")
	case MsgCopyFail:
		t.name("CopyFail")
		t.str()
	case MsgPassword:
		t.name("Password")
		t.b = nil // a secret
	default:
		t.either(f)
	}
}

func (t *trace) backend(f Frame) {
	switch f.Type {
	case MsgParseComplete:
		t.name("ParseComplete")
	case MsgBindComplete:
		t.name("BindComplete")
	case MsgCloseComplete:
		t.name("CloseComplete")
	case MsgNotificationResponse:
		t.name("NotificationResponse")
		t.masked(4)
		t.str()
		t.str()
	case MsgCommandComplete:
		t.name("CommandComplete")
		t.str()
	case MsgDataRow:
		t.name("DataRow")
		t.each(t.val)
	case MsgErrorResponse:
		t.name("ErrorResponse")
		t.errorFields()
	case MsgNoticeResponse:
		t.name("NoticeResponse")
		t.errorFields()
	case MsgCopyInResponse, MsgCopyOutResponse, MsgCopyBothResponse:
		t.name(map[byte]string{MsgCopyInResponse: "CopyInResponse", MsgCopyOutResponse: "CopyOutResponse", MsgCopyBothResponse: "CopyBothResponse"}[f.Type])
		t.number(int64(t.byte()))
		t.each(t.i16)
	case MsgEmptyQueryResponse:
		t.name("EmptyQueryResponse")
	case MsgBackendKeyData:
		t.name("BackendKeyData")
		t.masked(4)
		t.masked(len(t.b))
	case MsgAuthentication:
		t.authentication()
	case MsgParameterStatus:
		t.name("ParameterStatus")
		t.str()
		t.str()
	case MsgRowDescription:
		t.name("RowDescription")
		t.each(func() {
			t.str()
			t.masked(4)
			t.i16()
			t.i32()
			t.i16()
			t.i32()
			t.i16()
		})
	case MsgFunctionCallResponse:
		t.name("FunctionCallResponse")
		t.val()
	case MsgReadyForQuery:
		t.name("ReadyForQuery")
		t.kind()
	case MsgNoData:
		t.name("NoData")
	case MsgPortalSuspended:
		t.name("PortalSuspended")
	case MsgParameterDescription:
		t.name("ParameterDescription")
		t.each(t.i32)
	case MsgNegotiateProtocolVersion:
		t.name("NegotiateProtocolVersion")
		v := t.int32()
		t.number(int64(v >> 16))
		t.number(int64(v & 0xffff))
		n := t.int32()
		t.number(int64(n))
		for ; n > 0 && !t.bad; n-- {
			t.str()
		}
	default:
		t.either(f)
	}
}

func (t *trace) either(f Frame) {
	switch f.Type {
	case MsgCopyDone:
		t.name("CopyDone")
	case MsgCopyData:
		t.name("CopyData")
		t.rest()
	default:
		t.name("Unknown")
		t.bad = true
	}
}

// masked skips n bytes whose value differs between runs.
func (t *trace) masked(n int) {
	t.take(n)
	t.word("NNNN")
}

// errorFields shows all fields but those that name PostgreSQL's source, which differ between versions.
func (t *trace) errorFields() {
	for !t.bad {
		k := t.byte()
		if k == 0 {
			return
		}
		v := t.cstring()
		if k == 'F' || k == 'L' || k == 'R' {
			continue
		}
		t.dst = fmt.Appendf(t.dst, " %c %s", k, strconv.Quote(string(v)))
	}
}

func (t *trace) authentication() {
	switch code := t.int32(); code {
	case AuthOK:
		t.name("AuthenticationOk")
	case AuthCleartextPassword:
		t.name("AuthenticationCleartextPassword")
	case AuthMD5Password:
		t.name("AuthenticationMD5Password")
		t.masked(4)
	case AuthSASL:
		t.name("AuthenticationSASL")
		for len(t.b) > 1 {
			t.str()
		}
		t.take(1)
	case AuthSASLContinue:
		t.name("AuthenticationSASLContinue")
		t.masked(len(t.b))
	case AuthSASLFinal:
		t.name("AuthenticationSASLFinal")
		t.masked(len(t.b))
	default:
		t.name("Authentication")
		t.number(int64(code))
		t.rest()
	}
}

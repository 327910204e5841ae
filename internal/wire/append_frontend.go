package wire

import (
	"bytes"
	"encoding/binary"
)

// Text is a string or a view of one. Texts end at a zero byte on the wire, so nothing behind one is ever written.
type Text interface{ ~string | ~[]byte }

// begin starts a message and returns where its length word is, for finish.
func begin(dst []byte, typ byte) ([]byte, int) {
	return append(dst, typ, 0, 0, 0, 0), len(dst) + 1
}

// finish writes the length of the message whose length word is at that place.
func finish(dst []byte, at int) []byte {
	binary.BigEndian.PutUint32(dst[at:], uint32(len(dst)-at))
	return dst
}

func appendInt16(dst []byte, n int16) []byte { return binary.BigEndian.AppendUint16(dst, uint16(n)) }
func appendInt32(dst []byte, n int32) []byte { return binary.BigEndian.AppendUint32(dst, uint32(n)) }

// appendCString cuts the text at a zero byte: what follows would be read as the message's next field.
func appendCString[S Text](dst []byte, s S) []byte {
	at := len(dst)
	dst = append(dst, s...)
	if i := bytes.IndexByte(dst[at:], 0); i >= 0 {
		dst = dst[:at+i]
	}
	return append(dst, 0)
}

func appendValue(dst, v []byte) []byte {
	if v == nil {
		return appendInt32(dst, -1)
	}
	return append(appendInt32(dst, int32(len(v))), v...)
}

// AppendQuery appends a Query.
func AppendQuery[S Text](dst []byte, sql S) []byte {
	dst, at := begin(dst, MsgQuery)
	return finish(appendCString(dst, sql), at)
}

// AppendParse appends a Parse. oids may be shorter than the list of parameters, or nil.
func AppendParse[N, S Text](dst []byte, name N, sql S, oids []uint32) []byte {
	dst, at := begin(dst, MsgParse)
	dst = appendCString(appendCString(dst, name), sql)
	dst = appendInt16(dst, int16(len(oids)))
	for _, o := range oids {
		dst = binary.BigEndian.AppendUint32(dst, o)
	}
	return finish(dst, at)
}

// AppendBind appends a Bind. formats and results are none (all text), one for all, or one each; a nil value is NULL.
func AppendBind[P, S Text](dst []byte, portal P, statement S, formats []int16, values [][]byte, results []int16) []byte {
	dst, at := begin(dst, MsgBind)
	dst = appendCString(appendCString(dst, portal), statement)
	dst = appendFormats(dst, formats)
	dst = appendInt16(dst, int16(len(values)))
	for _, v := range values {
		dst = appendValue(dst, v)
	}
	return finish(appendFormats(dst, results), at)
}

func appendFormats(dst []byte, formats []int16) []byte {
	dst = appendInt16(dst, int16(len(formats)))
	for _, f := range formats {
		dst = appendInt16(dst, f)
	}
	return dst
}

// AppendDescribe appends a Describe of kind KindStatement or KindPortal.
func AppendDescribe[N Text](dst []byte, kind byte, name N) []byte {
	dst, at := begin(dst, MsgDescribe)
	return finish(appendCString(append(dst, kind), name), at)
}

// AppendClose appends a Close of kind KindStatement or KindPortal.
func AppendClose[N Text](dst []byte, kind byte, name N) []byte {
	dst, at := begin(dst, MsgClose)
	return finish(appendCString(append(dst, kind), name), at)
}

// AppendExecute appends an Execute; maxRows of 0 is no limit.
func AppendExecute[N Text](dst []byte, portal N, maxRows int32) []byte {
	dst, at := begin(dst, MsgExecute)
	return finish(appendInt32(appendCString(dst, portal), maxRows), at)
}

// AppendSync appends a Sync.
func AppendSync(dst []byte) []byte { return append(dst, MsgSync, 0, 0, 0, 4) }

// AppendFlush appends a Flush.
func AppendFlush(dst []byte) []byte { return append(dst, MsgFlush, 0, 0, 0, 4) }

// AppendTerminate appends a Terminate.
func AppendTerminate(dst []byte) []byte { return append(dst, MsgTerminate, 0, 0, 0, 4) }

// AppendCopyData appends a CopyData (either direction).
func AppendCopyData(dst, data []byte) []byte {
	dst, at := begin(dst, MsgCopyData)
	return finish(append(dst, data...), at)
}

// AppendCopyDone appends a CopyDone (either direction).
func AppendCopyDone(dst []byte) []byte { return append(dst, MsgCopyDone, 0, 0, 0, 4) }

// AppendCopyFail appends a CopyFail with the reason that the server puts into its error.
func AppendCopyFail[S Text](dst []byte, reason S) []byte {
	dst, at := begin(dst, MsgCopyFail)
	return finish(appendCString(dst, reason), at)
}

// AppendPassword appends a PasswordMessage.
func AppendPassword[S Text](dst []byte, password S) []byte {
	dst, at := begin(dst, MsgPassword)
	return finish(appendCString(dst, password), at)
}

// AppendSASLInitial appends a SASLInitialResponse; a nil response is none.
func AppendSASLInitial[S Text](dst []byte, mechanism S, response []byte) []byte {
	dst, at := begin(dst, MsgPassword)
	return finish(appendValue(appendCString(dst, mechanism), response), at)
}

// AppendSASLResponse appends a SASLResponse.
func AppendSASLResponse(dst, response []byte) []byte {
	dst, at := begin(dst, MsgPassword)
	return finish(append(dst, response...), at)
}

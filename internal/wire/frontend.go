package wire

import "encoding/binary"

// Parse is a Parse message: make a prepared statement. All fields are views.
type Parse struct {
	Name []byte // of the prepared statement, empty for the unnamed one
	SQL  []byte
	oids []byte
}

// NumOIDs is how many parameter types the client gave; it may give fewer than there are parameters.
func (p *Parse) NumOIDs() int { return len(p.oids) / 4 }

// OID is the type of parameter i (from 0), 0 for unspecified.
func (p *Parse) OID(i int) uint32 { return binary.BigEndian.Uint32(p.oids[4*i:]) }

// AppendOIDs appends all parameter types.
func (p *Parse) AppendOIDs(dst []uint32) []uint32 {
	for i := range p.NumOIDs() {
		dst = append(dst, p.OID(i))
	}
	return dst
}

// HasOIDs says whether the parameter types are these.
func (p *Parse) HasOIDs(oids []uint32) bool {
	if p.NumOIDs() != len(oids) {
		return false
	}
	for i, oid := range oids {
		if p.OID(i) != oid {
			return false
		}
	}
	return true
}

// DecodeParse decodes the body of a Parse message.
func DecodeParse(body []byte) (Parse, error) {
	r := reader{b: body}
	p := Parse{Name: r.cstring(), SQL: r.cstring()}
	p.oids = r.take(4 * int(uint16(r.int16())))
	return p, r.end("Parse")
}

// DecodeQuery decodes the body of a Query message: the text, which may hold several statements or none.
func DecodeQuery(body []byte) (sql []byte, err error) {
	r := reader{b: body}
	sql = r.cstring()
	return sql, r.end("Query")
}

// Target is what a Describe or Close is about.
type Target struct {
	Kind byte // KindStatement or KindPortal
	Name []byte
}

// DecodeDescribe decodes the body of a Describe message.
func DecodeDescribe(body []byte) (Target, error) { return decodeTarget(body, "DESCRIBE") }

// DecodeClose decodes the body of a Close message.
func DecodeClose(body []byte) (Target, error) { return decodeTarget(body, "CLOSE") }

func decodeTarget(body []byte, message string) (Target, error) {
	r := reader{b: body}
	t := Target{Kind: r.byte(), Name: r.cstring()}
	if err := r.end(message); err != nil {
		return Target{}, err
	}
	if t.Kind != KindStatement && t.Kind != KindPortal {
		return Target{}, Errorf(ProtocolViolation, "invalid %s message subtype %d", message, t.Kind)
	}
	return t, nil
}

// Execute is an Execute message. MaxRows of 0 is no limit.
type Execute struct {
	Portal  []byte
	MaxRows int32
}

// DecodeExecute decodes the body of an Execute message.
func DecodeExecute(body []byte) (Execute, error) {
	r := reader{b: body}
	e := Execute{Portal: r.cstring(), MaxRows: r.int32()}
	return e, r.end("Execute")
}

// DecodeCopyFail decodes the body of a CopyFail message: why the client gave up.
func DecodeCopyFail(body []byte) (reason []byte, err error) {
	r := reader{b: body}
	reason = r.cstring()
	return reason, r.end("CopyFail")
}

// DecodePassword decodes the body of a PasswordMessage (clear text or MD5). The view holds a secret: do not log it.
func DecodePassword(body []byte) (password []byte, err error) {
	r := reader{b: body}
	password = r.cstring()
	return password, r.end("PasswordMessage")
}

// SASLInitial is a SASLInitialResponse. Response is nil when the client sent none. The bodies of later SASLResponse
// messages are the response itself and need no decoding.
type SASLInitial struct {
	Mechanism []byte
	Response  []byte
}

// DecodeSASLInitial decodes the body of a SASLInitialResponse message.
func DecodeSASLInitial(body []byte) (SASLInitial, error) {
	r := reader{b: body}
	s := SASLInitial{Mechanism: r.cstring(), Response: r.value()}
	return s, r.end("SASLInitialResponse")
}

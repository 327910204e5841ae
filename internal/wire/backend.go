package wire

import "encoding/binary"

// DecodeReadyForQuery decodes the transaction status: TxIdle, TxOpen or TxAborted.
func DecodeReadyForQuery(body []byte) (status byte, err error) {
	r := reader{b: body}
	status = r.byte()
	if err := r.end("ReadyForQuery"); err != nil {
		return 0, err
	}
	if status != TxIdle && status != TxOpen && status != TxAborted {
		return 0, Errorf(ProtocolViolation, "invalid transaction status %d in ReadyForQuery", status)
	}
	return status, nil
}

// DecodeParameterStatus decodes a ParameterStatus: a setting that the server reports.
func DecodeParameterStatus(body []byte) (name, value []byte, err error) {
	r := reader{b: body}
	name, value = r.cstring(), r.cstring()
	return name, value, r.end("ParameterStatus")
}

// DecodeBackendKeyData decodes what a CancelRequest must name. key has 4 bytes in protocol 3.0, up to MaxCancelKeyLen in 3.2.
func DecodeBackendKeyData(body []byte) (pid uint32, key []byte, err error) {
	r := reader{b: body}
	pid = uint32(r.int32())
	if key = r.take(len(r.b)); r.bad || len(key) < 4 || len(key) > MaxCancelKeyLen {
		return 0, nil, Errorf(ProtocolViolation, "invalid BackendKeyData message of %d bytes", len(body))
	}
	return pid, key, nil
}

// DecodeCommandComplete decodes the command tag, such as "INSERT 0 5".
func DecodeCommandComplete(body []byte) (tag []byte, err error) {
	r := reader{b: body}
	tag = r.cstring()
	return tag, r.end("CommandComplete")
}

// TagRows splits a command tag into what stands before its row count ("INSERT 0 ", "SELECT ") and the count. ok is false
// for tags without one ("BEGIN").
func TagRows(tag []byte) (head []byte, rows uint64, ok bool) {
	i := len(tag)
	for i > 0 && tag[i-1] >= '0' && tag[i-1] <= '9' {
		i--
	}
	if i == len(tag) || i == 0 || tag[i-1] != ' ' || len(tag)-i > 19 {
		return tag, 0, false
	}
	for _, c := range tag[i:] {
		rows = rows*10 + uint64(c-'0')
	}
	return tag[:i], rows, true
}

// Authentication request codes (protocol.h: AUTH_REQ_*).
const (
	AuthOK                = 0
	AuthCleartextPassword = 3
	AuthMD5Password       = 5
	AuthSASL              = 10
	AuthSASLContinue      = 11
	AuthSASLFinal         = 12
)

// DecodeAuthentication decodes an authentication request: its code and the data behind it (the MD5 salt, the SASL
// mechanisms, or the SASL data).
func DecodeAuthentication(body []byte) (code uint32, data []byte, err error) {
	if len(body) < 4 {
		return 0, nil, Errorf(ProtocolViolation, "Authentication message is shorter than its contents")
	}
	return binary.BigEndian.Uint32(body), body[4:], nil
}

// Field describes one column of a RowDescription. Name is a view.
type Field struct {
	Name     []byte
	TableOID uint32 // 0 when the column is no simple reference to a table's
	Attr     int16  // pg_attribute.attnum, or 0
	TypeOID  uint32
	TypeLen  int16 // pg_type.typlen
	TypeMod  int32 // pg_attribute.atttypmod
	Format   int16
}

// AppendFields decodes the body of a RowDescription and appends its fields.
func AppendFields(dst []Field, body []byte) ([]Field, error) {
	r := reader{b: body}
	for n := int(uint16(r.int16())); n > 0 && !r.bad; n-- {
		dst = append(dst, Field{
			Name: r.cstring(), TableOID: uint32(r.int32()), Attr: r.int16(),
			TypeOID: uint32(r.int32()), TypeLen: r.int16(), TypeMod: r.int32(), Format: r.int16(),
		})
	}
	return dst, r.end("RowDescription")
}

// Columns walks over the values of a DataRow without copying:
//
//	for c := wire.DataRow(body); c.Next(); { use(c.Value()) }
type Columns struct {
	r     reader
	left  int
	value []byte
}

// DataRow starts at the first value of a DataRow's body.
func DataRow(body []byte) Columns {
	c := Columns{r: reader{b: body}}
	c.left = int(uint16(c.r.int16()))
	return c
}

// Left is how many columns have not been visited.
func (c *Columns) Left() int { return c.left }

// Next moves to the next value; false at the end or when the message is broken (see Err).
func (c *Columns) Next() bool {
	if c.left == 0 || c.r.bad {
		return false
	}
	c.left--
	c.value = c.r.value()
	return !c.r.bad
}

// Value is the current value: nil is NULL, an empty value is not nil.
func (c *Columns) Value() []byte { return c.value }

// Err reports a row that is shorter or longer than its columns, once Next was false.
func (c *Columns) Err() error {
	if c.left > 0 && !c.r.bad {
		return nil
	}
	return c.r.end("DataRow")
}

// AppendParameterOIDs decodes a ParameterDescription and appends the types of a statement's parameters.
func AppendParameterOIDs(dst []uint32, body []byte) ([]uint32, error) {
	r := reader{b: body}
	for n := int(uint16(r.int16())); n > 0 && !r.bad; n-- {
		dst = append(dst, uint32(r.int32()))
	}
	return dst, r.end("ParameterDescription")
}

// CopyResponse is a CopyInResponse, CopyOutResponse or CopyBothResponse.
type CopyResponse struct {
	Format  byte // 0 text, 1 binary, for the whole COPY
	columns []byte
}

// NumColumns is the number of columns being copied.
func (c *CopyResponse) NumColumns() int { return len(c.columns) / 2 }

// ColumnFormat is the format of column i.
func (c *CopyResponse) ColumnFormat(i int) int16 {
	return int16(binary.BigEndian.Uint16(c.columns[2*i:]))
}

// DecodeCopyResponse decodes the body of any of the three.
func DecodeCopyResponse(body []byte) (CopyResponse, error) {
	r := reader{b: body}
	c := CopyResponse{Format: r.byte()}
	c.columns = r.take(2 * int(uint16(r.int16())))
	return c, r.end("CopyResponse")
}

// Notification is a NotificationResponse. All fields are views.
type Notification struct {
	PID     uint32
	Channel []byte
	Payload []byte
}

// DecodeNotification decodes a NotificationResponse.
func DecodeNotification(body []byte) (Notification, error) {
	r := reader{b: body}
	n := Notification{PID: uint32(r.int32()), Channel: r.cstring(), Payload: r.cstring()}
	return n, r.end("NotificationResponse")
}

// DecodeNegotiateProtocolVersion decodes what a server cannot do: the newest minor version it speaks, and the protocol
// options it does not know. Servers put the whole version into the word that the manual calls the minor one.
func DecodeNegotiateProtocolVersion(body []byte) (minor uint16, unknown []string, err error) {
	r := reader{b: body}
	minor = uint16(r.int32())
	for n := r.int32(); n > 0 && !r.bad; n-- {
		unknown = append(unknown, string(r.cstring()))
	}
	if err := r.end("NegotiateProtocolVersion"); err != nil {
		return 0, nil, err
	}
	return minor, unknown, nil
}

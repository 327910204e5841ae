package sharding

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// Format is how a value is written, with the numbers of the wire protocol.
type Format int16

// The formats.
const (
	TextFormat   Format = 0
	BinaryFormat Format = 1
)

// ErrValue is wrapped by errors about a value that PostgreSQL itself would refuse for its type. The message is PostgreSQL's.
var ErrValue = errors.New("invalid key value")

// ErrUnsupportedValue is wrapped by errors about a value that PostgreSQL may accept but that this package refuses to interpret.
var ErrUnsupportedValue = errors.New("unsupported key value")

// ValueError is an error about one value. It wraps ErrValue or ErrUnsupportedValue.
type ValueError struct {
	Code    string // SQLSTATE: 22P02, 22003, 22007, 22008, 22P03, or 0A000 when PostgreSQL may accept the value
	Message string
}

func (e *ValueError) Error() string { return e.Message }

// Unwrap tells the two sentinels apart.
func (e *ValueError) Unwrap() error {
	if e.Code == "0A000" {
		return ErrUnsupportedValue
	}
	return ErrValue
}

func badSyntax(t KeyType, v []byte) error {
	return &ValueError{"22P02", fmt.Sprintf("invalid input syntax for type %s: %q", t, clip(v))}
}

func outOfRange(t KeyType, v []byte) error {
	return &ValueError{"22003", fmt.Sprintf("value %q is out of range for type %s", clip(v), t)}
}

func badBinary(t KeyType, v []byte) error {
	return &ValueError{"22P03", fmt.Sprintf("incorrect binary data format: %d bytes for type %s", len(v), t)}
}

func unsupported(t KeyType, v []byte, why string) error {
	return &ValueError{"0A000", fmt.Sprintf("%q is not supported as a shard key of type %s: %s", clip(v), t, why)}
}

// clip bounds what of a value goes into a message.
func clip(v []byte) string {
	const most = 64
	if len(v) > most {
		return string(v[:most]) + "..."
	}
	return string(v)
}

// Hash is PostgreSQL's hash of a partition key of one column of type t (compute_partition_hash_value in partbounds.c).
// value is not NULL; it is in PostgreSQL's text or binary format and is read as the type's input or receive function
// reads it. Errors are *ValueError. It allocates nothing unless it fails.
func Hash(t KeyType, value []byte, format Format) (uint64, error) {
	var h uint64
	var err error
	switch format {
	case TextFormat:
		h, err = hashText(t, value)
	case BinaryFormat:
		h, err = hashBinary(t, value)
	default:
		err = &ValueError{"22023", fmt.Sprintf("unsupported format code: %d", format)}
	}
	return h + combine, err
}

// HashInt is Hash of an integer, the same for all three integer types.
func HashInt(v int64) uint64 { return hashInt(v) + combine }

func hashText(t KeyType, v []byte) (uint64, error) {
	switch t {
	case Int2, Int4, Int8:
		n, err := parseInt(t, v)
		return hashInt(n), err
	case Text:
		return hashBytes(v), nil
	case BPChar:
		return hashBytes(bytes.TrimRight(v, " ")), nil
	case UUID:
		u, err := parseUUID(v)
		return hashBytes(u[:]), err
	case Bytea:
		b, err := parseBytea(v)
		return hashBytes(b), err
	case Date:
		d, err := parseDate(v)
		return hashUint32(uint32(d)), err
	case Timestamp, Timestamptz:
		ts, err := parseTimestamp(t, v)
		return hashInt(ts), err
	case Numeric:
		return hashNumericText(v)
	case Bool:
		b, err := parseBool(v)
		return hashUint32(b), err
	case OID:
		n, err := parseOID(v)
		return hashUint32(n), err
	case Char:
		return hashChar(v)
	}
	return 0, unsupported(t, v, "the type cannot be a key")
}

func hashBinary(t KeyType, v []byte) (uint64, error) {
	want := 0
	switch t {
	case Bool, Char:
		want = 1
	case Int2:
		want = 2
	case Int4, Date, OID:
		want = 4
	case Int8, Timestamp, Timestamptz:
		want = 8
	case UUID:
		want = 16
	}
	if want != 0 && len(v) != want {
		return 0, badBinary(t, v)
	}
	switch t {
	case Int2:
		return hashInt(int64(int16(binary.BigEndian.Uint16(v)))), nil
	case Int4:
		return hashInt(int64(int32(binary.BigEndian.Uint32(v)))), nil
	case Int8, Timestamp, Timestamptz:
		return hashInt(int64(binary.BigEndian.Uint64(v))), nil
	case Date, OID:
		return hashUint32(binary.BigEndian.Uint32(v)), nil
	case UUID, Bytea, Text, BPChar:
		if t == BPChar {
			v = bytes.TrimRight(v, " ")
		}
		return hashBytes(v), nil
	case Numeric:
		return hashNumericBinary(v)
	case Bool:
		if v[0] != 0 {
			return hashUint32(1), nil
		}
		return hashUint32(0), nil
	case Char:
		return hashChar(v)
	}
	return 0, unsupported(t, v, "the type cannot be a key")
}

// hashChar refuses bytes beyond ASCII: C's char, and with it hashcharextended, is signed on some machines only.
func hashChar(v []byte) (uint64, error) {
	if len(v) == 0 {
		return hashUint32(0), nil
	}
	if len(v) > 1 || v[0] >= 0x80 || v[0] == '\\' {
		return 0, unsupported(Char, v, "only a single ASCII character hashes alike everywhere")
	}
	return hashUint32(uint32(v[0])), nil
}

package engine

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/tidemarkdb/tidemark/cqrs"
)

// ErrNoBinary marks a column that was asked for in binary format and whose type is known in text form only.
var ErrNoBinary = errors.New("no binary form")

// Format codes of columns (PostgreSQL manual, 53.7, Bind).
const (
	formatText   = 0
	formatBinary = 1
)

// EncodeColumn appends a column's value, given in PostgreSQL's text form, in the format that the client asked for:
// the text itself, or what the type's send function gives. dst comes back as it was when there is an error; one that
// wraps ErrNoBinary names the type and says to ask for text.
func EncodeColumn(oid uint32, format int16, text, dst []byte) ([]byte, error) {
	switch format {
	case formatText:
		return append(dst, text...), nil
	case formatBinary:
	default:
		return dst, fmt.Errorf("format code %d: want 0 (text) or 1 (binary)", format)
	}
	out, err := appendBinary(oid, text, dst)
	if err != nil {
		const most = 40
		shown := text
		if len(shown) > most {
			shown = shown[:most]
		}
		return dst, fmt.Errorf("%s %q in binary format: %w", typeName(oid), shown, err)
	}
	return out, nil
}

func typeName(oid uint32) string {
	if t, ok := knownTypes.TypeForOID(oid); ok {
		return fmt.Sprintf("type %s (oid %d)", t.Name, oid)
	}
	return fmt.Sprintf("type with oid %d", oid)
}

func appendBinary(oid uint32, text, dst []byte) ([]byte, error) {
	be := binary.BigEndian
	switch oid {
	case pgtype.TextOID, pgtype.VarcharOID, pgtype.BPCharOID, pgtype.NameOID, pgtype.UnknownOID, pgtype.JSONOID, pgtype.XMLOID:
		return append(dst, text...), nil
	case pgtype.JSONBOID:
		return append(append(dst, 1), text...), nil // 1 is jsonb_send's version
	case pgtype.BoolOID:
		switch string(text) {
		case "t":
			return append(dst, 1), nil
		case "f":
			return append(dst, 0), nil
		}
		return dst, errors.New("want t or f")
	case pgtype.Int2OID:
		n, err := strconv.ParseInt(string(text), 10, 16)
		return be.AppendUint16(dst, uint16(n)), err
	case pgtype.Int4OID:
		n, err := strconv.ParseInt(string(text), 10, 32)
		return be.AppendUint32(dst, uint32(n)), err
	case pgtype.Int8OID:
		n, err := strconv.ParseInt(string(text), 10, 64)
		return be.AppendUint64(dst, uint64(n)), err
	case pgtype.OIDOID, pgtype.XIDOID, pgtype.CIDOID:
		n, err := strconv.ParseUint(string(text), 10, 32)
		return be.AppendUint32(dst, uint32(n)), err
	case pgtype.Float4OID:
		f, err := strconv.ParseFloat(string(text), 32)
		if math.IsNaN(f) {
			return be.AppendUint32(dst, 0x7FC00000), err
		}
		return be.AppendUint32(dst, math.Float32bits(float32(f))), err
	case pgtype.Float8OID:
		f, err := strconv.ParseFloat(string(text), 64)
		if math.IsNaN(f) { // Go's own has another bit set
			return be.AppendUint64(dst, 0x7FF8000000000000), err
		}
		return be.AppendUint64(dst, math.Float64bits(f)), err
	case pgtype.NumericOID:
		return appendNumeric(string(text), dst)
	case pgtype.DateOID, pgtype.TimeOID, pgtype.TimestampOID, pgtype.TimestamptzOID:
		return appendMoment(oid, string(text), dst)
	case pgtype.UUIDOID:
		return appendHex(strings.ReplaceAll(string(text), "-", ""), 16, dst)
	case pgtype.ByteaOID:
		digits, ok := strings.CutPrefix(string(text), `\x`)
		if !ok {
			return dst, errors.New(`want the hex form, \x0123abcd`)
		}
		return appendHex(digits, len(digits)/2, dst)
	}
	if elem, delim, ok := arrayElement(oid); ok {
		return appendArray(elem, delim, text, dst)
	}
	if elem, multi, ok := rangeElement(oid); ok {
		if multi {
			return appendMultirange(elem, text, dst)
		}
		return appendRange(elem, text, dst)
	}
	out, err := appendByPgtype(oid, text, dst)
	if err == nil && oid == pgtype.CIDROID {
		out[len(dst)+2] = 1 // is_cidr, which pgtype leaves out
	}
	return out, err
}

func appendHex(digits string, size int, dst []byte) ([]byte, error) {
	out, err := hex.AppendDecode(dst, []byte(digits))
	if err == nil && len(out)-len(dst) != size {
		err = fmt.Errorf("want %d bytes", size)
	}
	return out, err
}

// appendMoment uses the keys that read models compare by: microseconds or days from 2000-01-01, as on the wire.
func appendMoment(oid uint32, text string, dst []byte) ([]byte, error) {
	k, err := cqrs.Column{OID: oid}.SortKey(text)
	if err != nil {
		return dst, err
	}
	n := k.N
	infinite := n == cqrs.Infinity || n == cqrs.NegInfinity
	switch {
	case oid == pgtype.DateOID && infinite && n > 0:
		n = math.MaxInt32
	case oid == pgtype.DateOID && infinite:
		n = math.MinInt32
	case infinite && n > 0:
		n = math.MaxInt64
	case infinite:
		n = math.MinInt64
	}
	if oid == pgtype.DateOID {
		return binary.BigEndian.AppendUint32(dst, uint32(int32(n))), nil
	}
	return binary.BigEndian.AppendUint64(dst, uint64(n)), nil
}

// knownTypes is only read: looking up a type does not change a Map, using it does.
var knownTypes = pgtype.NewMap()

func arrayElement(oid uint32) (elem uint32, delim byte, ok bool) {
	t, ok := knownTypes.TypeForOID(oid)
	if !ok {
		return 0, 0, false
	}
	a, ok := t.Codec.(*pgtype.ArrayCodec)
	if !ok {
		return 0, 0, false
	}
	delim = ','
	if a.Delimiter != 0 {
		delim = a.Delimiter
	}
	return a.ElementType.OID, delim, true
}

// maps are pgtype's plans for the rarer types; one is used by one goroutine at a time.
var maps = sync.Pool{New: func() any { return pgtype.NewMap() }}

func appendByPgtype(oid uint32, text, dst []byte) ([]byte, error) {
	m := maps.Get().(*pgtype.Map)
	defer maps.Put(m)
	t, ok := m.TypeForOID(oid)
	if !ok || !t.Codec.FormatSupported(formatBinary) {
		return dst, fmt.Errorf("%w: ask for text", ErrNoBinary)
	}
	value, err := t.Codec.DecodeValue(m, oid, formatText, text)
	if err != nil {
		return dst, err
	}
	out, err := m.Encode(oid, formatBinary, value, dst)
	if err != nil || out == nil {
		return dst, fmt.Errorf("%w: ask for text (%w)", ErrNoBinary, err)
	}
	return out, nil
}

package router

import (
	"errors"
	"fmt"
	"strconv"
	"unicode/utf8"

	"github.com/tidemarkdb/tidemark/internal/sql"
	"github.com/tidemarkdb/tidemark/sharding"
)

// source is where the values of one execution come from: the literals of its text, and its parameters.
type source struct {
	text    []byte
	lits    []sql.Literal
	values  [][]byte
	formats []int16
	oids    []uint32
	uses    []int
	unknown []bool // by parameter: it is an expression, or converted in ways that are not followed
	utf8    bool

	buf     [64]byte // for values that must be put together
	short   bool     // there is no such parameter among the values
	why     string   // after unreadable
	refusal *Refusal // after invalid
}

// found is what became of a key's value.
type found uint8

const (
	placed         found = iota
	matchesNothing       // NULL, or a number that the column cannot have
	unreadable           // PostgreSQL may take it, but where it leads is not known: source.why
	invalid              // PostgreSQL would refuse it: source.refusal
)

// Type OIDs that a parameter can be declared with (pg_type.dat).
const (
	oidUnknown = 705
	oidText    = 25
	oidVarchar = 1043
)

// form is the type of a value before it meets the key's column.
type form uint8

const (
	untyped form = iota // a quoted literal, a parameter without type: takes the column's type
	integer             // a plain integer literal
	decimal             // a plain literal with point or exponent
	typed               // of a key type: given
	opaque              // of any other type
)

// place finds the shard of one value of a key.
func (src *source) place(m *sharding.Map, k *key, v *sql.Value) (int, found) {
	data, format, kind, given := src.value(v)
	if v.Kind == sql.Null || v.Kind == sql.Param && data == nil && kind != opaque {
		return src.null(k)
	}
	if kind != opaque && v.Cast != "" {
		kind, given = src.cast(v.Cast, data, format, kind, given)
	}
	typ := k.typ
	switch kind {
	case opaque:
		if src.why == "" {
			src.why = fmt.Sprintf("The value for %s.%s is of a type that does not convert to %s in a way that Tidemark can follow.", k.rel, k.column, k.typ)
		}
		return 0, unreadable
	case untyped:
		if format == sharding.BinaryFormat && v.Kind == sql.Param && ambiguous(typ) && v.Param < len(src.uses) && src.uses[v.Param] > 1 {
			return src.unread(k, v, "its parameter is used more than once and has no declared type")
		}
	case integer:
		switch typ {
		case sharding.Int2, sharding.Int4, sharding.Int8, sharding.Numeric, sharding.OID:
		default:
			return src.unread(k, v, "the key is not a number, and the value is")
		}
	case decimal:
		if typ != sharding.Numeric {
			return src.unread(k, v, "it is a number with a fraction or an exponent; write a plain integer")
		}
	case typed:
		if given != typ && !(isInt(given) && (isInt(typ) || typ == sharding.Numeric)) {
			return src.unread(k, v, fmt.Sprintf("it is of type %s", given))
		}
	}
	if typ == sharding.Text || typ == sharding.BPChar {
		if !src.utf8 && !ascii(data) {
			return src.unread(k, v, "its client_encoding is not UTF8, so the server would store other bytes")
		}
		if k.max > 0 && len(data) > k.max && utf8.RuneCount(data) > k.max {
			src.refusal = &Refusal{Code: "22001", Message: fmt.Sprintf("value too long for type character varying(%d)", k.max)}
			return 0, invalid
		}
	}
	hash, err := src.hash(typ, kind, given, data, format)
	if err == nil {
		return m.ShardOf(m.Bucket(hash)), placed
	}
	return src.failed(k, v, kind, err)
}

// hash of a value whose form fits the key's type.
func (src *source) hash(typ sharding.KeyType, kind form, given sharding.KeyType, data []byte, format sharding.Format) (uint64, error) {
	switch {
	case kind == typed && isInt(given) && given != typ:
		// Integers of all widths hash alike; as numeric they are hashed by their digits.
		if typ != sharding.Numeric {
			return sharding.Hash(given, data, format)
		}
		if format == sharding.TextFormat {
			return sharding.Hash(sharding.Numeric, data, format)
		}
		if _, err := sharding.Hash(given, data, format); err != nil {
			return 0, err
		}
		var n int64
		for i, b := range data {
			if i == 0 {
				n = int64(int8(b))
				continue
			}
			n = n<<8 | int64(b)
		}
		return sharding.Hash(sharding.Numeric, strconv.AppendInt(src.buf[:0], n, 10), sharding.TextFormat)
	case kind == integer && isInt(typ):
		return sharding.Hash(sharding.Int8, data, format)
	}
	return sharding.Hash(typ, data, format)
}

// failed says what an error about a value means for the statement.
func (src *source) failed(k *key, v *sql.Value, kind form, err error) (int, found) {
	var ve *sharding.ValueError
	if !errors.As(err, &ve) || errors.Is(err, sharding.ErrUnsupportedValue) {
		src.why = fmt.Sprintf("The value for %s.%s: %v.", k.rel, k.column, err)
		return 0, unreadable
	}
	if kind == integer && ve.Code == "22003" && !k.stored {
		return 0, matchesNothing // PostgreSQL compares it as numeric, and finds no equal
	}
	src.refusal = &Refusal{Code: ve.Code, Message: ve.Message, Detail: fmt.Sprintf("It is the value of shard key %s.%s.", k.rel, k.column)}
	if v.Kind == sql.Lit {
		src.refusal.Position = sql.Characters(src.text, int(src.lits[v.Slot].Start))
	}
	return 0, invalid
}

func (src *source) unread(k *key, v *sql.Value, why string) (int, found) {
	src.why = fmt.Sprintf("The value for %s.%s cannot be placed: %s.", k.rel, k.column, why)
	return 0, unreadable
}

// null is found = NULL, which no row matches, or a stored NULL, which no shard owns.
func (src *source) null(k *key) (int, found) {
	if !k.stored {
		return 0, matchesNothing
	}
	src.refusal = &Refusal{Code: "23502", Message: fmt.Sprintf("null value in shard key %s.%s", k.rel, k.column), Detail: "A row without a key belongs to no shard."}
	return 0, invalid
}

// ambiguous says whether bytes of another type could be taken for this one's.
func ambiguous(t sharding.KeyType) bool {
	switch t {
	case sharding.Date, sharding.Timestamp, sharding.Timestamptz, sharding.OID, sharding.BPChar, sharding.Numeric:
		return true
	}
	return false
}

func isInt(t sharding.KeyType) bool {
	return t == sharding.Int2 || t == sharding.Int4 || t == sharding.Int8
}

func ascii(b []byte) bool {
	for _, c := range b {
		if c >= 0x80 {
			return false
		}
	}
	return true
}

// value gives a value's bytes and what is known of its type before any cast. data is nil for a NULL parameter.
func (src *source) value(v *sql.Value) (data []byte, format sharding.Format, kind form, given sharding.KeyType) {
	switch v.Kind {
	case sql.Lit:
		lit := src.lits[v.Slot]
		data, ok := lit.Value(src.text, src.buf[:0])
		if !ok {
			return nil, 0, opaque, 0
		}
		switch {
		case lit.Quoted() && v.Negative:
			return nil, 0, opaque, 0
		case lit.Quoted():
			return data, 0, untyped, 0
		case v.Negative:
			data = append(append(src.buf[:0], '-'), data...)
		}
		if lit.Kind == sql.Decimal {
			return data, 0, decimal, 0
		}
		return data, 0, integer, 0
	case sql.Fixed:
		switch {
		case v.Quoted:
			return []byte(v.Text), 0, untyped, 0
		case v.Cast == "bool":
			return []byte(v.Text), 0, untyped, 0
		}
		for _, c := range v.Text {
			if c == '.' || c == 'e' || c == 'E' {
				return []byte(v.Text), 0, decimal, 0
			}
		}
		return []byte(v.Text), 0, integer, 0
	case sql.Param:
		i := v.Param - 1
		if i < 0 || i >= len(src.values) {
			src.refusal, src.short = nil, true
			return nil, 0, opaque, 0
		}
		if i < len(src.unknown) && src.unknown[i] {
			src.why = "It is not a plain constant of the key's own type."
			return nil, 0, opaque, 0
		}
		data = src.values[i]
		switch {
		case len(src.formats) == 1:
			format = sharding.Format(src.formats[0])
		case i < len(src.formats):
			format = sharding.Format(src.formats[i])
		}
		oid := uint32(0)
		if i < len(src.oids) {
			oid = src.oids[i]
		}
		if oid == 0 || oid == oidUnknown {
			return data, format, untyped, 0
		}
		if t, ok := sharding.KeyTypeByOID(oid); ok {
			return data, format, typed, t
		}
		return data, format, opaque, 0
	}
	return nil, 0, opaque, 0
}

// casts are the casts that can be followed, by type name.
var casts = map[string]sharding.KeyType{
	"int2": sharding.Int2, "int4": sharding.Int4, "int8": sharding.Int8, "text": sharding.Text, "varchar": sharding.Text, "uuid": sharding.UUID,
	"bytea": sharding.Bytea, "date": sharding.Date, "timestamp": sharding.Timestamp, "timestamptz": sharding.Timestamptz,
	"numeric": sharding.Numeric, "bool": sharding.Bool, "oid": sharding.OID,
}

// cast is the form of a value behind a cast: of the cast's type where the value is taken as that type's input, else opaque.
func (src *source) cast(name string, data []byte, format sharding.Format, kind form, given sharding.KeyType) (form, sharding.KeyType) {
	to, ok := casts[name]
	src.why = ""
	switch {
	case !ok:
		return opaque, 0
	case kind == untyped:
		return typed, to
	case kind == integer && isInt(to), kind == typed && isInt(given) && isInt(to):
		// A cast that overflows is the server's error, whichever shard is asked; the value is the same.
		if kind == integer {
			return integer, 0
		}
		return typed, given
	case kind == typed && given == to:
		return typed, to
	case kind == typed && given == sharding.Text && isInt(to) && format == sharding.TextFormat:
		return typed, to
	case (kind == integer || kind == decimal) && to == sharding.Numeric:
		return decimal, 0
	}
	return opaque, 0
}

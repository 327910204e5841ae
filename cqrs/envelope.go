package cqrs

import (
	"encoding/json"
	"strconv"
	"time"

	"github.com/tidemarkdb/tidemark/internal/lsn"
)

// The JSON envelope of an event, documented in docs/events.md. It is written by hand: it is written once for every
// row that changes, and a Row keeps the order of its columns, which a Go map would not.

// Names of the headers that repeat what a consumer needs without reading the value.
const (
	HeaderOp      = "op"
	HeaderShard   = "shard"
	HeaderEpoch   = "epoch"
	HeaderLSN     = "lsn"
	HeaderXID     = "xid"
	HeaderVersion = "version"
)

// timeLayout is RFC 3339 in UTC with the microseconds that PostgreSQL keeps.
const timeLayout = "2006-01-02T15:04:05.999999Z"

// Mark is the event's commit position, as sessions remember it.
func (e *Event) Mark() lsn.Mark { return lsn.Mark{Epoch: e.Source.Epoch, LSN: e.Source.Commit} }

// AppendEvent appends the event's envelope to dst.
func AppendEvent(dst []byte, e *Event) []byte {
	dst = append(dst, `{"op":"`...)
	dst = append(dst, byte(e.Op))
	dst = append(dst, `","schema":`...)
	dst = appendString(dst, e.Schema)
	dst = append(dst, `,"table":`...)
	dst = appendString(dst, e.Table)
	dst = append(dst, `,"key":`...)
	dst = AppendRow(dst, e.Key)
	dst = append(dst, `,"before":`...)
	dst = AppendRow(dst, e.Before)
	dst = append(dst, `,"after":`...)
	dst = AppendRow(dst, e.After)
	dst = append(dst, `,"source":{"shard":`...)
	dst = appendString(dst, e.Source.Shard)
	dst = append(dst, `,"epoch":`...)
	dst = strconv.AppendUint(dst, uint64(e.Source.Epoch), 10)
	dst = append(dst, `,"lsn":"`...)
	dst = appendLSN(dst, e.Source.Commit)
	dst = append(dst, `","ordinal":`...)
	dst = strconv.AppendInt(dst, int64(e.Source.Ordinal), 10)
	dst = append(dst, `,"xid":`...)
	dst = strconv.AppendUint(dst, uint64(e.Source.XID), 10)
	dst = append(dst, `,"commit_time":`...)
	if e.Source.CommitTime.IsZero() {
		dst = append(dst, "null"...)
	} else {
		dst = append(dst, '"')
		dst = e.Source.CommitTime.UTC().AppendFormat(dst, timeLayout)
		dst = append(dst, '"')
	}
	dst = append(dst, `},"version":"`...)
	dst = appendDigits(dst, e.Version)
	dst = append(dst, `","last":`...)
	dst = strconv.AppendBool(dst, e.Last)
	return append(dst, '}')
}

// AppendRow appends a row as a JSON object with its columns in order, null for a nil Row.
func AppendRow(dst []byte, r Row) []byte {
	if r == nil {
		return append(dst, "null"...)
	}
	dst = append(dst, '{')
	for i := range r {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendString(dst, r[i].Name)
		dst = append(dst, ':')
		if r[i].Value == nil {
			dst = append(dst, "null"...)
		} else {
			dst = append(dst, r[i].Value...)
		}
	}
	return append(dst, '}')
}

// KeyJSON is the canonical form of a primary key: a JSON object of its columns in the table's order without spaces,
// such as {"customer_id":7,"id":42}. It is the record's key, and the key that Levels.Wait takes.
func KeyJSON(key Row) string { return string(AppendRow(nil, key)) }

// NewRecord makes the event's record. Its key is nil for an event of a whole table, which has no row.
func NewRecord(e *Event) Record {
	r := Record{Value: AppendEvent(make([]byte, 0, sizeHint(e)), e)}
	if !e.Op.WholeTable() {
		r.Key = AppendRow(nil, e.Key)
	}
	// One allocation serves all header values.
	b := make([]byte, 0, 96)
	cut := func(from int) []byte { return b[from:len(b):len(b)] }
	r.Headers = make([]Header, 0, 6)
	add := func(key string, appendTo func([]byte) []byte) {
		from := len(b)
		b = appendTo(b)
		r.Headers = append(r.Headers, Header{Key: key, Value: cut(from)})
	}
	add(HeaderOp, func(b []byte) []byte { return append(b, byte(e.Op)) })
	add(HeaderShard, func(b []byte) []byte { return append(b, e.Source.Shard...) })
	add(HeaderEpoch, func(b []byte) []byte { return strconv.AppendUint(b, uint64(e.Source.Epoch), 10) })
	add(HeaderLSN, func(b []byte) []byte { return appendLSN(b, e.Source.Commit) })
	add(HeaderXID, func(b []byte) []byte { return strconv.AppendUint(b, uint64(e.Source.XID), 10) })
	add(HeaderVersion, func(b []byte) []byte { return appendDigits(b, e.Version) })
	return r
}

// sizeHint is about the envelope's length, so that encoding allocates once.
func sizeHint(e *Event) int {
	n := 240
	for _, row := range []Row{e.Key, e.Before, e.After} {
		for i := range row {
			n += len(row[i].Name) + len(row[i].Value) + 4
		}
	}
	return n
}

func appendLSN(dst []byte, l lsn.LSN) []byte {
	dst = appendHex(dst, uint32(l>>32))
	dst = append(dst, '/')
	return appendHex(dst, uint32(l))
}

func appendHex(dst []byte, v uint32) []byte {
	const digits = "0123456789ABCDEF"
	shift := 28
	for shift > 0 && v>>shift == 0 {
		shift -= 4
	}
	for ; shift >= 0; shift -= 4 {
		dst = append(dst, digits[v>>shift&15])
	}
	return dst
}

// appendDigits appends Version.Digits without allocating.
func appendDigits(dst []byte, v lsn.Version) []byte {
	const width = 19
	var d [width]byte
	n := uint64(v)
	for i := width - 1; i >= 0; i-- {
		d[i] = '0' + byte(n%10)
		n /= 10
	}
	return append(dst, d[:]...)
}

// appendString appends a JSON string. Only what JSON demands is escaped; names come from PostgreSQL as UTF-8.
func appendString(dst []byte, s string) []byte {
	plain := true
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' || c >= 0x80 {
			plain = false
			break
		}
	}
	if plain {
		dst = append(dst, '"')
		dst = append(dst, s...)
		return append(dst, '"')
	}
	quoted, err := json.Marshal(s)
	if err != nil {
		return append(dst, `""`...) // cannot happen: a string always marshals
	}
	return append(dst, quoted...)
}

func commitTime(s string) (time.Time, error) { return time.Parse(time.RFC3339Nano, s) }

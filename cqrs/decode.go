package cqrs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"unicode/utf8"

	"github.com/tidemarkdb/tidemark/internal/lsn"
	"github.com/tidemarkdb/tidemark/replication"
)

// DecodeEvent reads an envelope that AppendEvent, or another producer following docs/events.md, wrote. Unknown fields
// are passed over. The event's values are views into b. Errors wrap ErrPermanent: the bytes will not get better.
func DecodeEvent(b []byte) (Event, error) {
	e, err := decodeEvent(b)
	if err != nil {
		return Event{}, fmt.Errorf("decode event: %w: %w", ErrPermanent, err)
	}
	return e, nil
}

func decodeEvent(b []byte) (Event, error) {
	var e Event
	// Valid makes what follows simple and safe: the scanner below may assume well-formed JSON.
	if !json.Valid(b) {
		return e, errors.New("not valid JSON")
	}
	var seen struct{ op, schema, table, key, source, version bool }
	err := eachField(b, func(name, v []byte) (err error) {
		switch string(name) {
		case "op":
			seen.op = true
			e.Op, err = decodeOp(v)
		case "schema":
			seen.schema = true
			e.Schema, err = decodeString(v)
		case "table":
			seen.table = true
			e.Table, err = decodeString(v)
		case "key":
			seen.key = true
			e.Key, err = decodeRow(v, nil)
		case "before":
			e.Before, err = decodeRow(v, nil)
		case "after":
			e.After, err = decodeRow(v, e.Before)
		case "source":
			seen.source = true
			e.Source, err = decodeSource(v)
		case "version":
			seen.version = true
			e.Version, err = decodeVersion(v)
		case "last":
			e.Last, err = decodeBool(v)
		}
		return err
	})
	switch {
	case err != nil:
		return e, err
	case !seen.op || !seen.schema || !seen.table || !seen.key || !seen.source || !seen.version:
		return e, errors.New("a field is missing: op, schema, table, key, source and version are required")
	case !e.Op.WholeTable() && len(e.Key) == 0:
		return e, errors.New("the key is empty: only a truncate or a sweep has none")
	case !e.Op.WholeTable() && e.Op != replication.Delete && e.After == nil:
		return e, fmt.Errorf("op %q needs a row in after", e.Op)
	}
	return e, nil
}

func decodeOp(v []byte) (replication.Op, error) {
	s, err := decodeString(v)
	if err != nil {
		return 0, err
	}
	if len(s) == 1 {
		switch op := replication.Op(s[0]); op {
		case replication.Create, replication.Update, replication.Delete, replication.Snapshot, replication.Truncate, replication.Sweep:
			return op, nil
		}
	}
	return 0, fmt.Errorf("op %q: want one of c, u, d, r, t, s", s)
}

func decodeSource(v []byte) (Source, error) {
	var s Source
	var seen struct{ shard, epoch, lsn bool }
	err := eachField(v, func(name, v []byte) (err error) {
		switch string(name) {
		case "shard":
			seen.shard = true
			s.Shard, err = decodeString(v)
		case "epoch":
			seen.epoch = true
			var n uint64
			n, err = strconv.ParseUint(string(v), 10, 16)
			if s.Epoch = lsn.Epoch(n); err == nil && s.Epoch > lsn.MaxEpoch {
				err = fmt.Errorf("source.epoch %d is beyond %d", n, lsn.MaxEpoch)
			}
		case "lsn":
			seen.lsn = true
			var t string
			if t, err = decodeString(v); err == nil {
				s.Commit, err = lsn.Parse(t)
			}
		case "ordinal":
			s.Ordinal, err = strconv.Atoi(string(v))
		case "xid":
			var n uint64
			n, err = strconv.ParseUint(string(v), 10, 32)
			s.XID = uint32(n)
		case "commit_time":
			if v[0] == 'n' {
				return nil
			}
			var t string
			if t, err = decodeString(v); err == nil {
				s.CommitTime, err = commitTime(t)
			}
		}
		return err
	})
	if err == nil && (!seen.shard || !seen.epoch || !seen.lsn) {
		err = errors.New("source needs shard, epoch and lsn")
	}
	return s, err
}

func decodeVersion(v []byte) (lsn.Version, error) {
	s, err := decodeString(v)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(s, 10, 63)
	if err != nil {
		return 0, fmt.Errorf("version %q: want up to 19 digits", s)
	}
	return lsn.Version(n), nil
}

// decodeRow takes its names from a row that most likely has the same, if there is one.
func decodeRow(v []byte, like Row) (Row, error) {
	if v[0] == 'n' {
		return nil, nil
	}
	row := make(Row, 0, max(8, len(like)))
	err := eachField(v, func(name, v []byte) error {
		f := Field{Value: json.RawMessage(v)}
		if i := len(row); i < len(like) && like[i].Name == string(name) {
			f.Name = like[i].Name
		} else {
			f.Name = string(name)
		}
		row = append(row, f)
		return nil
	})
	return row, err
}

func decodeBool(v []byte) (bool, error) {
	switch v[0] {
	case 't':
		return true, nil
	case 'f':
		return false, nil
	}
	return false, fmt.Errorf("%.20s: want true or false", v)
}

func decodeString(v []byte) (string, error) {
	b, err := stringBytes(v)
	return string(b), err
}

// stringBytes returns the bytes of a JSON string, a view into it where nothing is escaped.
func stringBytes(v []byte) ([]byte, error) {
	if v[0] != '"' {
		return nil, fmt.Errorf("%.20s: want a string", v)
	}
	if inner := v[1 : len(v)-1]; bytes.IndexByte(inner, '\\') < 0 && utf8.Valid(inner) {
		return inner, nil
	}
	var s string
	err := json.Unmarshal(v, &s)
	return []byte(s), err
}

// eachField calls f for each member of the JSON object in b, which must be valid JSON, in order. The value has no space
// around it.
func eachField(b []byte, f func(name, value []byte) error) error {
	i := skipSpace(b, 0)
	if b[i] != '{' {
		return fmt.Errorf("%.20s: want an object", b[i:])
	}
	i = skipSpace(b, i+1)
	for b[i] != '}' {
		end := skipValue(b, i)
		name, err := stringBytes(b[i:end])
		if err != nil {
			return err
		}
		i = skipSpace(b, end) // at the colon
		i = skipSpace(b, i+1) // at the value
		end = skipValue(b, i) // behind it
		value := b[i:end:end] // cannot be appended into what follows
		if err := f(name, value); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if i = skipSpace(b, end); b[i] == ',' {
			i = skipSpace(b, i+1)
		}
	}
	return nil
}

func skipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\n' || b[i] == '\t' || b[i] == '\r') {
		i++
	}
	return i
}

// skipValue returns the index behind the valid JSON value that begins at i.
func skipValue(b []byte, i int) int {
	switch b[i] {
	case '"':
		return skipString(b, i)
	case '{', '[':
		depth := 0
		for ; ; i++ {
			switch b[i] {
			case '"':
				i = skipString(b, i) - 1
			case '{', '[':
				depth++
			case '}', ']':
				if depth--; depth == 0 {
					return i + 1
				}
			}
		}
	}
	for i < len(b) && b[i] != ',' && b[i] != '}' && b[i] != ']' && b[i] > ' ' {
		i++
	}
	return i
}

func skipString(b []byte, i int) int {
	for i++; b[i] != '"'; i++ {
		if b[i] == '\\' {
			i++
		}
	}
	return i + 1
}

package elastic

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"unicode/utf8"

	"github.com/tidemarkdb/tidemark/cqrs"
	"github.com/tidemarkdb/tidemark/internal/lsn"
)

// appendDocument appends an event's row as a document on one line. Its errors are permanent.
func (m *Model) appendDocument(dst []byte, id string, e *cqrs.Event) ([]byte, error) {
	texts, err := e.Texts(m.cfg.Columns)
	if err != nil {
		return dst, err
	}
	dst = appendHidden(dst, id, e.Origin(), e.StoredVersion())
	var nulls, inexact []string
	exact := []byte(nil)
	for i := range m.fields {
		f := &m.fields[i]
		text := texts[i]
		if text == nil {
			nulls = append(nulls, f.Name)
			continue
		}
		var ok bool
		if f.hidden {
			if exact, ok, err = f.appendExact(exact, text); err != nil {
				return dst, fmt.Errorf("%w: %w", cqrs.ErrPermanent, err)
			}
		} else {
			ok = f.indexed(text)
		}
		if !ok {
			inexact = append(inexact, f.Name)
		}
	}
	if len(exact) > 0 {
		dst = append(append(append(dst, `,"exact":{`...), exact...), '}')
	}
	dst = appendNames(dst, `,"null":`, nulls)
	dst = appendNames(dst, `,"inexact":`, inexact)
	dst = append(dst, '}')
	for i := range m.fields {
		f := &m.fields[i]
		if texts[i] == nil {
			continue
		}
		dst = append(dst, ',')
		dst = appendString(dst, f.Name)
		dst = append(dst, ':')
		if dst, err = f.appendValue(dst, e.After.Get(f.Name), texts[i]); err != nil {
			return dst, fmt.Errorf("%w: column %s: %w", cqrs.ErrPermanent, f.Name, err)
		}
	}
	return append(dst, '}'), nil
}

// appendTombstone appends the document that stays where a row was.
func appendTombstone(dst []byte, id, origin string, v lsn.Version) []byte {
	return append(appendHidden(dst, id, origin, v), `,"deleted":true}}`...)
}

func appendHidden(dst []byte, id, origin string, v lsn.Version) []byte {
	dst = append(dst, `{"`+hidden+`":{"id":`...)
	dst = appendString(dst, id)
	dst = append(dst, `,"origin":`...)
	dst = appendString(dst, origin)
	dst = append(dst, `,"version":`...)
	return strconv.AppendUint(dst, uint64(v), 10)
}

// appendExact appends the column's hidden value; ok is false when it is too long to be indexed.
func (f *field) appendExact(dst, text []byte) (_ []byte, ok bool, err error) {
	k, err := f.SortKey(string(text))
	if err != nil {
		return dst, false, err
	}
	if f.Class() != cqrs.Integer && len(k.S) > maxExact {
		return dst, false, nil
	}
	if len(dst) > 0 {
		dst = append(dst, ',')
	}
	dst = append(appendString(dst, f.Name), ':')
	if f.Class() == cqrs.Integer {
		return strconv.AppendInt(dst, k.N, 10), true, nil
	}
	return appendString(dst, k.S), true, nil
}

// indexed says whether the column's own field decides about this value like about any other.
func (f *field) indexed(text []byte) bool {
	switch {
	case f.long:
		return utf16Len(text) <= maxKeyword
	case f.edges:
		n, err := strconv.ParseInt(string(text), 10, 64)
		return err == nil && n != math.MaxInt64 && n != math.MinInt64
	}
	return true
}

func utf16Len(text []byte) int {
	if len(text) <= maxKeyword {
		return len(text) // at most
	}
	n := 0
	for len(text) > 0 {
		r, size := utf8.DecodeRune(text)
		n++
		if r > 0xFFFF {
			n++
		}
		text = text[size:]
	}
	return n
}

// appendValue appends the column's own value: the event's JSON, which Elasticsearch keeps as it is.
func (f *field) appendValue(dst []byte, v json.RawMessage, text []byte) ([]byte, error) {
	if f.asText {
		return appendString(dst, string(text)), nil
	}
	if bytes.IndexByte(v, '\n') < 0 && bytes.IndexByte(v, '\r') < 0 {
		return append(dst, v...), nil
	}
	b := bytes.NewBuffer(dst)
	err := json.Compact(b, v) // a bulk's lines end at line breaks
	return b.Bytes(), err
}

func appendNames(dst []byte, label string, names []string) []byte {
	if len(names) == 0 {
		return dst
	}
	dst = append(append(dst, label...), '[')
	for i, n := range names {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendString(dst, n)
	}
	return append(dst, ']')
}

func appendString(dst []byte, s string) []byte {
	b, err := json.Marshal(s)
	if err != nil { // a string always marshals
		panic(err)
	}
	return append(dst, b...)
}

// source is a document as it comes back.
type source map[string]json.RawMessage

// meta of a document that queries need.
type meta struct {
	Deleted bool     `json:"deleted"`
	Inexact []string `json:"inexact"`
}

func (s source) meta() (m meta, err error) {
	if raw := s[hidden]; raw != nil { // left out with all that was not asked for
		err = json.Unmarshal(raw, &m)
	}
	return m, err
}

// row gives the columns that need lists, by index, in PostgreSQL's text form; the others are nil.
func (m *Model) row(s source, need []int) ([][]byte, error) {
	row := make([][]byte, len(m.fields))
	for _, i := range need {
		f := &m.fields[i]
		v := s[f.Name]
		if v == nil {
			continue
		}
		var err error
		if row[i], err = f.text(v); err != nil {
			return nil, fmt.Errorf("column %s: %w", f.Name, err)
		}
	}
	return row, nil
}

func (f *field) text(v json.RawMessage) ([]byte, error) {
	if !f.asText {
		return cqrs.TextOf(f.Column, v)
	}
	var s *string
	if err := json.Unmarshal(v, &s); err != nil || s == nil {
		return nil, err
	}
	return []byte(*s), nil
}

package replication

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"
)

// ErrUnchanged marks a value that the stream left out (an unchanged TOAST value without REPLICA IDENTITY FULL), so that
// it has no JSON form.
var ErrUnchanged = errors.New("the stream left this unchanged value out; the table needs REPLICA IDENTITY FULL")

// JSON converts a column's value into the JSON form of docs/events.md, "Values". SQL's NULL is null. A value that its
// type cannot have is an error; nothing is guessed.
func JSON(col Column, v Value) (json.RawMessage, error) {
	return AppendJSON(nil, col, v)
}

// AppendJSON is JSON that appends to dst.
func AppendJSON(dst []byte, col Column, v Value) ([]byte, error) {
	if v.Unchanged {
		return dst, fmt.Errorf("column %s: %w", col.Name, ErrUnchanged)
	}
	if v.Bytes == nil {
		return append(dst, "null"...), nil
	}
	s := col.shape()
	var err error
	if s.elem != 0 {
		dst, err = appendArrayJSON(dst, s, v.Bytes)
	} else {
		dst, err = appendScalarJSON(dst, s.base, v.Bytes)
	}
	if err != nil {
		return dst, fmt.Errorf("column %s (%s): %w", col.Name, col.Type, err)
	}
	return dst, nil
}

func appendScalarJSON(dst []byte, oid uint32, text []byte) ([]byte, error) {
	switch oid {
	case oidBool:
		switch string(text) {
		case "t":
			return append(dst, "true"...), nil
		case "f":
			return append(dst, "false"...), nil
		}
		return dst, badText("boolean", text)
	case oidInt2, oidInt4, oidInt8:
		if !isJSONNumber(text) {
			return dst, badText("integer", text)
		}
		return append(dst, text...), nil
	case oidFloat4, oidFloat8:
		switch string(text) {
		case "NaN", "Infinity", "-Infinity":
			return appendString(dst, text)
		}
		if !isJSONNumber(text) {
			return dst, badText("float", text)
		}
		return append(dst, text...), nil
	case oidBytea:
		return appendBase64(dst, text)
	case oidJSON, oidJSONB:
		// As the server wrote it: numbers, order and duplicate keys stay. PostgreSQL has checked the syntax.
		if len(text) == 0 {
			return dst, badText("json", text)
		}
		return append(dst, text...), nil
	case oidDate, oidTimestamp, oidTimestamptz:
		dst = append(dst, '"')
		dst, err := appendISO(dst, oid, text)
		return append(dst, '"'), err
	}
	return appendString(dst, text)
}

func appendBase64(dst, text []byte) ([]byte, error) {
	if len(text) < 2 || text[0] != '\\' || text[1] != 'x' {
		return dst, badText("bytea in hex form", text)
	}
	raw := make([]byte, hex.DecodedLen(len(text)-2))
	if _, err := hex.Decode(raw, text[2:]); err != nil {
		return dst, badText("bytea in hex form", text)
	}
	dst = append(dst, '"')
	dst = base64.StdEncoding.AppendEncode(dst, raw)
	return append(dst, '"'), nil
}

// isJSONNumber checks RFC 8259's grammar, in which PostgreSQL prints every integer and finite float.
func isJSONNumber(b []byte) bool {
	digits := func() bool {
		n := 0
		for n < len(b) && b[n] >= '0' && b[n] <= '9' {
			n++
		}
		b = b[n:]
		return n > 0
	}
	if len(b) > 0 && b[0] == '-' {
		b = b[1:]
	}
	if len(b) > 1 && b[0] == '0' && b[1] >= '0' && b[1] <= '9' {
		return false
	}
	if !digits() {
		return false
	}
	if len(b) > 0 && b[0] == '.' {
		b = b[1:]
		if !digits() {
			return false
		}
	}
	if len(b) > 0 && (b[0] == 'e' || b[0] == 'E') {
		b = b[1:]
		if len(b) > 0 && (b[0] == '+' || b[0] == '-') {
			b = b[1:]
		}
		if !digits() {
			return false
		}
	}
	return len(b) == 0
}

const hexDigits = "0123456789abcdef"

// appendString writes text as a JSON string. Text that is not UTF-8 (only a database in SQL_ASCII sends it) has no JSON
// form and is an error: replacing bytes would lose them.
func appendString(dst, text []byte) ([]byte, error) {
	if !utf8.Valid(text) {
		return dst, errors.New("text is not valid UTF-8; capture needs a database with an encoding other than SQL_ASCII")
	}
	dst = append(dst, '"')
	start := 0
	for i, b := range text {
		if b >= ' ' && b != '"' && b != '\\' {
			continue
		}
		dst = append(dst, text[start:i]...)
		start = i + 1
		switch b {
		case '"', '\\':
			dst = append(dst, '\\', b)
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		case '\b':
			dst = append(dst, '\\', 'b')
		case '\f':
			dst = append(dst, '\\', 'f')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[b>>4], hexDigits[b&15])
		}
	}
	dst = append(dst, text[start:]...)
	return append(dst, '"'), nil
}

// badText names the first bytes only: values are users' data and do not belong into logs in full.
func badText(what string, text []byte) error {
	const most = 32
	if len(text) > most {
		return fmt.Errorf("%q… is not a %s", text[:most], what)
	}
	return fmt.Errorf("%q is not a %s", text, what)
}

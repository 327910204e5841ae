package replication

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"math"
	"strconv"
)

// Text is JSON's inverse: it converts the JSON form of a value of a type into the text that PostgreSQL prints for it under
// default settings (timestamptz in UTC). A JSON null is nil: SQL's NULL. Beyond what JSON writes it takes what stores make
// of it: a number in another notation, ISO 8601 with another precision or offset.
//
// For types that are not built in it goes by the JSON value: strings are the text, arrays are arrays. Use TextColumn where
// the Column is known, which also covers domains.
func Text(oid uint32, raw json.RawMessage) ([]byte, error) {
	return TextColumn(Column{TypeOID: oid}, raw)
}

// TextColumn is Text for a column with all that the catalog says of its type.
func TextColumn(col Column, raw json.RawMessage) ([]byte, error) {
	raw = bytes.TrimSpace(raw)
	if len(raw) == 0 || string(raw) == "null" {
		return nil, nil
	}
	s := col.shape()
	if s.elem != 0 || raw[0] == '[' && s.base != oidJSON && s.base != oidJSONB {
		return appendArrayText([]byte{}, s, raw, 1)
	}
	return appendScalarText([]byte{}, s.base, raw)
}

func appendScalarText(dst []byte, oid uint32, raw json.RawMessage) ([]byte, error) {
	switch oid {
	case oidBool:
		switch string(raw) {
		case "true", `"true"`, `"t"`:
			return append(dst, 't'), nil
		case "false", `"false"`, `"f"`:
			return append(dst, 'f'), nil
		}
		return dst, badText("boolean", raw)
	case oidInt2, oidInt4, oidInt8:
		return appendIntText(dst, raw)
	case oidFloat4:
		return appendFloatText(dst, raw, 32)
	case oidFloat8:
		return appendFloatText(dst, raw, 64)
	case oidJSON:
		return append(dst, raw...), nil
	case oidJSONB:
		return appendJSONBText(dst, raw)
	}
	if raw[0] != '"' {
		if raw[0] == '{' || raw[0] == '[' || oid == oidBytea || oid == oidDate || oid == oidTimestamp || oid == oidTimestamptz {
			return dst, badText("JSON string", raw)
		}
		return append(dst, raw...), nil // a number or boolean where the type is text, numeric or unknown
	}
	switch oid {
	case oidBytea:
		b64, err := appendUnquoted(nil, raw)
		if err != nil {
			return dst, err
		}
		bin, err := base64.StdEncoding.AppendDecode(nil, b64)
		if err != nil {
			return dst, badText("base64 string", raw)
		}
		return hex.AppendEncode(append(dst, '\\', 'x'), bin), nil
	case oidDate, oidTimestamp, oidTimestamptz:
		iso, err := appendUnquoted(nil, raw)
		if err != nil {
			return dst, err
		}
		return appendPGTime(dst, oid, string(iso))
	}
	return appendUnquoted(dst, raw)
}

func appendUnquoted(dst []byte, raw json.RawMessage) ([]byte, error) {
	if len(raw) >= 2 && raw[0] == '"' && raw[len(raw)-1] == '"' && bytes.IndexByte(raw, '\\') < 0 {
		return append(dst, raw[1:len(raw)-1]...), nil
	}
	var s string
	if err := json.Unmarshal(raw, &s); err != nil {
		return dst, badText("JSON string", raw)
	}
	return append(dst, s...), nil
}

func appendIntText(dst []byte, raw json.RawMessage) ([]byte, error) {
	num := bytes.Trim(raw, `"`)
	if n, err := strconv.ParseInt(string(num), 10, 64); err == nil {
		return strconv.AppendInt(dst, n, 10), nil
	}
	f, err := strconv.ParseFloat(string(num), 64)
	if err != nil || f != math.Trunc(f) || math.Abs(f) > 1<<53 {
		return dst, badText("integer", raw)
	}
	return strconv.AppendInt(dst, int64(f), 10), nil
}

// appendFloatText prints a float in the layout of PostgreSQL: scientific below 1e-04 and from 1e+06 (real) or 1e+15 (double
// precision) on. It keeps the digits that came, for those are PostgreSQL's own: where several shortest forms read back equal,
// it chooses otherwise than Go. Only more digits than the type can tell apart are rounded.
func appendFloatText(dst []byte, raw json.RawMessage, bits int) ([]byte, error) {
	num := bytes.Trim(raw, `"`)
	f, err := strconv.ParseFloat(string(num), bits)
	if err != nil {
		return dst, badText("float", raw)
	}
	switch {
	case math.IsNaN(f):
		return append(dst, "NaN"...), nil
	case math.IsInf(f, 1):
		return append(dst, "Infinity"...), nil
	case math.IsInf(f, -1):
		return append(dst, "-Infinity"...), nil
	case !isJSONNumber(num):
		return dst, badText("float", raw)
	}
	most, scientific := 17, 15 // DBL_DECIMAL_DIG, DBL_DIG
	if bits == 32 {
		most, scientific = 9, 6
	}
	digits, exp := decimalDigits(num)
	if len(digits) > most {
		digits, exp = decimalDigits(strconv.AppendFloat(nil, f, 'e', -1, bits))
	}
	if math.Signbit(f) {
		dst = append(dst, '-')
	}
	switch {
	case len(digits) == 0 || f == 0:
		return append(dst, '0'), nil
	case exp < -4 || exp >= scientific:
		dst = append(dst, digits[0])
		if len(digits) > 1 {
			dst = append(append(dst, '.'), digits[1:]...)
		}
		sign := byte('+')
		if exp < 0 {
			sign, exp = '-', -exp
		}
		dst = append(dst, 'e', sign)
		if exp < 10 {
			dst = append(dst, '0')
		}
		return strconv.AppendInt(dst, int64(exp), 10), nil
	case exp < 0:
		dst = append(append(dst, "0."...), "000"[:-1-exp]...)
		return append(dst, digits...), nil
	case len(digits) <= exp+1:
		dst = append(dst, digits...)
		return append(dst, "00000000000000"[:exp+1-len(digits)]...), nil
	}
	dst = append(append(dst, digits[:exp+1]...), '.')
	return append(dst, digits[exp+1:]...), nil
}

// decimalDigits takes a JSON number apart into d.ddd × 10^exp, without leading and trailing zeros.
func decimalDigits(num []byte) (digits []byte, exp int) {
	exp = -1
	mantissa, power, _ := bytes.Cut(bytes.ToLower(num), []byte("e"))
	whole, fraction, _ := bytes.Cut(bytes.TrimPrefix(mantissa, []byte("-")), []byte("."))
	digits = append(append(digits, whole...), fraction...)
	exp += len(whole)
	for len(digits) > 0 && digits[0] == '0' {
		digits = digits[1:]
		exp--
	}
	if p, err := strconv.Atoi(string(power)); err == nil { // ParseFloat has checked that the whole is in range
		exp += p
	}
	return bytes.TrimRight(digits, "0"), exp
}

// appendJSONBText lays out JSON as jsonb_out does: ": " and ", ", no other space, and only the escapes that it uses. Keys
// and numbers stay as they came, for what came from a jsonb is in jsonb's order already.
func appendJSONBText(dst []byte, raw json.RawMessage) ([]byte, error) {
	if !json.Valid(raw) {
		return dst, badText("JSON value", raw)
	}
	for i := 0; i < len(raw); i++ {
		switch c := raw[i]; c {
		case ' ', '\t', '\n', '\r':
		case ',', ':':
			dst = append(dst, c, ' ')
		case '"':
			end := i + 1
			for raw[end] != '"' {
				if raw[end] == '\\' {
					end++
				}
				end++
			}
			s, err := appendUnquoted(nil, raw[i:end+1])
			if err != nil {
				return dst, err
			}
			if dst, err = appendString(dst, s); err != nil {
				return dst, err
			}
			i = end
		default:
			dst = append(dst, c)
		}
	}
	return dst, nil
}

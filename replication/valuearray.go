package replication

import (
	"bytes"
	"encoding/json"
	"errors"
)

// Arrays in PostgreSQL's text form (manual, "Array Input and Output Syntax"), to JSON and back.
//
// Two kinds have no faithful nested JSON form and stay strings with PostgreSQL's text: arrays with explicit lower bounds
// ("[0:1]={7,8}"), and arrays of json or jsonb with more than one dimension, whose inner brackets could be either.

// maxArrayDepth is PostgreSQL's MAXDIM.
const maxArrayDepth = 6

var errArray = errors.New("malformed array text")

func appendArrayJSON(dst []byte, s shape, text []byte) ([]byte, error) {
	isJSON := s.elem == oidJSON || s.elem == oidJSONB
	if len(text) > 0 && text[0] == '[' || isJSON && bytes.HasPrefix(text, []byte("{{")) {
		return appendString(dst, text)
	}
	p := arrayParser{shape: s, in: text}
	dst, err := p.array(dst, 1)
	if err == nil && p.pos != len(text) {
		err = errArray
	}
	return dst, err
}

type arrayParser struct {
	shape
	in      []byte
	pos     int
	scratch []byte // an unescaped element
}

func (p *arrayParser) array(dst []byte, depth int) ([]byte, error) {
	if depth > maxArrayDepth || p.pos >= len(p.in) || p.in[p.pos] != '{' {
		return dst, errArray
	}
	p.pos++
	dst = append(dst, '[')
	if p.pos < len(p.in) && p.in[p.pos] == '}' {
		p.pos++
		return append(dst, ']'), nil
	}
	for {
		if p.pos >= len(p.in) {
			return dst, errArray
		}
		var err error
		if p.in[p.pos] == '{' {
			dst, err = p.array(dst, depth+1)
		} else {
			dst, err = p.element(dst)
		}
		if err != nil {
			return dst, err
		}
		if p.pos >= len(p.in) {
			return dst, errArray
		}
		switch p.in[p.pos] {
		case p.delim:
			p.pos++
			dst = append(dst, ',')
		case '}':
			p.pos++
			return append(dst, ']'), nil
		default:
			return dst, errArray
		}
	}
}

func (p *arrayParser) element(dst []byte) ([]byte, error) {
	p.scratch = p.scratch[:0]
	if p.in[p.pos] == '"' {
		for p.pos++; p.pos < len(p.in); p.pos++ {
			switch c := p.in[p.pos]; c {
			case '"':
				p.pos++
				return appendScalarJSON(dst, p.elem, p.scratch)
			case '\\':
				if p.pos++; p.pos >= len(p.in) {
					return dst, errArray
				}
				p.scratch = append(p.scratch, p.in[p.pos])
			default:
				p.scratch = append(p.scratch, c)
			}
		}
		return dst, errArray
	}
	start := p.pos
	for p.pos < len(p.in) && p.in[p.pos] != p.delim && p.in[p.pos] != '}' {
		p.pos++
	}
	raw := p.in[start:p.pos] // array_out quotes whatever needs a backslash
	if len(raw) == 0 {
		return dst, errArray
	}
	if string(raw) == "NULL" {
		return append(dst, "null"...), nil
	}
	return appendScalarJSON(dst, p.elem, raw)
}

// appendArrayText is appendArrayJSON's inverse. raw is a JSON array, or a JSON string with PostgreSQL's text as it is.
func appendArrayText(dst []byte, s shape, raw json.RawMessage, depth int) ([]byte, error) {
	if raw = bytes.TrimSpace(raw); len(raw) > 0 && raw[0] == '"' {
		return appendUnquoted(dst, raw)
	}
	var elems []json.RawMessage
	if err := json.Unmarshal(raw, &elems); err != nil {
		return dst, badText("JSON array", raw)
	}
	if depth > maxArrayDepth {
		return dst, errArray
	}
	isJSON := s.elem == oidJSON || s.elem == oidJSONB
	dst = append(dst, '{')
	var scratch []byte
	for i, e := range elems {
		if i > 0 {
			dst = append(dst, s.delim)
		}
		var err error
		switch {
		case string(e) == "null":
			dst = append(dst, "NULL"...)
			continue
		case len(e) > 0 && e[0] == '[' && !isJSON:
			if dst, err = appendArrayText(dst, s, e, depth+1); err != nil {
				return dst, err
			}
			continue
		}
		if scratch, err = appendScalarText(scratch[:0], s.elem, e); err != nil {
			return dst, err
		}
		dst = appendArrayElement(dst, scratch, s.delim)
	}
	return append(dst, '}'), nil
}

// appendArrayElement quotes an element where array_out does.
func appendArrayElement(dst, e []byte, delim byte) []byte {
	quote := len(e) == 0 || bytes.EqualFold(e, []byte("NULL"))
	for _, c := range e {
		switch c {
		case '"', '\\', '{', '}', ' ', '\t', '\n', '\r', '\v', '\f', delim:
			quote = true
		}
	}
	if !quote {
		return append(dst, e...)
	}
	dst = append(dst, '"')
	for _, c := range e {
		if c == '"' || c == '\\' {
			dst = append(dst, '\\')
		}
		dst = append(dst, c)
	}
	return append(dst, '"')
}

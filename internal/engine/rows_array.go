package engine

import (
	"encoding/binary"
	"errors"
	"strconv"
	"strings"
)

// maxDimensions is PostgreSQL's MAXDIM.
const maxDimensions = 6

var errArrayText = errors.New("malformed array")

// arrayText reads array_out's form (PostgreSQL manual, 8.15.6) and writes the elements as array_send does.
type arrayText struct {
	elem  uint32
	delim byte
	in    []byte
	pos   int

	dst     []byte
	scratch []byte // an unquoted element
	null    bool   // an element is NULL
	lengths [maxDimensions]int
	depth   int // number of dimensions, known when the first innermost array is reached
}

// appendArray appends array_send's form: number of dimensions, whether there are NULLs, element type, length and lower
// bound of each dimension, and the elements with their lengths.
func appendArray(elem uint32, delim byte, text, dst []byte) ([]byte, error) {
	lower := [maxDimensions]int{1, 1, 1, 1, 1, 1}
	body := string(text)
	if strings.HasPrefix(body, "[") { // explicit bounds: [0:1][5:6]={{...
		bounds, rest, ok := strings.Cut(body, "=")
		if !ok {
			return dst, errArrayText
		}
		body = rest
		for d, b := range strings.Split(strings.TrimSuffix(strings.TrimPrefix(bounds, "["), "]"), "][") {
			lo, _, ok := strings.Cut(b, ":")
			n, err := strconv.ParseInt(lo, 10, 32)
			if !ok || err != nil || d >= maxDimensions {
				return dst, errArrayText
			}
			lower[d] = int(n)
		}
	}
	p := &arrayText{elem: elem, delim: delim, in: []byte(body)}
	if err := p.array(0); err != nil {
		return dst, err
	}
	if p.pos != len(p.in) {
		return dst, errArrayText
	}
	be := binary.BigEndian
	if p.lengths[0] == 0 {
		p.depth = 0
	}
	dst = be.AppendUint32(dst, uint32(p.depth))
	null := uint32(0)
	if p.null {
		null = 1
	}
	dst = be.AppendUint32(dst, null)
	dst = be.AppendUint32(dst, elem)
	for d := range p.depth {
		dst = be.AppendUint32(dst, uint32(p.lengths[d]))
		dst = be.AppendUint32(dst, uint32(int32(lower[d])))
	}
	return append(dst, p.dst...), nil
}

func (p *arrayText) peek() byte {
	if p.pos < len(p.in) {
		return p.in[p.pos]
	}
	return 0
}

// array reads {...} at a depth; every array of one depth has the same length.
func (p *arrayText) array(depth int) error {
	if depth >= maxDimensions || p.peek() != '{' {
		return errArrayText
	}
	p.pos++
	n := 0
	for p.peek() != '}' {
		if n > 0 {
			if p.peek() != p.delim {
				return errArrayText
			}
			p.pos++
		}
		var err error
		if p.peek() == '{' {
			err = p.array(depth + 1)
		} else {
			if p.depth == 0 {
				p.depth = depth + 1
			}
			if p.depth != depth+1 {
				return errArrayText
			}
			err = p.element()
		}
		if err != nil {
			return err
		}
		n++
	}
	p.pos++
	if p.lengths[depth] != 0 && p.lengths[depth] != n {
		return errArrayText
	}
	p.lengths[depth] = n
	return nil
}

func (p *arrayText) element() error {
	p.scratch = p.scratch[:0]
	quoted := p.peek() == '"'
	if quoted {
		p.pos++
	}
	for {
		c := p.peek()
		switch {
		case p.pos >= len(p.in):
			return errArrayText
		case c == '\\':
			p.pos++
			if p.pos >= len(p.in) {
				return errArrayText
			}
			c = p.peek()
		case quoted && c == '"':
			p.pos++
			return p.write(p.scratch)
		case !quoted && (c == p.delim || c == '}'):
			switch string(p.scratch) {
			case "":
				return errArrayText
			case "NULL":
				p.null = true
				p.dst = binary.BigEndian.AppendUint32(p.dst, nullLength)
				return nil
			}
			return p.write(p.scratch)
		}
		p.scratch = append(p.scratch, c)
		p.pos++
	}
}

// nullLength is the length -1 that stands for NULL.
const nullLength = 1<<32 - 1

func (p *arrayText) write(text []byte) error {
	at := len(p.dst)
	p.dst = append(p.dst, 0, 0, 0, 0)
	var err error
	if p.dst, err = appendBinary(p.elem, text, p.dst); err != nil {
		return err
	}
	binary.BigEndian.PutUint32(p.dst[at:], uint32(len(p.dst)-at-4))
	return nil
}

package replication

import (
	"bytes"
	"context"
	"fmt"
)

// copyReader takes the output of COPY … TO STDOUT in text format, one row for each Write as the server sends it, and makes
// snapshot transactions of it. Values lie in blocks that belong to the transaction.
type copyReader struct {
	ctx   context.Context
	rel   *Relation
	rows  int // most in one Tx
	shard string
	out   chan<- *Tx
	err   error // why a Write failed; pgconn reports it only in part

	changes []Change
	slab    []Value
	block   []byte
	bytes   int // in changes
}

const copyBlock = 64 << 10

// Write implements io.Writer for pgconn.CopyTo.
func (w *copyReader) Write(row []byte) (int, error) {
	n := len(row)
	row = bytes.TrimSuffix(row, []byte("\n"))
	if w.block == nil || cap(w.block)-len(w.block) < len(row) {
		w.block = make([]byte, 0, max(copyBlock, len(row)))
	}
	start := len(w.block)
	w.block = append(w.block, row...)
	if k := len(w.rel.Columns); cap(w.slab)-len(w.slab) < k {
		w.slab = make([]Value, 0, max(slabValues, k))
	}
	first := len(w.slab)
	w.slab = copyRow(w.slab, w.block[start:])
	vals := w.slab[first:len(w.slab):len(w.slab)]
	if len(vals) != len(w.rel.Columns) {
		w.err = fmt.Errorf("%w: COPY row with %d columns, want %d", ErrProtocol, len(vals), len(w.rel.Columns))
		return 0, w.err
	}
	w.changes = append(w.changes, Change{Op: Snapshot, Relation: w.rel, Last: true, New: vals})
	w.bytes += n
	if len(w.changes) >= w.rows || w.bytes >= chunkBytes {
		if w.err = w.flush(); w.err != nil {
			return 0, w.err
		}
	}
	return n, nil
}

func (w *copyReader) flush() error {
	if len(w.changes) == 0 {
		return nil
	}
	tx := &Tx{Shard: w.shard, Changes: w.changes}
	w.changes, w.slab, w.block, w.bytes = nil, nil, nil, 0
	select {
	case w.out <- tx:
		return nil
	case <-w.ctx.Done():
		return w.ctx.Err()
	}
}

// copyRow appends the columns of a row in COPY's text format (manual, COPY, "Text Format"). It unescapes in place.
func copyRow(dst []Value, row []byte) []Value {
	for start := 0; ; {
		end := bytes.IndexByte(row[start:], '\t')
		if end < 0 {
			end = len(row)
		} else {
			end += start
		}
		field := row[start:end:end]
		if string(field) == `\N` {
			dst = append(dst, Value{})
		} else {
			dst = append(dst, Value{Bytes: unescapeCopy(field)})
		}
		if end == len(row) {
			return dst
		}
		start = end + 1
	}
}

// unescapeCopy undoes the escapes that COPY TO writes. Those that only COPY FROM knows (octal, hex) never come.
func unescapeCopy(b []byte) []byte {
	i := bytes.IndexByte(b, '\\')
	if i < 0 {
		return b
	}
	out := b[:i]
	for ; i < len(b); i++ {
		c := b[i]
		if c == '\\' && i+1 < len(b) {
			i++
			switch c = b[i]; c {
			case 'b':
				c = '\b'
			case 'f':
				c = '\f'
			case 'n':
				c = '\n'
			case 'r':
				c = '\r'
			case 't':
				c = '\t'
			case 'v':
				c = '\v'
			}
		}
		out = append(out, c)
	}
	return out
}

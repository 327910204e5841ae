package replication

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/tidemarkdb/tidemark/internal/lsn"
)

// The messages of pgoutput, protocol versions 1 and 2 (PostgreSQL manual, "Logical Replication Message Formats"). Decoding
// neither copies nor keeps: every slice that it returns points into the message.

// ErrProtocol marks a message that does not follow the protocol.
var ErrProtocol = errors.New("malformed replication message")

// Kinds of pgoutput messages.
const (
	msgBegin        = 'B'
	msgCommit       = 'C'
	msgOrigin       = 'O'
	msgRelation     = 'R'
	msgType         = 'Y'
	msgInsert       = 'I'
	msgUpdate       = 'U'
	msgDelete       = 'D'
	msgTruncate     = 'T'
	msgMessage      = 'M'
	msgStreamStart  = 'S'
	msgStreamStop   = 'E'
	msgStreamCommit = 'c'
	msgStreamAbort  = 'A'
)

// maxColumns is above PostgreSQL's MaxHeapAttributeNumber (1600) and bounds what a malformed message can allocate.
const maxColumns = 1664

// reader takes a message apart. The first read beyond its end sets short, and all later ones return zeros.
type reader struct {
	b     []byte
	short bool
}

func (r *reader) take(n int) []byte {
	if n < 0 || n > len(r.b) {
		r.short, r.b = true, nil
		return nil
	}
	p := r.b[:n:n]
	r.b = r.b[n:]
	return p
}

func (r *reader) byte() byte {
	if p := r.take(1); p != nil {
		return p[0]
	}
	return 0
}

func (r *reader) uint16() uint16 {
	if p := r.take(2); p != nil {
		return binary.BigEndian.Uint16(p)
	}
	return 0
}

func (r *reader) uint32() uint32 {
	if p := r.take(4); p != nil {
		return binary.BigEndian.Uint32(p)
	}
	return 0
}

func (r *reader) uint64() uint64 {
	if p := r.take(8); p != nil {
		return binary.BigEndian.Uint64(p)
	}
	return 0
}

func (r *reader) lsn() lsn.LSN { return lsn.LSN(r.uint64()) }

func (r *reader) time() time.Time { return pgTime(int64(r.uint64())) }

// cstring returns the bytes before a NUL.
func (r *reader) cstring() []byte {
	for i, c := range r.b {
		if c == 0 {
			return r.take(i + 1)[:i]
		}
	}
	r.short, r.b = true, nil
	return nil
}

func (r *reader) err(kind byte) error {
	if r.short {
		return fmt.Errorf("%w: %q ends early", ErrProtocol, kind)
	}
	return nil
}

// pgEpoch is PostgreSQL's, 2000-01-01 UTC.
var pgEpoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

func pgTime(micros int64) time.Time {
	return time.Unix(pgEpoch.Unix()+micros/1e6, micros%1e6*1e3).UTC()
}

type beginMsg struct {
	final lsn.LSN // of the commit record
	xid   uint32
}

func decodeBegin(b []byte) (m beginMsg, err error) {
	r := reader{b: b}
	m.final = r.lsn()
	r.uint64() // commit time, which Commit has too
	m.xid = r.uint32()
	return m, r.err(msgBegin)
}

type commitMsg struct {
	xid         uint32 // Stream Commit only
	commit, end lsn.LSN
	time        time.Time
}

// decodeCommit reads a Commit, or a Stream Commit, which has the transaction id in front.
func decodeCommit(kind byte, b []byte) (m commitMsg, err error) {
	r := reader{b: b}
	if kind == msgStreamCommit {
		m.xid = r.uint32()
	}
	r.byte() // flags, unused
	m.commit, m.end, m.time = r.lsn(), r.lsn(), r.time()
	return m, r.err(kind)
}

func decodeStreamStart(b []byte) (xid uint32, err error) {
	r := reader{b: b}
	xid = r.uint32()
	r.byte() // 1 for the transaction's first segment
	return xid, r.err(msgStreamStart)
}

func decodeStreamAbort(b []byte) (xid, sub uint32, err error) {
	r := reader{b: b}
	xid, sub = r.uint32(), r.uint32()
	return xid, sub, r.err(msgStreamAbort)
}

// relationMsg describes a table as of its place in the stream. Under REPLICA IDENTITY FULL every column is flagged as key,
// so the flags say nothing about the primary key.
type relationMsg struct {
	oid          uint32
	schema, name string
	identity     byte // 'd', 'n', 'f' or 'i'
	columns      []Column
}

func decodeRelation(b []byte) (m relationMsg, err error) {
	r := reader{b: b}
	m.oid = r.uint32()
	m.schema = string(r.cstring())
	if m.schema == "" {
		m.schema = "pg_catalog"
	}
	m.name = string(r.cstring())
	m.identity = r.byte()
	n := int(r.uint16())
	if r.short || n > maxColumns {
		return m, fmt.Errorf("%w: relation with %d columns", ErrProtocol, n)
	}
	m.columns = make([]Column, n)
	for i := range m.columns {
		c := &m.columns[i]
		r.byte()
		c.Name = string(r.cstring())
		c.TypeOID = r.uint32()
		c.TypeMod = int32(r.uint32())
	}
	return m, r.err(msgRelation)
}

// tuple is a row as it travels: a count, and for each column a kind and a value. It is checked when it is cut out.
type tuple struct {
	n int
	b []byte
}

func (r *reader) tuple() (t tuple) {
	t.n = int(r.uint16())
	start := r.b
	for range t.n {
		switch kind := r.byte(); kind {
		case 'n', 'u':
		case 't', 'b':
			r.take(int(int32(r.uint32())))
		default:
			r.short = true
		}
		if r.short {
			return tuple{}
		}
	}
	t.b = start[:len(start)-len(r.b)]
	return t
}

// values appends the tuple's columns to dst. Binary values are never asked for and are refused.
func (t tuple) values(dst []Value) ([]Value, error) {
	r := reader{b: t.b}
	for range t.n {
		switch kind := r.byte(); kind {
		case 'n':
			dst = append(dst, Value{})
		case 'u':
			dst = append(dst, Value{Unchanged: true})
		case 't':
			dst = append(dst, Value{Bytes: r.take(int(int32(r.uint32())))})
		default:
			return dst, fmt.Errorf("%w: column of kind %q", ErrProtocol, kind)
		}
	}
	return dst, r.err('t')
}

// rowMsg is an Insert, Update or Delete.
type rowMsg struct {
	relation uint32
	oldKind  byte // 'O' whole old row, 'K' its key, 0 none
	old, new tuple
}

func decodeRow(kind byte, b []byte) (m rowMsg, err error) {
	r := reader{b: b}
	m.relation = r.uint32()
	part := r.byte()
	if kind != msgInsert && (part == 'O' || part == 'K') {
		m.oldKind, m.old = part, r.tuple()
		if kind == msgUpdate {
			part = r.byte()
		}
	}
	switch {
	case r.short:
	case kind == msgDelete && m.oldKind == 0, kind != msgDelete && part != 'N':
		return m, fmt.Errorf("%w: %q with a row of kind %q", ErrProtocol, kind, part)
	case kind != msgDelete:
		m.new = r.tuple()
	}
	return m, r.err(kind)
}

// decodeTruncate calls each for every truncated table.
func decodeTruncate(b []byte, each func(relation uint32) error) error {
	r := reader{b: b}
	n := r.uint32()
	r.byte() // CASCADE, RESTART IDENTITY
	for ; n > 0 && !r.short; n-- {
		if oid := r.uint32(); !r.short {
			if err := each(oid); err != nil {
				return err
			}
		}
	}
	return r.err(msgTruncate)
}

package replication

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"maps"
	"strconv"

	"github.com/tidemarkdb/tidemark/internal/lsn"
)

// ErrNoKey marks a captured table whose primary key cannot be found.
var ErrNoKey = errors.New("no primary key")

// An assembler turns the records of a committed transaction into changes: it follows the relations that the stream
// describes, fills unchanged TOAST values in from the old row, splits key changes into a delete and a create, numbers the
// changes and marks the one effect per key.
type assembler struct {
	describe  func(context.Context, relationMsg, *Relation) (*Relation, error) // completes a relation from the catalog; last argument: as known before, or nil
	relations map[uint32]*Relation
	epoch     lsn.Epoch // of the last row of tidemark.epoch seen in the stream
	seeds     [2]maphash.Seed

	// The part being built.
	changes []Change
	slab    []Value
	ordinal int
}

func newAssembler(describe func(context.Context, relationMsg, *Relation) (*Relation, error), epoch lsn.Epoch) *assembler {
	return &assembler{
		describe: describe, relations: map[uint32]*Relation{}, epoch: epoch,
		seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()},
	}
}

// slabValues is the size of a full slab. The first is made for one change, since most transactions are small, and each next
// is twice as large.
const slabValues = 512

func growSlab(old []Value, n int) []Value {
	return make([]Value, 0, max(2*n, min(2*cap(old), slabValues)))
}

// values decodes a tuple into memory that later tuples do not touch.
func (a *assembler) values(t tuple, rel *Relation) ([]Value, error) {
	if t.n != len(rel.Columns) {
		return nil, fmt.Errorf("%w: row of %s.%s with %d columns, want %d", ErrProtocol, rel.Schema, rel.Name, t.n, len(rel.Columns))
	}
	if cap(a.slab)-len(a.slab) < t.n {
		a.slab = growSlab(a.slab, t.n)
	}
	start := len(a.slab)
	var err error
	a.slab, err = t.values(a.slab)
	return a.slab[start:len(a.slab):len(a.slab)], err
}

func (a *assembler) push(c Change) {
	c.Ordinal, c.Last = a.ordinal, true
	a.ordinal++
	a.changes = append(a.changes, c)
}

// apply adds what one record means to the part being built.
func (a *assembler) apply(ctx context.Context, rec record) error {
	switch rec.kind {
	case msgRelation:
		m, err := decodeRelation(rec.body)
		if err != nil {
			return err
		}
		rel, err := a.describe(ctx, m, a.relations[m.oid])
		if err != nil {
			return err
		}
		a.relations[m.oid] = rel
		return nil
	case msgInsert, msgUpdate, msgDelete:
		m, err := decodeRow(rec.kind, rec.body)
		if err != nil {
			return err
		}
		rel := a.relations[m.relation]
		if rel == nil {
			return fmt.Errorf("%w: change of relation %d before its description", ErrProtocol, m.relation)
		}
		return a.row(rec.kind, m, rel)
	case msgTruncate:
		return decodeTruncate(rec.body, func(oid uint32) error {
			rel := a.relations[oid]
			if rel == nil {
				return fmt.Errorf("%w: truncate of relation %d before its description", ErrProtocol, oid)
			}
			if !rel.own() {
				a.push(Change{Op: Truncate, Relation: rel})
			}
			return nil
		})
	}
	return nil // Type, Origin, Message: nothing that the catalog does not tell
}

func (a *assembler) row(kind byte, m rowMsg, rel *Relation) (err error) {
	var before, after []Value
	if m.oldKind != 0 {
		if before, err = a.values(m.old, rel); err != nil {
			return err
		}
	}
	if kind != msgDelete {
		if after, err = a.values(m.new, rel); err != nil {
			return err
		}
		for i := range after {
			if after[i].Unchanged && m.oldKind == 'O' {
				after[i] = before[i]
			}
		}
	}
	if rel.own() {
		if kind == msgInsert {
			return a.raise(rel, after)
		}
		return nil
	}
	switch {
	case kind == msgInsert:
		a.push(Change{Op: Create, Relation: rel, New: after})
	case kind == msgDelete:
		a.push(Change{Op: Delete, Relation: rel, Old: before})
	case before != nil && keyChanged(rel, before, after):
		a.push(Change{Op: Delete, Relation: rel, Old: before})
		a.push(Change{Op: Create, Relation: rel, New: after})
	default:
		a.push(Change{Op: Update, Relation: rel, Old: before, New: after})
	}
	return nil
}

// raise takes a row of tidemark.epoch. Rows of the past, after a restart, change nothing.
func (a *assembler) raise(rel *Relation, row []Value) error {
	for i, c := range rel.Columns {
		if c.Name != "epoch" {
			continue
		}
		n, err := strconv.ParseUint(string(row[i].Bytes), 10, 16)
		if err != nil || lsn.Epoch(n) > lsn.MaxEpoch {
			return fmt.Errorf("%s.%s: epoch %q is not a number up to %d", ownSchema, epochTable, row[i].Bytes, lsn.MaxEpoch)
		}
		a.epoch = max(a.epoch, lsn.Epoch(n))
	}
	return nil
}

// own says whether the relation is tidemark.epoch, the one table of ours in the publication.
func (r *Relation) own() bool { return r.Schema == ownSchema && r.Name == epochTable }

func keyChanged(rel *Relation, before, after []Value) bool {
	for i, c := range rel.Columns {
		if c.Key && (string(before[i].Bytes) != string(after[i].Bytes) || before[i].Null() != after[i].Null()) {
			return true
		}
	}
	return false
}

// keyHash identifies a row by table and key: two independent 64-bit hashes with random seeds, so that a collision inside
// a transaction of a million rows has a probability of about 1e-27.
type keyHash [2]uint64

func (a *assembler) hash(c *Change) keyHash {
	row := c.New
	if row == nil {
		row = c.Old
	}
	var buf [128]byte
	b := binary.BigEndian.AppendUint32(buf[:0], c.Relation.OID)
	for i, col := range c.Relation.Columns {
		if col.Key {
			b = binary.BigEndian.AppendUint32(b, uint32(len(row[i].Bytes)))
			b = append(b, row[i].Bytes...)
		}
	}
	return keyHash{maphash.Bytes(a.seeds[0], b), maphash.Bytes(a.seeds[1], b)}
}

// markSuperseded clears Last on changes that a later one of the same key, or a later truncate of their table, overrides.
func (a *assembler) markSuperseded(changes []Change) {
	if len(changes) < 2 {
		return
	}
	seen := make(map[keyHash]struct{}, len(changes))
	truncated := map[uint32]struct{}{}
	for i := len(changes) - 1; i >= 0; i-- {
		c := &changes[i]
		_, gone := truncated[c.Relation.OID]
		if c.Op == Truncate {
			c.Last = !gone
			truncated[c.Relation.OID] = struct{}{}
			continue
		}
		if gone {
			c.Last = false
			continue
		}
		k := a.hash(c)
		if _, dup := seen[k]; dup {
			c.Last = false
		} else {
			seen[k] = struct{}{}
		}
	}
}

// transaction decodes a whole committed transaction and gives it to emit: as one part where it is in memory and small
// enough, else in parts. The last part is emitted also when it is empty.
func (a *assembler) transaction(ctx context.Context, sp *spool, limit partLimit, emit func(changes []Change, more bool) error) error {
	a.ordinal, a.slab, a.changes = 0, nil, nil        // what was emitted belongs to the sink
	if sp.file == nil && sp.rows*2 <= limit.changes { // an update can become two changes
		a.changes = make([]Change, 0, sp.rows)
		if err := sp.records(nil, func(r record) error { return a.apply(ctx, r) }); err != nil {
			return err
		}
		a.markSuperseded(a.changes)
		return emit(a.changes, false)
	}

	// Two passes: the first finds each key's last change, the second decodes again and emits. The relations start out the
	// same in both, and nothing of the first pass stays in memory but one entry per key.
	before := maps.Clone(a.relations)
	last := map[keyHash]int{}
	truncates := map[uint32]int{}
	var scratch []byte
	err := sp.records(func(n int) []byte {
		if cap(scratch) < n {
			scratch = make([]byte, n+n/4)
		}
		return scratch[:n]
	}, func(r record) error {
		a.changes, a.slab = a.changes[:0], a.slab[:0]
		if err := a.apply(ctx, r); err != nil {
			return err
		}
		for i := range a.changes {
			if c := &a.changes[i]; c.Op == Truncate {
				truncates[c.Relation.OID] = c.Ordinal
			} else {
				last[a.hash(c)] = c.Ordinal
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	total := a.ordinal

	a.relations, a.ordinal, a.slab, a.changes = before, 0, nil, nil
	var room []byte // bodies of the part being built; each part has its own, since the sink keeps it
	bytes := 0
	err = sp.records(func(n int) []byte {
		if cap(room)-len(room) < n {
			room = make([]byte, 0, max(n, limit.bytes/16))
		}
		room = room[:len(room)+n]
		return room[len(room)-n : len(room) : len(room)]
	}, func(r record) error {
		if len(a.changes) > 0 && (len(a.changes) >= limit.changes || bytes >= limit.bytes) {
			if err := emit(a.changes, true); err != nil {
				return err
			}
			a.changes, a.slab, room, bytes = nil, nil, nil, 0
		}
		bytes += len(r.body)
		first := len(a.changes)
		if err := a.apply(ctx, r); err != nil {
			return err
		}
		for i := first; i < len(a.changes); i++ {
			c := &a.changes[i]
			if t, ok := truncates[c.Relation.OID]; ok && c.Ordinal < t {
				c.Last = false
			} else if c.Op != Truncate {
				c.Last = last[a.hash(c)] == c.Ordinal
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if a.ordinal != total {
		return fmt.Errorf("transaction %d: %d changes at first and %d at second reading", sp.xid, total, a.ordinal)
	}
	return emit(a.changes, false)
}

// partLimit is how much of a transaction one Tx carries.
type partLimit struct{ changes, bytes int }

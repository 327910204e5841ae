package cqrs

import (
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/tidemarkdb/tidemark/internal/lsn"
	"github.com/tidemarkdb/tidemark/replication"
)

// What every store does with an event before it writes.

// StoredVersion is the version under which a store keeps an event's effect. A snapshot's row carries the slot's
// consistent point, at which a streamed commit can begin; the snapshot's row is kept one below it, so that the change
// wins in whatever order the two arrive. (Commits lie at least one record apart, so nothing else has that version.) A
// sweep reaches what is older than those rows.
func (e *Event) StoredVersion() lsn.Version {
	if (e.Op == replication.Snapshot || e.Op == replication.Sweep) && e.Version > 0 {
		return e.Version - 1
	}
	return e.Version
}

// Origin names where an event's row comes from: "public.orders/s1/3", the table, the shard and the topic's partition. An event of a
// whole table is in every partition and reaches the rows of its own origin only. So it comes behind everything that concerns them,
// however far the other partitions are; a sweep would otherwise hide rows that are still to come there.
func (e *Event) Origin() string {
	return e.Schema + "." + e.Table + "/" + e.Source.Shard + "/" + strconv.Itoa(e.Partition)
}

// RowID is the name of the event's row in every store. Its errors are permanent.
func (e *Event) RowID(cols []Column) (string, error) {
	id, err := RowID(cols, func(c Column) ([]byte, error) { return columnText(c, e.Key) })
	if err != nil {
		return "", fmt.Errorf("%w: %s event of %s: %w", ErrPermanent, opName(e.Op), e.Origin(), err)
	}
	return id, nil
}

// Texts is the event's new row in PostgreSQL's text form: one value for each of cols, nil for NULL and for a column
// that the row does not have. Its errors are permanent.
func (e *Event) Texts(cols []Column) ([][]byte, error) {
	if e.After == nil {
		return nil, fmt.Errorf("%w: %s event of %s has no row", ErrPermanent, opName(e.Op), e.Origin())
	}
	out := make([][]byte, len(cols))
	for i, c := range cols {
		text, err := columnText(c, e.After)
		if err != nil {
			return nil, fmt.Errorf("%w: %s event of %s: %w", ErrPermanent, opName(e.Op), e.Origin(), err)
		}
		out[i] = text
	}
	return out, nil
}

func columnText(c Column, r Row) ([]byte, error) {
	v := r.Get(c.Name)
	if v == nil {
		return nil, nil
	}
	text, err := TextOf(c, v)
	if err != nil {
		return nil, fmt.Errorf("column %s: %w", c.Name, err)
	}
	return text, nil
}

// TextOf turns a column's JSON form into PostgreSQL's text form, nil for NULL.
func TextOf(c Column, v json.RawMessage) ([]byte, error) { return replication.Text(c.OID, v) }

func opName(op replication.Op) string {
	switch op {
	case replication.Create:
		return "create"
	case replication.Update:
		return "update"
	case replication.Delete:
		return "delete"
	case replication.Snapshot:
		return "snapshot"
	case replication.Truncate:
		return "truncate"
	case replication.Sweep:
		return "sweep"
	}
	return fmt.Sprintf("op %q", byte(op))
}

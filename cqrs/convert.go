package cqrs

import (
	"fmt"

	"github.com/tidemarkdb/tidemark/internal/lsn"
	"github.com/tidemarkdb/tidemark/replication"
)

// Events turns a transaction into the events of its changes, in order, and calls emit for each. Capture has already
// made a delete and a create of an update that changes the primary key.
func Events(tx *replication.Tx, emit func(*Event) error) error {
	version, err := lsn.Pack(tx.Epoch, tx.Commit)
	if err != nil {
		return fmt.Errorf("transaction %d at %s of shard %s: %w", tx.XID, tx.Commit, tx.Shard, err)
	}
	for i := range tx.Changes {
		if err := changeEvents(tx, &tx.Changes[i], version, emit); err != nil {
			c := &tx.Changes[i]
			return fmt.Errorf("change %d of transaction %d at %s of shard %s, table %s.%s: %w",
				c.Ordinal, tx.XID, tx.Commit, tx.Shard, c.Relation.Schema, c.Relation.Name, err)
		}
	}
	return nil
}

func changeEvents(tx *replication.Tx, c *replication.Change, version lsn.Version, emit func(*Event) error) error {
	e := Event{
		Op: c.Op, Schema: c.Relation.Schema, Table: c.Relation.Name, Version: version, Last: c.Last,
		Source: Source{Shard: tx.Shard, Epoch: tx.Epoch, Commit: tx.Commit, Ordinal: c.Ordinal, XID: tx.XID, CommitTime: tx.CommitTime},
	}
	if c.Op.WholeTable() {
		return emit(&e)
	}
	var err error
	if e.Before, err = row(c.Relation, c.Old); err != nil {
		return err
	}
	if e.After, err = row(c.Relation, c.New); err != nil {
		return err
	}
	newest := e.After
	if c.Op == replication.Delete {
		newest, e.After = e.Before, nil
	}
	if newest == nil {
		return fmt.Errorf("op %q has no row: is REPLICA IDENTITY FULL set?", c.Op)
	}
	if e.Key, err = keyOf(c.Relation, newest); err != nil {
		return err
	}
	return emit(&e)
}

func row(rel *replication.Relation, values []replication.Value) (Row, error) {
	if values == nil {
		return nil, nil
	}
	if len(values) != len(rel.Columns) {
		return nil, fmt.Errorf("%d values for %d columns", len(values), len(rel.Columns))
	}
	r := make(Row, len(values))
	size := 0
	for i := range values {
		size += len(values[i].Bytes) + 6 // quotes, or null
	}
	b := make([]byte, 0, size)
	for i := range values {
		from := len(b)
		var err error
		if b, err = replication.AppendJSON(b, rel.Columns[i], values[i]); err != nil {
			return nil, err
		}
		r[i] = Field{Name: rel.Columns[i].Name, Value: b[from:len(b):len(b)]}
	}
	return r, nil
}

func keyOf(rel *replication.Relation, r Row) (Row, error) {
	n := 0
	for i := range rel.Columns {
		if rel.Columns[i].Key {
			n++
		}
	}
	if n == 0 {
		return nil, fmt.Errorf("the table has no primary key, which read models need: add one")
	}
	key := make(Row, 0, n)
	for i := range rel.Columns {
		if rel.Columns[i].Key {
			key = append(key, r[i])
		}
	}
	return key, nil
}

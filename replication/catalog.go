package replication

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// What the stream does not say is read from the catalog: the primary key (under REPLICA IDENTITY FULL every column is flagged
// as key), types' names, and what lies under domains and arrays. The catalog is that of now, the stream may still be in the
// past; columns are therefore matched by name, and a key that cannot be matched falls back to the one known before.

// typeInfo is what the catalog says of a type. Built-in and user types are cached by OID for the life of a stream.
type typeInfo struct {
	name  string
	shape shape // zero for built-in types
}

type catalog struct {
	ctl   *control
	types map[uint32]typeInfo
	keys  map[uint32][]string // by table: the key when its snapshot was taken
}

// describe completes a relation of the stream. old is the relation known before under the same OID, or nil.
func (c *catalog) describe(ctx context.Context, m relationMsg, old *Relation) (*Relation, error) {
	rel := &Relation{OID: m.oid, Schema: m.schema, Name: m.name, Columns: m.columns}
	var key []string
	err := c.ctl.do(ctx, func(ctx context.Context, conn *pgx.Conn) (err error) {
		if key, err = primaryKey(ctx, conn, m.oid); err != nil {
			return err
		}
		return loadTypes(ctx, conn, c.types, rel.Columns)
	})
	if err != nil {
		return nil, fmt.Errorf("describe %s.%s: %w", m.schema, m.name, err)
	}
	if !markKey(rel, key) && !markKey(rel, old.key()) && !markKey(rel, renamedKey(old, rel)) && !markKey(rel, c.keys[m.oid]) && !rel.own() {
		return nil, fmt.Errorf("%s.%s: %w among its columns; capture needs one: ALTER TABLE %s ADD PRIMARY KEY (…), then start again with a new snapshot",
			m.schema, m.name, ErrNoKey, pgx.Identifier{m.schema, m.name}.Sanitize())
	}
	setTypes(rel.Columns, c.types)
	if old != nil && old.equal(rel) {
		return old, nil
	}
	return rel, nil
}

// renamedKey is the key of old under the names that its columns have in rel, if all that differs up to them are their names.
func renamedKey(old, rel *Relation) (names []string) {
	if old == nil {
		return nil
	}
	for i, c := range old.Columns {
		if i >= len(rel.Columns) || rel.Columns[i].TypeOID != c.TypeOID || rel.Columns[i].Name != c.Name && !c.Key {
			break
		}
		if c.Key {
			names = append(names, rel.Columns[i].Name)
		}
	}
	if len(names) != len(old.key()) {
		return nil
	}
	return names
}

func (r *Relation) key() (names []string) {
	if r == nil {
		return nil
	}
	for _, c := range r.Columns {
		if c.Key {
			names = append(names, c.Name)
		}
	}
	return names
}

func (r *Relation) equal(o *Relation) bool {
	if r.OID != o.OID || r.Schema != o.Schema || r.Name != o.Name || len(r.Columns) != len(o.Columns) {
		return false
	}
	for i := range r.Columns {
		if r.Columns[i] != o.Columns[i] {
			return false
		}
	}
	return true
}

// markKey flags the named columns, if the relation has them all.
func markKey(rel *Relation, key []string) bool {
	for i := range rel.Columns {
		rel.Columns[i].Key = false
	}
	for _, name := range key {
		found := false
		for i := range rel.Columns {
			if rel.Columns[i].Name == name {
				rel.Columns[i].Key, found = true, true
			}
		}
		if !found {
			return false
		}
	}
	return len(key) > 0
}

func primaryKey(ctx context.Context, conn *pgx.Conn, oid uint32) ([]string, error) {
	rows, err := conn.Query(ctx, `SELECT a.attname::text
		FROM pg_index i CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, n)
		JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
		WHERE i.indrelid = $1 AND i.indisprimary AND k.n <= i.indnkeyatts ORDER BY k.n`, oid)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// loadTypes adds the columns' types that are missing in types.
func loadTypes(ctx context.Context, conn *pgx.Conn, types map[uint32]typeInfo, cols []Column) error {
	var missing []uint32
	for _, c := range cols {
		if _, ok := types[c.TypeOID]; !ok {
			missing = append(missing, c.TypeOID)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SET LOCAL search_path TO "+printPath); err != nil {
			return err
		}
		return readTypes(ctx, tx, types, missing)
	})
	if err != nil {
		return fmt.Errorf("read types: %w", err)
	}
	for _, oid := range missing {
		if _, ok := types[oid]; !ok { // dropped since: its values stay text
			types[oid] = typeInfo{name: fmt.Sprintf("type %d", oid)}
		}
	}
	return nil
}

// readTypes reads those types. It runs under printPath: its functions are pg_catalog's by name, its operators by the types they have.
func readTypes(ctx context.Context, tx pgx.Tx, types map[uint32]typeInfo, oids []uint32) error {
	// A domain's base, and an array's element with its domain's base, each through any number of domains.
	rows, err := tx.Query(ctx, `WITH RECURSIVE
		want AS (SELECT DISTINCT pg_catalog.unnest($1::oid[]) AS oid),
		base(oid, at) AS (
			SELECT oid, oid FROM want
			UNION ALL SELECT b.oid, t.typbasetype FROM base b JOIN pg_type t ON t.oid = b.at WHERE t.typtype = 'd'),
		arr AS (SELECT b.oid, b.at AS base, e.oid AS elem, e.typdelim AS delim
			FROM base b JOIN pg_type t ON t.oid = b.at AND t.typtype <> 'd' LEFT JOIN pg_type e ON e.typarray = t.oid),
		elem(oid, at) AS (
			SELECT oid, elem FROM arr WHERE elem IS NOT NULL
			UNION ALL SELECT m.oid, t.typbasetype FROM elem m JOIN pg_type t ON t.oid = m.at WHERE t.typtype = 'd')
		SELECT a.oid, pg_catalog.format_type(a.oid, NULL), a.base, coalesce(e.at, 0::oid), coalesce(a.delim, ',')::text
		FROM arr a LEFT JOIN (elem e JOIN pg_type t ON t.oid = e.at AND t.typtype <> 'd') ON e.oid = a.oid`, oids)
	if err != nil {
		return err
	}
	var (
		oid   uint32
		info  typeInfo
		delim string
	)
	_, err = pgx.ForEachRow(rows, []any{&oid, &info.name, &info.shape.base, &info.shape.elem, &delim}, func() error {
		info.shape.delim = delim[0]
		if oid < firstNormalOID {
			info.shape = shape{}
		}
		types[oid] = info
		return nil
	})
	return err
}

func setTypes(cols []Column, types map[uint32]typeInfo) {
	for i := range cols {
		t := types[cols[i].TypeOID]
		cols[i].Type = t.name
		cols[i].Base, cols[i].Elem, cols[i].Delim = t.shape.base, t.shape.elem, t.shape.delim
	}
}

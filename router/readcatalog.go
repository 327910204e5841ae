package router

import (
	"fmt"
	"strconv"
)

// columnsQuery: schema, table, column, type, typmod, collation, deterministic, default, generated, volatile, root's schema and
// name (NULL for all but partitions). A default's functions
// stand in its node tree by OID; CURRENT_TIMESTAMP and its like, and identity columns, have nodes of their own.
const columnsQuery = `
SELECT n.nspname, c.relname, a.attname, a.atttypid, a.atttypmod,
  CASE WHEN a.attcollation <> t.typcollation THEN co.collname ELSE '' END,
  coalesce(co.collisdeterministic, true),
  a.atthasdef OR a.attidentity <> '', a.attgenerated <> '',
  a.attidentity <> '' OR a.attgenerated = '' AND d.adbin IS NOT NULL AND (
    d.adbin::text ~ '\{(SQLVALUEFUNCTION|NEXTVALUEEXPR)' OR EXISTS (
      SELECT FROM regexp_matches(d.adbin::text, ':(?:funcid|opfuncid) (\d+)', 'g') m JOIN pg_catalog.pg_proc p ON p.oid = m[1]::oid
      WHERE p.provolatile <> 'i')),
  rn.nspname, root.relname
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_catalog.pg_collation co ON co.oid = a.attcollation
LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
LEFT JOIN pg_catalog.pg_class root ON c.relispartition AND root.oid = pg_catalog.pg_partition_root(c.oid)
LEFT JOIN pg_catalog.pg_namespace rn ON rn.oid = root.relnamespace
WHERE c.relkind IN ('r', 'p', 'f', 'm', 'v') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') AND n.nspname !~ '^pg_(toast_)?temp_'
ORDER BY n.nspname, c.relname, a.attnum`

// viewsQuery: schema, view, base table's schema and name (NULL when it reads none), volatile. Views see through views by their
// rules' dependencies.
const viewsQuery = `
WITH RECURSIVE reads(view, rel) AS NOT MATERIALIZED (
  SELECT r.ev_class, d.refobjid FROM pg_catalog.pg_rewrite r
  JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::regclass AND d.objid = r.oid
    AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid <> r.ev_class
), closure(view, rel) AS (
  SELECT view, rel FROM reads WHERE view >= 16384
  UNION
  SELECT c.view, r.rel FROM closure c JOIN reads r ON r.view = c.rel
), volatile(view) AS (
  SELECT DISTINCT r.ev_class FROM pg_catalog.pg_rewrite r, regexp_matches(r.ev_action::text, ':(?:funcid|opfuncid) (\d+)', 'g') m
  JOIN pg_catalog.pg_proc p ON p.oid = m[1]::oid AND p.provolatile = 'v'
  WHERE r.ev_class >= 16384
)
SELECT DISTINCT n.nspname, v.relname, bn.nspname, b.relname,
  v.oid IN (SELECT view FROM volatile) OR EXISTS (SELECT FROM closure x WHERE x.view = v.oid AND x.rel IN (SELECT view FROM volatile))
FROM pg_catalog.pg_class v
JOIN pg_catalog.pg_namespace n ON n.oid = v.relnamespace
LEFT JOIN closure c ON c.view = v.oid
LEFT JOIN pg_catalog.pg_class b ON b.oid = c.rel AND b.relkind IN ('r', 'p', 'f', 'm')
LEFT JOIN pg_catalog.pg_namespace bn ON bn.oid = b.relnamespace
WHERE v.relkind = 'v' AND n.nspname NOT IN ('pg_catalog', 'information_schema')
ORDER BY 1, 2, 3 NULLS FIRST, 4`

func (c *Catalog) column(row [][]byte) error {
	if len(row) != 12 {
		return fmt.Errorf("%d values in a row", len(row))
	}
	schema, name := string(row[0]), string(row[1])
	if n := len(c.Tables); n == 0 || c.Tables[n-1].Schema != schema || c.Tables[n-1].Name != name {
		c.Tables = append(c.Tables, Table{Schema: schema, Name: name, Columns: []Column{}, Root: Name{string(row[10]), string(row[11])}})
	}
	if row[2] == nil {
		return nil // a table without columns
	}
	oid, err := strconv.ParseUint(string(row[3]), 10, 32)
	if err != nil {
		return fmt.Errorf("type of %s.%s.%s: %w", schema, name, row[2], err)
	}
	typmod, err := strconv.ParseInt(string(row[4]), 10, 32)
	if err != nil {
		return fmt.Errorf("type modifier of %s.%s.%s: %w", schema, name, row[2], err)
	}
	t := &c.Tables[len(c.Tables)-1]
	t.Columns = append(t.Columns, Column{
		Name: string(row[2]), OID: uint32(oid), TypeMod: int32(typmod), Collation: string(row[5]),
		Deterministic: yes(row[6]), Default: yes(row[7]), Generated: yes(row[8]), Volatile: yes(row[9]),
	})
	return nil
}

func (c *Catalog) view(row [][]byte) error {
	if len(row) != 5 {
		return fmt.Errorf("%d values in a row", len(row))
	}
	schema, name := string(row[0]), string(row[1])
	if n := len(c.Views); n == 0 || c.Views[n-1].Schema != schema || c.Views[n-1].Name != name {
		c.Views = append(c.Views, View{Schema: schema, Name: name, Volatile: yes(row[4])})
	}
	if row[3] != nil {
		v := &c.Views[len(c.Views)-1]
		v.BaseTables = append(v.BaseTables, Name{string(row[2]), string(row[3])})
	}
	return nil
}

func yes(v []byte) bool { return string(v) == "t" }

package router

import (
	"fmt"
	"slices"
	"strings"
)

// codeQuery: name and code of the functions that may leave traces or run statements by text, see code.go, which looks more closely.
var codeQuery = `
SELECT name, code FROM (
  SELECT p.proname, coalesce(nullif(p.prosrc, ''), pg_catalog.pg_get_function_sqlbody(p.oid)) ||
    coalesce((SELECT pg_catalog.string_agg('; set ' || s, '') FROM pg_catalog.unnest(p.proconfig) s WHERE s LIKE 'seed=%'), '')
  FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_language l ON l.oid = p.prolang
  WHERE p.oid >= 16384 AND l.lanname NOT IN ('c', 'internal')
) f(name, code)
WHERE code ~* '\mset_config\s*\(|\m(set|reset|discard|listen|load)\s|\mtemp|advisory_lock|\m(execute|deallocate|prepare)\M|\mspi_' OR ` + keepsQuery

// callersQuery: names of the functions that mention any of the named ones, themselves included. %s: their names.
const callersQuery = `
WITH RECURSIVE code(name, code) AS MATERIALIZED (
  SELECT p.proname::text COLLATE "C", lower(coalesce(nullif(p.prosrc, ''), pg_catalog.pg_get_function_sqlbody(p.oid)))
  FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_language l ON l.oid = p.prolang
  WHERE p.oid >= 16384 AND l.lanname NOT IN ('c', 'internal')
), callers(name) AS (
  SELECT unnest(ARRAY[%s]::text[]) COLLATE "C"
  UNION
  SELECT c.name FROM callers f JOIN code c ON position(lower(f.name) IN c.code) > 0
)
SELECT name FROM callers`

// usersQuery: schema and name of the tables and views that use any of the named functions, which, and whether each read runs it: by a
// policy, or as part of a view, also of one that reads such a view or table. %s: their names.
const usersQuery = `
WITH RECURSIVE users(rel, function, read) AS (
  SELECT coalesce(t.tgrelid, pol.polrelid, a.adrelid, nullif(k.conrelid, 0), w.ev_class, typed.attrelid), p.proname, pol.oid IS NOT NULL OR w.rulename = '_RETURN'
  FROM pg_catalog.pg_depend d
  JOIN pg_catalog.pg_proc p ON p.oid = d.refobjid AND p.proname::text = ANY (ARRAY[%s]::text[])
  LEFT JOIN pg_catalog.pg_trigger t ON d.classid = 'pg_catalog.pg_trigger'::regclass AND t.oid = d.objid
  LEFT JOIN pg_catalog.pg_policy pol ON d.classid = 'pg_catalog.pg_policy'::regclass AND pol.oid = d.objid
  LEFT JOIN pg_catalog.pg_attrdef a ON d.classid = 'pg_catalog.pg_attrdef'::regclass AND a.oid = d.objid
  LEFT JOIN pg_catalog.pg_constraint k ON d.classid = 'pg_catalog.pg_constraint'::regclass AND k.oid = d.objid
  LEFT JOIN pg_catalog.pg_rewrite w ON d.classid = 'pg_catalog.pg_rewrite'::regclass AND w.oid = d.objid
  LEFT JOIN pg_catalog.pg_attribute typed ON k.contypid <> 0 AND typed.atttypid = k.contypid AND NOT typed.attisdropped
  WHERE d.refclassid = 'pg_catalog.pg_proc'::regclass
  UNION
  SELECT w.ev_class, u.function, true FROM users u
  JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid = u.rel AND d.classid = 'pg_catalog.pg_rewrite'::regclass
  JOIN pg_catalog.pg_rewrite w ON w.oid = d.objid AND w.rulename = '_RETURN' AND w.ev_class <> u.rel
  WHERE u.read
)
SELECT n.nspname, c.relname, u.function, bool_or(coalesce(u.read, false))
FROM users u JOIN pg_catalog.pg_class c ON c.oid = u.rel JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
GROUP BY 1, 2, 3`

// readCode finds the functions that may leave traces in a session, or run statements by text, who calls them, and the tables that do.
func (c *Catalog) readCode(query Query) error {
	var traces, opaque, keeps, executes []string
	for i := range c.Functions { // their own code is in C
		if f := &c.Functions[i]; f.User && keepers[f.Name] {
			keeps = append(keeps, f.Name)
		}
	}
	err := query(codeQuery, func(row [][]byte) error {
		if len(row) != 2 {
			return fmt.Errorf("%d values in a row", len(row))
		}
		code := read(string(row[1]))
		if code.traces {
			traces = append(traces, string(row[0]))
		}
		if code.opaque {
			opaque = append(opaque, string(row[0]))
		}
		if code.keeps {
			keeps = append(keeps, string(row[0]))
		}
		if code.executes {
			executes = append(executes, string(row[0]))
		}
		for _, name := range code.settings {
			if len(c.Settings) < maxSettings && !slices.Contains(c.Settings, name) {
				c.Settings = append(c.Settings, name)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	slices.Sort(c.Settings) // so that sessions ask the same in the same words
	if opaque, err = callers(query, opaque); err != nil {
		return err
	}
	if keeps, err = callers(query, keeps); err != nil {
		return err
	}
	if executes, err = callers(query, executes); err != nil {
		return err
	}
	if err = c.readKeepers(query, keeps); err != nil {
		return err
	}
	if traces, err = callers(query, slices.Concat(traces, opaque, keeps)); err != nil {
		return err
	}
	for i := range c.Functions {
		f := &c.Functions[i]
		if f.User && slices.Contains(traces, f.Name) {
			f.Volatility, f.Opaque = Volatile, slices.Contains(opaque, f.Name)
		}
		f.Executes = f.User && slices.Contains(executes, f.Name)
	}
	found := slices.Concat(traces, executes)
	if len(found) == 0 {
		return nil
	}
	return query(fmt.Sprintf(usersQuery, literals(found)), func(row [][]byte) error {
		if len(row) != 4 {
			return fmt.Errorf("%d values in a row", len(row))
		}
		function := string(row[2])
		c.mark(Name{string(row[0]), string(row[1])}, use{
			policy: yes(row[3]), traces: slices.Contains(traces, function),
			opaque: slices.Contains(opaque, function), keeps: slices.Contains(keeps, function), executes: slices.Contains(executes, function),
		})
		return nil
	})
}

// use is how a table uses a function.
type use struct{ policy, traces, opaque, keeps, executes bool }

// mark notes that a table uses a function that may leave traces or run statements by text; so does the table that it is a partition of.
func (c *Catalog) mark(n Name, u use) {
	for i := range c.Tables {
		t := &c.Tables[i]
		if t.Schema != n.Schema || t.Name != n.Name {
			continue
		}
		t.Traces, t.ReadTraces = t.Traces || u.traces, t.ReadTraces || u.traces && u.policy
		t.Opaque, t.ReadOpaque = t.Opaque || u.opaque, t.ReadOpaque || u.opaque && u.policy
		t.Keeps, t.ReadKeeps = t.Keeps || u.keeps, t.ReadKeeps || u.keeps && u.policy
		t.Executes, t.ReadExecutes = t.Executes || u.executes, t.ReadExecutes || u.executes && u.policy
		if t.Root != (Name{}) && t.Root != n {
			c.mark(t.Root, u)
		}
		return
	}
}

// callers are the named functions and all that mention them.
func callers(query Query, names []string) (all []string, err error) {
	if len(names) == 0 {
		return nil, nil
	}
	err = query(fmt.Sprintf(callersQuery, literals(names)), func(row [][]byte) error {
		all = append(all, string(row[0]))
		return nil
	})
	return all, err
}

func literals(names []string) string {
	quoted := make([]string, len(names))
	for i, n := range names {
		quoted[i] = "'" + strings.ReplaceAll(n, "'", "''") + "'"
	}
	return strings.Join(quoted, ", ")
}

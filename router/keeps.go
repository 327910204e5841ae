package router

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Some functions leave state in their server process that no catalog shows and DISCARD ALL leaves there. Who calls one keeps
// the connection, and nobody gets it afterwards.

// keepers are such functions of PostgreSQL and of what it brings along. Who has one of these names does what they do.
var keepers = set(
	"setseed",                            // the next number that random() makes
	"dblink_connect", "dblink_connect_u", // a connection to another server, logged in to it
	"pg_backup_start",                                                           // a backup under way
	"pg_create_physical_replication_slot", "pg_create_logical_replication_slot", // a slot, if it is temporary
	"pg_copy_physical_replication_slot", "pg_copy_logical_replication_slot",
	"pg_replication_origin_session_setup", // the origin of what is written
	"sepgsql_setcon",                      // the label of the process
)

// keepsState finds in code a call of a keeper, SET seed, LOAD, and what the procedural languages that come with PostgreSQL
// keep for a session: %_SHARED of PL/Perl, GD and SD of PL/Python, GD of PL/Tcl.
var keepsState = regexp.MustCompile(`(?i:\b(?:` + strings.Join(keeperNames(), "|") + `)\s*\(` +
	`|\bset\s+(?:session\s+|local\s+)?"?seed"?\s*(?:=|to\b)|\bset_config\s*\(\s*'seed'` +
	`|(?:;|\bbegin|\bthen|\belse|\bloop|^|')\s*load\s+')` +
	`|[$%]_SHARED\b|\b[GS]D\s*\[|\b[GS]D\.\w|\bin\s+[GS]D\b|\bupvar\s+#0\s+\S+\s+GD\b`)

// keepsQuery narrows down for codeQuery, as a condition on code.
var keepsQuery = `code ~* '\m(` + strings.Join(keeperNames(), "|") + `)\s*\(|\mseed\M' OR code ~ '_SHARED|\m[GS]D\M'`

func keeperNames() []string {
	names := make([]string, 0, len(keepers))
	for n := range keepers {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// keeps says whether code may leave such state behind, itself or by a function that it mentions.
func (r *Router) keeps(text string) bool {
	if keepsState.MatchString(text) {
		return true
	}
	text = strings.ToLower(text)
	return slices.ContainsFunc(r.names.keeps, func(name string) bool { return strings.Contains(text, name) })
}

// KeepsState says whether the function of that OID is one that leaves such state, for a FunctionCall.
func (r *Router) KeepsState(oid uint32) bool { return slices.Contains(r.names.keepers, oid) }

// keeperQuery: OIDs of the functions of some names. %s: the names.
const keeperQuery = `SELECT oid FROM pg_catalog.pg_proc WHERE proname::text = ANY (ARRAY[%s]::text[])`

// keeperViewsQuery: schema and name of the views that call any of some functions, also through other views. %s: OIDs with | between
// them.
const keeperViewsQuery = `
WITH RECURSIVE callers(view) AS (
  SELECT ev_class FROM pg_catalog.pg_rewrite WHERE ev_class >= 16384 AND ev_action::text ~ ':(?:funcid|opfuncid) (?:%s) '
  UNION
  SELECT r.ev_class FROM callers c
  JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid = c.view AND d.classid = 'pg_catalog.pg_rewrite'::regclass
  JOIN pg_catalog.pg_rewrite r ON r.oid = d.objid AND r.ev_class >= 16384
)
SELECT n.nspname, c.relname FROM callers JOIN pg_catalog.pg_class c ON c.oid = view JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace`

// readKeepers finds by whom and by what the named functions, and those of PostgreSQL's own that keep state, are called. The
// functions' callers are among the names already.
func (c *Catalog) readKeepers(query Query, names []string) error {
	for i := range c.Functions {
		f := &c.Functions[i]
		if f.Keeps = keepers[f.Name] || f.User && slices.Contains(names, f.Name); f.Keeps && f.User {
			f.Volatility = Volatile
		}
	}
	var oids []string
	err := query(fmt.Sprintf(keeperQuery, literals(append(keeperNames(), names...))), func(row [][]byte) error {
		oid, err := strconv.ParseUint(string(row[0]), 10, 32)
		if err != nil {
			return fmt.Errorf("OID of a function: %w", err)
		}
		c.Keepers = append(c.Keepers, uint32(oid))
		oids = append(oids, string(row[0]))
		return nil
	})
	if err != nil || len(oids) == 0 {
		return err
	}
	return query(fmt.Sprintf(keeperViewsQuery, strings.Join(oids, "|")), func(row [][]byte) error {
		if len(row) != 2 {
			return fmt.Errorf("%d values in a row", len(row))
		}
		for i := range c.Tables {
			if t := &c.Tables[i]; t.Schema == string(row[0]) && t.Name == string(row[1]) {
				t.Keeps, t.ReadKeeps = true, true
			}
		}
		return nil
	})
}

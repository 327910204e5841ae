package router

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// codeQuery: schema and name of a function with its code, or of a table with that of a rule of it that is no view, which it is, and
// whether read would find anything in it: the server is much quicker at that. An aggregate's code are the names of its functions. %t:
// whether it matters what code names, even if none leaves anything behind in the session: what it needs of other shards does.
//
// What the server keeps as a tree (rules, and bodies of BEGIN ATOMIC or RETURN) is spelled here as far as read and words look at it: what
// it depends on, writes to and calls, and its texts. PostgreSQL's functions for that lock the tables which the tree names, and so wait as
// long as a transaction is open that has changed one. Of calls of set_config (2078) for the transaction alone it only says that there are
// some.
var codeQuery = `
WITH trees(class, oid, tree) AS (
  SELECT 'pg_catalog.pg_proc'::regclass, oid, prosqlbody::text FROM pg_catalog.pg_proc WHERE oid >= 16384 AND prosqlbody IS NOT NULL
  UNION ALL
  SELECT 'pg_catalog.pg_rewrite'::regclass, oid, pg_catalog.concat(ev_qual, ev_action) FROM pg_catalog.pg_rewrite WHERE rulename <> '_RETURN' AND ev_class >= 16384
), lasting(class, oid, sets, tree) AS MATERIALIZED (
  SELECT class, oid, tree LIKE '%%:funcid 2078 %%', CASE WHEN tree LIKE '%%:funcid 2078 %%' THEN pg_catalog.regexp_replace(tree,
    ':funcid 2078 [^{}]*:args \((?:(?:\{(?:RELABELTYPE|COERCEVIAIO) :arg )?\{(?:CONST|PARAM|VAR) [^{}]*\}(?:[^{}]*\})? ){2}\{CONST [^{}]*:constvalue 1 \[ 1 [0 ]*\]\}\)', '', 'g')
  ELSE tree END FROM trees
), spelled(class, oid, code) AS (
  SELECT t.class, t.oid, (SELECT pg_catalog.string_agg(piece, ' ') FROM (
    SELECT pg_catalog.quote_ident(c.relname) FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_class c ON c.oid = d.refobjid
    WHERE d.classid = t.class AND d.objid = t.oid AND d.refclassid = 'pg_catalog.pg_class'::regclass
    UNION ALL
    SELECT 'update ' || pg_catalog.quote_ident(c.relname)
    FROM pg_catalog.regexp_matches(t.tree, ':relid (\d+) [:a-z ]*:rellockmode 3', 'g') m JOIN pg_catalog.pg_class c ON c.oid = m[1]::oid
    UNION ALL
    SELECT pg_catalog.quote_ident(p.proname) || '(,'
    FROM pg_catalog.regexp_matches(t.tree, ':(?:funcid|opfuncid|aggfnoid|winfnoid) (\d+)', 'g') m JOIN pg_catalog.pg_proc p ON p.oid = m[1]::oid WHERE p.oid <> 2078
    UNION ALL
    SELECT 'set_config(,' FROM pg_catalog.regexp_matches(t.tree, ':funcid 2078 [^{}]*:args \((?!\{CONST [^{}]*\[)', 'g')
    UNION ALL
    SELECT CASE WHEN m[1] IS NOT NULL THEN 'set_config(' ELSE '' END || '''' || pg_catalog.convert_from(pg_catalog.decode(coalesce((
      SELECT pg_catalog.string_agg(pg_catalog.lpad(pg_catalog.to_hex(byte::int & 255), 2, '0'), '' ORDER BY nth)
      FROM pg_catalog.regexp_split_to_table(pg_catalog.btrim(m[2]), ' ') WITH ORDINALITY x(byte, nth) WHERE nth > 4 -- its length stands before it
    ), ''), 'hex'), pg_catalog.getdatabaseencoding()) || ''','
    FROM pg_catalog.regexp_matches(t.tree, '(:funcid 2078 [^{}]*:args \(\{CONST )?:consttype (?:25|1042|1043|114|142) [^{}]*\[ ([-\d ]*)\]', 'g') m
    UNION ALL
    SELECT 'set_config,' WHERE t.sets
  ) x(piece)) FROM lasting t
), texts(schema, name, code, rule) AS MATERIALIZED (
  SELECT n.nspname, p.proname, pg_catalog.concat(p.prosrc, d.code,
    (SELECT pg_catalog.string_agg('; set ' || s, '') FROM pg_catalog.unnest(p.proconfig) s WHERE s LIKE 'seed=%%')), false
  FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_language l ON l.oid = p.prolang JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
  LEFT JOIN spelled d ON d.class = 'pg_catalog.pg_proc'::regclass AND d.oid = p.oid
  WHERE p.oid >= 16384 AND l.lanname NOT IN ('c', 'internal')
  UNION ALL
  SELECT n.nspname, p.proname, pg_catalog.concat_ws(' ', a.aggtransfn, a.aggfinalfn, a.aggcombinefn, a.aggmtransfn, a.aggminvtransfn, a.aggmfinalfn), false
  FROM pg_catalog.pg_aggregate a JOIN pg_catalog.pg_proc p ON p.oid = a.aggfnoid JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
  WHERE p.oid >= 16384
  UNION ALL
  SELECT n.nspname, c.relname, d.code, true
  FROM spelled d JOIN pg_catalog.pg_rewrite r ON r.oid = d.oid JOIN pg_catalog.pg_class c ON c.oid = r.ev_class JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  WHERE d.class = 'pg_catalog.pg_rewrite'::regclass
), code AS MATERIALIZED (
  SELECT *, ` + matches("code", leavesBehind, keepsState, inLanguage, setStatement, runsText, restatesText) + ` AS leaves FROM texts
)
SELECT * FROM code WHERE %t OR EXISTS (SELECT FROM code WHERE leaves)
  OR EXISTS (SELECT FROM pg_catalog.pg_proc WHERE oid >= 16384 AND proname IN (` + literals(members(keepers)) + `))`

// matches is SQL for: any of the expressions matches a column.
func matches(column string, any ...*regexp.Regexp) string {
	var b strings.Builder
	for i, e := range any {
		if i > 0 {
			b.WriteString(" OR ")
		}
		b.WriteString(column + " ~ " + literals([]string{strings.ReplaceAll(strings.ReplaceAll(e.String(), `\b`, `\y`), "%", "%%")}))
	}
	return b.String()
}

// runsQuery: schema and name of a table or view, or NULL and the name of an operator or type (Catalog.Symbols), or NULL twice for DDL; in which
// way of its use it uses what: the schema, NULL for a function, name and way of that, and whether it matters only what that runs. Functions and relations stand by their OIDs in the trees of views, policies,
// defaults, checks and so on; a domain's count for the tables that have a column of it, or of a type that is made of it.
var runsQuery = fmt.Sprintf(`
WITH RECURSIVE trees(rel, domain, way, tree) AS (
  SELECT c.oid, NULL::oid, CASE c.relkind WHEN 'm' THEN %[2]d ELSE %[1]d END, r.ev_action::text
  FROM pg_catalog.pg_rewrite r JOIN pg_catalog.pg_class c ON c.oid = r.ev_class WHERE r.rulename = '_RETURN' AND r.ev_class >= 16384
  UNION ALL
  SELECT p.polrelid, NULL, %[1]d, pg_catalog.concat(p.polqual, p.polwithcheck)
  FROM pg_catalog.pg_policy p JOIN pg_catalog.pg_class c ON c.oid = p.polrelid WHERE c.relrowsecurity
  UNION ALL
  SELECT d.adrelid, NULL, CASE a.attgenerated WHEN 'v' THEN %[1]d ELSE %[2]d END, d.adbin::text
  FROM pg_catalog.pg_attrdef d JOIN pg_catalog.pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
  UNION ALL
  SELECT conrelid, nullif(contypid, 0), %[2]d, conbin::text FROM pg_catalog.pg_constraint WHERE conbin IS NOT NULL
  UNION ALL
  SELECT 0, oid, %[2]d, typdefaultbin::text FROM pg_catalog.pg_type WHERE typdefaultbin IS NOT NULL AND oid >= 16384
  UNION ALL
  SELECT tgrelid, NULL, %[2]d, tgqual::text FROM pg_catalog.pg_trigger WHERE tgqual IS NOT NULL
  UNION ALL
  SELECT indrelid, NULL, %[2]d, pg_catalog.concat(indexprs, indpred) FROM pg_catalog.pg_index WHERE coalesce(indexprs, indpred) IS NOT NULL
  UNION ALL
  SELECT partrelid, NULL, %[2]d, partexprs::text FROM pg_catalog.pg_partitioned_table WHERE partexprs IS NOT NULL
), named(rel, domain, way, relation, oid) AS (
  SELECT DISTINCT t.rel, t.domain, t.way, m[1] = 'relid', m[2]::oid
  FROM trees t, pg_catalog.regexp_matches(t.tree, ':(relid|funcid|opfuncid|aggfnoid|winfnoid) ([1-9]\d*)', 'g') m
  WHERE coalesce(t.domain, t.rel) >= 16384 AND (m[1] <> 'relid' OR m[2]::oid <> t.rel)
), functions(rel, domain, way, name) AS (
  SELECT f.rel, f.domain, f.way, p.proname FROM named f JOIN pg_catalog.pg_proc p ON p.oid = f.oid
  WHERE NOT f.relation AND (p.oid >= 16384 OR p.proname IN (%[5]s))
), parts(typ, whole) AS MATERIALIZED (
  SELECT typbasetype, oid FROM pg_catalog.pg_type WHERE typbasetype >= 16384
  UNION ALL
  SELECT typelem, oid FROM pg_catalog.pg_type WHERE typelem >= 16384
  UNION ALL
  SELECT rngsubtype, unnest(ARRAY[rngtypid, rngmultitypid]) FROM pg_catalog.pg_range WHERE rngsubtype >= 16384
  UNION ALL
  SELECT a.atttypid, c.reltype FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
  WHERE a.atttypid >= 16384 AND a.attnum > 0 AND c.reltype <> 0
), typed(domain, typ) AS (
  SELECT DISTINCT domain, domain FROM functions WHERE domain IS NOT NULL
  UNION
  SELECT t.domain, p.whole FROM typed t JOIN parts p ON p.typ = t.typ
), uses(rel, way, relation, function, used, within) AS (
  SELECT rel, way, NULL::oid, name, %[4]d, false FROM functions WHERE domain IS NULL
  UNION ALL
  SELECT a.attrelid, f.way, NULL, f.name, %[4]d, false
  FROM functions f JOIN typed t ON t.domain = f.domain JOIN pg_catalog.pg_attribute a ON a.atttypid = t.typ AND a.attnum > 0 AND NOT a.attisdropped
  UNION ALL
  SELECT t.tgrelid, w.way, NULL, p.proname, %[4]d, false
  FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid JOIN (VALUES (%[2]d, 28), (%[3]d, 32)) w(way, events) ON t.tgtype & w.events <> 0
  WHERE p.oid >= 16384 AND t.tgenabled <> 'D'
  UNION ALL
  SELECT rel, way, oid, NULL, %[1]d, false FROM named WHERE relation
  UNION ALL
  SELECT k.confrelid, w.way, k.conrelid, NULL, w.way, true
  FROM pg_catalog.pg_constraint k JOIN (VALUES (%[2]d), (%[3]d)) w(way) ON w.way = %[3]d OR k.confdeltype IN ('c', 'n', 'd') OR k.confupdtype IN ('c', 'n', 'd')
  WHERE k.contype = 'f'
  UNION ALL
  SELECT i.inhparent, w.way, i.inhrelid, NULL, w.way, c.relispartition
  FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid, (VALUES (%[1]d), (%[2]d), (%[3]d)) w(way)
  UNION ALL
  SELECT v.oid, %[2]d, (SELECT m[1]::oid FROM pg_catalog.regexp_matches(r.ev_action::text, ':relid ([1-9]\d*)', 'g') WITH ORDINALITY x(m, n) WHERE m[1]::oid <> v.oid ORDER BY n LIMIT 1), NULL, %[2]d, false
  FROM pg_catalog.pg_class v JOIN pg_catalog.pg_rewrite r ON r.ev_class = v.oid AND r.rulename = '_RETURN'
  WHERE r.ev_class >= 16384 AND v.relkind = 'v' AND r.ev_action::text ~ ':jointree \{FROMEXPR :fromlist \(\{RANGETBLREF :rtindex \d+\}\)'
    AND coalesce((SELECT pg_catalog.bit_or(tgtype) FROM pg_catalog.pg_trigger WHERE tgrelid = v.oid AND tgtype & 64 <> 0), 0) & 28 <> 28
)
SELECT DISTINCT n.nspname, c.relname, u.way, un.nspname, coalesce(used.relname, u.function), u.used, u.within
FROM uses u JOIN pg_catalog.pg_class c ON c.oid = u.rel JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_class used ON used.oid = u.relation LEFT JOIN pg_catalog.pg_namespace un ON un.oid = used.relnamespace
WHERE c.relkind IN ('r', 'p', 'f', 'm', 'v') AND coalesce(used.relname, u.function) IS NOT NULL
UNION
SELECT NULL, u.name, %[1]d, NULL, p.proname, %[4]d, false
FROM (
  SELECT oprcode::oid, CASE WHEN oprname IN ('=', '<>', '<', '>', '<=', '>=') THEN '' ELSE oprname END FROM pg_catalog.pg_operator WHERE oprcode >= 16384
  UNION ALL
  SELECT c.castfunc, CASE c.castcontext WHEN 'e' THEN t.typname ELSE '' END FROM pg_catalog.pg_cast c JOIN pg_catalog.pg_type t ON t.oid = c.casttarget WHERE c.castfunc >= 16384
  UNION ALL
  SELECT amproc, '' FROM pg_catalog.pg_amproc WHERE amproc >= 16384
  UNION ALL
  SELECT evtfoid, NULL FROM pg_catalog.pg_event_trigger WHERE evtenabled <> 'D'
) u(oid, name) JOIN pg_catalog.pg_proc p ON p.oid = u.oid
UNION
SELECT NULL, y.typname, %[1]d, NULL, f.name, %[4]d, false
FROM functions f JOIN typed t ON t.domain = f.domain JOIN pg_catalog.pg_type y ON y.oid = t.typ`,
	Reading, Writing, Truncating, Calling, literals(leaving))

// readCode reads what functions and rules say, and what tables run: the answers to codeQuery and runsQuery.
func (c *Catalog) readCode(answers Answers) error {
	known := map[string]bool{}
	tables, functions := map[Name]*Table{}, map[Name]*Function{}
	for i := range c.Tables {
		t := &c.Tables[i]
		tables[Name{t.Schema, t.Name}], known[fold(t.Name)] = t, true
	}
	for i := range c.Functions {
		if f := &c.Functions[i]; f.User {
			functions[Name{f.Schema, f.Name}], known[fold(f.Name)] = f, true
		}
	}
	err := answers(func(row [][]byte) error {
		if len(row) != 5 {
			return fmt.Errorf("%d values in a row", len(row))
		}
		n, text := Name{string(row[0]), string(row[1])}, string(row[2])
		var code *Code
		if f := functions[n]; f != nil && !yes(row[3]) {
			code = &f.Code
		} else if t := tables[n]; t != nil && yes(row[3]) {
			code = &t.Runs[Writing]
		} else {
			return nil // of a temporary table
		}
		if yes(row[4]) {
			c.leaves(code, text)
		}
		words(fold(text), func(word string, way Way) {
			if use := (Use{Name: word, Way: way}); known[word] && !slices.Contains(code.Names, use) {
				code.Names = append(code.Names, use)
			}
		})
		return nil
	})
	if err != nil {
		return err
	}
	slices.Sort(c.Settings) // so that sessions ask the same in the same words
	return answers(func(row [][]byte) error {
		if len(row) != 7 {
			return fmt.Errorf("%d values in a row", len(row))
		}
		t := tables[Name{string(row[0]), string(row[1])}]
		if t == nil && row[0] != nil {
			return nil // a temporary one
		}
		use := Use{Schema: string(row[3]), Name: string(row[4]), Way: Way(row[5][0] - '0'), Within: yes(row[6])}
		if use.Way == Calling {
			use.Name = fold(use.Name)
		}
		var code *Code
		switch {
		case t != nil:
			code = &t.Runs[row[2][0]-'0']
		case row[1] == nil:
			code = &c.Events
		default:
			code = c.symbol(string(row[1]))
		}
		code.Names = append(code.Names, use)
		return nil
	})
}

// symbol is the code of an operator or type.
func (c *Catalog) symbol(name string) *Code {
	if c.Symbols == nil {
		c.Symbols = map[string]*Code{}
	}
	if c.Symbols[name] == nil {
		c.Symbols[name] = &Code{}
	}
	return c.Symbols[name]
}

// leaves adds what a text leaves behind.
func (c *Catalog) leaves(code *Code, text string) {
	leaves, settings := read(text)
	code.Leaves |= leaves
	for _, name := range settings {
		if len(c.Settings) < maxSettings && !slices.Contains(c.Settings, name) {
			c.Settings = append(c.Settings, name)
		}
	}
}

func literals(names []string) string {
	quoted := make([]string, len(names))
	for i, n := range names {
		quoted[i] = "'" + strings.ReplaceAll(n, "'", "''") + "'"
	}
	return strings.Join(quoted, ", ")
}

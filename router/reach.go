package router

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/tidemarkdb/tidemark/sharding"
)

// A function runs on one shard, and sees of a sharded table what is there: a wrong answer, or a row on a shard where nobody looks for
// it. Which tables its code uses PostgreSQL does not record, so it is read from the text: every word that is the name of a
// table, a view or another function counts. So does DO. That errs on the side of too much, and does not see names that are put together
// at run time, nor what is written in C (see docs/limits.md).

// uses is what some code names: tables and views, and those of them that it writes, in lower case.
type uses struct{ names, writes []string }

func (u *uses) add(other uses) (more bool) {
	for _, n := range other.names {
		if !slices.Contains(u.names, n) {
			u.names, more = append(u.names, n), true
		}
	}
	for _, n := range other.writes {
		if !slices.Contains(u.writes, n) {
			u.writes, more = append(u.writes, n), true
		}
	}
	return more
}

// words calls each with the words of a text in lower case, those in quotes too, and whether what stands before makes it the name of what
// is written: INSERT INTO, UPDATE, DELETE FROM, MERGE INTO, TRUNCATE, COPY.
func words(text string, each func(word string, written bool)) {
	text = strings.ToLower(text)
	var before [4]string // the latest last
	for i := 0; i < len(text); {
		if !wordByte(text[i]) {
			if text[i] == '.' && before[3] != "" { // a schema: what counts stands before it
				before = [4]string{"", before[0], before[1], before[2]}
			}
			i++
			continue
		}
		from := i
		for i < len(text) && wordByte(text[i]) {
			i++
		}
		word := text[from:i]
		b := before
		for b[3] == "only" || b[3] == "table" {
			b = [4]string{"", b[0], b[1], b[2]}
		}
		each(word, b[3] == "into" && (b[2] == "insert" || b[2] == "merge") || b[3] == "from" && b[2] == "delete" || b[3] == "update" || b[3] == "truncate" || b[3] == "copy")
		before = [4]string{before[1], before[2], before[3], word}
	}
}

func wordByte(b byte) bool {
	return b >= 'a' && b <= 'z' || b >= '0' && b <= '9' || b == '_' || b == '$' || b >= 0x80
}

// allCodeQuery: name and code of the user's own functions.
const allCodeQuery = `
SELECT p.proname, coalesce(nullif(p.prosrc, ''), pg_catalog.pg_get_function_sqlbody(p.oid))
FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_language l ON l.oid = p.prolang
WHERE p.oid >= 16384 AND l.lanname NOT IN ('c', 'internal')`

// rulesQuery: schema, table, name and definition of the rules that are no views.
const rulesQuery = `
SELECT n.nspname, c.relname, r.rulename, pg_catalog.pg_get_ruledef(r.oid)
FROM pg_catalog.pg_rewrite r JOIN pg_catalog.pg_class c ON c.oid = r.ev_class JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE r.rulename <> '_RETURN' AND c.oid >= 16384`

// ruleOf is how a rule is called among the functions.
const ruleOf = "rule "

// readUses finds which tables the functions use, by themselves or by functions that they name, and which tables run these functions.
func (c *Catalog) readUses(query Query) error {
	tables, functions := map[string]bool{}, map[string]bool{}
	for i := range c.Tables {
		tables[strings.ToLower(c.Tables[i].Name)] = true
	}
	for i := range c.Functions {
		if c.Functions[i].User {
			functions[strings.ToLower(c.Functions[i].Name)] = true
		}
	}
	found, calls := map[string]*uses{}, map[string][]string{}
	note := func(name, code string) {
		u := found[name]
		if u == nil {
			u = &uses{}
			found[name] = u
		}
		words(code, func(word string, written bool) {
			one := uses{}
			if tables[word] {
				one.names = []string{word}
				if written {
					one.writes = one.names
				}
			}
			u.add(one)
			if functions[word] && word != name && !slices.Contains(calls[name], word) {
				calls[name] = append(calls[name], word)
			}
		})
	}
	err := query(allCodeQuery, func(row [][]byte) error {
		if len(row) != 2 {
			return fmt.Errorf("%d values in a row", len(row))
		}
		name := strings.ToLower(string(row[0]))
		note(name, string(row[1]))
		return nil
	})
	if err != nil {
		return err
	}
	err = query(rulesQuery, func(row [][]byte) error {
		if len(row) != 4 {
			return fmt.Errorf("%d values in a row", len(row))
		}
		rule := Function{Name: ruleOf + string(row[2]) + " of " + string(row[0]) + "." + string(row[1]), User: true, Volatility: Volatile}
		note(strings.ToLower(rule.Name), string(row[3]))
		c.Functions = append(c.Functions, rule)
		c.runs(row[0], row[1], rule.Name, false)
		return nil
	})
	if err != nil {
		return err
	}
	for again := true; again; {
		again = false
		for name, called := range calls {
			for _, f := range called {
				if u := found[f]; u != nil && found[name].add(*u) {
					again = true
				}
			}
		}
	}
	var using []string
	for i := range c.Functions {
		f := &c.Functions[i]
		if u := found[strings.ToLower(f.Name)]; f.User && u != nil && len(u.names) > 0 {
			f.Uses, f.Writes = u.names, u.writes
			using = append(using, f.Name)
		}
	}
	if len(using) == 0 {
		return nil
	}
	err = query(fmt.Sprintf(usersQuery, literals(using)), func(row [][]byte) error {
		if len(row) != 4 {
			return fmt.Errorf("%d values in a row", len(row))
		}
		c.runs(row[0], row[1], string(row[2]), yes(row[3]))
		return nil
	})
	if err != nil {
		return err
	}
	c.Using = map[uint32]string{}
	return query(fmt.Sprintf(usingQuery, literals(using)), func(row [][]byte) error {
		if len(row) != 2 {
			return fmt.Errorf("%d values in a row", len(row))
		}
		oid, err := strconv.ParseUint(string(row[0]), 10, 32)
		if err != nil {
			return fmt.Errorf("OID of a function: %w", err)
		}
		c.Using[uint32(oid)] = string(row[1])
		return nil
	})
}

// usingQuery: OID and name of the user's own functions of some names. %s: the names.
const usingQuery = `SELECT oid, proname FROM pg_catalog.pg_proc WHERE oid >= 16384 AND proname::text = ANY (ARRAY[%s]::text[])`

// runs notes that a write to a table, or every read too, runs a function or a rule.
func (c *Catalog) runs(schema, table []byte, function string, read bool) {
	function = strings.ToLower(function)
	for i := range c.Tables {
		t := &c.Tables[i]
		if t.Schema != string(schema) || t.Name != string(table) {
			continue
		}
		if !slices.Contains(t.Runs, function) {
			t.Runs = append(t.Runs, function)
		}
		if read && !slices.Contains(t.ReadRuns, function) {
			t.ReadRuns = append(t.ReadRuns, function)
		}
	}
}

// reach is what code uses that is not the same on every shard: the first name of each kind, "" for none.
type reach struct {
	part string // a sharded table
	copy string // a reference table that it writes
	away string // a table that lives on another shard than the default one, and which
	home string // a table that lives on the default one
}

func (x reach) or(y reach) reach {
	return reach{cmp.Or(x.part, y.part), cmp.Or(x.copy, y.copy), cmp.Or(x.away, y.away), cmp.Or(x.home, y.home)}
}

// reaches finds out about all tables and functions of the catalog.
func (r *Router) reaches(c *Catalog) {
	r.reachOf, r.reachBy = map[string]reach{}, map[string]reach{}
	if len(r.m.Shards()) == 1 || c == nil {
		return
	}
	note := func(schema, name string) {
		rel := relation{}
		r.at(&rel, Name{schema, name})
		x, label, s := reach{}, rel.name.String(), r.m.Shards()[rel.shard]
		switch {
		case rel.place == split || rel.place == derived:
			x.part = label
		case rel.place == everywhere:
			x.copy = label
		case rel.place == onOne && rel.shard == r.m.Default():
			x.home = fmt.Sprintf("%s, which lives on shard %s", label, s.Name)
		case rel.place == onOne && rel.shard != r.m.Default():
			x.away = fmt.Sprintf("%s, which lives on shard %s", label, s.Name)
		default:
			return
		}
		name = strings.ToLower(name)
		r.reachOf[name] = r.reachOf[name].or(x)
	}
	for _, t := range r.m.Tables() {
		if t.Kind != sharding.Local { // those of the catalog suffice
			note(t.Schema, t.Name)
		}
	}
	for i := range c.Tables {
		note(c.Tables[i].Schema, c.Tables[i].Name)
	}
	for i := range c.Views {
		note(c.Views[i].Schema, c.Views[i].Name)
	}
	for i := range c.Functions {
		f := &c.Functions[i]
		if x := r.reachedBy(uses{f.Uses, f.Writes}); x != (reach{}) {
			name := strings.ToLower(f.Name)
			r.reachBy[name] = r.reachBy[name].or(x)
		}
	}
}

func (r *Router) reachedBy(u uses) (x reach) {
	for _, n := range u.names {
		found := r.reachOf[n]
		if !slices.Contains(u.writes, n) {
			found.copy = "" // which may be read anywhere
		}
		x = x.or(found)
	}
	return x
}

// reachedByText is what a piece of code reaches, DO's.
func (r *Router) reachedByText(text string) (x reach) {
	if len(r.reachOf) == 0 {
		return x
	}
	words(text, func(word string, written bool) {
		u := uses{names: []string{word}}
		if written {
			u.writes = u.names
		}
		x = x.or(r.reachedBy(u)).or(r.reachBy[word])
	})
	return x
}

// What to do about code that is refused.
const (
	hintFunction = "Call it in a statement with a condition on the key of a sharded table, and have it use rows of that shard only; or run its statements from the client."
	hintTrigger  = "Have the shard map say that the tables are sharded by the same key, or run the function's statements from the client."
	hintDo       = "Run its statements from the client."
)

// refusal says why code that would run on one shard must not. keyed: the statement has been confined to the shard of a key.
func (x reach) refusal(what string, keyed bool, hint string) *Refusal {
	switch {
	case x.home != "" && keyed:
		return refuse(what+" is not supported", fmt.Sprintf("Its code names %s, and it would run on the shard of a key.", x.home), "Have the shard map say that the table is sharded by the same key, or is a reference table.")
	case x.copy != "":
		return refuse(what+" is not supported", fmt.Sprintf("Its code writes %s, which is on every shard, and it would run on one.", x.copy), "Write the table by a statement of the client.")
	case x.away != "":
		return refuse(what+" is not supported", fmt.Sprintf("Its code names %s, and it would run on another.", x.away), "Name the table in statements of the client.")
	case x.part != "" && !keyed:
		return refuse(what+" is not supported", fmt.Sprintf("Its code names %s, of which each shard has a part, and nothing confines the statement to the shard of a key.", x.part), hint)
	}
	return nil
}

// differs says why code must not run on every shard, or on any one of them: it would not do the same there. all: it runs on every one, so
// that it may write reference tables.
func (x reach) differs(what string, all bool) *Refusal {
	if part := cmp.Or(x.part, x.away, x.home); part != "" {
		return refuse(what+" is not supported", fmt.Sprintf("Its code names %s, and it would run on every shard, or on any of them.", part),
			"Have the shard map say that the table which the code names is a reference table, or run the function's statements from the client.")
	}
	if x.copy != "" && !all {
		return x.refusal(what, false, hintTrigger)
	}
	return nil
}

// Calls says why the function of that OID must not be called by itself, for a FunctionCall; nil when it may.
func (r *Router) Calls(oid uint32) *Refusal {
	name, ok := r.names.using[oid]
	if !ok {
		return nil
	}
	return r.reachBy[strings.ToLower(name)].refusal("the function "+name+"()", false, hintFunction)
}

// runs refuses a statement whose writes, or reads, run a function on one shard that needs others.
func (s *statement) runs() *Refusal {
	for i := range s.rels {
		rel := &s.rels[i]
		t := s.r.names.tables[rel.name]
		if t == nil {
			continue
		}
		functions := t.ReadRuns
		if rel.Target {
			functions = t.Runs
		}
		for _, f := range functions {
			what := "the " + f
			if !strings.HasPrefix(f, ruleOf) {
				what = fmt.Sprintf("the function %s() of table %s", f, rel.name)
			}
			x := s.r.reachBy[f]
			ref := x.refusal(what, rel.place == split, hintTrigger)
			if rel.place == everywhere || rel.place == anywhere {
				ref = x.differs(what, rel.Target)
			}
			if ref != nil {
				return ref
			}
		}
	}
	return nil
}

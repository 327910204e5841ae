package router

import (
	"fmt"
	"slices"
	"strings"

	"github.com/tidemarkdb/tidemark/internal/sql"
	"github.com/tidemarkdb/tidemark/sharding"
)

// names is the catalog with the lookups that planning needs.
type names struct {
	tables    map[Name]*Table
	views     map[Name]*View
	models    map[Name]*Model
	functions map[string][]Function
	settings  []string
	known     bool // there is a catalog
}

func index(c *Catalog) *names {
	n := &names{tables: map[Name]*Table{}, views: map[Name]*View{}, models: map[Name]*Model{}}
	if c == nil {
		return n
	}
	n.known = true
	for i := range c.Tables {
		n.tables[Name{c.Tables[i].Schema, c.Tables[i].Name}] = &c.Tables[i]
	}
	for i := range c.Views {
		n.views[Name{c.Views[i].Schema, c.Views[i].Name}] = &c.Views[i]
	}
	for i := range c.Models {
		schema := c.Models[i].Schema
		if schema == "" {
			schema = "public"
		}
		n.models[Name{schema, c.Models[i].Name}] = &c.Models[i]
	}
	list := slices.Clone(c.Functions) // thousands, of which few share a name: no copy of each by itself
	n.functions = make(map[string][]Function, len(list))
	for i := range list {
		if others := n.functions[list[i].Name]; others != nil {
			n.functions[list[i].Name] = append(others, list[i])
		} else {
			n.functions[list[i].Name] = list[i : i+1 : i+1]
		}
	}
	n.settings = c.Settings
	return n
}

// place says where the rows of a relation are.
type place uint8

const (
	onOne      place = iota // one shard
	everywhere              // a reference table: every shard has all of it
	anywhere                // a system catalog: which shard is asked makes no difference
	split                   // sharded
	derived                 // a view over sharded tables
	model                   // a read model
)

// relation is a sql.Relation found in the map and the catalog.
type relation struct {
	sql.Relation
	name    Name
	place   place
	shard   int            // onOne
	table   sharding.Table // split
	columns []Column       // nil when unknown
	does    does           // what its use in this statement runs
	model   *Model
	key     *Column // split: the key's column, nil when the catalog does not know it
}

func (r *relation) has(column string) (has, known bool) {
	if r.place == split && column == r.table.Column {
		return true, true
	}
	for i := range r.columns {
		if r.columns[i].Name == column {
			return true, true
		}
	}
	return false, r.columns != nil
}

func systemSchema(s string) bool {
	return s == "pg_catalog" || s == "information_schema" || s == "pg_toast"
}

// find resolves a relation's name through the session's search_path.
func (r *Router) find(ses *Session, rel sql.Relation) relation {
	out := relation{Relation: rel}
	if rel.Schema != "" {
		r.at(&out, Name{rel.Schema, rel.Name})
		return out
	}
	if strings.HasPrefix(rel.Name, "pg_") { // pg_catalog goes first, and owns the prefix
		if _, ok := r.exists(ses, rel.Name); !ok {
			r.at(&out, Name{"pg_catalog", rel.Name})
			return out
		}
	}
	schema, ok := r.exists(ses, rel.Name)
	if !ok {
		schema = "public"
		if len(ses.path) > 0 && !contains(ses.path, schema) {
			schema = ses.path[0]
		}
		for _, s := range ses.path {
			if systemSchema(s) {
				schema = s
			}
		}
	}
	r.at(&out, Name{schema, rel.Name})
	return out
}

// exists is the first schema of the path that has a relation of this name, in the map or in the catalog.
func (r *Router) exists(ses *Session, name string) (schema string, ok bool) {
	for _, s := range ses.path {
		n := Name{s, name}
		if _, ok := r.m.Table(s, name); ok {
			return s, true
		}
		if r.names.tables[n] != nil || r.names.views[n] != nil || r.names.models[n] != nil {
			return s, true
		}
	}
	return "", false
}

// namesByPath says whether a name without a schema is that of something else in a schema where another search_path would look first.
// What is created without one is in the first schema.
func (s *statement) namesByPath() bool {
	if s.f.Command == sql.DDL || s.f.Command == sql.CreateTableAs {
		return true
	}
	for i, rel := range s.f.Relations {
		if rel.Schema != "" {
			continue
		}
		for _, schema := range s.r.schemas[rel.Name] {
			if schema != s.rels[i].name.Schema {
				return true
			}
		}
	}
	for _, call := range s.f.Functions {
		if call.Schema != "" || call.Keyword {
			continue
		}
		for _, f := range s.r.names.functions[call.Name] {
			if f.User && !contains(s.ses.path, f.Schema) {
				return true
			}
		}
	}
	return false
}

// homes are the schemas of all that has a name which statements can use as that of a table.
func (r *Router) homes() map[string][]string {
	schemas := map[string][]string{}
	add := func(schema, name string) {
		if !contains(schemas[name], schema) {
			schemas[name] = append(schemas[name], schema)
		}
	}
	for _, t := range r.m.Tables() {
		add(t.Schema, t.Name)
	}
	for n := range r.names.tables {
		add(n.Schema, n.Name)
	}
	for n := range r.names.views {
		add(n.Schema, n.Name)
	}
	for n := range r.names.models {
		add(n.Schema, n.Name)
	}
	return schemas
}

func (r *Router) at(out *relation, n Name) {
	out.name = n
	out.shard = r.m.Default()
	if t := r.names.tables[n]; t != nil {
		out.columns = t.Columns
	}
	if systemSchema(n.Schema) {
		out.place = anywhere
		return
	}
	t, ok := r.m.Table(n.Schema, n.Name)
	if c := r.names.tables[n]; !ok && c != nil && c.Root != (Name{}) {
		t, ok = r.m.Table(c.Root.Schema, c.Root.Name)
	}
	if ok {
		r.mapped(out, t)
		return
	}
	if m := r.names.models[n]; m != nil && r.names.tables[n] == nil {
		out.place, out.model = model, m
		return
	}
	if v := r.names.views[n]; v != nil {
		r.view(out, v)
	}
}

func (r *Router) mapped(out *relation, t sharding.Table) {
	switch t.Kind {
	case sharding.Sharded:
		out.place, out.table = split, t
		for i := range out.columns {
			if out.columns[i].Name == t.Column {
				out.key = &out.columns[i]
			}
		}
	case sharding.Reference:
		out.place = everywhere
	default:
		out.shard = r.m.Index(t.Shard)
	}
}

// view gives a view the place of what it reads: with any sharded table in it that is nowhere in particular.
func (r *Router) view(out *relation, v *View) {
	out.place = anywhere
	for _, b := range v.BaseTables {
		base := relation{}
		r.at(&base, b)
		switch {
		case base.place == split || base.place == derived || out.place == onOne && base.place == onOne && out.shard != base.shard:
			out.place = derived
			return
		case base.place == onOne:
			out.place, out.shard = onOne, base.shard
		case base.place == everywhere && out.place == anywhere:
			out.place = everywhere
		}
	}
}

// unfit says why a sharded table cannot be routed as the map and the catalog describe it; "" when it can.
func (rel *relation) unfit() string {
	t := rel.table
	if rel.columns == nil {
		return ""
	}
	if rel.key == nil {
		return fmt.Sprintf("the shard map says that %s is split by %q, and it has no such column", rel.name, t.Column)
	}
	if typ, ok := sharding.KeyTypeByOID(rel.key.OID); !ok || typ != t.Type {
		return fmt.Sprintf("the shard map says that the key %s.%s is of type %s, and the database says otherwise (type OID %d)", rel.name, t.Column, t.Type, rel.key.OID)
	}
	if !rel.key.Deterministic {
		return fmt.Sprintf("the collation of the key %s.%s is not deterministic, so that equal keys can have different hashes", rel.name, t.Column)
	}
	if rel.key.TypeMod >= 0 && (t.Type == sharding.Numeric || t.Type == sharding.Timestamp || t.Type == sharding.Timestamptz) {
		return fmt.Sprintf("the key %s.%s has a precision, so that PostgreSQL would round a value after Tidemark has placed it", rel.name, t.Column)
	}
	return ""
}

// volatility of a call by name: what the catalog says about the most volatile function of that name. What it does not
// know is volatile and the user's.
func (r *Router) function(ses *Session, c sql.FunctionCall) (out Function, found bool) {
	out = Function{Schema: c.Schema, Name: c.Name, Volatility: Volatile, User: true, Aggregate: c.Aggregate}
	if c.Keyword {
		return Function{Schema: c.Schema, Name: c.Name, Volatility: Stable}, true
	}
	for _, f := range r.names.functions[c.Name] {
		if c.Schema != "" && f.Schema != c.Schema || c.Schema == "" && f.Schema != "pg_catalog" && !contains(ses.path, f.Schema) {
			continue
		}
		if !found {
			out = f
			found = true
			continue
		}
		out.User = out.User || f.User
		out.Aggregate = out.Aggregate || f.Aggregate
		if worse(f.Volatility, out.Volatility) {
			out.Volatility = f.Volatility
		}
	}
	return out, found
}

func worse(a, b Volatility) bool {
	rank := func(v Volatility) int { return strings.IndexByte("isv", byte(v)) }
	return rank(a) > rank(b)
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

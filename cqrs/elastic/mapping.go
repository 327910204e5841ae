package elastic

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"strings"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/tidemarkdb/tidemark/cqrs"
)

// hidden is the object of every document that is Tidemark's own.
const hidden = "_tidemark"

// Limits of Lucene and of the keyword type.
const (
	maxKeyword    = 8191  // UTF-16 units of text that is surely indexed (ignore_above): three bytes each fit into a term
	maxExact      = 32766 // bytes of a term
	maxBound      = 900   // bytes of a literal in a range or prefix: Lucene's automata have 1,000 states at most
	defaultFields = 1000  // index.mapping.total_fields.limit
)

// field is how one column is kept and queried.
type field struct {
	cqrs.Column
	property map[string]any // the column's own mapping
	exact    string         // the field that decides comparisons and order; empty: nothing does
	hidden   bool           // exact is under _tidemark.exact, and written from the column's SortKey
	long     bool           // a value can be too long for exact, and is then marked inexact
	edges    bool           // the outermost integers sort together with NULL, and are marked inexact
	search   string         // the full-text field; empty: none
	asText   bool           // the document holds a string with PostgreSQL's text
}

func deriveFields(cols []cqrs.Column, overrides map[string]any) ([]field, error) {
	seen, keys := map[string]bool{}, 0
	fields := make([]field, 0, len(cols))
	for _, c := range cols {
		if err := checkColumnName(c.Name); err != nil {
			return nil, err
		}
		if seen[c.Name] {
			return nil, fmt.Errorf("column %q is named twice", c.Name)
		}
		seen[c.Name] = true
		if c.Key {
			keys++
		}
		f := derive(c)
		if o, ok := overrides[c.Name]; ok {
			if err := f.override(o); err != nil {
				return nil, fmt.Errorf("mapping of %s: %w", c.Name, err)
			}
		}
		fields = append(fields, f)
	}
	for name := range overrides {
		if !seen[name] {
			return nil, fmt.Errorf("mapping of %q: the read model has no such column", name)
		}
	}
	if keys == 0 {
		return nil, fmt.Errorf("no column is a primary key column")
	}
	return fields, nil
}

// checkColumnName refuses what a field name cannot be: dots make objects, stars are patterns, _id and its like are metadata.
func checkColumnName(s string) error {
	if strings.TrimSpace(s) == "" || strings.ContainsAny(s, ".*") || strings.HasPrefix(s, "_") {
		return fmt.Errorf(`column %q cannot be a field of Elasticsearch (empty, with "." or "*", or starting with "_"): leave it out of the read model`, s)
	}
	return nil
}

// derive follows the column's type. Types that Elasticsearch would round (numeric beyond a double, microseconds of a
// date) or refuse (NaN, infinity) keep their own field for people and tools, with what does not fit ignored, and
// queries decide by the hidden one.
func derive(c cqrs.Column) field {
	f := field{Column: c}
	own := func(property map[string]any) {
		f.property, f.exact = property, c.Name
	}
	beside := func(property map[string]any) {
		f.property, f.hidden = property, true
	}
	switch c.OID {
	case pgtype.BoolOID:
		own(map[string]any{"type": "boolean"})
	case pgtype.Int2OID:
		own(map[string]any{"type": "short"})
	case pgtype.Int4OID:
		own(map[string]any{"type": "integer"})
	case pgtype.Int8OID, pgtype.OIDOID:
		own(map[string]any{"type": "long"})
		f.edges = c.OID == pgtype.Int8OID
	case pgtype.UUIDOID:
		own(map[string]any{"type": "keyword"})
	case pgtype.TextOID, pgtype.VarcharOID, pgtype.NameOID:
		own(textProperty())
		f.long, f.search = true, c.Name+".text"
	case pgtype.BPCharOID:
		beside(textProperty())
		f.search = c.Name + ".text"
	case pgtype.Float4OID, pgtype.Float8OID, pgtype.NumericOID, pgtype.DateOID, pgtype.TimestampOID, pgtype.TimestamptzOID, pgtype.TimeOID:
		beside(looseProperty(c.OID))
	case pgtype.ByteaOID: // comparing large values by bytes is not worth a second copy of them
		f.property = map[string]any{"type": "binary"}
	case pgtype.JSONBOID:
		f.property = looseProperty(c.OID)
	case pgtype.JSONOID: // white space and order are part of its value
		f.property, f.asText = looseProperty(c.OID), true
	default:
		f.property = looseProperty(c.OID)
		if elem, ok := elementOf(c.OID); ok {
			f.property = looseProperty(elem)
			f.asText = elem == pgtype.JSONOID
		}
		if c.Enum {
			f.exact = c.Name
		}
	}
	f.long = f.long || f.hidden && c.Class() == cqrs.Bytes
	if f.hidden {
		f.exact = hidden + ".exact." + c.Name
	}
	return f
}

func textProperty() map[string]any {
	return map[string]any{
		"type": "keyword", "ignore_above": maxKeyword,
		"fields": map[string]any{"text": map[string]any{"type": "text"}},
	}
}

// looseProperty never refuses a document: what does not fit its type is kept and not indexed.
func looseProperty(oid uint32) map[string]any {
	loose := func(t string) map[string]any { return map[string]any{"type": t, "ignore_malformed": true} }
	switch oid {
	case pgtype.BoolOID:
		return loose("boolean")
	case pgtype.Int2OID:
		return loose("short")
	case pgtype.Int4OID:
		return loose("integer")
	case pgtype.Int8OID, pgtype.OIDOID:
		return loose("long")
	case pgtype.Float4OID:
		return loose("float")
	case pgtype.Float8OID, pgtype.NumericOID:
		return loose("double")
	case pgtype.DateOID, pgtype.TimestampOID, pgtype.TimestamptzOID:
		p := loose("date")
		p["format"] = "strict_date_optional_time"
		return p
	case pgtype.JSONBOID, pgtype.JSONOID, pgtype.ByteaOID:
		return map[string]any{"type": "object", "enabled": false}
	}
	return map[string]any{"type": "keyword", "ignore_above": maxKeyword}
}

// elementOf is the element type of a built-in array type.
func elementOf(oid uint32) (uint32, bool) {
	t, ok := types.TypeForOID(oid)
	if !ok {
		return 0, false
	}
	a, ok := t.Codec.(*pgtype.ArrayCodec)
	if !ok {
		return 0, false
	}
	return a.ElementType.OID, true
}

var types = pgtype.NewMap()

// override merges the user's mapping over the derived one. When more than sub-fields change, the column's field means
// what the user wants, and comparisons move to the hidden one.
func (f *field) override(o any) error {
	over, err := plain(o)
	if err != nil {
		return err
	}
	before := f.property
	base := before
	if t, given := over["type"]; given && t != before["type"] {
		// Parameters belong to a type: ignore_above of a keyword would be refused on an integer.
		base = map[string]any{}
		if subs, ok := before["fields"]; ok {
			base["fields"] = subs
		}
	}
	f.property = merge(base, over)
	kept := maps.Clone(f.property)
	kept["fields"] = before["fields"]
	if before["fields"] == nil {
		delete(kept, "fields")
	}
	if f.search != "" {
		f.search = ""
		subs, _ := f.property["fields"].(map[string]any)
		if sub, _ := subs["text"].(map[string]any); sub["type"] == "text" {
			f.search = f.Name + ".text"
		}
		if f.property["type"] == "text" {
			f.search = f.Name
		}
	}
	if !reflect.DeepEqual(kept, before) && f.exact != "" && !f.hidden {
		f.hidden, f.exact = true, hidden+".exact."+f.Name
		f.edges, f.long = false, f.Class() != cqrs.Integer
	}
	return nil
}

// plain gives YAML's and JSON's maps one form.
func plain(v any) (map[string]any, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	var m map[string]any
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, fmt.Errorf("want a mapping such as {type: text, analyzer: english}")
	}
	return m, nil
}

// merge returns base with over's values, maps merged.
func merge(base, over map[string]any) map[string]any {
	out := maps.Clone(base)
	if out == nil {
		out = map[string]any{}
	}
	for k, v := range over {
		b, ok1 := out[k].(map[string]any)
		o, ok2 := v.(map[string]any)
		if ok1 && ok2 {
			out[k] = merge(b, o)
		} else {
			out[k] = v
		}
	}
	return out
}

// mappings is the index's whole mapping.
func mappings(fields []field) map[string]any {
	exact := map[string]any{}
	properties := map[string]any{}
	for _, f := range fields {
		properties[f.Name] = f.property
		if f.hidden {
			t := "keyword"
			if f.Class() == cqrs.Integer {
				t = "long"
			}
			exact[f.Name] = map[string]any{"type": t}
		}
	}
	keyword := map[string]any{"type": "keyword"}
	properties[hidden] = map[string]any{"properties": map[string]any{
		"id": keyword, "origin": keyword, "null": keyword, "inexact": keyword,
		"version": map[string]any{"type": "long"},
		"deleted": map[string]any{"type": "boolean"},
		"exact":   map[string]any{"properties": exact},
	}}
	return map[string]any{
		"dynamic":    "strict",
		"_meta":      map[string]any{"tidemark": layoutOf(fields)},
		"properties": properties,
	}
}

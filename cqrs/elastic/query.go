package elastic

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/tidemarkdb/tidemark/cqrs"
)

// SearchColumn is the column of a Match predicate that means every full-text column.
const SearchColumn = "search"

// maxTerms is index.max_terms_count's default.
const maxTerms = 65536

// query is what a cqrs.Query becomes.
type query struct {
	filter []any // clauses that select; all must hold
	score  []any // full-text clauses, which also rank
	sort   []any
	fuzzy  []string         // columns whose inexact values the clauses let pass, to be looked at again
	every  bool             // all rows are to be looked at again
	edges  []string         // columns to sort by that have values the index cannot sort
	again  []cqrs.Predicate // what to look at
}

func term(field string, value any) map[string]any {
	return map[string]any{"term": map[string]any{field: value}}
}

func anyOf(clauses ...any) map[string]any {
	return map[string]any{"bool": map[string]any{"should": clauses, "minimum_should_match": 1}}
}

func not(clause any) map[string]any {
	return map[string]any{"bool": map[string]any{"must_not": []any{clause}}}
}

func tombstones() map[string]any { return term(hidden+".deleted", true) }
func isNull(column string) any   { return term(hidden+".null", column) }
func isInexact(cols []string) any {
	return map[string]any{"terms": map[string]any{hidden + ".inexact": cols}}
}
func nothing() map[string]any { return map[string]any{"match_none": map[string]any{}} }
func unsupported(format string, a ...any) error {
	return fmt.Errorf("%w: %s", cqrs.ErrUnsupported, fmt.Sprintf(format, a...))
}

func (m *Model) field(name string) (*field, error) {
	for i := range m.fields {
		if m.fields[i].Name == name {
			return &m.fields[i], nil
		}
	}
	return nil, fmt.Errorf("no column %q", name)
}

// translate builds the clauses and the order of a query.
func (m *Model) translate(q cqrs.Query) (*query, error) {
	out := &query{}
	for _, p := range q.Where {
		if p.Op == cqrs.Match {
			clause, err := m.match(p)
			if err != nil {
				return nil, err
			}
			out.score = append(out.score, clause)
			continue
		}
		f, err := m.field(p.Column)
		if err != nil {
			return nil, err
		}
		clause, err := clause(f, p)
		if err != nil {
			return nil, err
		}
		out.every = out.every || isLoose(f, p)
		if f.long && p.Op != cqrs.IsNull && p.Op != cqrs.NotNull {
			clause = anyOf(clause, isInexact([]string{f.Name}))
			out.fuzzy = append(out.fuzzy, f.Name)
			out.again = append(out.again, p)
		}
		out.filter = append(out.filter, clause)
	}
	for _, o := range q.Order {
		f, err := m.field(o.Column)
		if err != nil {
			return nil, err
		}
		if class := f.Class(); f.exact == "" || class == cqrs.Opaque || class == cqrs.Equality {
			return nil, unsupported("ORDER BY %s, whose type (oid %d) has no order here", f.Name, f.OID)
		}
		by := map[string]any{"order": "asc", "missing": "_last"}
		if t := f.property["type"]; t == "integer" || t == "short" {
			by["numeric_type"] = "long" // as integers the greatest would tie with NULL
		}
		if o.Desc {
			by["order"] = "desc"
		}
		if o.NullsFirst {
			by["missing"] = "_first"
		}
		out.sort = append(out.sort, map[string]any{f.exact: by})
		if f.long || f.edges {
			out.edges = append(out.edges, f.Name)
		}
	}
	switch {
	case len(out.sort) > 0: // pages of one query after another must agree about ties
		out.sort = append(out.sort, hidden+".id")
	case len(out.score) > 0:
		out.sort = []any{"_score", hidden + ".id"}
	}
	return out, nil
}

// clause is a predicate that decides exactly, NULLs included; for values too long for the index see translate.
func clause(f *field, p cqrs.Predicate) (any, error) {
	switch p.Op {
	case cqrs.IsNull:
		return isNull(f.Name), nil
	case cqrs.NotNull:
		return not(isNull(f.Name)), nil
	}
	if err := f.Supports(p); err != nil {
		return nil, err
	}
	if f.exact == "" {
		return nil, unsupported("a comparison on column %s, whose type (oid %d) is kept without an index; IS NULL and the whole primary key work", f.Name, f.OID)
	}
	if len(p.Values) > maxTerms {
		return nil, unsupported("IN with %d values on column %s (at most %d)", len(p.Values), f.Name, maxTerms)
	}
	if f.Class() == cqrs.Integer {
		return spans(f, p)
	}
	keys := make([]string, 0, len(p.Values))
	for _, v := range p.Values {
		k, err := f.SortKey(v)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", cqrs.ErrUnsupported, err)
		}
		keys = append(keys, k.S)
	}
	switch p.Op {
	case cqrs.Eq, cqrs.In:
		return map[string]any{"terms": map[string]any{f.exact: indexable(keys)}}, nil
	case cqrs.Ne:
		return map[string]any{"bool": map[string]any{"must_not": []any{
			map[string]any{"terms": map[string]any{f.exact: indexable(keys)}}, isNull(f.Name),
		}}}, nil
	case cqrs.Prefix:
		return prefix(f.exact, cut(keys[0])), nil
	}
	return bytesRange(f.exact, p.Op, keys[0]), nil
}

func prefix(field, value string) any {
	return map[string]any{"prefix": map[string]any{field: map[string]any{"value": value}}}
}

// indexable leaves out what is too long for a term, and so equals none.
func indexable(keys []string) []string {
	return slices.DeleteFunc(keys, func(k string) bool { return len(k) > maxExact })
}

// isLoose says whether a predicate's clause lets more rows pass than the predicate, for its literal is too long.
func isLoose(f *field, p cqrs.Predicate) bool {
	switch p.Op {
	case cqrs.Lt, cqrs.Le, cqrs.Gt, cqrs.Ge, cqrs.Prefix:
		if k, err := f.SortKey(p.Values[0]); err == nil {
			return len(k.S) > maxBound
		}
	}
	return false
}

// cut shortens a literal to maxBound at a character's edge.
func cut(key string) string {
	if len(key) <= maxBound {
		return key
	}
	end := maxBound
	for !utf8.RuneStart(key[end]) {
		end--
	}
	return key[:end]
}

// bytesRange compares with a literal, or lets pass what cannot be decided by its beginning.
func bytesRange(field string, op cqrs.Compare, key string) any {
	word := map[cqrs.Compare]string{cqrs.Lt: "lt", cqrs.Le: "lte", cqrs.Gt: "gt", cqrs.Ge: "gte"}[op]
	begin := cut(key)
	if begin == key {
		return map[string]any{"range": map[string]any{field: map[string]any{word: key}}}
	}
	if op == cqrs.Gt || op == cqrs.Ge {
		return map[string]any{"range": map[string]any{field: map[string]any{"gte": begin}}}
	}
	return anyOf(map[string]any{"range": map[string]any{field: map[string]any{"lt": begin}}}, prefix(field, begin))
}

// spans compares integers and what maps to them. A document without the field is NULL and in no range.
func spans(f *field, p cqrs.Predicate) (any, error) {
	in, err := f.Spans(p.Op, p.Values)
	if err != nil {
		return nil, err
	}
	var points, clauses []any
	boolean := f.property["type"] == "boolean" && !f.hidden
	for _, s := range in {
		switch {
		case boolean:
			for n := s.Lo; n <= s.Hi; n++ {
				points = append(points, n == 1)
			}
		case s.Lo == s.Hi:
			points = append(points, s.Lo)
		default:
			clauses = append(clauses, map[string]any{"range": map[string]any{f.exact: map[string]any{"gte": s.Lo, "lte": s.Hi}}})
		}
	}
	if len(points) > 0 {
		clauses = append(clauses, map[string]any{"terms": map[string]any{f.exact: points}})
	}
	if len(clauses) == 0 {
		return nothing(), nil
	}
	return anyOf(clauses...), nil
}

// match is full-text search: every word of the query, in the column or, for SearchColumn, spread over all of them.
func (m *Model) match(p cqrs.Predicate) (any, error) {
	if len(p.Values) != 1 {
		return nil, fmt.Errorf("full-text predicate on %s has %d values, want one", p.Column, len(p.Values))
	}
	var all, names []string
	for _, f := range m.fields {
		if f.search != "" {
			all, names = append(all, f.search), append(names, f.Name)
		}
		if f.Name == p.Column && f.search != "" {
			return map[string]any{"match": map[string]any{f.search: map[string]any{"query": p.Values[0], "operator": "and"}}}, nil
		}
	}
	switch {
	case len(all) == 0:
		return nil, unsupported("full-text search: no column is text")
	case p.Column != SearchColumn:
		return nil, unsupported("full-text search on %q: want %s or one of %s", p.Column, SearchColumn, strings.Join(names, ", "))
	}
	return map[string]any{"multi_match": map[string]any{"query": p.Values[0], "type": "cross_fields", "operator": "and", "fields": all}}, nil
}

// where is the whole query clause; more narrows it.
func (q *query) where(more ...any) map[string]any {
	b := map[string]any{"must_not": []any{tombstones()}}
	filter := append(append([]any{}, q.filter...), more...)
	if len(q.score) > 0 {
		b["must"] = q.score
	}
	if len(filter) > 0 {
		b["filter"] = filter
	}
	return map[string]any{"bool": b}
}

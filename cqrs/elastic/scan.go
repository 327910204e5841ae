package elastic

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/tidemarkdb/tidemark/cqrs"
)

// Scan implements cqrs.View. A query that fixes the whole key reads those documents in real time; any other is a
// search, which sees what was refreshed. Text is compared and sorted by its bytes, as under the collation "C".
// Full-text matches without ORDER BY come with the best first.
func (m *Model) Scan(ctx context.Context, q cqrs.Query, emit func(row [][]byte) error) error {
	if err := m.prepareRead(ctx); err != nil {
		return err
	}
	if err := m.scanRows(ctx, q, emit); err != nil && !errors.Is(err, cqrs.ErrEnough) {
		if isOwn(err) {
			return fmt.Errorf("elasticsearch read model %s: %w", m.cfg.Name, err)
		}
		return err
	}
	return nil
}

// rowError is an error of emit, which is passed on as it is.
type rowError struct{ error }

func (e rowError) Unwrap() error { return e.error }

func isOwn(err error) bool {
	var r rowError
	return !errors.As(err, &r)
}

func (m *Model) scanRows(ctx context.Context, q cqrs.Query, emit func(row [][]byte) error) error {
	guarded := func(row [][]byte) error {
		if err := emit(row); err != nil {
			return rowError{err}
		}
		return nil
	}
	need, err := q.Needs(m.cfg.Columns)
	if err != nil {
		return err
	}
	translated, err := m.translate(q)
	ids, byKey := cqrs.LookupIDs(m.cfg.Columns, q.Where)
	if err != nil && !(byKey && errors.Is(err, cqrs.ErrUnsupported) && !hasMatch(q)) {
		return err
	}
	s := &scan{model: m, query: translated, need: need}
	switch {
	case byKey && !hasMatch(q):
		return s.lookup(ctx, q, ids, guarded)
	case byKey: // callers take lookups for fresh
		if err := m.Refresh(ctx); err != nil {
			return err
		}
	}
	if s.again, err = cqrs.NewFilter(m.cfg.Columns, translated.again); err != nil {
		return err
	}
	sorted := q
	sorted.Order = nil // rows come in order
	if s.Collector, err = cqrs.NewCollector(m.cfg.Columns, sorted, m.cfg.SortBytes, guarded); err != nil {
		return err
	}
	if s.Done() {
		return nil
	}
	if q.Count {
		if err := s.count(ctx); err != nil {
			return err
		}
		return s.Finish()
	}
	return s.rows(ctx, q)
}

func hasMatch(q cqrs.Query) bool {
	for _, p := range q.Where {
		if p.Op == cqrs.Match {
			return true
		}
	}
	return false
}

// scan is one running query.
type scan struct {
	*cqrs.Collector
	model *Model
	query *query
	need  []int        // columns to read, by index
	again *cqrs.Filter // decides rows with values too long for the index
}

// lookup reads rows by key and does the rest in memory.
func (s *scan) lookup(ctx context.Context, q cqrs.Query, ids []string, emit func([][]byte) error) error {
	m := s.model
	filter, err := cqrs.NewFilter(m.cfg.Columns, q.Where)
	if err != nil {
		return err
	}
	if s.Collector, err = cqrs.NewCollector(m.cfg.Columns, q, m.cfg.SortBytes, emit); err != nil {
		return err
	}
	if s.Done() {
		return nil
	}
	for len(ids) > 0 {
		n := min(len(ids), firstPage)
		docs, err := m.get(ctx, m.cfg.Index, ids[:n], "realtime=true")
		if err != nil {
			return err
		}
		ids = ids[n:]
		for _, d := range docs {
			if !d.Found {
				continue
			}
			if err := s.takeSource(d.ID, d.Source, filter, true); err != nil {
				return err
			}
		}
	}
	return s.Finish()
}

// take decodes a document and gives it on when it is live and matches.
func (s *scan) takeSource(id string, src source, filter *cqrs.Filter, always bool) error {
	meta, err := src.meta()
	if err != nil {
		return fmt.Errorf("document %s: %w", id, err)
	}
	if meta.Deleted {
		return nil
	}
	row, err := s.model.row(src, s.need)
	if err != nil {
		return fmt.Errorf("document %s: %w", id, err)
	}
	if always || s.query.every || len(meta.Inexact) > 0 {
		if ok, err := filter.Match(row); err != nil || !ok {
			return err
		}
	}
	return s.Take(row)
}

// rows runs the search. A short result takes one request; a long one is paged.
func (s *scan) rows(ctx context.Context, q cqrs.Query) error {
	m := s.model
	r := s.look()
	if s.query.sort != nil {
		r["sort"] = s.query.sort
	}
	if len(s.query.edges) > 0 {
		r["aggs"] = map[string]any{"inexact": map[string]any{"filter": isInexact(s.query.edges)}}
	}
	if q.Limit >= 0 && q.Offset <= firstPage && q.Limit <= firstPage-q.Offset {
		r["size"] = q.Limit + q.Offset
		res, err := m.search(ctx, m.cfg.Index, r)
		if err != nil {
			return err
		}
		if err := s.sortable(res); err != nil {
			return err
		}
		// With values to look at again, fewer rows than asked for may remain of a full page: then all pages are needed.
		if int64(len(res.Hits.Hits)) < q.Limit+q.Offset || !s.query.every && !anyInexact(res.Hits.Hits) {
			return s.takePage(res)
		}
	}
	first := true
	return m.pages(ctx, m.cfg.Index, r, func(res *response) error {
		if first {
			if err := s.sortable(res); err != nil {
				return err
			}
			first = false
		}
		return s.takePage(res)
	})
}

func anyInexact(hits []hit) bool {
	for _, h := range hits {
		if meta, err := h.Source.meta(); err != nil || len(meta.Inexact) > 0 {
			return true
		}
	}
	return false
}

// sortable refuses a result in which a value to sort by is not in the index as it is.
func (s *scan) sortable(res *response) error {
	if n := res.Aggregations.Inexact.Count; n > 0 {
		return unsupported("ORDER BY %v: %d matching rows have a value there that Elasticsearch cannot sort (text of more than %d characters, or the outermost bigint)",
			s.query.edges, n, maxKeyword)
	}
	return nil
}

// sources asks for no more of each document than is needed. With floats, and numbers within JSON, it asks for all of it:
// a document of which Elasticsearch leaves parts out is printed anew, and their digits change.
func (s *scan) sources() any {
	includes := []string{hidden + ".inexact"}
	for _, i := range s.need {
		f := s.model.fields[i]
		switch f.OID {
		case pgtype.JSONBOID, pgtype.JSONBArrayOID, pgtype.Float4OID, pgtype.Float8OID, pgtype.Float4ArrayOID, pgtype.Float8ArrayOID:
			return true
		}
		includes = append(includes, f.Name)
	}
	return includes
}

// count counts in Elasticsearch, but for rows that must be looked at.
func (s *scan) count(ctx context.Context) error {
	m := s.model
	if s.query.every {
		return m.pages(ctx, m.cfg.Index, s.look(), s.takePage)
	}
	all := request{"query": s.query.where(), "size": 0, "track_total_hits": true}
	if len(s.query.fuzzy) > 0 {
		all["aggs"] = map[string]any{"inexact": map[string]any{"filter": isInexact(s.query.fuzzy)}}
	}
	res, err := m.search(ctx, m.cfg.Index, all)
	if err != nil {
		return err
	}
	if res.Aggregations.Inexact.Count == 0 {
		s.Add(res.Hits.Total.Value)
		return nil
	}
	return m.atPoint(ctx, m.cfg.Index, func(search func(request) (*response, error)) error {
		exact, err := search(request{"query": s.query.where(not(isInexact(s.query.fuzzy))), "size": 0, "track_total_hits": true})
		if err != nil {
			return err
		}
		s.Add(exact.Hits.Total.Value)
		return m.each(search, s.look(isInexact(s.query.fuzzy)), s.takePage)
	})
}

// look is a request for rows to be looked at, in any order.
func (s *scan) look(more ...any) request {
	return request{"query": s.query.where(more...), "_source": s.sources()}
}

func (s *scan) takePage(res *response) error {
	for _, h := range res.Hits.Hits {
		if err := s.takeSource(h.ID, h.Source, s.again, false); err != nil {
			return err
		}
	}
	return nil
}

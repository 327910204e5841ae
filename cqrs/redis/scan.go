package redis

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	goredis "github.com/redis/go-redis/v9"

	"github.com/tidemarkdb/tidemark/cqrs"
)

// pageRows is how many rows one pipeline reads.
const pageRows = 500

// Scan implements cqrs.View. A query that fixes the whole key reads that row; any other walks the index, reads every
// row and decides in memory: its cost grows with the model. Without ORDER BY rows come in order of their ids' bytes
// within a slice. Rows written while the scan runs may be seen or not; each row is seen once and whole.
func (m *Model) Scan(ctx context.Context, q cqrs.Query, emit func(row [][]byte) error) error {
	if err := m.Prepare(ctx); err != nil {
		return err
	}
	s, err := m.newScan(q, emit)
	if err != nil {
		return fmt.Errorf("redis read model %s: %w", m.cfg.Name, err)
	}
	if s.Done() {
		return nil
	}
	if err := s.walk(ctx); err != nil && !errors.Is(err, cqrs.ErrEnough) {
		return err
	}
	return s.Finish()
}

// scan is one running query.
type scan struct {
	*cqrs.Collector
	model  *Model
	query  cqrs.Query
	filter *cqrs.Filter
	fields []int // columns to read: those that the query needs and one of the key, which is never NULL
}

func (m *Model) newScan(q cqrs.Query, emit func([][]byte) error) (*scan, error) {
	s := &scan{model: m, query: q}
	var err error
	if s.filter, err = cqrs.NewFilter(m.cfg.Columns, q.Where); err != nil {
		return nil, err
	}
	if s.Collector, err = cqrs.NewCollector(m.cfg.Columns, q, m.cfg.SortBytes, emit); err != nil {
		return nil, err
	}
	if s.fields, err = q.Needs(m.cfg.Columns); err != nil {
		return nil, err
	}
	hasKey := false
	for _, i := range s.fields {
		hasKey = hasKey || m.cfg.Columns[i].Key
	}
	for i, c := range m.cfg.Columns {
		if c.Key && !hasKey {
			s.fields = append(s.fields, i)
			break
		}
	}
	return s, nil
}

// walk reads the rows that can match.
func (s *scan) walk(ctx context.Context) error {
	if ids, ok := cqrs.LookupIDs(s.model.cfg.Columns, s.query.Where); ok {
		for len(ids) > 0 {
			n := min(len(ids), pageRows)
			if err := s.read(ctx, ids[:n]); err != nil {
				return err
			}
			ids = ids[n:]
		}
		return nil
	}
	if s.query.Count && len(s.query.Where) == 0 {
		return s.countAll(ctx)
	}
	for n := range s.model.cfg.Slices {
		// Pages by the last id: neither repeats nor leaves out a row, whatever is written meanwhile.
		for from := "-"; ; {
			ids, err := s.page(ctx, s.model.slice(n), from)
			if err != nil {
				return err
			}
			if len(ids) == 0 {
				break
			}
			if err := s.read(ctx, ids); err != nil {
				return err
			}
			from = "(" + ids[len(ids)-1]
		}
	}
	return nil
}

func (s *scan) page(ctx context.Context, sl slice, from string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, s.model.cfg.Timeout)
	defer cancel()
	ids, err := s.model.client.ZRangeByLex(ctx, sl.index, &goredis.ZRangeBy{Min: from, Max: "+", Count: pageRows}).Result()
	if err != nil {
		return nil, s.model.explain(err)
	}
	return ids, nil
}

func (s *scan) countAll(ctx context.Context) error {
	for n := range s.model.cfg.Slices {
		n, err := s.cardinality(ctx, s.model.slice(n))
		if err != nil {
			return err
		}
		s.Add(n)
	}
	return nil
}

func (s *scan) cardinality(ctx context.Context, sl slice) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, s.model.cfg.Timeout)
	defer cancel()
	n, err := s.model.client.ZCard(ctx, sl.index).Result()
	if err != nil {
		return 0, s.model.explain(err)
	}
	return n, nil
}

// read fetches rows by id in one pipeline and takes those that are there and match.
func (s *scan) read(ctx context.Context, ids []string) error {
	rows, err := s.fetch(ctx, ids)
	if err != nil {
		return err
	}
	for i, row := range rows {
		if row == nil {
			continue
		}
		ok, err := s.filter.Match(row)
		if err != nil {
			return fmt.Errorf("redis read model %s: row %s: %w", s.model.cfg.Name, ids[i], err)
		}
		if ok {
			if err := s.Take(row); err != nil {
				return err
			}
		}
	}
	return nil
}

// fetch returns the rows in the order of ids, nil for one that is gone.
func (s *scan) fetch(ctx context.Context, ids []string) ([][][]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, s.model.cfg.Timeout)
	defer cancel()
	p := s.model.client.Pipeline()
	rows := make([][][]byte, len(ids))
	if s.model.cfg.Mode == JSON {
		cmds := make([]*goredis.StringCmd, len(ids))
		for i, id := range ids {
			cmds[i] = p.Get(ctx, s.model.sliceOf(id).row+id)
		}
		if _, err := p.Exec(ctx); err != nil && !errors.Is(err, goredis.Nil) {
			return nil, s.model.explain(err)
		}
		for i, cmd := range cmds {
			doc, err := cmd.Bytes()
			if errors.Is(err, goredis.Nil) {
				continue
			}
			if err != nil {
				return nil, s.model.explain(err)
			}
			if rows[i], err = s.parse(doc); err != nil {
				return nil, fmt.Errorf("redis read model %s: row %s: %w", s.model.cfg.Name, ids[i], err)
			}
		}
		return rows, nil
	}
	names := make([]string, len(s.fields))
	for i, f := range s.fields {
		names[i] = s.model.cfg.Columns[f].Name
	}
	cmds := make([]*goredis.SliceCmd, len(ids))
	for i, id := range ids {
		cmds[i] = p.HMGet(ctx, s.model.sliceOf(id).row+id, names...)
	}
	if _, err := p.Exec(ctx); err != nil {
		return nil, s.model.explain(err)
	}
	for i, cmd := range cmds {
		row, found := make([][]byte, len(s.model.cfg.Columns)), false
		for j, v := range cmd.Val() {
			if text, ok := v.(string); ok {
				row[s.fields[j]] = []byte(text)
				found = true
			}
		}
		if found {
			rows[i] = row
		}
	}
	return rows, nil
}

func (s *scan) parse(doc []byte) ([][]byte, error) {
	var values map[string]json.RawMessage
	if err := json.Unmarshal(doc, &values); err != nil {
		return nil, err
	}
	row := make([][]byte, len(s.model.cfg.Columns))
	for _, f := range s.fields {
		c := s.model.cfg.Columns[f]
		if v := values[c.Name]; v != nil {
			var err error
			if row[f], err = cqrs.TextOf(c, v); err != nil {
				return nil, fmt.Errorf("column %s: %w", c.Name, err)
			}
		}
	}
	return row, nil
}

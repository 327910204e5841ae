package elastic

import (
	"context"
	"fmt"

	"github.com/tidemarkdb/tidemark/internal/lsn"
)

// truncate leaves a floor for the origin, then puts tombstones over its rows of lower versions. A row that the same
// transaction inserted after its TRUNCATE has the floor's own version, so tombstones lie one below; no commit has that
// version, but a snapshot's row can, hence external_gte. Repeated after a failure it goes on.
func (m *Model) truncate(ctx context.Context, origin string, floor lsn.Version) error {
	err := m.sweep(ctx, origin, floor)
	if err != nil {
		return fmt.Errorf("elasticsearch read model %s: truncate %s at version %d: %w", m.cfg.Name, origin, floor, err)
	}
	return nil
}

func (m *Model) sweep(ctx context.Context, origin string, floor lsn.Version) error {
	id := floorID(origin)
	errs := make([]error, 1)
	m.run(ctx, []item{{id: id, version: floor, document: appendTombstone(nil, id, origin, floor)}}, errs)
	if errs[0] != nil || floor == 0 {
		return errs[0]
	}
	// What is to be swept was acknowledged before, so it is visible after this.
	if err := m.refreshIndex(m.concrete()); err != nil {
		return err
	}
	query := map[string]any{"bool": map[string]any{
		"filter": []any{
			term(hidden+".origin", origin),
			map[string]any{"range": map[string]any{hidden + ".version": map[string]any{"lt": uint64(floor)}}},
		},
		"must_not": []any{tombstones()},
	}}
	return m.pages(ctx, m.concrete(), request{"query": query, "_source": false}, func(res *response) error {
		var b bulk
		for _, h := range res.Hits.Hits {
			b.add(item{id: h.ID, version: floor - 1, atLeast: true, document: appendTombstone(nil, h.ID, origin, floor-1)})
		}
		m.run(ctx, b.items, errs)
		return errs[0]
	})
}

package elastic

import (
	"context"
	"fmt"
)

// What the index remembers of partitions: a document for each, which views leave out as they leave out tombstones. No row has its id: a
// row's id that begins so is a whole hash.
func partitionID(partition string) string { return "sha256:partition:" + partition }

// Knows implements cqrs.Projector.
func (m *Model) Knows(ctx context.Context, partition string) (bool, error) {
	if err := m.prepareWrite(ctx); err != nil {
		return false, err
	}
	docs, err := m.get(ctx, m.concrete(), []string{partitionID(partition)}, "_source=false")
	if err != nil {
		return false, fmt.Errorf("elasticsearch read model %s: look for partition %s: %w", m.cfg.Name, partition, err)
	}
	return docs[0].Found, nil
}

// Remember implements cqrs.Projector.
func (m *Model) Remember(ctx context.Context, partition string) error {
	id := partitionID(partition)
	errs := make([]error, 1)
	m.run(ctx, []item{{id: id, version: 1, atLeast: true, document: appendTombstone(nil, id, partition, 1)}}, errs)
	return errs[0]
}

package redis

import (
	"context"
)

// Knows implements cqrs.Projector. In a cluster one node may be emptied alone, so each slice is asked.
func (m *Model) Knows(ctx context.Context, partition string) (bool, error) {
	if err := m.Prepare(ctx); err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeout(ctx, m.cfg.Timeout)
	defer cancel()
	for n := range m.cfg.Slices {
		known, err := m.client.SIsMember(ctx, m.slice(n).partitions, partition).Result()
		if err != nil {
			return false, m.explain(err)
		}
		if !known {
			return false, nil
		}
	}
	return true, nil
}

// Remember implements cqrs.Projector.
func (m *Model) Remember(ctx context.Context, partition string) error {
	ctx, cancel := context.WithTimeout(ctx, m.cfg.Timeout)
	defer cancel()
	for n := range m.cfg.Slices {
		if err := m.client.SAdd(ctx, m.slice(n).partitions, partition).Err(); err != nil {
			return m.explain(err)
		}
	}
	return nil
}

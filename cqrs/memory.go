package cqrs

import (
	"context"
	"fmt"
	"sort"
	"sync"
	"time"
)

// Memory is a Bus inside one process: for tests, and for a Tidemark that is a single process and can capture again after
// a restart. It forgets everything when it is dropped.
type Memory struct {
	limits MemoryLimits

	mu     sync.Mutex
	topics map[string]*memTopic
	groups map[string]*memGroup
}

// MemoryLimits bound a Memory.
type MemoryLimits struct {
	Partitions     int // of a topic that asks for none; default 4
	MaxRecordBytes int // default 1 MiB
	PartitionBytes int // beyond it the oldest records are dropped, or compacted away; default 64 MiB
}

// Defaults of MemoryLimits.
const (
	DefaultPartitions     = 4
	DefaultMaxRecordBytes = 1 << 20
	defaultPartitionBytes = 64 << 20
)

type memTopic struct {
	Topic
	parts []*memPartition
}

type memPartition struct {
	first, end int64
	records    []Record // in order of offset; compaction leaves holes
	bytes      int
	more       chan struct{} // closed by the next Append
}

// NewMemory makes an empty bus. Zero limits become their defaults.
func NewMemory(limits MemoryLimits) *Memory {
	if limits.Partitions <= 0 {
		limits.Partitions = DefaultPartitions
	}
	if limits.MaxRecordBytes <= 0 {
		limits.MaxRecordBytes = DefaultMaxRecordBytes
	}
	if limits.PartitionBytes <= 0 {
		limits.PartitionBytes = defaultPartitionBytes
	}
	return &Memory{limits: limits, topics: map[string]*memTopic{}, groups: map[string]*memGroup{}}
}

// Ensure implements Bus.
func (m *Memory) Ensure(_ context.Context, topics ...Topic) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, t := range topics {
		if m.topics[t.Name] != nil {
			continue
		}
		if t.Partitions <= 0 {
			t.Partitions = m.limits.Partitions
		}
		mt := &memTopic{Topic: t}
		for range t.Partitions {
			mt.parts = append(mt.parts, &memPartition{more: make(chan struct{})})
		}
		m.topics[t.Name] = mt
		for _, g := range m.groups {
			g.rebalance()
		}
	}
	return nil
}

// Delete removes a topic and what groups committed in it, as Kafka does.
func (m *Memory) Delete(topic string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.topics, topic)
	for _, g := range m.groups {
		for p := range g.committed {
			if p.topic == topic {
				delete(g.committed, p)
			}
		}
		g.rebalance()
	}
}

// Bounds implements Bus.
func (m *Memory) Bounds(_ context.Context, topic string) ([]Bounds, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.topics[topic]
	if t == nil {
		return nil, fmt.Errorf("bounds of %s: %w", topic, ErrNoTopic)
	}
	bounds := make([]Bounds, len(t.parts))
	for i, p := range t.parts {
		bounds[i] = Bounds{First: p.first, End: p.end}
	}
	return bounds, nil
}

// Append implements Bus.
func (m *Memory) Append(ctx context.Context, topic string, n int, records []Record) (int64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	for i := range records {
		if size := records[i].Size(); size > m.limits.MaxRecordBytes {
			return 0, fmt.Errorf("append to %s/%d: a record of %d bytes, at most %d fit: %w: %w",
				topic, n, size, m.limits.MaxRecordBytes, ErrTooLarge, ErrPermanent)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	t, p, err := m.partition(topic, n)
	if err != nil {
		return 0, fmt.Errorf("append: %w", err)
	}
	base := p.end
	now := time.Now()
	for _, r := range records {
		r.Offset, r.Time = p.end, now
		p.records = append(p.records, r)
		p.bytes += r.Size()
		p.end++
	}
	if p.bytes > m.limits.PartitionBytes {
		p.shrink(t.Compacted, m.limits.PartitionBytes)
	}
	close(p.more)
	p.more = make(chan struct{})
	return base, nil
}

func (m *Memory) partition(topic string, n int) (*memTopic, *memPartition, error) {
	t := m.topics[topic]
	if t == nil || n < 0 || n >= len(t.parts) {
		return nil, nil, fmt.Errorf("%s/%d: %w", topic, n, ErrNoTopic)
	}
	return t, t.parts[n], nil
}

// shrink keeps the last record of each key, or drops the oldest records down to half of the limit.
func (p *memPartition) shrink(compact bool, limit int) {
	keep := p.records[:0:0]
	if compact {
		last := map[string]int64{}
		for i := range p.records {
			last[string(p.records[i].Key)] = p.records[i].Offset
		}
		for _, r := range p.records {
			if r.Value != nil && last[string(r.Key)] == r.Offset {
				keep = append(keep, r)
			}
		}
	} else {
		drop := 0
		for size := p.bytes; size > limit/2; drop++ {
			size -= p.records[drop].Size()
		}
		keep = append(keep, p.records[drop:]...)
		p.first = p.end
		if len(keep) > 0 {
			p.first = keep[0].Offset
		}
	}
	p.records, p.bytes = keep, 0
	for i := range keep {
		p.bytes += keep[i].Size()
	}
}

// Fetch implements Bus.
func (m *Memory) Fetch(ctx context.Context, topic string, n int, offset int64, maxBytes int, wait time.Duration) (Batch, error) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		b, more, err := m.read(topic, n, offset, maxBytes)
		if err != nil || len(b.Records) > 0 || b.Next > offset {
			return b, err
		}
		select {
		case <-more:
		case <-timer.C:
			return b, nil
		case <-ctx.Done():
			return Batch{}, ctx.Err()
		}
	}
}

func (m *Memory) read(topic string, n int, offset int64, maxBytes int) (Batch, <-chan struct{}, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, p, err := m.partition(topic, n)
	if err != nil {
		return Batch{}, nil, fmt.Errorf("fetch: %w", err)
	}
	if offset < p.first || offset > p.end {
		return Batch{}, nil, fmt.Errorf("fetch %s/%d at %d of %d to %d: %w", topic, n, offset, p.first, p.end, ErrOutOfRange)
	}
	b := Batch{Next: p.end, End: p.end}
	from := sort.Search(len(p.records), func(i int) bool { return p.records[i].Offset >= offset })
	for i, size := from, 0; i < len(p.records); i++ {
		if size += p.records[i].Size(); size > maxBytes && len(b.Records) > 0 {
			b.Next = p.records[i].Offset
			break
		}
		b.Records = append(b.Records, p.records[i])
	}
	return b, p.more, nil
}

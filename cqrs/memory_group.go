package cqrs

import (
	"context"
	"fmt"

	"golang.org/x/sync/errgroup"
)

// Consumer groups of Memory.

// memGroup shares partitions among members in order of joining: partition n of a topic goes to member n modulo members.
type memGroup struct {
	members   []*memMember
	committed map[partition]int64
	owner     map[partition]*memMember // who runs a claim now; a new owner waits until it is gone
	free      chan struct{}            // closed when an owner is gone
}

type memMember struct {
	topics []string
	change chan struct{} // closed by a rebalance
}

// rebalance is called with the bus's lock held.
func (g *memGroup) rebalance() {
	for _, m := range g.members {
		close(m.change)
		m.change = make(chan struct{})
	}
}

// Join implements Bus.
func (m *Memory) Join(ctx context.Context, group string, topics []string, own func(context.Context, Claim) error) error {
	m.mu.Lock()
	g := m.groups[group]
	if g == nil {
		g = &memGroup{committed: map[partition]int64{}, owner: map[partition]*memMember{}, free: make(chan struct{})}
		m.groups[group] = g
	}
	self := &memMember{topics: topics, change: make(chan struct{})}
	g.members = append(g.members, self)
	g.rebalance()
	m.mu.Unlock()
	defer m.leave(g, self)

	for ctx.Err() == nil {
		m.mu.Lock()
		change := self.change
		mine := m.share(g, self)
		m.mu.Unlock()

		gen, stop := context.WithCancel(ctx)
		eg, gen := errgroup.WithContext(gen)
		for _, p := range mine {
			eg.Go(func() error { return m.runClaim(gen, g, self, p, own) })
		}
		select {
		case <-change:
		case <-gen.Done(): // ctx ended, or a claim failed
		}
		stop()
		if err := eg.Wait(); err != nil {
			return err
		}
	}
	return nil
}

func (m *Memory) leave(g *memGroup, self *memMember) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range g.members {
		if g.members[i] == self {
			g.members = append(g.members[:i:i], g.members[i+1:]...)
			break
		}
	}
	g.rebalance()
}

func (m *Memory) share(g *memGroup, self *memMember) []partition {
	var mine []partition
	for _, topic := range self.topics {
		t := m.topics[topic]
		if t == nil {
			continue
		}
		for n := range t.parts {
			if g.members[n%len(g.members)] == self {
				mine = append(mine, partition{topic, n})
			}
		}
	}
	return mine
}

func (m *Memory) runClaim(ctx context.Context, g *memGroup, self *memMember, p partition, own func(context.Context, Claim) error) error {
	m.mu.Lock()
	for g.owner[p] != nil {
		free := g.free
		m.mu.Unlock()
		select {
		case <-free:
		case <-ctx.Done():
			return nil
		}
		m.mu.Lock()
	}
	_, part, err := m.partition(p.topic, p.n)
	if err != nil || ctx.Err() != nil {
		m.mu.Unlock()
		return nil // the topic is gone, or the partition was taken away: a rebalance follows
	}
	g.owner[p] = self
	offset, known := g.committed[p]
	if !known {
		offset = part.first
	}
	m.mu.Unlock()

	defer func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(g.owner, p)
		close(g.free)
		g.free = make(chan struct{})
	}()
	err = own(ctx, Claim{Topic: p.topic, Partition: p.n, Offset: offset, Fresh: !known, Commit: func(ctx context.Context, offset int64) error {
		m.mu.Lock()
		defer m.mu.Unlock()
		if g.owner[p] != self || m.topics[p.topic] == nil {
			return fmt.Errorf("commit %s/%d: the partition was taken away", p.topic, p.n)
		}
		g.committed[p] = offset
		return nil
	}})
	if ctx.Err() != nil {
		return nil
	}
	return err
}

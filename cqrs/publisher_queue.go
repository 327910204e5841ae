package cqrs

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// topicQueues are the queues of one topic's partitions.
type topicQueues struct {
	name   string
	queues []*queue
}

// queue is what waits for one partition. Its fields are guarded by Publisher.mu, but wake.
type queue struct {
	topic string
	n     int
	wake  chan struct{} // capacity 1: items were added
	items []item
	end   int64 // where the partition ends, as far as this publisher knows: all its acknowledged records lie below
}

type item struct {
	record Record
	tx     *pending
}

// topic returns the queues of a table's topic. One not met before is created and its writers are started.
func (p *Publisher) topic(ctx context.Context, schema, table string) (*topicQueues, error) {
	name := p.cfg.Names.Table(schema, table)
	p.mu.Lock()
	t := p.topics[name]
	p.mu.Unlock()
	if t != nil {
		return t, nil
	}
	bounds, err := p.bounds(ctx, name)
	if err != nil {
		return nil, err
	}
	if p.cfg.Partitions > 0 && len(bounds) != p.cfg.Partitions {
		p.log.Warn("the topic exists with another number of partitions, which is kept, since keys would move",
			"topic", name, "partitions", len(bounds), "configured", p.cfg.Partitions)
	}
	t = &topicQueues{name: name}
	for n, b := range bounds {
		// Whatever an earlier owner of the shard had acknowledged lies below the present end.
		t.queues = append(t.queues, &queue{topic: name, n: n, wake: make(chan struct{}, 1), end: b.End})
	}
	p.mu.Lock()
	p.topics[name] = t
	p.mu.Unlock()
	for _, q := range t.queues {
		select {
		case p.starts <- q:
		case <-p.failed:
			return nil, p.failure()
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return t, nil
}

// bounds creates a topic where it is missing, and says where its partitions begin and end.
func (p *Publisher) bounds(ctx context.Context, topic string) (bounds []Bounds, err error) {
	err = retry(ctx, p.log, "opening topic "+topic, func() (err error) {
		err = p.bus.Ensure(ctx, Topic{Name: topic, Partitions: p.cfg.Partitions, Retention: p.cfg.Retention})
		if err == nil {
			bounds, err = p.bus.Bounds(ctx, topic)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open topic %s: %w", topic, err)
	}
	return bounds, nil
}

// write sends one partition's records, one batch at a time.
func (p *Publisher) write(ctx context.Context, q *queue) error {
	for {
		select {
		case <-q.wake:
		case <-ctx.Done():
			return nil
		}
		for {
			if p.cfg.Linger > 0 && p.short(q) {
				if !sleep(ctx, p.cfg.Linger) {
					return nil
				}
			}
			batch := p.take(q)
			if len(batch) == 0 {
				break
			}
			if err := p.send(ctx, q, batch); err != nil {
				if ctx.Err() != nil {
					return nil
				}
				return err
			}
		}
	}
}

// short says whether less than a batch waits.
func (p *Publisher) short(q *queue) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	size := 0
	for i := range q.items {
		if size += q.items[i].record.Size(); size >= p.cfg.BatchBytes {
			return false
		}
	}
	return true
}

// take removes a batch of at most BatchBytes, but at least one record, from the queue.
func (p *Publisher) take(q *queue) []item {
	p.mu.Lock()
	defer p.mu.Unlock()
	n, size := 0, 0
	for n < len(q.items) {
		if size += q.items[n].record.Size(); size > p.cfg.BatchBytes && n > 0 {
			break
		}
		n++
	}
	batch := q.items[:n:n]
	if q.items = q.items[n:]; len(q.items) == 0 {
		q.items = nil // lets the backing array go
	}
	return batch
}

// send appends the batch, for as long as it takes, and gives its bytes back. A batch that is too large as a whole (the
// broker's limit is on what arrives, after compression) is sent in halves.
func (p *Publisher) send(ctx context.Context, q *queue, batch []item) error {
	records := make([]Record, len(batch))
	for i := range batch {
		records[i] = batch[i].record
	}
	var base int64
	err := retry(ctx, p.log, fmt.Sprintf("publishing to %s/%d", q.topic, q.n), func() (err error) {
		base, err = p.bus.Append(ctx, q.topic, q.n, records)
		return err
	})
	if errors.Is(err, ErrTooLarge) && len(batch) > 1 {
		half := len(batch) / 2
		if err := p.send(ctx, q, batch[:half]); err != nil {
			return err
		}
		return p.send(ctx, q, batch[half:])
	}
	if err != nil {
		return fmt.Errorf("append to %s/%d: %w", q.topic, q.n, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if base < q.end {
		return fmt.Errorf("topic %s was created again, or lost acknowledged records: partition %d got offset %d where at least %d was due: "+
			"what it held is gone for read models that had not applied it, so take a new snapshot of the shard in a new epoch", q.topic, q.n, base, q.end)
	}
	q.end = base + int64(len(batch))
	for i := range batch {
		batch[i].tx.left--
		p.bytes -= batch[i].record.Size()
	}
	notify(p.room)
	if len(p.order) > 0 && p.order[0].left == 0 {
		notify(p.acks)
	}
	return nil
}

const (
	// progressBytesPerSecond bounds what progress records of a shard with very many partitions cost.
	progressBytesPerSecond = 1 << 20
	// progressBurst is how many progress records may follow each other at once after a quieter time.
	progressBurst = 8
)

// report writes a progress record whenever the mark has moved: at once, until there were progressBurst more than one for
// each ProgressInterval (and progressBytesPerSecond), and then at that rate. A session that writes, waits and writes
// again stays below the rate and never pays for it. In a storm of commits marks that come meanwhile share one record,
// since only the newest counts: a session then waits one interval longer at most. An idle shard writes nothing.
func (p *Publisher) report(ctx context.Context) error {
	due := time.Now() // when the rate alone would allow the next record
	spacing := p.cfg.ProgressInterval
	for {
		select {
		case <-p.moved:
		case <-ctx.Done():
			return nil
		}
		if !sleep(ctx, time.Until(due)-progressBurst*spacing) {
			return nil
		}
		progress := p.progressNow()
		r := progress.record()
		spacing = max(p.cfg.ProgressInterval, time.Duration(r.Size())*time.Second/progressBytesPerSecond)
		if now := time.Now(); due.Before(now) {
			due = now
		}
		due = due.Add(spacing)
		topic := p.cfg.Names.Progress()
		err := retry(ctx, p.log, "publishing progress", func() error {
			_, err := p.bus.Append(ctx, topic, 0, []Record{r})
			return err
		})
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return fmt.Errorf("append to %s: %w", topic, err)
		}
	}
}

// progressNow is the mark and the ends at one moment. The ends may already include transactions beyond the mark, which
// makes its level arrive a little later and never too early.
func (p *Publisher) progressNow() Progress {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := Progress{Shard: p.cfg.Shard, Mark: p.mark, Ends: make(map[string][]int64, len(p.topics))}
	for name, t := range p.topics {
		ends := make([]int64, len(t.queues))
		for i, q := range t.queues {
			ends[i] = q.end
		}
		r.Ends[name] = ends
	}
	return r
}

// sleep waits for d, if positive; false when ctx ended before.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

package kafka

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/tidemarkdb/tidemark/cqrs"
)

const (
	// batchOverhead is what a batch takes beside its records; max.message.bytes limits the batch.
	batchOverhead = 4096
	// Compacted topics are read from their beginning by every process that starts, so they are kept short.
	compactedSegment = 4 << 20
	// usablePoll is the time between two questions whether a new topic is there.
	usablePoll = 10 * time.Millisecond
)

// Ensure implements cqrs.Bus.
func (b *Bus) Ensure(ctx context.Context, topics ...cqrs.Topic) error {
	var missing []kafka.TopicConfig
	known, err := b.partitions(ctx)
	if err != nil {
		return fmt.Errorf("kafka: list topics: %w", classify(err))
	}
	for _, t := range topics {
		if known[t.Name] == 0 {
			missing = append(missing, b.topicConfig(t))
		}
	}
	if len(missing) == 0 {
		return nil
	}
	res, err := b.client.CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: missing})
	if err != nil {
		return fmt.Errorf("kafka: create topics: %w", classify(err))
	}
	for name, err := range res.Errors {
		if err != nil && !errors.Is(err, kafka.TopicAlreadyExists) {
			return fmt.Errorf("kafka: create topic %s: %w", name, classify(err))
		}
	}
	for _, t := range missing {
		if err := b.usable(ctx, t.Topic); err != nil {
			return fmt.Errorf("kafka: create topic %s: it exists, but cannot be used: %w", t.Topic, err)
		}
	}
	return nil
}

// usable waits until the leaders of a new topic answer: the controller says that it exists before they know.
func (b *Bus) usable(ctx context.Context, topic string) error {
	ctx, cancel := context.WithTimeout(ctx, b.cfg.Timeout)
	defer cancel()
	for {
		_, err := b.Bounds(ctx, topic)
		if err == nil {
			return nil
		}
		select {
		case <-time.After(usablePoll):
		case <-ctx.Done():
			return err
		}
	}
}

func (b *Bus) topicConfig(t cqrs.Topic) kafka.TopicConfig {
	set := func(c *kafka.TopicConfig, name, value string) {
		c.ConfigEntries = append(c.ConfigEntries, kafka.ConfigEntry{ConfigName: name, ConfigValue: value})
	}
	c := kafka.TopicConfig{Topic: t.Name, NumPartitions: t.Partitions, ReplicationFactor: b.cfg.ReplicationFactor}
	if c.NumPartitions <= 0 {
		c.NumPartitions = b.cfg.Partitions
	}
	if c.ReplicationFactor <= 0 {
		c.ReplicationFactor = -1
	}
	set(&c, "max.message.bytes", strconv.Itoa(b.maxRecord+batchOverhead))
	if b.cfg.MinInSync > 0 {
		set(&c, "min.insync.replicas", strconv.Itoa(b.cfg.MinInSync))
	}
	switch {
	case t.Compacted:
		set(&c, "cleanup.policy", "compact")
		set(&c, "segment.bytes", strconv.Itoa(max(compactedSegment, 2*(b.maxRecord+batchOverhead))))
		set(&c, "min.cleanable.dirty.ratio", "0.1")
	case t.Retention < 0:
		set(&c, "retention.ms", "-1")
	case t.Retention > 0:
		set(&c, "retention.ms", strconv.FormatInt(int64(t.Retention/time.Millisecond), 10))
	}
	return c
}

// partitions returns the number of partitions of every topic, as kafka-go remembers it for up to metadataTTL.
func (b *Bus) partitions(ctx context.Context) (map[string]int, error) {
	res, err := b.client.Metadata(ctx, &kafka.MetadataRequest{})
	if err != nil {
		return nil, err
	}
	n := make(map[string]int, len(res.Topics))
	for _, t := range res.Topics {
		if t.Error == nil {
			n[t.Name] = len(t.Partitions)
		}
	}
	return n, nil
}

// Bounds implements cqrs.Bus.
func (b *Bus) Bounds(ctx context.Context, topic string) ([]cqrs.Bounds, error) {
	known, err := b.partitions(ctx)
	if err == nil && known[topic] == 0 {
		err = cqrs.ErrNoTopic
	}
	if err != nil {
		return nil, fmt.Errorf("kafka: bounds of %s: %w", topic, classify(err))
	}
	var ask []kafka.OffsetRequest
	for n := range known[topic] {
		ask = append(ask, kafka.FirstOffsetOf(n), kafka.LastOffsetOf(n))
	}
	res, err := b.client.ListOffsets(ctx, &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{topic: ask}})
	if err != nil {
		return nil, fmt.Errorf("kafka: bounds of %s: %w", topic, classify(err))
	}
	bounds := make([]cqrs.Bounds, known[topic])
	seen := 0
	for _, p := range res.Topics[topic] {
		if p.Error != nil {
			return nil, fmt.Errorf("kafka: bounds of %s/%d: %w", topic, p.Partition, classify(p.Error))
		}
		if p.Partition >= len(bounds) {
			continue
		}
		bounds[p.Partition] = cqrs.Bounds{First: p.FirstOffset, End: p.LastOffset}
		seen++
	}
	if seen != len(bounds) {
		return nil, fmt.Errorf("kafka: bounds of %s: the answer has %d of %d partitions", topic, seen, len(bounds))
	}
	return bounds, nil
}

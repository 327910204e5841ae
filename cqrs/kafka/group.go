package kafka

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/tidemarkdb/tidemark/cqrs"
)

const (
	// heartbeat is how often a member asks whether the group changes: how soon its partitions can move.
	heartbeat = 500 * time.Millisecond
	// rebalanceTimeout is how long the others may take to let go of their partitions.
	rebalanceTimeout = 10 * time.Second
	// joinBackoff follows a failed join. kafka-go's own 5 s make every start slow: a group's first join always fails once
	// while its coordinator is found.
	joinBackoff = 200 * time.Millisecond
	// partitionWatch is how often topics are looked at for new partitions.
	partitionWatch = 5 * time.Second
)

// Join implements cqrs.Bus.
func (b *Bus) Join(ctx context.Context, group string, topics []string, own func(context.Context, cqrs.Claim) error) error {
	log := b.log.With("group", group)
	cg, err := kafka.NewConsumerGroup(kafka.ConsumerGroupConfig{
		ID: group, Brokers: b.cfg.Brokers, Topics: topics,
		Dialer: &kafka.Dialer{
			ClientID: b.cfg.ClientID, DialFunc: b.cfg.Dial, Timeout: dialTimeout, TLS: b.cfg.TLS, SASLMechanism: b.cfg.SASL,
		},
		HeartbeatInterval: heartbeat, SessionTimeout: b.cfg.SessionTimeout, RebalanceTimeout: rebalanceTimeout,
		JoinGroupBackoff: joinBackoff, Timeout: b.cfg.Timeout, StartOffset: kafka.FirstOffset,
		WatchPartitionChanges: true, PartitionWatchInterval: partitionWatch,
	})
	if err != nil {
		return fmt.Errorf("kafka: join group %s: %w: %w", group, err, cqrs.ErrPermanent)
	}
	ctx, stop := context.WithCancelCause(ctx)
	var claims sync.WaitGroup
	// Close waits for the claims, which commit what they have done, and then leaves the group, so that nobody else begins
	// before.
	defer func() {
		stop(context.Canceled)
		if err := cg.Close(); err != nil {
			log.Debug("leaving the group", "error", err)
		}
		claims.Wait()
	}()
	failures := 0
	for {
		gen, err := cg.Next(ctx)
		if ctx.Err() != nil {
			break
		}
		if err != nil {
			// kafka-go waits for joinBackoff and tries again by itself.
			if failures++; failures == 10 {
				log.Warn("cannot join the group, trying again until it works", "error", err)
			} else {
				log.Debug("cannot join the group", "error", err)
			}
			continue
		}
		if failures >= 10 {
			log.Info("joined the group again", "attempts", failures)
		}
		failures = 0
		b.runGeneration(ctx, gen, &claims, stop, own)
	}
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}

// runGeneration starts own for each partition of the generation. kafka-go ends the generation, and waits for all of
// them, when the group changes.
func (b *Bus) runGeneration(ctx context.Context, gen *kafka.Generation, claims *sync.WaitGroup, fail context.CancelCauseFunc, own func(context.Context, cqrs.Claim) error) {
	n := 0
	for topic, assigned := range gen.Assignments {
		for _, a := range assigned {
			n++
			claims.Add(1)
			gen.Start(func(genCtx context.Context) {
				defer claims.Done()
				ctx, cancel := context.WithCancel(ctx)
				defer cancel()
				defer context.AfterFunc(genCtx, cancel)()
				if err := b.runClaim(ctx, gen, topic, a, own); err != nil && ctx.Err() == nil {
					fail(err)
				}
				// Returning would end the generation for all partitions, and make kafka-go join for the next one.
				<-genCtx.Done()
			})
		}
	}
	b.log.Info("partitions assigned", "group", gen.GroupID, "generation", gen.ID, "partitions", n)
}

func (b *Bus) runClaim(ctx context.Context, gen *kafka.Generation, topic string, a kafka.PartitionAssignment, own func(context.Context, cqrs.Claim) error) error {
	claim := cqrs.Claim{Topic: topic, Partition: a.ID, Offset: a.Offset, Commit: func(_ context.Context, offset int64) error {
		// The request has kafka-go's own timeout.
		if err := gen.CommitOffsets(map[string]map[int]int64{topic: {a.ID: offset}}); err != nil {
			return fmt.Errorf("kafka: commit %s/%d at %d: %w", topic, a.ID, offset, err)
		}
		return nil
	}}
	for a.Offset < 0 { // kafka-go's FirstOffset: the group has none
		bounds, err := b.Bounds(ctx, topic)
		if err == nil && a.ID < len(bounds) {
			claim.Offset, claim.Fresh = bounds[a.ID].First, true
			break
		}
		b.log.Debug("finding the first offset", "topic", topic, "error", err)
		select {
		case <-time.After(joinBackoff):
		case <-ctx.Done():
			return nil
		}
	}
	return own(ctx, claim)
}

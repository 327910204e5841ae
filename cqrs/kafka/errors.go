package kafka

import (
	"errors"
	"fmt"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"

	"github.com/tidemarkdb/tidemark/cqrs"
)

// classify gives an error of kafka-go the meaning that cqrs.Bus promises. What is not named here may go away: a broker
// that is down, a leader that moves, too few in-sync replicas, also a missing permission, which people grant.
func classify(err error) error {
	is := func(codes ...kafka.Error) bool {
		for _, c := range codes {
			if errors.Is(err, c) {
				return true
			}
		}
		return false
	}
	switch {
	case err == nil:
		return nil
	case is(kafka.MessageSizeTooLarge, kafka.RecordListTooLarge, kafka.InvalidMessageSize):
		return fmt.Errorf("%w: %w: %w", err, cqrs.ErrTooLarge, cqrs.ErrPermanent)
	case is(kafka.OffsetOutOfRange):
		return fmt.Errorf("%w: %w", err, cqrs.ErrOutOfRange)
	case is(kafka.UnknownTopicOrPartition), errors.Is(err, protocol.ErrNoTopic), errors.Is(err, protocol.ErrNoPartition):
		return fmt.Errorf("%w: %w", err, cqrs.ErrNoTopic)
	case is(kafka.InvalidTopic, kafka.UnsupportedVersion, kafka.UnsupportedForMessageFormat, kafka.InvalidTimestamp,
		kafka.InvalidRequiredAcks, kafka.InvalidReplicationFactor, kafka.InvalidConfiguration, kafka.InvalidPartitionNumber, kafka.PolicyViolation):
		return fmt.Errorf("%w: %w", err, cqrs.ErrPermanent)
	}
	return err
}

package kafka

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"

	"github.com/tidemarkdb/tidemark/cqrs"
)

// Append implements cqrs.Bus: one Produce request, acknowledged by all in-sync replicas.
func (b *Bus) Append(ctx context.Context, topic string, partition int, records []cqrs.Record) (int64, error) {
	out := make([]protocol.Record, len(records))
	for i := range records {
		r := &records[i]
		if n := r.Size(); n > b.maxRecord {
			return 0, fmt.Errorf("kafka: append to %s/%d: a record of %d bytes, at most %d fit: %w: %w",
				topic, partition, n, b.maxRecord, cqrs.ErrTooLarge, cqrs.ErrPermanent)
		}
		out[i].Key, out[i].Value = kafka.NewBytes(r.Key), kafka.NewBytes(r.Value)
		if len(r.Headers) > 0 {
			out[i].Headers = make([]protocol.Header, len(r.Headers))
			for j, h := range r.Headers {
				out[i].Headers[j] = protocol.Header(h)
			}
		}
	}
	res, err := b.client.Produce(ctx, &kafka.ProduceRequest{
		Topic: topic, Partition: partition, RequiredAcks: kafka.RequireAll,
		Records: kafka.NewRecordReader(out...), Compression: b.compression,
	})
	if err == nil {
		err = res.Error
	}
	if err != nil {
		return 0, fmt.Errorf("kafka: append to %s/%d: %w", topic, partition, classify(err))
	}
	return res.BaseOffset, nil
}

// Fetch implements cqrs.Bus: one Fetch request that the broker answers as soon as there is a record.
func (b *Bus) Fetch(ctx context.Context, topic string, partition int, offset int64, maxBytes int, wait time.Duration) (cqrs.Batch, error) {
	out, err := b.fetchOnce(ctx, topic, partition, offset, maxBytes, wait)
	if err != nil || len(out.Records) > 0 || out.End <= offset {
		return out, err
	}
	// There are no records although the partition goes on: compaction or an aborted transaction left a hole up to its
	// end. An answer that came without records for another reason has some the second time.
	again, err := b.fetchOnce(ctx, topic, partition, offset, maxBytes, wait)
	if err == nil && len(again.Records) == 0 {
		again.Next = max(again.Next, out.End)
	}
	return again, err
}

func (b *Bus) fetchOnce(ctx context.Context, topic string, partition int, offset int64, maxBytes int, wait time.Duration) (cqrs.Batch, error) {
	fail := func(err error) (cqrs.Batch, error) {
		return cqrs.Batch{}, fmt.Errorf("kafka: fetch %s/%d at %d: %w", topic, partition, offset, classify(err))
	}
	res, err := b.client.Fetch(ctx, &kafka.FetchRequest{
		Topic: topic, Partition: partition, Offset: offset, MinBytes: 1, MaxBytes: int64(maxBytes), MaxWait: wait,
		IsolationLevel: kafka.ReadCommitted, // others may write to a table's topic within transactions
	})
	if err == nil {
		err = res.Error
	}
	if err != nil {
		return fail(err)
	}
	out := cqrs.Batch{Next: offset, End: res.LastStableOffset}
	for {
		r, err := res.Records.ReadRecord()
		switch {
		case errors.Is(err, io.EOF):
			return out, nil
		case err != nil:
			return fail(err)
		}
		record, err := read(r)
		if err != nil {
			return fail(err)
		}
		if r.Offset < offset {
			continue // a batch begins before what was asked for
		}
		out.Records = append(out.Records, record)
		out.Next = r.Offset + 1
	}
}

// read copies a record out of kafka-go's pages, which go back to their pool.
func read(r *protocol.Record) (cqrs.Record, error) {
	out := cqrs.Record{Offset: r.Offset, Time: r.Time}
	var err error
	if r.Key != nil {
		if out.Key, err = readAll(r.Key); err != nil {
			return out, err
		}
	}
	if r.Value != nil {
		if out.Value, err = readAll(r.Value); err != nil {
			return out, err
		}
	}
	if len(r.Headers) > 0 {
		out.Headers = make([]cqrs.Header, len(r.Headers))
		for i, h := range r.Headers {
			out.Headers[i] = cqrs.Header(h)
		}
	}
	return out, nil
}

// readAll returns an empty slice, not nil, for a value of no bytes: nil is a tombstone.
func readAll(b kafka.Bytes) ([]byte, error) {
	out := make([]byte, b.Len())
	_, err := io.ReadFull(b, out)
	return out, errors.Join(err, b.Close())
}

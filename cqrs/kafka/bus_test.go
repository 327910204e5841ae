package kafka_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/tidemarkdb/tidemark/cqrs"
	"github.com/tidemarkdb/tidemark/cqrs/bustest"
	"github.com/tidemarkdb/tidemark/cqrs/kafka"
	"github.com/tidemarkdb/tidemark/testcontainers"
)

func TestMain(m *testing.M) { testcontainers.Main(m) }

var spec = testcontainers.Spec{Kafka: true}

func open(t *testing.T, cfg kafka.Config) *kafka.Bus {
	t.Helper()
	cfg.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	bus, err := kafka.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(bus.Close)
	return bus
}

func TestKafkaIsABus(t *testing.T) {
	k := testcontainers.Shared(t, spec).Kafka
	bustest.Run(t, func(t *testing.T) cqrs.Bus { return open(t, kafka.Config{Brokers: k.Brokers}) })
}

func TestCompression(t *testing.T) {
	k := testcontainers.Shared(t, spec).Kafka
	for _, codec := range []string{"gzip", "snappy", "lz4", "zstd"} {
		t.Run(codec, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			bus := open(t, kafka.Config{Brokers: k.Brokers, Compression: codec})
			topic := "compressed-" + codec
			if err := bus.Ensure(ctx, cqrs.Topic{Name: topic, Partitions: 1}); err != nil {
				t.Fatal(err)
			}
			want := make([]byte, 200_000)
			if _, err := bus.Append(ctx, topic, 0, []cqrs.Record{{Value: want}, {Value: []byte("b")}}); err != nil {
				t.Fatal(err)
			}
			b, err := bus.Fetch(ctx, topic, 0, 0, 1<<20, time.Second)
			if err != nil || len(b.Records) != 2 || len(b.Records[0].Value) != len(want) || string(b.Records[1].Value) != "b" {
				t.Errorf("got %d records, error %v", len(b.Records), err)
			}
		})
	}
	if _, err := kafka.Open(kafka.Config{Brokers: k.Brokers, Compression: "rar"}); err == nil {
		t.Error("an unknown codec was taken")
	}
}

func TestHealth(t *testing.T) {
	k := testcontainers.Shared(t, spec).Kafka
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := open(t, kafka.Config{Brokers: k.Brokers}).Health(ctx); err != nil {
		t.Error(err)
	}
	short, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if err := open(t, kafka.Config{Brokers: []string{"127.0.0.1:1"}}).Health(short); err == nil {
		t.Error("a broker that is not there is healthy")
	}
}

// Package kafka is the cqrs.Bus on Apache Kafka, by segmentio/kafka-go. It supports brokers from 2.1 on and is tested
// with 4.x.
//
// It uses kafka-go's Client (one request, one answer, with base offsets) and ConsumerGroup rather than its Writer and
// Reader: the Writer hides the offsets that levels are made of, and a Reader has one queue for all its partitions, so
// that one that stands still would hold up the others.
package kafka

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/sasl"

	"github.com/tidemarkdb/tidemark/cqrs"
)

// Config says where Kafka is and how topics are made.
type Config struct {
	Brokers  []string // host:port, to begin with; the others are learned from them
	ClientID string   // default "tidemark"
	TLS      *tls.Config
	SASL     sasl.Mechanism

	Partitions        int // of topics that ask for none. Default 6
	ReplicationFactor int // of topics that are created; 0: the broker's default
	MinInSync         int // min.insync.replicas of topics that are created; 0: the broker's default
	// MaxRecordBytes is the largest record that is sent, and max.message.bytes of topics that are created. Default 1 MiB.
	MaxRecordBytes int
	// Compression of batches: "", "none", "gzip", "snappy", "lz4" or "zstd".
	Compression string

	// Timeout of one request. Default 10 s.
	Timeout time.Duration
	// SessionTimeout is after how long a silent member of a group is replaced. Default 6 s, the least that brokers accept
	// by default.
	SessionTimeout time.Duration
	// Dial replaces the network's dialer.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	Log  *slog.Logger
}

// Defaults of Config.
const (
	DefaultPartitions     = 6
	DefaultTimeout        = 10 * time.Second
	DefaultSessionTimeout = 6 * time.Second
)

const (
	// metadataTTL is how long kafka-go believes in who leads a partition; it is also its timeout for asking. Short, for a
	// leader that moved is found no sooner.
	metadataTTL = 2 * time.Second
	// idleTimeout closes connections that are not used; longer than any pause between two fetches.
	idleTimeout = time.Minute
	dialTimeout = 3 * time.Second
)

// Bus is a cqrs.Bus. Close it when it is not needed any more.
type Bus struct {
	cfg         Config
	log         *slog.Logger
	addr        net.Addr
	transport   *kafka.Transport
	client      *kafka.Client
	compression kafka.Compression
	maxRecord   int
}

var _ cqrs.Bus = (*Bus)(nil)

// Open checks the configuration. It does not wait for Kafka; every method does, up to its context or Timeout.
func Open(cfg Config) (*Bus, error) {
	if len(cfg.Brokers) == 0 {
		return nil, errors.New("kafka: no brokers")
	}
	if cfg.ClientID == "" {
		cfg.ClientID = "tidemark"
	}
	if cfg.Partitions <= 0 {
		cfg.Partitions = DefaultPartitions
	}
	if cfg.MaxRecordBytes <= 0 {
		cfg.MaxRecordBytes = cqrs.DefaultMaxRecordBytes
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = DefaultTimeout
	}
	if cfg.SessionTimeout <= 0 {
		cfg.SessionTimeout = DefaultSessionTimeout
	}
	if cfg.Dial == nil {
		cfg.Dial = (&net.Dialer{Timeout: dialTimeout}).DialContext
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	compression, err := parseCompression(cfg.Compression)
	if err != nil {
		return nil, err
	}
	transport := &kafka.Transport{
		Dial: cfg.Dial, DialTimeout: dialTimeout, IdleTimeout: idleTimeout, MetadataTTL: metadataTTL,
		ClientID: cfg.ClientID, TLS: cfg.TLS, SASL: cfg.SASL,
	}
	addr := kafka.TCP(cfg.Brokers...)
	return &Bus{
		cfg: cfg, log: cfg.Log, addr: addr, transport: transport, compression: compression, maxRecord: cfg.MaxRecordBytes,
		client: &kafka.Client{Addr: addr, Timeout: cfg.Timeout, Transport: transport},
	}, nil
}

// Close lets the connections go.
func (b *Bus) Close() { b.transport.CloseIdleConnections() }

// Health asks a broker for an answer.
func (b *Bus) Health(ctx context.Context) error {
	// ApiVersions, since kafka-go answers Metadata from memory even when no broker is left.
	res, err := b.client.ApiVersions(ctx, &kafka.ApiVersionsRequest{Addr: b.addr})
	if err == nil {
		err = res.Error
	}
	if err != nil {
		return fmt.Errorf("kafka at %s: %w", strings.Join(b.cfg.Brokers, ","), err)
	}
	return nil
}

func parseCompression(name string) (kafka.Compression, error) {
	switch name {
	case "", "none":
		return 0, nil
	case "gzip":
		return kafka.Gzip, nil
	case "snappy":
		return kafka.Snappy, nil
	case "lz4":
		return kafka.Lz4, nil
	case "zstd":
		return kafka.Zstd, nil
	}
	return 0, fmt.Errorf("kafka: compression %q: want none, gzip, snappy, lz4 or zstd", name)
}

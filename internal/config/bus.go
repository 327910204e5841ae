package config

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"

	"github.com/segmentio/kafka-go/sasl"
	"github.com/segmentio/kafka-go/sasl/plain"
	"github.com/segmentio/kafka-go/sasl/scram"

	"github.com/tidemarkdb/tidemark/cqrs"
	"github.com/tidemarkdb/tidemark/cqrs/kafka"
)

// Bus is where Kafka is and how topics are made.
func (c *Config) Bus(log *slog.Logger) (kafka.Config, error) {
	k := c.Kafka
	out := kafka.Config{
		Brokers: k.Brokers, Partitions: k.Partitions, ReplicationFactor: k.ReplicationFactor, MinInSync: k.MinInSync,
		MaxRecordBytes: int(k.MaxRecord), Compression: string(k.Compression), Timeout: k.Timeout, SessionTimeout: k.SessionTimeout, Log: log,
	}
	if k.TLS {
		out.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
		if k.CA != "" {
			pool, err := c.authorities("kafka.ca", k.CA)
			if err != nil {
				return out, err
			}
			out.TLS.RootCAs = pool
		}
	}
	if k.SASL != nil {
		mechanism, err := k.SASL.mechanism()
		if err != nil {
			return out, fmt.Errorf("%s: kafka.sasl: %w", c.File, err)
		}
		out.SASL = mechanism
	}
	return out, nil
}

func (s *SASL) mechanism() (sasl.Mechanism, error) {
	switch s.Mechanism {
	case "scram-sha-256":
		return scram.Mechanism(scram.SHA256, s.User, s.Password.Reveal())
	case "scram-sha-512":
		return scram.Mechanism(scram.SHA512, s.User, s.Password.Reveal())
	}
	return plain.Mechanism{Username: s.User, Password: s.Password.Reveal()}, nil
}

// Names are the names of topics and consumer groups.
func (c *Config) Names() cqrs.Names {
	return cqrs.Names{Prefix: c.Kafka.Prefix, Database: c.Database.Name}
}

// Publisher is how one shard's changes are written to the bus. Who wires it adds Acked.
func (c *Config) Publisher(s Shard, log *slog.Logger) cqrs.PublisherConfig {
	out := cqrs.PublisherConfig{
		Shard: s.Name, Names: c.Names(), Partitions: c.Kafka.Partitions, Retention: c.Kafka.Retention, MaxRecordBytes: int(c.Kafka.MaxRecord), Log: log,
	}
	for _, t := range c.capturedFrom(s) {
		schema, name := SplitTable(t)
		out.Tables = append(out.Tables, cqrs.Table{Schema: schema, Name: name})
	}
	return out
}

// authorities reads a file of certificates that a key of the configuration names.
func (c *Config) authorities(key, file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(c.path(file))
	if err != nil {
		return nil, c.wrong(key, err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, c.wrong(key, fmt.Errorf("%s holds no certificate in PEM form", file))
	}
	return pool, nil
}

package testcontainers

import (
	"context"
	"strconv"

	"github.com/tidemarkdb/tidemark/internal/localstack"
)

// startLocal starts the cluster as local processes.
func startLocal(ctx context.Context, spec Spec) (*Cluster, error) {
	local := localstack.Spec{
		Kafka: spec.Kafka, Elasticsearch: spec.Elasticsearch, Redis: spec.Redis, Memory: true,
		Progress: func(e localstack.Event) { spec.Progress(e.String()) },
	}
	for i := range spec.Shards {
		local.Shards = append(local.Shards, localstack.PostgresSpec{
			Name: shardName(i), Replicas: spec.Replicas, Version: spec.PostgresVersion, Settings: spec.Settings,
		})
	}
	stack, err := localstack.Start(ctx, local)
	if err != nil {
		return nil, err
	}
	c := &Cluster{stop: stack.Stop}
	server := func(s *localstack.Server) *Server {
		return &Server{Service: s, Host: s.Host, Port: s.Port, User: s.User, Password: s.Password}
	}
	for _, p := range stack.Postgres {
		shard := &Shard{Name: p.Name, Primary: server(p.Primary)}
		for _, r := range p.Replicas {
			shard.Replicas = append(shard.Replicas, server(r))
		}
		c.Shards = append(c.Shards, shard)
	}
	if k := stack.Kafka; k != nil {
		c.Kafka = &Kafka{Service: k, Brokers: k.Brokers}
	}
	if e := stack.Elastic; e != nil {
		c.Elasticsearch = &Elasticsearch{Service: e, URL: e.URL}
	}
	if r := stack.Redis; r != nil {
		c.Redis = &Redis{Service: r, Addr: r.Addr}
	}
	return c, nil
}

func shardName(i int) string { return "shard" + strconv.Itoa(i) }

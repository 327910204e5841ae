package localstack

import (
	"context"
	"testing"
	"time"
)

func TestQuick(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	s, err := Start(ctx, Spec{Shards: []PostgresSpec{{Name: "shard0", Replicas: 1}, {Name: "shard1", Replicas: 1, Version: "15"}}, Kafka: true, Redis: true, Elasticsearch: true, Memory: true, Progress: func(e Event) { t.Log(e) }})
	if err != nil {
		t.Fatal(err)
	}
	b := time.Now()
	if err := s.Stop(); err != nil {
		t.Error(err)
	}
	t.Log(time.Since(b))
}

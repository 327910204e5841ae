package testcontainers_test

import (
	"context"
	"fmt"
	"log"

	"github.com/jackc/pgx/v5"

	"github.com/tidemarkdb/tidemark/testcontainers"
)

// In a test write testcontainers.New(t, spec) instead: it stops the cluster by itself.
func Example() {
	ctx := context.Background()
	c, err := testcontainers.Start(ctx, testcontainers.Spec{Shards: 2, Replicas: 1})
	if err != nil {
		log.Fatal(err)
	}
	defer func() {
		if err := c.Stop(); err != nil {
			log.Print(err)
		}
	}()
	for _, shard := range c.Shards {
		conn, err := pgx.Connect(ctx, shard.Replicas[0].DSN("postgres"))
		if err != nil {
			log.Print(err)
			return
		}
		var replica bool
		if err := conn.QueryRow(ctx, "SELECT pg_is_in_recovery()").Scan(&replica); err != nil {
			log.Print(err)
			return
		}
		if err := conn.Close(ctx); err != nil {
			log.Print(err)
			return
		}
		fmt.Println(shard.Name, "has a replica:", replica)
	}
	// Output:
	// shard0 has a replica: true
	// shard1 has a replica: true
}

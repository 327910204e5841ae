package testcontainers_test

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidemarkdb/tidemark/testcontainers"
)

func TestMain(m *testing.M) { testcontainers.Main(m) }

func TestReplicaFollows(t *testing.T) {
	b := time.Now()
	c := testcontainers.Shared(t, testcontainers.Spec{Shards: 2, Replicas: 1, Progress: func(s string) { t.Log(s) }})
	t.Log("up", time.Since(b))
	db := c.Database(t)
	t.Log("database", time.Since(b))
	for _, shard := range c.Shards {
		conn, err := pgx.Connect(t.Context(), shard.Primary.DSNAs(testcontainers.AppUser, testcontainers.AppPassword, db))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(t.Context())
		if _, err := conn.Exec(t.Context(), "create table t as select 42 as answer"); err != nil {
			t.Fatal(err)
		}
	}
	t.Log("done", time.Since(b))
}

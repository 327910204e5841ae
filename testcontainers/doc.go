// Package testcontainers gives tests a cluster of real services through one call: sharded PostgreSQL with streaming replicas, Kafka,
// Elasticsearch and Redis.
//
//	func TestOrders(t *testing.T) {
//		c := testcontainers.New(t, testcontainers.Spec{Shards: 2, Replicas: 1, Kafka: true})
//		db := c.Database(t)
//		conn, err := pgx.Connect(t.Context(), c.Shards[0].Primary.DSN(db))
//		...
//	}
//
// Where a Docker engine answers the services are containers, started through testcontainers-go; elsewhere they are local processes that
// need neither Docker nor root (see package internal/localstack for where their programs come from). $TIDEMARK_TEST_STACK forces one of
// them: "docker", "local", or "auto", which is the default. The Cluster is the same both ways. Of an image only the programs are used;
// $TIDEMARK_IMAGE_POSTGRES, _KAFKA, _ELASTICSEARCH and _REDIS name others than the official ones.
//
// A cluster of PostgreSQL alone is up in about a second, Kafka in five, Elasticsearch in fifteen. Tests that only need addresses should share one:
// see Shared and Main.
package testcontainers

// Package e2e holds the tests of the whole: the real binary as child processes over real PostgreSQL, Kafka, Elasticsearch and Redis.
//
// One cluster serves all tests; each has a database, topics, indices and keys of its own. Seeded tests print their seed; TIDEMARK_SEED repeats one.
package e2e

package testcontainers_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/redis/go-redis/v9"
	"github.com/segmentio/kafka-go"

	"github.com/tidemarkdb/tidemark/testcontainers"
)

func TestMain(m *testing.M) { testcontainers.Main(m) }

var spec = testcontainers.Spec{Shards: 2, Replicas: 1, Kafka: true, Redis: true, Elasticsearch: true, Settings: map[string]string{"work_mem": "7MB"}}

// shared is the cluster of all tests here.
func shared(t *testing.T) *testcontainers.Cluster {
	t.Helper()
	spec := spec
	spec.Progress = func(line string) { t.Log(line) }
	return testcontainers.Shared(t, spec)
}

func ctx(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func value(ctx context.Context, dsn, sql string) (string, error) {
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return "", err
	}
	var v string
	err = conn.QueryRow(ctx, sql).Scan(&v)
	return v, errors.Join(err, conn.Close(ctx))
}

func eventually(t *testing.T, dsn, sql, want string) {
	t.Helper()
	var got string
	var err error
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if got, err = value(ctx(t), dsn, sql); err == nil && got == want {
			return
		}
	}
	t.Fatalf("%s: %q, %v, want %q", sql, got, err, want)
}

func TestReplicasFollow(t *testing.T) {
	c := shared(t)
	db := c.Database(t)
	for _, shard := range c.Shards {
		dsn := shard.Primary.DSNAs(testcontainers.AppUser, testcontainers.AppPassword, db)
		if _, err := value(ctx(t), dsn, `CREATE TABLE t (x text)`); err != nil && !errors.Is(err, pgx.ErrNoRows) {
			t.Fatal(err)
		}
		if got, err := value(ctx(t), dsn, `INSERT INTO t VALUES ('`+shard.Name+`') RETURNING x`); err != nil || got != shard.Name {
			t.Fatalf("%q, %v", got, err)
		}
		eventually(t, shard.Replicas[0].DSN(db), `SELECT x FROM t`, shard.Name)
		if got, err := value(ctx(t), shard.Replicas[0].DSN(db), `SHOW work_mem`); err != nil || got != "7MB" {
			t.Errorf("work_mem %q, %v, want the spec's", got, err)
		}
	}
	a, err := value(ctx(t), c.Shards[0].Primary.DSN(db), `SELECT system_identifier::text FROM pg_control_system()`)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := value(ctx(t), c.Shards[1].Primary.DSN(db), `SELECT system_identifier::text FROM pg_control_system()`); err != nil || a == b {
		t.Errorf("two shards have the system identifiers %s and %s, %v", a, b, err)
	}
}

func TestWrongPasswordIsRefused(t *testing.T) {
	_, err := value(ctx(t), shared(t).Shards[0].Primary.DSNAs(testcontainers.AppUser, "wrong", "postgres"), `SELECT 'in'`)
	var refused *pgconn.PgError
	if !errors.As(err, &refused) || refused.Code != "28P01" {
		t.Errorf("got %v, want 28P01", err)
	}
}

// TestFaults breaks services one after the other; each comes back on its address with its data.
func TestFaults(t *testing.T) {
	c := shared(t)
	shard := c.Shards[1]
	t.Run("kill a primary", func(t *testing.T) {
		db := c.Database(t)
		if _, err := value(ctx(t), shard.Primary.DSN(db), `CREATE TABLE kept ()`); err != nil && !errors.Is(err, pgx.ErrNoRows) {
			t.Fatal(err)
		}
		if err := shard.Primary.Kill(); err != nil {
			t.Fatal(err)
		}
		if _, err := value(ctx(t), shard.Primary.DSN(db), `SELECT 'alive'`); err == nil {
			t.Error("a killed server answers")
		}
		if err := shard.Primary.Start(ctx(t)); err != nil {
			t.Fatal(err)
		}
		eventually(t, shard.Replicas[0].DSN(db), `SELECT count(*)::text FROM pg_class WHERE relname = 'kept'`, "1")
	})
	t.Run("pause a replica", func(t *testing.T) {
		replica := shard.Replicas[0]
		if err := replica.Pause(); err != nil {
			t.Fatal(err)
		}
		short, cancel := context.WithTimeout(ctx(t), 300*time.Millisecond)
		defer cancel()
		if _, err := value(short, replica.DSN("postgres"), `SELECT 'alive'`); err == nil {
			t.Error("a paused server answers")
		}
		if err := replica.Resume(); err != nil {
			t.Fatal(err)
		}
		eventually(t, replica.DSN("postgres"), `SELECT 'alive'`, "alive")
	})
	t.Run("stop redis", func(t *testing.T) {
		client := redis.NewClient(&redis.Options{Addr: c.Redis.Addr})
		defer client.Close() //nolint:errcheck // only read
		if err := client.Set(ctx(t), "k", "kept", 0).Err(); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(c.Redis.Stop(ctx(t)), c.Redis.Start(ctx(t))); err != nil {
			t.Fatal(err)
		}
		if got, err := client.Get(ctx(t), "k").Result(); err != nil || got != "kept" {
			t.Errorf("%q, %v", got, err)
		}
	})
	t.Run("kill kafka", func(t *testing.T) {
		client := &kafka.Client{Addr: kafka.TCP(c.Kafka.Brokers...)}
		created, err := client.CreateTopics(ctx(t), &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{{Topic: "kept", NumPartitions: 3, ReplicationFactor: 1}}})
		if err != nil || created.Errors["kept"] != nil {
			t.Fatal(err, created)
		}
		if err := errors.Join(c.Kafka.Kill(), c.Kafka.Start(ctx(t))); err != nil {
			t.Fatal(err)
		}
		meta, err := client.Metadata(ctx(t), &kafka.MetadataRequest{Topics: []string{"kept"}})
		if err != nil || len(meta.Topics[0].Partitions) != 3 {
			t.Errorf("%+v, %v", meta, err)
		}
	})
	t.Run("promote", func(t *testing.T) {
		shard := c.Shards[0]
		if err := shard.Primary.Stop(ctx(t)); err != nil {
			t.Fatal(err)
		}
		if err := shard.Replicas[0].Promote(ctx(t)); err != nil {
			t.Fatal(err)
		}
		eventually(t, shard.Replicas[0].DSN("postgres"), `SELECT pg_is_in_recovery()::text`, "false")
	})
}

func TestElasticsearch(t *testing.T) {
	c := shared(t)
	for _, call := range []struct{ method, path, body, want string }{
		{http.MethodPut, "/books/_doc/1?refresh=true&version=7&version_type=external", `{"title":"the tide"}`, `"result":"created"`},
		{http.MethodGet, "/books/_search?q=title:tide", "", `"_id":"1"`},
	} {
		req, err := http.NewRequestWithContext(ctx(t), call.method, c.Elasticsearch.URL+call.path, strings.NewReader(call.body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		if err := errors.Join(err, resp.Body.Close()); err != nil || !strings.Contains(string(b), call.want) {
			t.Errorf("%s %s: %s, %v", call.method, call.path, b, err)
		}
	}
}

func TestUnknownStackIsRefused(t *testing.T) {
	t.Setenv("TIDEMARK_TEST_STACK", "podman")
	_, err := testcontainers.Start(ctx(t), testcontainers.Spec{})
	if err == nil || !strings.Contains(err.Error(), "want docker, local or auto") {
		t.Errorf("got %v", err)
	}
}

// A free address is nobody else's, neither before a server is started on it nor between two servers.
func TestFreeAddress(t *testing.T) {
	address := testcontainers.FreeAddress(t)
	for range 2 {
		if c, err := net.Dial("tcp", address); err == nil {
			t.Errorf("somebody listens on %s", c.RemoteAddr())
			_ = c.Close()
		}
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for range 200 {
		if other := testcontainers.FreeAddress(t); other == address {
			t.Fatalf("%s was given out twice", address)
		}
	}
}

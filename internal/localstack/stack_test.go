package localstack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/redis/go-redis/v9"
	"github.com/segmentio/kafka-go"
)

// testContext ends before go test's own timeout would hide what was waited for.
func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func startStack(t *testing.T, spec Spec) *Stack {
	t.Helper()
	spec.Memory = true
	spec.Progress = func(e Event) {
		if t.Context().Err() == nil { // Stop reports after the test is over
			t.Log(e)
		}
	}
	s, err := Start(testContext(t), spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// reachableDir returns a new folder that the services' user can enter; t.TempDir is closed to it.
func reachableDir(t *testing.T) string {
	t.Helper()
	parent, err := os.MkdirTemp("", "localstack-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(parent); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(parent, 0o755); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(parent, "stack")
}

// query returns the single value of a query as text.
func query(ctx context.Context, dsn, sql string) (string, error) {
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return "", err
	}
	var value string
	err = conn.QueryRow(ctx, sql).Scan(&value)
	return value, errors.Join(err, conn.Close(ctx))
}

func mustQuery(t *testing.T, dsn, sql string) string {
	t.Helper()
	value, err := query(testContext(t), dsn, sql)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return value
}

func mustExec(t *testing.T, dsn, sql string) {
	t.Helper()
	ctx := testContext(t)
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		t.Fatal(err)
	}
	_, err = conn.Exec(ctx, sql)
	if err := errors.Join(err, conn.Close(ctx)); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// eventually waits until f returns want.
func eventually(t *testing.T, want string, f func() (string, error)) {
	t.Helper()
	var got string
	var err error
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if got, err = f(); err == nil && got == want {
			return
		}
	}
	t.Fatalf("got %q, %v, want %q", got, err, want)
}

// TestEverything starts all services in one stack and shows that each does its work and survives a crash with its address and data.
func TestEverything(t *testing.T) {
	s := startStack(t, Spec{
		Shards: []PostgresSpec{
			{Name: "old", Version: "15", Replicas: 1},
			{Name: "new", Version: "18", Replicas: 1, Settings: map[string]string{"work_mem": "7MB"}},
			{Name: "newer", Version: "18"},
		},
		Kafka: true, Elasticsearch: true, Redis: true,
	})
	t.Run("postgres", func(t *testing.T) {
		ids := map[string]bool{}
		for _, p := range s.Postgres {
			dsn := p.Primary.DSN("postgres")
			if got := mustQuery(t, dsn, `SHOW server_version`); !strings.HasPrefix(got, p.Version+".") {
				t.Errorf("%s runs %s, want %s", p.Name, got, p.Version)
			}
			if got := mustQuery(t, dsn, `SHOW wal_level`); got != "logical" {
				t.Errorf("%s: wal_level %s", p.Name, got)
			}
			ids[mustQuery(t, dsn, `SELECT system_identifier::text FROM pg_control_system()`)] = true
		}
		if len(ids) != len(s.Postgres) {
			t.Errorf("%d shards share %d system identifiers", len(s.Postgres), len(ids))
		}
		if got := mustQuery(t, s.Postgres[1].Replicas[0].DSN("postgres"), `SHOW work_mem`); got != "7MB" {
			t.Errorf("work_mem %s, want the spec's", got)
		}
	})
	t.Run("application role", func(t *testing.T) {
		for _, p := range s.Postgres {
			mustExec(t, p.Primary.DSNAs(User, Password, "postgres"), `CREATE DATABASE owned`)
			_, err := query(testContext(t), p.Primary.DSNAs(User, "wrong", "postgres"), `SELECT 'in'`)
			var refused *pgconn.PgError
			if !errors.As(err, &refused) || refused.Code != "28P01" {
				t.Errorf("%s: a wrong password gives %v, want 28P01", p.Name, err)
			}
			if got := mustQuery(t, p.Primary.DSN("postgres"), `SELECT left(rolpassword, 14) FROM pg_authid WHERE rolname = 'tidemark'`); got != "SCRAM-SHA-256$" {
				t.Errorf("%s: password is kept as %s", p.Name, got)
			}
		}
	})
	t.Run("replica", func(t *testing.T) {
		for _, p := range s.Postgres[:2] {
			mustExec(t, p.Primary.DSN("postgres"), `CREATE TABLE t AS SELECT 'streamed' AS x`)
			eventually(t, "streamed", func() (string, error) { return query(t.Context(), p.Replicas[0].DSN("postgres"), `SELECT x FROM t`) })
		}
	})
	t.Run("postgres crashes", func(t *testing.T) {
		p := s.Postgres[0]
		crash(t, p.Primary.Service)
		if got := mustQuery(t, p.Primary.DSN("postgres"), `SELECT x FROM t`); got != "streamed" {
			t.Errorf("after the crash: %q", got)
		}
		mustExec(t, p.Primary.DSN("postgres"), `UPDATE t SET x = 'again'`)
		eventually(t, "again", func() (string, error) { return query(t.Context(), p.Replicas[0].DSN("postgres"), `SELECT x FROM t`) })
	})
	t.Run("pause", func(t *testing.T) {
		primary := s.Postgres[2].Primary
		conn, err := pgx.Connect(testContext(t), primary.DSN("postgres"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(context.Background()) //nolint:errcheck // the server is stopped with the stack
		if err := primary.Pause(); err != nil {
			t.Fatal(err)
		}
		answered := make(chan error, 1)
		go func() { _, err := conn.Exec(context.Background(), `SELECT 1`); answered <- err }()
		select {
		case err := <-answered:
			t.Errorf("a paused server answered: %v", err)
		case <-time.After(200 * time.Millisecond):
		}
		if err := primary.Resume(); err != nil {
			t.Fatal(err)
		}
		if err := <-answered; err != nil {
			t.Errorf("after resume: %v", err)
		}
	})
	t.Run("promote", func(t *testing.T) {
		p := s.Postgres[1]
		pid := p.Primary.PID()
		if err := p.Primary.Kill(); err != nil {
			t.Fatal(err)
		}
		segments, err := os.ReadFile("/proc/sysvipc/shm")
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(segments)) {
			// key shmid perms size cpid lpid nattch ...
			if f := strings.Fields(line); f[4] == strconv.Itoa(pid) {
				t.Errorf("the killed server left a shared memory segment: %s", line)
			}
		}
		if err := p.Replicas[0].Promote(testContext(t)); err != nil {
			t.Fatal(err)
		}
		mustExec(t, p.Replicas[0].DSN("postgres"), `UPDATE t SET x = 'promoted'`)
	})
	t.Run("kafka", func(t *testing.T) {
		client := &kafka.Client{Addr: kafka.TCP(s.Kafka.Brokers...)}
		created, err := client.CreateTopics(testContext(t), &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{{Topic: "t", NumPartitions: 1, ReplicationFactor: 1}}})
		if err := errors.Join(err, created.Errors["t"]); err != nil {
			t.Fatal(err)
		}
		eventually(t, "", func() (string, error) {
			res, err := client.Produce(testContext(t), &kafka.ProduceRequest{
				Topic: "t", RequiredAcks: kafka.RequireAll,
				Records: kafka.NewRecordReader(kafka.Record{Value: kafka.NewBytes([]byte("kept"))}),
			})
			if err == nil {
				err = res.Error
			}
			return "", err
		})
		crash(t, s.Kafka.Service)
		r := kafka.NewReader(kafka.ReaderConfig{Brokers: s.Kafka.Brokers, Topic: "t", MaxWait: 100 * time.Millisecond})
		defer r.Close() //nolint:errcheck // only read
		m, err := r.ReadMessage(testContext(t))
		if err != nil || string(m.Value) != "kept" {
			t.Errorf("after the crash: %q, %v", m.Value, err)
		}
	})
	t.Run("redis", func(t *testing.T) {
		client := redis.NewClient(&redis.Options{Addr: s.Redis.Addr})
		defer client.Close() //nolint:errcheck // only read
		if err := client.Set(testContext(t), "k", "kept", 0).Err(); err != nil {
			t.Fatal(err)
		}
		crash(t, s.Redis.Service)
		if got, err := client.Get(testContext(t), "k").Result(); err != nil || got != "kept" {
			t.Errorf("after the crash: %q, %v", got, err)
		}
	})
	t.Run("elasticsearch", func(t *testing.T) {
		call := func(method, path, body string) string {
			req, err := http.NewRequestWithContext(testContext(t), method, s.Elastic.URL+path, strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", "application/json")
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close() //nolint:errcheck // only read
			b, err := io.ReadAll(resp.Body)
			if err != nil || resp.StatusCode >= 300 {
				t.Fatalf("%s %s: %s %s %v", method, path, resp.Status, b, err)
			}
			if resp.Header.Get("X-Elastic-Product") != "Elasticsearch" {
				t.Errorf("%s %s: no genuine product header", method, path)
			}
			return string(b)
		}
		call(http.MethodPut, "/t/_doc/1?refresh=true&version=5&version_type=external", `{"x":"kept"}`)
		crash(t, s.Elastic.Service)
		if got := call(http.MethodGet, "/t/_search?q=x:kept", ""); !strings.Contains(got, `"_id":"1"`) {
			t.Errorf("after the crash: %s", got)
		}
	})
}

// crash kills a service, sees that nothing of it is left, and starts it again.
func crash(t *testing.T, s *Service) {
	t.Helper()
	tree := s.tree()
	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	for _, pid := range tree {
		if alive(pid) {
			t.Errorf("%s: process %d survived the kill", s.Name(), pid)
		}
	}
	if s.Running() {
		t.Errorf("%s runs after its kill", s.Name())
	}
	if err := s.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
}

// TestKeep stops a stack cleanly and starts it again in the same folder, with one replica more.
func TestKeep(t *testing.T) {
	dir := reachableDir(t)
	spec := Spec{Dir: dir, Keep: true, Durable: true, Redis: true, Shards: []PostgresSpec{{Name: "a", Replicas: 1}}}
	first := startStack(t, spec)
	mustExec(t, first.Postgres[0].Primary.DSN("postgres"), `CREATE TABLE t AS SELECT 'kept' AS x`)
	if _, err := Start(testContext(t), spec); err == nil || !strings.Contains(err.Error(), "in use by another process") {
		t.Errorf("a second stack in the same folder: %v", err)
	}
	if err := first.Stop(); err != nil {
		t.Fatal(err)
	}
	spec.Shards[0].Replicas = 2
	second := startStack(t, spec)
	addresses := func(s *Stack) string {
		return fmt.Sprint(s.Postgres[0].Primary.Addr(), s.Postgres[0].Replicas[0].Addr(), s.Redis.Addr)
	}
	if got, want := addresses(second), addresses(first); got != want {
		t.Errorf("addresses %s, want those of before, %s", got, want)
	}
	for _, srv := range second.Postgres[0].servers() {
		if got := mustQuery(t, srv.DSN("postgres"), `SELECT x FROM t`); got != "kept" {
			t.Errorf("%s: %q", srv.Name(), got)
		}
	}
	mustExec(t, second.Postgres[0].Primary.DSN("postgres"), `UPDATE t SET x = 'new'`)
	eventually(t, "new", func() (string, error) {
		return query(t.Context(), second.Postgres[0].Replicas[1].DSN("postgres"), `SELECT x FROM t`)
	})
}

func TestFailedStartLeavesNothing(t *testing.T) {
	dir := reachableDir(t)
	_, err := Start(testContext(t), Spec{Dir: dir, Redis: true, Shards: []PostgresSpec{{Name: "a", Settings: map[string]string{"work_mem": "much"}}}})
	if err == nil || !strings.Contains(err.Error(), "a-primary ended while starting") || !strings.Contains(err.Error(), "work_mem") {
		t.Errorf("got %v, want an error that quotes the log", err)
	}
	if exists(dir) {
		t.Errorf("%s is left behind", dir)
	}
}

func TestSpec(t *testing.T) {
	for _, c := range []struct {
		shards []PostgresSpec
		want   string
	}{
		{[]PostgresSpec{{Name: ""}}, "shard name"},
		{[]PostgresSpec{{Name: "A"}}, "shard name"},
		{[]PostgresSpec{{Name: "a"}, {Name: "a"}}, "two shards"},
		{[]PostgresSpec{{Name: "a", Version: "9.6"}}, "9.6"},
		{[]PostgresSpec{{Name: "a", Replicas: -1}}, "-1 replicas"},
	} {
		if _, err := Start(testContext(t), Spec{Shards: c.shards}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v, want an error about %q", c.shards, err, c.want)
		}
	}
}

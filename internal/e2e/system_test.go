package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/tidemarkdb/tidemark/testcontainers"
)

// system is a Tidemark of one test: a proxy and projectors over a database of its own.
type system struct {
	t          *testing.T
	cluster    *testcontainers.Cluster
	database   string
	config     string // path
	listen     string
	proxy      *process
	projectors []*process
}

// spec says what a test's system has. SQL is run through the proxy before the projectors start.
type spec struct {
	tables     string // of sharding.tables: in YAML, in braces
	captured   string // of capture.tables: in YAML, in brackets; empty: those of the views
	views      string // in YAML, indented by two; INDEX and PREFIX become this test's own
	tracing    string // of tracing.endpoint; empty: no traces
	projectors int
	sql        []string
}

const startLimit = patience

func start(t *testing.T, sp spec) *system {
	t.Helper()
	binary(t)
	c := cluster(t)
	s := &system{t: t, cluster: c, database: c.Database(t), listen: testcontainers.FreeAddress(t)}
	ctx := within(t, startLimit)
	t.Cleanup(s.dropSlots) // before the database is dropped
	for _, shard := range c.Shards {
		if err := execOn(ctx, shard.Primary.DSN("postgres"), "ALTER DATABASE "+s.database+" OWNER TO "+ownerUser); err != nil {
			t.Fatal(err)
		}
		for _, r := range shard.Replicas {
			if err := poll(ctx, func(ctx context.Context) error { return execOn(ctx, r.DSN(s.database), "SELECT 1") }); err != nil {
				t.Fatalf("the database is not on %s: %v", r.Name(), err)
			}
		}
	}
	proxyHTTP := testcontainers.FreeAddress(t)
	s.writeConfig(sp, proxyHTTP)
	s.proxy = newProcess(t, "proxy", proxyHTTP, "proxy", "--config", s.config)
	if err := errors.Join(s.proxy.start(), s.proxy.ready(ctx)); err != nil {
		t.Fatal(err)
	}
	conn := s.connect()
	for _, sql := range sp.sql {
		if _, err := conn.Exec(ctx, sql); err != nil {
			t.Fatalf("%v, in %s", err, sql)
		}
	}
	for i := range sp.projectors {
		http := testcontainers.FreeAddress(t)
		p := newProcess(t, fmt.Sprintf("projector%d", i), http, "projector", "--config", s.config, "--http", http)
		s.projectors = append(s.projectors, p)
		if err := p.start(); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range s.projectors {
		if err := p.ready(ctx); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func (s *system) writeConfig(sp spec, http string) {
	var b strings.Builder
	fmt.Fprintf(&b, "listen: %s\nhttp: %s\ndrain_timeout: 3s\npool: {connect_timeout: 30s}\n", s.listen, http)
	fmt.Fprintf(&b, "database: {name: %s, user: %s, password: \"${E2E_OWNER_PASSWORD}\"}\n", s.database, ownerUser)
	fmt.Fprintf(&b, "users: [{name: %s, password: \"${E2E_APP_PASSWORD}\"}]\nshards:\n", appUser)
	for _, shard := range s.cluster.Shards {
		fmt.Fprintf(&b, "  - name: %s\n    primary: {host: %s, port: %d}\n    replicas:\n", shard.Name, shard.Primary.Host, shard.Primary.Port)
		for _, r := range shard.Replicas {
			fmt.Fprintf(&b, "      - {host: %s, port: %d}\n", r.Host, r.Port)
		}
	}
	fmt.Fprintf(&b, "sharding: {tables: %s}\n", sp.tables)
	fmt.Fprintf(&b, "kafka: {brokers: [%s], prefix: %s., partitions: 4, timeout: 5s}\n", strings.Join(s.cluster.Kafka.Brokers, ", "), s.database)
	fmt.Fprintf(&b, "capture: {slot: %s, publication: tidemark, fix_replica_identity: true", s.database)
	if sp.captured != "" {
		fmt.Fprintf(&b, ", tables: %s", sp.captured)
	}
	fmt.Fprintf(&b, "}\nelasticsearch: {addresses: [%s]}\nredis: {address: %s, timeout: 2s}\nviews:\n", s.cluster.Elasticsearch.URL, s.cluster.Redis.Addr)
	b.WriteString(strings.NewReplacer("INDEX", s.database, "PREFIX", s.database+":").Replace(sp.views))
	if sp.tracing != "" {
		fmt.Fprintf(&b, "tracing: {endpoint: %q}\n", sp.tracing)
	}
	s.config = filepath.Join(s.t.TempDir(), "tidemark.yaml")
	if err := os.WriteFile(s.config, []byte(b.String()), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// dropSlots lets the database go.
func (s *system) dropSlots() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, shard := range s.cluster.Shards {
		err := poll(ctx, func(ctx context.Context) error { // the server notices the end of a killed projector a little later
			return execOn(ctx, shard.Primary.DSN("postgres"), "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = '"+s.database+"'")
		})
		if err != nil {
			s.t.Errorf("drop the slot on %s: %v", shard.Name, err)
		}
	}
}

// url is how clients connect to the proxy.
func (s *system) url() string {
	return fmt.Sprintf("postgres://%s:%s@%s/%s?connect_timeout=60", appUser, appPassword, s.listen, s.database)
}

// connect opens a session that ends with the test.
func (s *system) connect() *pgx.Conn {
	s.t.Helper()
	conn, err := pgx.Connect(within(s.t, patience), s.url())
	if err != nil {
		s.t.Fatalf("connect through the proxy: %v", err)
	}
	s.t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// must runs a statement in a session.
func must(t *testing.T, conn *pgx.Conn, sql string, args ...any) {
	t.Helper()
	if _, err := conn.Exec(within(t, patience), sql, args...); err != nil {
		t.Fatalf("%v, in %s", err, sql)
	}
}

// run runs a command of the program with this system's configuration, and returns its exit code and what it printed.
func (s *system) run(args ...string) (code int, output string) {
	s.t.Helper()
	return run(s.t, append(args, "--config", s.config)...)
}

func run(t *testing.T, args ...string) (code int, output string) {
	t.Helper()
	cmd := exec.CommandContext(within(t, patience), binary(t), args...)
	cmd.Env = append(os.Environ(), "E2E_OWNER_PASSWORD="+ownerPassword, "E2E_APP_PASSWORD="+appPassword)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("tidemark %s: %v", strings.Join(args, " "), err)
	}
	noSecrets(t, "the output of tidemark "+args[0], string(out))
	return cmd.ProcessState.ExitCode(), string(out)
}

package proxy_test

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidemarkdb/tidemark/cqrs"
	"github.com/tidemarkdb/tidemark/internal/backend"
	"github.com/tidemarkdb/tidemark/internal/loop"
	"github.com/tidemarkdb/tidemark/internal/wire"
	"github.com/tidemarkdb/tidemark/proxy"
	"github.com/tidemarkdb/tidemark/router"
	"github.com/tidemarkdb/tidemark/sharding"
	"github.com/tidemarkdb/tidemark/testcontainers"
)

func TestMain(m *testing.M) { testcontainers.Main(m) }

// fixture is a cluster of real PostgreSQL servers with one database of its own on every shard.
type fixture struct {
	cluster  *testcontainers.Cluster
	database string
	spec     fixtureSpec
}

type fixtureSpec struct {
	shards, replicas int
	absent           bool // one more replica, which is down
	tables           []sharding.Table
	pool             int    // 0: 5
	budget           int    // 0: plenty
	user             string // who server connections log in as, where backend says so; empty: AppUser
	config           func(*proxy.Config)
	lookup           proxy.Lookup
	views            map[string]cqrs.View
	backend          func(*backend.Config)
	endpoint         func() (host string, port int) // nil: the primary of the first shard itself
	log              io.Writer                      // nil: the test's
	cluster          *testcontainers.Cluster        // nil: the one that all tests share, which nobody may break
}

const (
	clientUser     = "app"
	clientPassword = "s3cret"
)

func newFixture(t *testing.T, spec fixtureSpec) *fixture {
	t.Helper()
	c := spec.cluster
	if c == nil {
		c = testcontainers.Shared(t, testcontainers.Spec{Shards: 2, Replicas: 1})
	}
	return &fixture{cluster: c, database: c.Database(t), spec: spec}
}

// instance is a proxy that runs.
type instance struct {
	dsn, addr string
	proxy     *proxy.Proxy
	backend   *backend.Backend
	config    backend.Config // of it
	drain     func()         // begins the shutdown
}

// direct is the way around the proxy to a shard's primary.
func (f *fixture) direct(shard int) string {
	p := f.cluster.Shards[shard].Primary
	return p.DSNAs(testcontainers.AppUser, testcontainers.AppPassword, f.database)
}

// start runs a proxy on the named engine until the test ends and returns how clients reach it.
func (f *fixture) start(t *testing.T, engineName string) string {
	t.Helper()
	return f.run(t, engineName).dsn
}

func (f *fixture) run(t *testing.T, engineName string) *instance {
	t.Helper()
	var to io.Writer = testWriter{t}
	if f.spec.log != nil {
		to = f.spec.log
	}
	log := slog.New(slog.NewTextHandler(to, &slog.HandlerOptions{Level: slog.LevelDebug}))
	eng, err := loop.New(loop.Config{Engine: engineName})
	if err != nil {
		t.Fatal(err)
	}
	bc := backend.Config{
		Database: f.database, User: testcontainers.AppUser, Password: testcontainers.AppPassword,
		PoolSize: max(f.spec.pool, 5), Budget: max(f.spec.budget, 50), HealthInterval: 100 * time.Millisecond,
		ConnectTimeout: 30 * time.Second, // on a busy machine a login may take long
	}
	if f.spec.pool > 0 {
		bc.PoolSize = f.spec.pool
	}
	if f.spec.backend != nil {
		f.spec.backend(&bc)
	}
	def := sharding.Definition{Tables: f.spec.tables}
	for i := range f.spec.shards {
		s := f.cluster.Shards[i]
		sc := backend.ShardConfig{Name: s.Name, Endpoints: []backend.EndpointConfig{{Host: s.Primary.Host, Port: s.Primary.Port, Role: backend.RolePrimary}}}
		if f.spec.endpoint != nil && i == 0 {
			sc.Endpoints[0].Host, sc.Endpoints[0].Port = f.spec.endpoint()
		}
		for r := range f.spec.replicas {
			sc.Endpoints = append(sc.Endpoints, backend.EndpointConfig{Host: s.Replicas[r].Host, Port: s.Replicas[r].Port, Role: backend.RoleReplica})
		}
		if f.spec.absent {
			sc.Endpoints = append(sc.Endpoints, backend.EndpointConfig{Host: "127.0.0.1", Port: 1, Role: backend.RoleReplica})
		}
		bc.Shards = append(bc.Shards, sc)
		first := i * sharding.DefaultBuckets / f.spec.shards
		def.Shards = append(def.Shards, sharding.Shard{Name: s.Name, Buckets: []sharding.Range{{First: first, Last: (i+1)*sharding.DefaultBuckets/f.spec.shards - 1}}})
	}
	m, err := sharding.New(def)
	if err != nil {
		t.Fatal(err)
	}
	be, err := backend.New(bc, eng, log)
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := wire.NewVerifier(clientPassword)
	if err != nil {
		t.Fatal(err)
	}
	cfg := proxy.Config{Database: "shop", Users: []proxy.User{{Name: clientUser, Secret: proxy.VerifierSecret(verifier)}}}
	if f.spec.config != nil {
		f.spec.config(&cfg)
	}
	p, err := proxy.New(cfg, proxy.Parts{
		Engine: eng, Backend: be, Map: m, ServerUser: cmp.Or(f.spec.user, testcontainers.AppUser), Lookup: f.spec.lookup, Views: f.spec.views, Version: "test", Log: log,
		Catalog: func(ctx context.Context) (*router.Catalog, error) {
			conn, err := pgx.Connect(ctx, f.direct(0)+"&application_name=catalog")
			if err != nil {
				return nil, err
			}
			defer func() { _ = conn.Close(ctx) }()
			return proxy.NewCatalogReader(conn.PgConn(), f.spec.shards).Read(ctx)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- be.Run(ctx) }()
	if err := p.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	go func() { ended <- p.Serve(ctx, ln) }()
	t.Cleanup(func() {
		stop()
		for range 2 {
			if err := <-ended; err != nil {
				t.Errorf("proxy ended: %v", err)
			}
		}
		ctx, stop := context.WithTimeout(context.Background(), 20*time.Second)
		defer stop()
		if err := eng.Close(ctx); err != nil {
			t.Errorf("engine: %v", err)
		}
		p.Drain(ctx) // which closes the socket
		if err := be.Close(ctx); err != nil {
			t.Errorf("backend: %v", err)
		}
	})
	addr := ln.Addr().(*net.TCPAddr)
	return &instance{
		dsn:  fmt.Sprintf("postgres://%s:%s@127.0.0.1:%d/shop?sslmode=disable", clientUser, clientPassword, addr.Port),
		addr: addr.String(), proxy: p, backend: be, config: bc, drain: stop,
	}
}

// testWriter keeps the log with the test; TIDEMARK_TEST_LOG=1 shows it at once.
type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) {
	if os.Getenv("TIDEMARK_TEST_LOG") != "" {
		return os.Stderr.Write(b)
	}
	return len(b), nil
}

func lookupFlag(name string) string {
	if f := flag.Lookup(name); f != nil {
		return f.Value.String()
	}
	return ""
}

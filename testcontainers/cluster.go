package testcontainers

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

// startTimeout bounds New and Shared: enough to fetch programs or images on a new machine.
const startTimeout = 15 * time.Minute

// Spec says what a cluster has. The zero Spec is empty.
type Spec struct {
	Shards          int               // PostgreSQL clusters, named shard0, shard1, ...
	Replicas        int               // streaming replicas of each shard
	PostgresVersion string            // major version, "15" to "18"; empty means "18"
	Settings        map[string]string // of postgresql.conf, for every server
	Kafka           bool              // one KRaft broker; topics are not created by themselves
	Elasticsearch   bool              // one node without security
	Redis           bool

	// Progress gets a line of text for each step until the cluster is up (so it may be t.Log's); nil means silence.
	Progress func(line string) `json:"-"`
}

// Cluster is a set of running services. Its addresses stay the same while services are stopped and started.
type Cluster struct {
	Shards        []*Shard
	Kafka         *Kafka         // nil when not asked for
	Elasticsearch *Elasticsearch // nil when not asked for
	Redis         *Redis         // nil when not asked for

	stop func() error
}

// Service is one server of a cluster. Tests break it to see how their subject takes it: Kill is a crash, Pause a server that holds its
// connections and answers nothing, Stop a clean shutdown. Start brings it back on the same address with the same data and waits
// until it answers.
type Service interface {
	Name() string
	Start(ctx context.Context) error
	Stop(ctx context.Context) error
	Kill() error
	Pause() error
	Resume() error
}

// Shard is a PostgreSQL primary with its replicas.
type Shard struct {
	Name     string
	Primary  *Server
	Replicas []*Server
}

// Kafka is one broker.
type Kafka struct {
	Service
	Brokers []string // host:port
}

// Elasticsearch is one node.
type Elasticsearch struct {
	Service
	URL string // http://host:port
}

// Redis is one server.
type Redis struct {
	Service
	Addr string // host:port
}

// Server is one PostgreSQL server. Two roles can log in: the superuser (User, Password), and AppUser, which logs in by SCRAM-SHA-256,
// may create databases and replicate, and owns the databases that Cluster.Database makes.
type Server struct {
	Service
	Host     string
	Port     int
	User     string
	Password string
}

// Login of an application in every server.
const (
	AppUser     = "tidemark"
	AppPassword = "tidemark"
)

// Addr is host:port.
func (s *Server) Addr() string { return net.JoinHostPort(s.Host, strconv.Itoa(s.Port)) }

// DSN is the superuser's connection URL for a database.
func (s *Server) DSN(database string) string { return s.DSNAs(s.User, s.Password, database) }

// DSNAs is the connection URL of any role for a database.
func (s *Server) DSNAs(user, password, database string) string {
	u := url.URL{Scheme: "postgres", User: url.UserPassword(user, password), Host: s.Addr(), Path: "/" + database, RawQuery: "sslmode=disable"}
	return u.String()
}

// Promote makes a replica a primary and waits until it is one. The other servers of the shard are left as they are.
func (s *Server) Promote(ctx context.Context) error {
	err := s.exec(ctx, "postgres", "SELECT pg_promote(true, 60)")
	if err != nil {
		return fmt.Errorf("promote %s: %w", s.Name(), err)
	}
	return nil
}

func (s *Server) exec(ctx context.Context, database, sql string) error {
	conn, err := pgx.Connect(ctx, s.DSN(database))
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, sql)
	return errors.Join(err, conn.Close(ctx))
}

// New starts a cluster for one test and stops it when the test ends. It fails the test when the cluster cannot be started.
func New(t testing.TB, spec Spec) *Cluster {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	c, err := Start(ctx, spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Errorf("stop the cluster: %v", err)
		}
	})
	return c
}

// Start starts a cluster that Stop must end. It returns when every service answers; when one does not, the others are stopped.
func Start(ctx context.Context, spec Spec) (*Cluster, error) {
	if spec.Progress == nil {
		spec.Progress = func(string) {}
	}
	var up atomic.Bool
	defer up.Store(true)
	progress := spec.Progress
	spec.Progress = func(line string) {
		if !up.Load() {
			progress(line)
		}
	}
	switch choice := os.Getenv("TIDEMARK_TEST_STACK"); choice {
	case "local":
		return startLocal(ctx, spec)
	case "docker":
		return startDocker(ctx, spec)
	case "", "auto":
		if !dockerConfigured() || askEngine(ctx) != nil {
			return startLocal(ctx, spec)
		}
		c, err := startDocker(ctx, spec)
		if err == nil {
			return c, nil
		}
		spec.Progress(fmt.Sprintf("Docker cannot run the cluster, falling back to local processes: %v", err))
		c, localErr := startLocal(ctx, spec)
		if localErr != nil {
			return nil, errors.Join(err, localErr)
		}
		return c, nil
	default:
		return nil, fmt.Errorf("testcontainers: TIDEMARK_TEST_STACK=%q, want docker, local or auto", choice)
	}
}

// Stop stops every service and removes its data.
func (c *Cluster) Stop() error { return c.stop() }

// Services lists every service of the cluster.
func (c *Cluster) Services() []Service {
	var all []Service
	for _, shard := range c.Shards {
		all = append(all, shard.Primary)
		for _, r := range shard.Replicas {
			all = append(all, r)
		}
	}
	if c.Kafka != nil {
		all = append(all, c.Kafka)
	}
	if c.Elasticsearch != nil {
		all = append(all, c.Elasticsearch)
	}
	if c.Redis != nil {
		all = append(all, c.Redis)
	}
	return all
}

// Database makes an empty database on every shard, owned by AppUser and under a name that no other test has, and drops it when the test ends.
func (c *Cluster) Database(t testing.TB) string {
	t.Helper()
	name := "test_" + strings.ToLower(rand.Text()[:12])
	if err := c.onShards(`CREATE DATABASE ` + name + ` OWNER ` + AppUser + ` STRATEGY file_copy`); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.onShards(`DROP DATABASE IF EXISTS ` + name + ` WITH (FORCE)`); err != nil {
			t.Logf("database %s stays: %v", name, err) // the test may have left its shard stopped
		}
	})
	return name
}

func (c *Cluster) onShards(sql string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	g, ctx := errgroup.WithContext(ctx)
	for _, shard := range c.Shards {
		g.Go(func() error {
			if err := shard.Primary.exec(ctx, "postgres", sql); err != nil {
				return fmt.Errorf("%s: %w", shard.Name, err)
			}
			return nil
		})
	}
	return g.Wait()
}

package backend

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"testing"
	"time"

	"github.com/tidemarkdb/tidemark/internal/loop"
	"github.com/tidemarkdb/tidemark/internal/wire"
	"github.com/tidemarkdb/tidemark/testcontainers"
)

func TestMain(m *testing.M) { testcontainers.Main(m) }

// patience bounds what a test waits for; it is never a measure.
const patience = 30 * time.Second

// servers is the cluster that tests share which break nothing. They use the database postgres: one made for a test
// reaches the replicas later.
func servers(t *testing.T) *testcontainers.Cluster {
	t.Helper()
	return testcontainers.Shared(t, testcontainers.Spec{Shards: 2, Replicas: 2})
}

// bothEngines runs a test on each engine; the engine outlives the test's cleanups that were registered by f.
func bothEngines(t *testing.T, f func(t *testing.T, eng loop.Engine)) {
	for _, kind := range []string{"epoll", "goroutines"} {
		t.Run(kind, func(t *testing.T) {
			f(t, newEngine(t, kind))
		})
	}
}

func newEngine(t *testing.T, kind string) loop.Engine {
	t.Helper()
	eng, err := loop.New(loop.Config{Engine: kind, Epoll: loop.EpollConfig{Loops: 2}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := eng.Close(ctx); err != nil {
			t.Errorf("close the engine: %v", err)
		}
	})
	return eng
}

// configOf is a configuration for a cluster's servers, roles to be found out.
func configOf(c *testcontainers.Cluster, database string) Config {
	cfg := Config{Database: database, User: testcontainers.AppUser, Password: testcontainers.AppPassword, SSLMode: "disable", HealthInterval: 100 * time.Millisecond}
	for _, s := range c.Shards {
		sc := ShardConfig{Name: s.Name, Endpoints: []EndpointConfig{endpointOf(s.Primary)}}
		for _, r := range s.Replicas {
			sc.Endpoints = append(sc.Endpoints, endpointOf(r))
		}
		cfg.Shards = append(cfg.Shards, sc)
	}
	return cfg
}

func endpointOf(s *testcontainers.Server) EndpointConfig {
	return EndpointConfig{Host: s.Host, Port: s.Port}
}

// start makes a Backend that runs and is ready, and closes it when the test ends, when no connection may be left.
func start(t *testing.T, eng loop.Engine, cfg Config) *Backend {
	t.Helper()
	b := open(t, eng, cfg)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	running, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Run(running) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	if err := b.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	return b
}

// open makes a Backend without health checks. On a busy machine a login may take long.
func open(t *testing.T, eng loop.Engine, cfg Config) *Backend {
	t.Helper()
	cfg.ConnectTimeout = cmp.Or(cfg.ConnectTimeout, patience)
	b, err := New(cfg, eng, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := b.Close(ctx); err != nil {
			t.Error(err)
		}
		if n := b.BudgetUsed(); n != 0 {
			t.Errorf("%d connections are left in the budget", n)
		}
	})
	return b
}

// inTask runs f as a task and waits for it.
func inTask(t *testing.T, eng loop.Engine, f func(task *loop.Task) error) {
	t.Helper()
	select {
	case err := <-startTask(eng, f):
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(patience):
		t.Fatal("the task has not ended")
	}
}

func startTask(eng loop.Engine, f func(task *loop.Task) error) chan error {
	done := make(chan error, 1)
	eng.Go(func(task *loop.Task) {
		err := errors.New("the task panicked")
		defer func() { done <- err }()
		err = f(task)
	})
	return done
}

// query runs one statement and returns the values of its rows' first column.
func query(task *loop.Task, c *Conn, sql string) ([]string, error) {
	out := wire.AppendQuery(nil, sql)
	if n, err := c.IO.Write(out); err != nil || n < len(out) {
		return nil, fmt.Errorf("write %d of %d: %w", n, len(out), err)
	}
	c.Outstanding++
	var values []string
	var failed error
	var in []byte
	buf := make([]byte, 8192)
	for {
		n, err := c.IO.Read(buf)
		if errors.Is(err, loop.ErrWouldBlock) {
			if cause := task.Wait(time.Now().Add(patience), loop.Source{Conn: c.IO, For: loop.Readable | loop.Hangup}); cause == loop.Timeout || cause == loop.Closing {
				return nil, fmt.Errorf("%s: %s", sql, cause)
			}
			continue
		}
		if err != nil {
			return nil, errors.Join(failed, err)
		}
		in = append(in, buf[:n]...)
		for {
			f, need, err := wire.Next(in, wire.Backend, 0)
			if err != nil {
				return nil, err
			}
			if need > 0 {
				break
			}
			switch f.Type {
			case wire.MsgDataRow:
				row := wire.DataRow(f.Body)
				row.Next()
				values = append(values, string(row.Value()))
			case wire.MsgErrorResponse:
				if failed, err = wire.DecodeError(f.Body); err != nil {
					return nil, err
				}
			case wire.MsgReadyForQuery:
				c.TxStatus = f.Body[0]
				c.Outstanding--
				return values, failed
			}
			in = in[f.Len:]
		}
	}
}

// until waits until f holds.
func until(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("still not: %s", what)
		}
	}
}

// clientPair is a client's connection as a proxy sees it, and the client's end of it.
func clientPair(t *testing.T, eng loop.Engine) (server *loop.Conn, client net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}()
	client, err = net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	nc, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if server, err = eng.Adopt(nc); err != nil {
		t.Fatal(err)
	}
	return server, client
}

// deadPort is an address where nobody listens.
func deadPort(t *testing.T) EndpointConfig {
	t.Helper()
	host, port, err := net.SplitHostPort(testcontainers.FreeAddress(t))
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	return EndpointConfig{Host: host, Port: n, Role: RolePrimary}
}

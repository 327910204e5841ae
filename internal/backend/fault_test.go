package backend

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidemarkdb/tidemark/internal/loop"
	"github.com/tidemarkdb/tidemark/internal/lsn"
	"github.com/tidemarkdb/tidemark/internal/wire"
	"github.com/tidemarkdb/tidemark/testcontainers"
)

func TestDeadEndpoint(t *testing.T) {
	bothEngines(t, func(t *testing.T, eng loop.Engine) {
		cfg := Config{User: "u", Database: "d", SSLMode: "disable", Shards: []ShardConfig{{Name: "s1", Endpoints: []EndpointConfig{deadPort(t)}}}}
		b := open(t, eng, cfg)
		e := primaryOf(t, b)
		inTask(t, eng, func(task *loop.Task) error {
			_, err := e.Acquire(task, nil, nil, time.Time{})
			var w *wire.Error
			if !errors.As(err, &w) || w.Code != wire.ConnectionFailure || w.Hint == "" || w.EndsSession() {
				return fmt.Errorf("got %v, want 08006 with a hint", err)
			}
			return nil
		})
		until(t, "the breaker opens", func() bool {
			inTask(t, eng, func(task *loop.Task) error {
				if conn, err := e.Acquire(task, nil, nil, time.Time{}); err == nil {
					conn.Close()
					return errors.New("nobody listens, and yet there is a connection")
				}
				return nil
			})
			return e.breaker.current() == breakerOpen
		})
		e.breaker.mu.Lock()
		e.breaker.openedAt = e.breaker.openedAt.Add(-time.Hour) // however long it has been
		e.breaker.mu.Unlock()
		refusedAtOnce(t, eng, func(task *loop.Task) error {
			_, err := e.Acquire(task, nil, nil, time.Time{})
			return err
		})
	})
}

// refusedAtOnce makes sure that an endpoint that is down is not tried.
func refusedAtOnce(t *testing.T, eng loop.Engine, f func(task *loop.Task) error) {
	t.Helper()
	inTask(t, eng, func(task *loop.Task) error {
		if err := f(task); wire.SQLSTATE(err) != wire.CannotConnectNow {
			return fmt.Errorf("got %v, want 57P03", err)
		}
		return nil
	})
}

// What the server itself says about a login reaches the client.
func TestServerRefusesLogin(t *testing.T) {
	eng := newEngine(t, "goroutines")
	c := servers(t)
	for _, tt := range []struct {
		name, code string
		change     func(*Config)
	}{
		{"wrong password", wire.InvalidPassword, func(c *Config) { c.Password = "wrong" }},
		{"no such database", wire.InvalidCatalogName, func(c *Config) { c.Database = "nowhere" }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := configOf(c, "postgres")
			tt.change(&cfg)
			b := open(t, eng, cfg)
			e := b.Shards()[0].Endpoints()[0]
			inTask(t, eng, func(task *loop.Task) error {
				_, err := e.Acquire(task, nil, nil, time.Time{})
				if code := wire.SQLSTATE(err); code != tt.code {
					return fmt.Errorf("got %v, want %s", err, tt.code)
				}
				return nil
			})
		})
	}
}

// A server that is killed takes its connections with it; those who come get errors, and when it is back all is well.
func TestServerRestarts(t *testing.T) {
	eng := newEngine(t, "epoll")
	c := testcontainers.New(t, testcontainers.Spec{Shards: 1})
	b := start(t, eng, configOf(c, "postgres"))
	e := primaryOf(t, b)
	ping := func(task *loop.Task) error {
		conn, err := e.Acquire(task, nil, nil, time.Time{})
		if err != nil {
			return err
		}
		_, err = query(task, conn, "select 1")
		if err != nil {
			conn.Close()
			return err
		}
		conn.Release()
		return nil
	}
	inTask(t, eng, ping)
	if err := c.Shards[0].Primary.Kill(); err != nil {
		t.Fatal(err)
	}
	until(t, "the endpoint is down", func() bool { return !e.Healthy() })
	refusedAtOnce(t, eng, ping)
	if err := c.Shards[0].Primary.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	until(t, "the endpoint is up", e.Healthy)
	inTask(t, eng, ping)
}

// A server that accepts and says nothing must not hold anybody for longer than the connect timeout.
func TestServerHangs(t *testing.T) {
	eng := newEngine(t, "epoll")
	c := testcontainers.New(t, testcontainers.Spec{Shards: 1})
	cfg := configOf(c, "postgres")
	cfg.ConnectTimeout = 300 * time.Millisecond
	b := open(t, eng, cfg)
	if err := c.Shards[0].Primary.Pause(); err != nil {
		t.Fatal(err)
	}
	inTask(t, eng, func(task *loop.Task) error {
		_, err := primaryOf(t, b).Acquire(task, nil, nil, time.Time{})
		if wire.SQLSTATE(err) != wire.ConnectionFailure || !errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("got %v, want 08006", err)
		}
		return nil
	})
	if err := c.Shards[0].Primary.Resume(); err != nil {
		t.Fatal(err)
	}
}

func TestCloseRefusesAndDrains(t *testing.T) {
	bothEngines(t, func(t *testing.T, eng loop.Engine) {
		c := servers(t)
		cfg := configOf(c, "postgres")
		cfg.PoolSize = 1
		b := start(t, eng, cfg)
		e := primaryOf(t, b)
		inTask(t, eng, func(task *loop.Task) error {
			conn, err := e.Acquire(task, nil, nil, time.Time{})
			if err != nil {
				return err
			}
			waiting := startTask(eng, func(task *loop.Task) error {
				_, err := e.Acquire(task, nil, nil, time.Time{})
				return err
			})
			task.Await(func() {
				until(t, "somebody waits", func() bool { return e.Stats().Waiting == 1 })
				ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
				defer cancel()
				err = expect(b.Close(ctx), context.DeadlineExceeded) // conn is still held
				err = errors.Join(err, expect(<-waiting, ErrClosed))
			})
			conn.Release()
			return err
		})
	})
}

func TestRolesAndTurns(t *testing.T) {
	eng := newEngine(t, "epoll")
	c := servers(t)
	cfg := configOf(c, "postgres")
	cfg.Shards[0].Endpoints[1].Weight = 2
	b := start(t, eng, cfg)
	s := b.Shards()[0]
	if p, err := s.Primary(); err != nil || p != s.Endpoints()[0] {
		t.Fatalf("primary %v, %v", p, err)
	}
	got := map[string]int{}
	for range 300 {
		e, err := s.Pick(Read, 0)
		if err != nil {
			t.Fatal(err)
		}
		got[e.Name()]++
	}
	if got[s.Endpoints()[0].Name()] != 0 || got[s.Endpoints()[1].Name()] != 200 || got[s.Endpoints()[2].Name()] != 100 {
		t.Errorf("reads by endpoint: %v, want 0, 200 and 100", got)
	}
	if allocs := testing.AllocsPerRun(100, func() {
		if _, err := s.Pick(Read, 1); err != nil {
			t.Fatal(err)
		}
	}); allocs != 0 {
		t.Errorf("Pick allocates %v times", allocs)
	}
	params, err := s.ServerParams(t.Context())
	if err != nil || params["server_version"] == "" || params["in_hot_standby"] != "off" {
		t.Errorf("parameters %v, %v", params, err)
	}
	over, stop := context.WithCancel(t.Context())
	stop()
	for range 20 { // what is known is told also to those whose time is up
		if _, err := s.ServerParams(over); err != nil {
			t.Fatal(err)
		}
	}
	for _, e := range s.Endpoints() {
		if st := e.Status(); st.Err != nil || st.Level == 0 || st.SystemID == 0 || st.Timeline != 1 || st.ServerVersion < 150000 {
			t.Errorf("%s: %+v", e, st)
		}
	}
}

// A read that must see a position goes only where it has been replayed.
func TestLevelGate(t *testing.T) {
	eng := newEngine(t, "epoll")
	c := testcontainers.New(t, testcontainers.Spec{Shards: 1, Replicas: 1})
	b := start(t, eng, configOf(c, "postgres"))
	s := b.Shards()[0]
	primary, replica := s.Endpoints()[0], s.Endpoints()[1]
	until(t, "reads go to the replica", func() bool { e, err := s.Pick(Read, 0); return err == nil && e == replica })

	run := func(dsn, sql string) string {
		t.Helper()
		conn, err := pgx.Connect(t.Context(), dsn)
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := conn.Close(t.Context()); err != nil {
				t.Error(err)
			}
		}()
		var v string
		if err := conn.QueryRow(t.Context(), sql).Scan(&v); err != nil {
			t.Fatal(err)
		}
		return v
	}
	run(c.Shards[0].Replicas[0].DSN("postgres"), "select coalesce(pg_wal_replay_pause()::text, '')")
	until(t, "replay stands still", func() bool {
		return run(c.Shards[0].Replicas[0].DSN("postgres"), "select pg_get_wal_replay_pause_state()") == "paused"
	})
	run(c.Shards[0].Primary.DSN("postgres"), "select pg_logical_emit_message(false, 'test', repeat('x', 1000))::text")
	mark, err := lsn.Parse(run(c.Shards[0].Primary.DSN("postgres"), "select pg_current_wal_insert_lsn()::text"))
	if err != nil {
		t.Fatal(err)
	}
	if e, err := s.Pick(Read, mark); err != nil || e != primary {
		t.Errorf("a read behind %s goes to %v, %v, want the primary", mark, e, err)
	}
	run(c.Shards[0].Replicas[0].DSN("postgres"), "select coalesce(pg_wal_replay_resume()::text, '')")
	until(t, "the replica has arrived", func() bool { e, err := s.Pick(Read, mark); return err == nil && e == replica })
}

// Roles follow the servers: a killed replica gets no reads, a promoted one beside the old primary stops all writes, and
// without the old one it is the primary.
func TestRolesFollowTheServers(t *testing.T) {
	eng := newEngine(t, "epoll")
	c := testcontainers.New(t, testcontainers.Spec{Shards: 1, Replicas: 2})
	b := start(t, eng, configOf(c, "postgres"))
	s := b.Shards()[0]
	reads := func() map[*Endpoint]bool {
		got := map[*Endpoint]bool{}
		for range 8 {
			if e, err := s.Pick(Read, 0); err == nil {
				got[e] = true
			}
		}
		return got
	}
	e := s.Endpoints()
	until(t, "both replicas serve", func() bool { g := reads(); return len(g) == 2 && g[e[1]] && g[e[2]] })
	if err := c.Shards[0].Replicas[1].Kill(); err != nil {
		t.Fatal(err)
	}
	until(t, "one replica serves", func() bool { g := reads(); return len(g) == 1 && g[e[1]] })
	if err := c.Shards[0].Replicas[1].Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	until(t, "both replicas serve again", func() bool { return len(reads()) == 2 })

	if err := c.Shards[0].Replicas[0].Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	until(t, "two primaries are an error", func() bool {
		_, err := s.Primary()
		return wire.SQLSTATE(err) == wire.CannotConnectNow && strings.Contains(err.Error(), "has 2 primaries")
	})
	if err := c.Shards[0].Primary.Kill(); err != nil {
		t.Fatal(err)
	}
	until(t, "the promoted one takes writes", func() bool { p, err := s.Primary(); return err == nil && p == e[1] })
}

func TestCancel(t *testing.T) {
	bothEngines(t, func(t *testing.T, eng loop.Engine) {
		c := servers(t)
		cfg := configOf(c, "postgres")
		cfg.PoolSize = 1
		b := start(t, eng, cfg)
		e := primaryOf(t, b)
		inTask(t, eng, func(task *loop.Task) error {
			conn, err := e.Acquire(task, nil, nil, time.Time{})
			if err != nil {
				return err
			}
			key := conn.CancelKey()
			cancelled := make(chan error, 1)
			go func() {
				var err error
				for range 200 { // a cancel that comes before the query has begun hits nothing
					if err = key.Cancel(context.Background()); err != nil || conn.pool.snapshot().Idle == 1 {
						break
					}
					time.Sleep(20 * time.Millisecond)
				}
				cancelled <- err
			}()
			_, failed := query(task, conn, "select pg_sleep(60)")
			if wire.SQLSTATE(failed) != wire.QueryCanceled {
				err = fmt.Errorf("got %v, want 57014", failed)
			}
			pid := conn.PID()
			conn.Release()
			task.Await(func() {
				until(t, "the connection is idle", func() bool { return e.Stats().Idle == 1 })
				err = errors.Join(err, <-cancelled)
			})
			if err != nil {
				return err
			}
			// The next holder's statement is out of reach.
			next, err := e.Acquire(task, nil, nil, time.Time{})
			if err != nil {
				return err
			}
			defer next.Release()
			if next.PID() != pid {
				return errors.New("the connection was not kept")
			}
			late := make(chan error, 1)
			go func() { late <- key.Cancel(context.Background()) }()
			_, failed = query(task, next, "select pg_sleep(0.3)")
			task.Await(func() { err = <-late })
			return errors.Join(failed, err)
		})
	})
}

// A connection that goes straight to the next in the queue is out of the last holder's reach, too.
func TestLateCancelAfterHandover(t *testing.T) {
	eng := newEngine(t, "epoll")
	c := servers(t)
	cfg := configOf(c, "postgres")
	cfg.PoolSize = 1
	b := start(t, eng, cfg)
	e := primaryOf(t, b)
	inTask(t, eng, func(task *loop.Task) error {
		conn, err := e.Acquire(task, nil, nil, time.Time{})
		if err != nil {
			return err
		}
		key := conn.CancelKey()
		late := make(chan error, 1)
		next := startTask(eng, func(task *loop.Task) error {
			conn, err := e.Acquire(task, nil, nil, time.Time{})
			if err != nil {
				return err
			}
			defer conn.Release()
			go func() {
				var err error
				for range 5 { // the first may come before the query has begun
					err = errors.Join(err, key.Cancel(context.Background()))
					time.Sleep(20 * time.Millisecond)
				}
				late <- err
			}()
			_, err = query(task, conn, "select pg_sleep(0.3)")
			return err
		})
		task.Await(func() { until(t, "somebody waits", func() bool { return e.Stats().Waiting == 1 }) })
		conn.Release()
		task.Await(func() { err = errors.Join(<-next, <-late) })
		return err
	})
}

// A connection whose cancel request is under way waits for its end before somebody else gets it.
func TestReleaseWaitsForCancel(t *testing.T) {
	eng := newEngine(t, "epoll")
	c := servers(t)
	b := start(t, eng, configOf(c, "postgres"))
	e := primaryOf(t, b)
	inTask(t, eng, func(task *loop.Task) error {
		conn, err := e.Acquire(task, nil, nil, time.Time{})
		if err != nil {
			return err
		}
		e.pool.mu.Lock()
		conn.cancels++ // as if a request were on its way
		e.pool.mu.Unlock()
		key := conn.CancelKey()
		conn.Release()
		if s := e.Stats(); s.Idle != 0 || s.Active != 1 {
			return fmt.Errorf("%+v: the connection must wait", s)
		}
		e.pool.mu.Lock()
		conn.cancels--
		conn.lease = key.lease // the request's own end, through the front door
		e.pool.mu.Unlock()
		task.Await(func() {
			err = key.Cancel(context.Background())
			until(t, "the connection is idle", func() bool { return e.Stats().Idle == 1 })
		})
		return err
	})
}

// An endpoint counts as healthy once it has answered, not before.
func TestUnreachedIsNotHealthy(t *testing.T) {
	eng := newEngine(t, "epoll")
	b := open(t, eng, configOf(servers(t), "postgres"))
	e := b.Shards()[0].Endpoints()[0]
	if e.Healthy() || e.Unhealthy() == nil {
		t.Errorf("before anything was asked it is healthy: %t, %v", e.Healthy(), e.Unhealthy())
	}
	inTask(t, eng, func(task *loop.Task) error {
		_, err := asUser(task, e, nil)
		return err
	})
	until(t, "the endpoint is healthy", e.Healthy)
}

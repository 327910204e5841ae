package backend

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tidemarkdb/tidemark/internal/loop"
	"github.com/tidemarkdb/tidemark/internal/wire"
)

// primaryOf is the primary of the first shard.
func primaryOf(t *testing.T, b *Backend) *Endpoint {
	t.Helper()
	e, err := b.Shards()[0].Primary()
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestConnectionsAreReused(t *testing.T) {
	bothEngines(t, func(t *testing.T, eng loop.Engine) {
		c := servers(t)
		b := start(t, eng, configOf(c, "postgres"))
		e := primaryOf(t, b)
		inTask(t, eng, func(task *loop.Task) error {
			var pid uint32
			for i := range 5 {
				conn, err := e.Acquire(task, nil, nil, time.Time{})
				if err != nil {
					return err
				}
				got, err := query(task, conn, "select pg_backend_pid()")
				if err != nil {
					return err
				}
				if fmt.Sprint([]uint32{conn.PID()}) != fmt.Sprint(got) {
					return fmt.Errorf("process %v, want %d", got, conn.PID())
				}
				if i > 0 && conn.PID() != pid {
					return fmt.Errorf("round %d: connection %d, want %d again", i, conn.PID(), pid)
				}
				pid = conn.PID()
				conn.Release()
			}
			return nil
		})
		if s := e.Stats(); s.Opened != 1 || s.Opening != 0 || s.Idle != 1 || s.Active != 0 {
			t.Errorf("stats %+v, want one connection, idle", s)
		}
	})
}

// A pool holds no more than its size, serves in the order of arrival, and a wait ends with 53300.
func TestPoolLimit(t *testing.T) {
	bothEngines(t, func(t *testing.T, eng loop.Engine) {
		c := servers(t)
		cfg := configOf(c, "postgres")
		cfg.PoolSize = 2
		b := start(t, eng, cfg)
		e := primaryOf(t, b)

		held := make(chan *Conn, 2)
		var release [2]chan struct{}
		var holders []chan error
		for i := range release {
			release[i] = make(chan struct{})
			holders = append(holders, startTask(eng, func(task *loop.Task) error {
				conn, err := e.Acquire(task, nil, nil, time.Time{})
				if err != nil {
					return err
				}
				held <- conn
				task.Await(func() { <-release[i] })
				conn.Release()
				return nil
			}))
		}
		<-held
		<-held

		inTask(t, eng, func(task *loop.Task) error {
			_, err := e.Acquire(task, nil, nil, time.Now().Add(50*time.Millisecond))
			var w *wire.Error
			if !errors.As(err, &w) || w.Code != wire.TooManyConnections || w.Hint == "" {
				return fmt.Errorf("got %v, want 53300 with a hint", err)
			}
			return nil
		})

		var order []int
		var mu sync.Mutex
		var waiting []chan error
		for i := range 6 {
			waiting = append(waiting, startTask(eng, func(task *loop.Task) error {
				conn, err := e.Acquire(task, nil, nil, time.Time{})
				if err != nil {
					return err
				}
				mu.Lock()
				order = append(order, i)
				mu.Unlock()
				conn.Release()
				return nil
			}))
			until(t, "the task waits", func() bool { return e.Stats().Waiting == i+1 })
		}
		// One connection goes from hand to hand, so the order is plain to see.
		close(release[0])
		for _, done := range append(waiting, holders[0]) {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		close(release[1])
		if err := <-holders[1]; err != nil {
			t.Error(err)
		}
		s := e.Stats()
		if s.Opened != 2 || s.Timeouts != 1 || s.Waiting != 0 {
			t.Errorf("stats %+v, want 2 opened, 1 timeout", s)
		}
		if d := cmp.Diff([]int{0, 1, 2, 3, 4, 5}, order); d != "" {
			t.Error(d)
		}
	})
}

func TestClientLeavesTheQueue(t *testing.T) {
	bothEngines(t, func(t *testing.T, eng loop.Engine) {
		c := servers(t)
		cfg := configOf(c, "postgres")
		cfg.PoolSize = 1
		b := start(t, eng, cfg)
		e := primaryOf(t, b)
		server, client := clientPair(t, eng)
		inTask(t, eng, func(task *loop.Task) error {
			conn, err := e.Acquire(task, nil, nil, time.Time{})
			if err != nil {
				return err
			}
			gone := startTask(eng, func(task *loop.Task) error {
				defer func() { _ = server.Close() }()
				task.Own(server)
				_, err := e.Acquire(task, nil, server, time.Time{})
				return err
			})
			task.Await(func() {
				until(t, "the client waits", func() bool { return e.Stats().Waiting == 1 })
				err = errors.Join(client.Close(), expect(<-gone, ErrClientGone))
			})
			if n := e.Stats().Waiting; n != 0 {
				err = errors.Join(err, fmt.Errorf("%d still wait", n))
			}
			conn.Release()
			// The connection must not be lost to the one who left.
			if conn, again := e.Acquire(task, nil, nil, time.Time{}); again != nil {
				err = errors.Join(err, again)
			} else {
				conn.Release()
			}
			return err
		})
	})
}

func TestRecall(t *testing.T) {
	bothEngines(t, func(t *testing.T, eng loop.Engine) {
		b := fakePools(t, eng, func(c *Config) { c.PoolSize = 1 })
		e := b.Shards()[0].Endpoints()[0]
		inTask(t, eng, func(task *loop.Task) error {
			conn, err := e.Acquire(task, nil, nil, time.Now().Add(patience))
			if err != nil {
				return err
			}
			tasks, ended := make(chan *loop.Task, 3), make([]chan error, 3)
			for i := range ended {
				ended[i] = startTask(eng, func(task *loop.Task) error {
					tasks <- task
					conn, err := e.Acquire(task, nil, nil, time.Now().Add(patience))
					if err == nil {
						conn.Release()
					}
					return err
				})
				task.Await(func() { until(t, "it waits", func() bool { return e.Stats().Waiting == i+1 }) })
			}
			<-tasks
			b.Recall(<-tasks)
			b.Recall(task) // which waits for nothing
			task.Await(func() { err = expect(<-ended[1], ErrRecalled) })
			if n := e.Stats().Waiting; n != 2 {
				err = errors.Join(err, fmt.Errorf("%d still wait, want 2", n))
			}
			conn.Release()
			task.Await(func() { err = errors.Join(err, <-ended[0], <-ended[2]) })
			return err
		})
	})
}

func expect(got, want error) error {
	if !errors.Is(got, want) {
		return fmt.Errorf("got error %v, want %v", got, want)
	}
	return nil
}

// Only an idle, clean connection goes back.
func TestRelease(t *testing.T) {
	bothEngines(t, func(t *testing.T, eng loop.Engine) {
		c := servers(t)
		cfg := configOf(c, "postgres")
		cfg.PoolSize = 1
		b := start(t, eng, cfg)
		e := primaryOf(t, b)
		for _, tt := range []struct {
			name string
			use  func(task *loop.Task, conn *Conn) error
			kept bool
		}{
			{"clean", func(*loop.Task, *Conn) error { return nil }, true},
			{"in a transaction", func(task *loop.Task, conn *Conn) error { _, err := query(task, conn, "begin"); return err }, false},
			{"answer outstanding", func(task *loop.Task, conn *Conn) error {
				_, err := conn.IO.Write(wire.AppendQuery(nil, "select 1"))
				conn.Outstanding++
				return err
			}, false},
			{"dirty", func(task *loop.Task, conn *Conn) error {
				_, err := query(task, conn, "set work_mem = '77MB'; prepare p as select 1; create temp table tt(a int)")
				conn.Dirty, conn.Settings, conn.Unnamed = true, 5, 6
				conn.Statements.Add(7, 10, nil)
				return err
			}, true},
			{"unread notice", func(task *loop.Task, conn *Conn) error {
				// The server reports a changed setting behind our back.
				conn.Params["application_name"] = "forgotten"
				return nil
			}, true},
			{"dirty: locks, roles, cursors, channels", func(task *loop.Task, conn *Conn) error {
				_, err := query(task, conn, "select pg_advisory_lock(4711); listen mine; set role pg_monitor; declare c cursor with hold for select 1")
				conn.Dirty = true
				return err
			}, true},
			{"dirty and in a transaction", func(task *loop.Task, conn *Conn) error {
				_, err := query(task, conn, "begin; create temp table tt(a int)")
				conn.Dirty = true
				return err
			}, false},
			{"in a failed transaction", func(task *loop.Task, conn *Conn) error {
				_, _ = query(task, conn, "begin; select 1/0")
				return nil
			}, false},
			{"unread answer", func(task *loop.Task, conn *Conn) error {
				// Nobody remembers that something was asked: the bytes themselves give it away.
				if _, err := conn.IO.Write(wire.AppendQuery(nil, "select 'secret'")); err != nil {
					return err
				}
				for !conn.IO.Readable() {
					task.Wait(time.Now().Add(patience), loop.Source{Conn: conn.IO, For: loop.Readable})
				}
				return nil
			}, false},
			{"dirty with an unread answer", func(task *loop.Task, conn *Conn) error {
				conn.Dirty = true
				_, err := conn.IO.Write(wire.AppendQuery(nil, "select 'secret'"))
				return err
			}, false},
		} {
			t.Run(tt.name, func(t *testing.T) {
				inTask(t, eng, func(task *loop.Task) error {
					conn, err := e.Acquire(task, nil, nil, time.Time{})
					if err != nil {
						return err
					}
					pid := conn.PID()
					err = tt.use(task, conn)
					conn.Release()
					if err != nil {
						return err
					}
					if conn, err = e.Acquire(task, nil, nil, time.Time{}); err != nil {
						return err
					}
					defer conn.Release()
					if kept := conn.PID() == pid; kept != tt.kept {
						return fmt.Errorf("the connection was kept: %t, want %t", kept, tt.kept)
					}
					if conn.Dirty || conn.Settings != 0 || conn.Unnamed != 0 || conn.Statements.Len() != 0 {
						return fmt.Errorf("left behind: %+v", conn)
					}
					got, err := query(task, conn, "select current_setting('work_mem') || (select count(*) from pg_prepared_statements) || coalesce(to_regclass('tt')::text, '') ||"+
						" (select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()) || (select count(*) from pg_listening_channels()) ||"+
						" (select count(*) from pg_cursors where name <> '') || (current_user = session_user)")
					if err == nil && fmt.Sprint(got) != "[4MB0000true]" {
						err = fmt.Errorf("the session shows %v", got)
					}
					return err
				})
			})
		}
	})
}

// A connection that cannot be cleaned is closed.
func TestDirtyConnectionThatCannotBeCleaned(t *testing.T) {
	eng := newEngine(t, "epoll")
	c := servers(t)
	b := start(t, eng, configOf(c, "postgres"))
	e := primaryOf(t, b)
	inTask(t, eng, func(task *loop.Task) error {
		conn, err := e.Acquire(task, nil, nil, time.Time{})
		if err != nil {
			return err
		}
		_, err = query(task, conn, "begin")
		conn.TxStatus, conn.Dirty = wire.TxIdle, true // DISCARD ALL fails inside the transaction that we deny
		conn.Release()
		return err
	})
	until(t, "the connection is closed", func() bool { s := e.Stats(); return s.Closed == 1 && s.Idle == 0 && s.Active == 0 })
}

func TestBrokenIdleConnectionIsReplaced(t *testing.T) {
	bothEngines(t, func(t *testing.T, eng loop.Engine) {
		c := servers(t)
		b := start(t, eng, configOf(c, "postgres"))
		e := primaryOf(t, b)
		inTask(t, eng, func(task *loop.Task) error {
			a, err := e.Acquire(task, nil, nil, time.Time{})
			if err != nil {
				return err
			}
			victim, err := e.Acquire(task, nil, nil, time.Time{})
			if err != nil {
				a.Release()
				return err
			}
			pid := victim.PID()
			victim.Release()
			// The session stays in pg_stat_activity until its process has ended, and so has sent its last words.
			_, err = query(task, a, fmt.Sprintf("select pg_terminate_backend(%d, 5000)", pid))
			if err == nil {
				var conn *Conn
				if conn, err = e.Acquire(task, nil, nil, time.Time{}); err == nil {
					if conn.PID() == pid {
						err = errors.New("a dead connection was handed out")
					}
					_, again := query(task, conn, "select 1")
					err = errors.Join(err, again)
					conn.Release()
				}
			}
			a.Release()
			return err
		})
	})
}

// A process that is ended because another one has crashed says so in a warning, which alone would leave the connection usable.
func TestIdleConnectionThatEndsWithAWarningIsReplaced(t *testing.T) {
	bothEngines(t, func(t *testing.T, eng loop.Engine) {
		crash := make(chan struct{}, 1)
		b := open(t, eng, Config{Database: "d", User: "u", SSLMode: "disable", Shards: []ShardConfig{{Name: "s1", Endpoints: []EndpointConfig{
			serveFake(t, func(f *fakeServer) {
				f.welcome()
				<-crash
				f.say(wire.AppendNoticeResponse(nil, wire.Errorf(wire.CrashShutdown, "terminating connection because of crash of another server process")))
			}),
		}}}})
		t.Cleanup(func() { close(crash) })
		e := primaryOf(t, b)
		var victim *Conn
		inTask(t, eng, func(task *loop.Task) (err error) {
			if victim, err = e.Acquire(task, nil, nil, time.Time{}); err == nil {
				victim.Release()
			}
			return err
		})
		crash <- struct{}{}
		until(t, "the end of the connection is known", victim.IO.HungUp)
		inTask(t, eng, func(task *loop.Task) error {
			conn, err := e.Acquire(task, nil, nil, time.Time{})
			if err != nil {
				return err
			}
			defer conn.Release()
			if conn == victim {
				return errors.New("a dead connection was handed out")
			}
			return nil
		})
	})
}

// Many tasks over four pools, with a budget below what the pools would take: at no moment more connections than the
// budget, everybody is served, nobody gets a connection that another holds.
func TestBudgetIsNeverExceeded(t *testing.T) {
	bothEngines(t, func(t *testing.T, eng loop.Engine) {
		const budget, tasks, rounds = 5, 40, 15
		c := servers(t)
		cfg := configOf(c, "postgres")
		cfg.PoolSize, cfg.Budget = 4, budget
		b := start(t, eng, cfg)
		var endpoints []*Endpoint
		for _, s := range b.Shards() {
			endpoints = append(endpoints, s.Endpoints()[:2]...)
		}
		seed := rand.Uint64()
		t.Logf("seed %d", seed)
		var held atomic.Int64
		var holders sync.Map
		var all []chan error
		for i := range tasks {
			rng := rand.New(rand.NewPCG(seed, uint64(i)))
			all = append(all, startTask(eng, func(task *loop.Task) error {
				for range rounds {
					e := endpoints[rng.IntN(len(endpoints))]
					conn, err := e.Acquire(task, nil, nil, time.Now().Add(patience))
					if err != nil {
						return err
					}
					if n := held.Add(1); n > budget {
						err = fmt.Errorf("%d connections are held", n)
					}
					if _, taken := holders.LoadOrStore(conn, i); taken {
						err = errors.Join(err, errors.New("two hold one connection"))
					}
					if used := b.BudgetUsed(); used > budget {
						err = errors.Join(err, fmt.Errorf("the budget is overdrawn: %d", used))
					}
					_, failed := query(task, conn, "select 1")
					holders.Delete(conn)
					held.Add(-1)
					switch rng.IntN(10) {
					case 0:
						conn.Close()
					case 1:
						conn.Dirty = true
						conn.Release()
					default:
						conn.Release()
					}
					if err = errors.Join(err, failed); err != nil {
						return err
					}
				}
				return nil
			}))
		}
		for _, done := range all {
			select {
			case err := <-done:
				if err != nil {
					t.Error(err)
				}
			case <-time.After(2 * patience):
				t.Fatalf("tasks are stuck: %+v", b.Stats())
			}
		}
		for _, s := range b.Stats() {
			if s.Waiting != 0 || s.Active+s.Idle+s.Opening > s.Size {
				t.Errorf("%+v", s)
			}
		}
	})
}

// An idle connection elsewhere makes room at once.
func TestIdleConnectionElsewhereIsEvicted(t *testing.T) {
	eng := newEngine(t, "epoll")
	c := servers(t)
	cfg := configOf(c, "postgres")
	cfg.Budget = 1
	b := start(t, eng, cfg)
	inTask(t, eng, func(task *loop.Task) error {
		for _, s := range b.Shards() {
			e, err := s.Primary()
			if err != nil {
				return err
			}
			conn, err := e.Acquire(task, nil, nil, time.Time{})
			if err != nil {
				return fmt.Errorf("%s: %w", s.Name(), err)
			}
			conn.Release()
		}
		return nil
	})
	if got := b.Shards()[0].Endpoints()[0].Stats().Evicted; got != 1 {
		t.Errorf("%d evicted, want 1", got)
	}
}

// Minimums that are together more than the budget come to rest, each with what was free.
func TestMinimumsTakeNothingFromOthers(t *testing.T) {
	eng := newEngine(t, "epoll")
	cfg := Config{Database: "d", User: "u", SSLMode: "disable", PoolSize: 5, MinIdle: 3, Budget: 4}
	for _, name := range []string{"s1", "s2"} {
		server := serveFake(t, func(f *fakeServer) { f.welcome(); f.serveQueries() })
		cfg.Shards = append(cfg.Shards, ShardConfig{Name: name, Endpoints: []EndpointConfig{server}})
	}
	b := open(t, eng, cfg)
	sum := func(of func(PoolStats) int) (n int) {
		for _, s := range b.Stats() {
			n += of(s)
		}
		return n
	}
	resting := func() bool {
		return sum(func(s PoolStats) int { return s.Idle }) == 4 && sum(func(s PoolStats) int { return s.Opening + s.Active }) == 0
	}
	inTask(t, eng, func(task *loop.Task) error {
		for _, s := range b.Shards() {
			conn, err := s.Endpoints()[0].Acquire(task, nil, nil, time.Time{})
			if err != nil {
				return err
			}
			conn.Release()
		}
		return nil
	})
	until(t, "all is used", resting)
	before := sum(func(s PoolStats) int { return int(s.Opened) })
	for range 20 {
		for _, p := range b.budget.every() {
			p.sweep(time.Now())
		}
	}
	until(t, "all is used again", resting)
	if got := sum(func(s PoolStats) int { return int(s.Opened) }); got != before {
		t.Errorf("%d connections were opened while nobody asked for any", got-before)
	}
}

func TestSweep(t *testing.T) {
	eng := newEngine(t, "epoll")
	c := servers(t)
	cfg := configOf(c, "postgres")
	cfg.MinIdle, cfg.IdleTime, cfg.Lifetime = 1, time.Minute, time.Hour
	b := open(t, eng, cfg)
	e := b.Shards()[0].Endpoints()[0]
	inTask(t, eng, func(task *loop.Task) error {
		var conns []*Conn
		for range 3 {
			conn, err := e.Acquire(task, nil, nil, time.Time{})
			if err != nil {
				return err
			}
			conns = append(conns, conn)
		}
		for _, conn := range conns {
			conn.Release()
		}
		return nil
	})
	settled := func() (PoolStats, bool) { s := e.Stats(); return s, s.Active == 0 && s.Opening == 0 }
	idle := func(n int) {
		t.Helper()
		until(t, fmt.Sprint(n, " idle"), func() bool { s, ok := settled(); return ok && s.Idle == n })
	}
	until(t, "all are back", func() bool { s, ok := settled(); return ok && s.Idle >= 3 })
	before := e.Stats().Idle
	now := time.Now()
	e.pool.sweep(now)
	e.pool.sweep(now.Add(30 * time.Second))
	idle(before)
	e.pool.sweep(now.Add(2 * time.Minute))
	idle(1) // the minimum stays
	e.pool.sweep(now.Add(2 * time.Hour))
	until(t, "too old a connection is replaced", func() bool { e.pool.sweep(time.Now()); s := e.Stats(); return s.Idle == 1 && int(s.Closed) == before })
}

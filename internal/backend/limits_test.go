package backend

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidemarkdb/tidemark/internal/loop"
	"github.com/tidemarkdb/tidemark/internal/wire"
)

// A thousand clients that come at once have no more connections opened at a time than the ramp allows, and each is served.
func TestStorm(t *testing.T) {
	bothEngines(t, func(t *testing.T, eng loop.Engine) {
		const clients, size = 1000, 20
		var now, most atomic.Int32
		server := serveFake(t, func(f *fakeServer) {
			n := now.Add(1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			time.Sleep(20 * time.Millisecond) // a login takes a while, so that others could come in between
			now.Add(-1)
			f.welcome()
			f.serveQueries()
		})
		cfg := Config{Database: "d", User: "u", Password: "p", SSLMode: "disable", PoolSize: size, Shards: []ShardConfig{{Name: "s", Endpoints: []EndpointConfig{server}}}}
		b := open(t, eng, cfg)
		e := b.Shards()[0].Endpoints()[0]
		var all []chan error
		for range clients {
			all = append(all, startTask(eng, func(task *loop.Task) error {
				conn, err := e.Acquire(task, nil, nil, time.Time{})
				if err != nil {
					return err
				}
				_, err = query(task, conn, "select 1")
				conn.Release()
				return err
			}))
		}
		for _, done := range all {
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
		if n := most.Load(); n > maxOpenAtOnce {
			t.Errorf("%d connections were opened at once, want %d at most", n, maxOpenAtOnce)
		}
		if s := e.Stats(); s.Opened > size || s.LongestWait == 0 || s.Acquired != clients {
			t.Errorf("%+v", s)
		}
	})
}

// fakePools is a Backend over a fake server that lets everybody in.
func fakePools(t *testing.T, eng loop.Engine, change func(*Config)) *Backend {
	t.Helper()
	cfg := Config{Database: "d", User: "u", Password: "p", SSLMode: "disable", AcquireTimeout: 100 * time.Millisecond}
	for _, name := range []string{"a", "b"} {
		server := serveFake(t, func(f *fakeServer) { f.welcome(); f.serveQueries() })
		cfg.Shards = append(cfg.Shards, ShardConfig{Name: name, Endpoints: []EndpointConfig{server}})
	}
	change(&cfg)
	return open(t, eng, cfg)
}

// Limits of a user and of a server hold over pools, an idle connection elsewhere makes room below them, and whoever does
// not get one is told which limit it was.
func TestLimits(t *testing.T) {
	alice, bob := &Identity{User: "alice", Password: "p"}, &Identity{User: "bob", Password: "p"}
	type use struct {
		shard int
		id    *Identity
	}
	for _, tt := range []struct {
		name   string
		change func(*Config)
		hold   []use  // at the same time
		ask    use    // then
		hint   string // of the 53300 that it gets; empty: it gets a connection
		idle   bool   // those of hold have been released
	}{
		{
			"user, over servers", func(c *Config) { c.Users = map[string]UserConfig{"alice": {MaxConnections: 2}} },
			[]use{{0, alice}, {1, alice}},
			use{0, alice},
			`This is used up: max_connections of user "alice" of 2.`, false,
		},
		{
			"user, another one", func(c *Config) { c.Users = map[string]UserConfig{"alice": {MaxConnections: 2}} },
			[]use{{0, alice}, {1, alice}},
			use{0, bob},
			"", false,
		},
		{
			"user, idle elsewhere", func(c *Config) { c.Users = map[string]UserConfig{"alice": {MaxConnections: 2}} },
			[]use{{1, alice}, {1, alice}},
			use{0, alice},
			"", true,
		},
		{
			"server, all users", func(c *Config) { c.MaxConnections = 2 },
			[]use{{0, alice}, {0, nil}},
			use{0, bob},
			"This is used up: max_connections of the database of 2.", false,
		},
		{
			"server, another one", func(c *Config) { c.MaxConnections = 2 },
			[]use{{0, alice}, {0, nil}},
			use{1, bob},
			"", false,
		},
		{
			"server, idle of another user", func(c *Config) { c.MaxConnections = 2 },
			[]use{{0, alice}, {0, nil}},
			use{0, bob},
			"", true,
		},
		{"pool", func(c *Config) { c.PoolSize = 1 }, []use{{0, alice}}, use{0, alice}, `The pool of user "alice" has size 1, and all its connections were busy`, false},
		{
			"pool of one user", func(c *Config) { c.Users = map[string]UserConfig{"alice": {PoolSize: 1}} },
			[]use{{0, alice}, {0, bob}},
			use{0, bob},
			"", false,
		},
		{"budget", func(c *Config) { c.Budget = 2 }, []use{{0, alice}, {1, bob}}, use{0, nil}, "This is used up: the budget of 2.", false},
		{
			"reserve", func(c *Config) { c.PoolSize, c.ReserveSize, c.ReserveTimeout = 1, 1, 20*time.Millisecond },
			[]use{{0, alice}},
			use{0, alice},
			"", false,
		},
		{
			"reserve used up", func(c *Config) { c.PoolSize, c.ReserveSize, c.ReserveTimeout = 1, 1, 20*time.Millisecond },
			[]use{{0, alice}, {0, alice}},
			use{0, alice},
			"has size 1", false,
		},
		{
			"reserve, budget used up",
			func(c *Config) { c.PoolSize, c.Budget, c.ReserveSize, c.ReserveTimeout = 1, 2, 1, 20*time.Millisecond },
			[]use{{0, alice}, {1, bob}},
			use{0, alice},
			"This is used up: the budget of 2.", false,
		},
		{
			"reserve, too early", func(c *Config) { c.PoolSize, c.ReserveSize, c.ReserveTimeout = 1, 1, time.Hour },
			[]use{{0, alice}},
			use{0, alice},
			"has size 1", false,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bothEngines(t, func(t *testing.T, eng loop.Engine) {
				b := fakePools(t, eng, tt.change)
				at := func(u use) *Endpoint { return b.Shards()[u.shard].Endpoints()[0] }
				inTask(t, eng, func(task *loop.Task) (err error) {
					var held []*Conn
					release := func() {
						for _, c := range held {
							c.Release()
						}
						held = nil
					}
					defer func() { release() }()
					for _, u := range tt.hold {
						c, err := at(u).Acquire(task, u.id, nil, time.Now().Add(patience))
						if err != nil {
							return err
						}
						held = append(held, c)
					}
					if tt.idle {
						release()
					}
					deadline := time.Time{}
					if tt.hint == "" {
						deadline = time.Now().Add(patience)
					}
					c, err := at(tt.ask).Acquire(task, tt.ask.id, nil, deadline)
					if tt.hint == "" {
						if err == nil {
							held = append(held, c)
						}
						return err
					}
					var w *wire.Error
					if !errors.As(err, &w) || w.Code != wire.TooManyConnections || !strings.Contains(w.Hint, tt.hint) {
						return fmt.Errorf("got %w, want 53300 with the hint %q", err, tt.hint)
					}
					if d := WaitedFor(err); d < b.AcquireTimeout() {
						return fmt.Errorf("WaitedFor says %s, want at least %s", d, b.AcquireTimeout())
					}
					return nil
				})
			})
		})
	}
}

// A connection of the reserve goes when it is not needed any more.
func TestReserveEnds(t *testing.T) {
	eng := newEngine(t, "epoll")
	b := fakePools(t, eng, func(c *Config) {
		c.PoolSize, c.ReserveSize, c.ReserveTimeout, c.AcquireTimeout = 1, 2, time.Millisecond, patience
	})
	e := b.Shards()[0].Endpoints()[0]
	inTask(t, eng, func(task *loop.Task) error {
		for range 2 {
			c, err := e.Acquire(task, nil, nil, time.Time{})
			if err != nil {
				return err
			}
			defer c.Release()
		}
		return nil
	})
	now := time.Now()
	e.pool.sweep(now)
	if n := e.Stats().Idle; n != 2 {
		t.Fatalf("%d idle, want 2 until they were seen idle", n)
	}
	e.pool.sweep(now.Add(time.Second))
	until(t, "one is left", func() bool { s := e.Stats(); return s.Idle == 1 && s.Active == 0 })
}

// More users than the budget has connections, each with more to do than it could ever finish at once: each is served again
// and again.
func TestNobodyStarves(t *testing.T) {
	bothEngines(t, func(t *testing.T, eng loop.Engine) {
		const users, budget, rounds = 6, 2, 2
		b := fakePools(t, eng, func(c *Config) { c.Budget, c.AcquireTimeout = budget, patience })
		e := b.Shards()[0].Endpoints()[0]
		var served [users]atomic.Int32
		finished := func() bool {
			for i := range served {
				if served[i].Load() < rounds {
					return false
				}
			}
			return true
		}
		var all []chan error
		for i := range users {
			id := &Identity{User: fmt.Sprint("user", i), Password: "p"}
			for range 4 { // there is always somebody who waits
				all = append(all, startTask(eng, func(task *loop.Task) error {
					for !finished() {
						c, err := e.Acquire(task, id, nil, time.Time{})
						if err != nil {
							return err
						}
						if n := b.BudgetUsed(); n > budget {
							return fmt.Errorf("%d connections", n)
						}
						_, err = query(task, c, "select 1")
						c.Release()
						if err != nil {
							return err
						}
						served[i].Add(1)
					}
					return nil
				}))
			}
		}
		for _, done := range all {
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
	})
}

// A connection that was idle for long and whose server is gone without a word is found out before a session gets it, and
// so are all that were idle as long; a connection that lives costs one empty query, once.
func TestLongIdleConnections(t *testing.T) {
	bothEngines(t, func(t *testing.T, eng loop.Engine) {
		var deaf atomic.Bool
		var queries atomic.Int32
		server := serveFake(t, func(f *fakeServer) {
			f.welcome()
			dead := false
			for f.hear() {
				queries.Add(1)
				if dead = dead || deaf.Swap(false); !dead {
					f.say(wire.AppendReadyForQuery(wire.AppendEmptyQueryResponse(nil), wire.TxIdle))
				}
			}
		})
		cfg := Config{Database: "d", User: "u", Password: "p", SSLMode: "disable", Shards: []ShardConfig{{Name: "s", Endpoints: []EndpointConfig{server}}}}
		b := open(t, eng, cfg)
		e := b.Shards()[0].Endpoints()[0]
		use := func(n int) (conns []*Conn) {
			inTask(t, eng, func(task *loop.Task) error {
				for range n {
					c, err := e.Acquire(task, nil, nil, time.Time{})
					if err != nil {
						return err
					}
					conns = append(conns, c)
				}
				for _, c := range conns {
					c.Release()
				}
				return nil
			})
			return conns
		}
		age := func(d time.Duration) {
			now := time.Now()
			e.pool.sweep(now)
			e.pool.sweep(now.Add(d))
		}
		first := use(3)
		age(20 * time.Second)
		use(1)
		if n := queries.Load(); n != 0 {
			t.Fatalf("%d queries for connections that are in use", n)
		}
		age(time.Minute)
		use(1)
		use(1)
		if n := queries.Load(); n != 1 {
			t.Fatalf("%d queries, want one to prove the connection", n)
		}
		age(time.Minute)
		deaf.Store(true)
		if again := use(1)[0]; again == first[0] || again == first[1] || again == first[2] {
			t.Error("a dead connection was handed out")
		}
		until(t, "the others are closed too", func() bool { s := e.Stats(); return s.Closed == 3 && s.Broken == 3 && s.Idle == 1 })
	})
}

package proxy_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/tidemarkdb/tidemark/internal/backend"
	"github.com/tidemarkdb/tidemark/proxy"
	"github.com/tidemarkdb/tidemark/testcontainers"
)

// At no moment do the servers have more connections of the proxy than its budget, whatever happens: users with pools of their own
// and of the shared role, a reserve, replicas, pinned and spoilt connections, listeners, clients that vanish or are killed, logins
// that fail on the server, server processes that are ended, PAUSE, RECONNECT. The servers are asked, not the proxy.
func TestBudgetAsServersSeeIt(t *testing.T) {
	const budget = 6
	logins := map[string]string{"bu_a": "s3cret", "bu_b": "s3cret", "bu_wrong": "another"} // their passwords on the servers
	for engineName, as := range map[string]proxy.LoginAs{"epoll": proxy.LoginShared, "goroutines": proxy.LoginClient} {
		t.Run(string(as), func(t *testing.T) {
			f := newFixture(t, fixtureSpec{
				shards: 2, replicas: 1, tables: shopTables,
				config: func(c *proxy.Config) {
					c.LoginAs = as
					c.Admins = []string{"bu_admin"}
					for user := range logins {
						c.Users = append(c.Users, proxy.User{Name: user, Secret: proxy.PasswordSecret("s3cret")})
					}
					c.Users = append(c.Users, proxy.User{Name: "bu_admin", Secret: proxy.PasswordSecret("s3cret")})
				},
				backend: func(c *backend.Config) {
					c.Budget, c.PoolSize, c.ReserveSize, c.ReserveTimeout = budget, 3, 2, 20*time.Millisecond
					c.Users = map[string]backend.UserConfig{"bu_b": {Mode: backend.Session, PoolSize: 2}}
					c.AcquireTimeout, c.IdleTime, c.Lifetime = 2*time.Second, time.Second, 2*time.Second
				},
			})
			for i := range 2 {
				d := connect(t, f.cluster.Shards[i].Primary.DSN(f.database))
				exec(t, d, shopSchema+"; grant all on all tables in schema public to public", pgx.QueryExecModeSimpleProtocol)
				for user, password := range logins {
					exec(t, d, fmt.Sprintf("create role %s login password '%s'", user, password))
				}
				t.Cleanup(func() {
					for user := range logins {
						eventually(t, "the role has no temporary tables any more", func() error { // a server process outlives its connection by a moment
							_, err := d.Exec(context.Background(), "drop role "+user)
							return err
						})
					}
				})
			}
			p := f.run(t, engineName)
			w := newBudgetWatch(t, f)
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			ctx, stop := context.WithTimeout(t.Context(), 60*time.Second)
			defer stop()
			var work sync.WaitGroup
			var done atomic.Int64
			for i := range 24 {
				work.Go(func() { budgetClient(ctx, rand.New(rand.NewPCG(seed, uint64(i))), p.dsn, &done) })
			}
			work.Go(func() {
				w.disturb(ctx, rand.New(rand.NewPCG(seed, 100)), altered(consoleDSN(p.dsn), "app:", "bu_admin:"))
			})
			samples, most := 0, 0
			for begun := time.Now(); ctx.Err() == nil; {
				if lasted := time.Since(begun); most >= budget-1 && done.Load() >= 20 && lasted > 2*time.Second && (most == budget || lasted > 10*time.Second) {
					break
				}
				n := w.count(t)
				if samples, most = samples+1, max(most, n); n > budget {
					t.Errorf("%d connections, of a budget of %d", n, budget)
					break
				}
			}
			stop()
			work.Wait()
			if most < budget/2 || done.Load() < 20 { // half, on a machine so busy that a sample takes as long as connections live
				t.Errorf("%d samples saw %d connections at most, and clients did %d things: this proves nothing", samples, most, done.Load())
			}
		})
	}
}

// budgetClient does things until ctx ends; most may fail, for there is not enough for all.
func budgetClient(ctx context.Context, rnd *rand.Rand, dsn string, done *atomic.Int64) {
	for ctx.Err() == nil {
		user := []string{"bu_a", "bu_a", "bu_b", "bu_wrong"}[rnd.IntN(4)]
		c, err := pgx.Connect(ctx, altered(dsn, clientUser+":", user+":"))
		if err != nil {
			continue
		}
		for range 1 + rnd.IntN(6) {
			sql := []string{
				"select name from customers where id = " + strconv.Itoa(rnd.IntN(100)), "select name from customers", "select pg_sleep(0.02)",
				fmt.Sprintf("insert into customers values (%d, 'x') on conflict do nothing", rnd.IntN(100)), "update products set name = 'y'",
				"begin; select pg_sleep(0.01); commit", "begin; select txid_current()", "listen a", "notify a", "select setseed(0.1)", "do $$ begin end $$",
				"create temp table tt (a int)", "select pg_advisory_lock(1)", "select 1 / 0", "select pg_terminate_backend(pg_backend_pid())", "rollback",
			}[rnd.IntN(16)]
			if _, err := c.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol); err == nil {
				done.Add(1)
			}
		}
		if rnd.IntN(2) == 0 {
			_ = c.PgConn().Conn().Close() // it vanishes
		}
		_ = c.Close(ctx)
	}
}

// budgetWatch asks all servers.
type budgetWatch struct {
	servers []*testcontainers.Server
	conns   []*pgx.Conn
}

const budgetServers = `datname = current_database() AND usename <> session_user AND application_name NOT IN ('tidemark health', 'catalog')`

func newBudgetWatch(t *testing.T, f *fixture) *budgetWatch {
	w := &budgetWatch{}
	for _, s := range f.cluster.Shards[:2] {
		for _, server := range []*testcontainers.Server{s.Primary, s.Replicas[0]} {
			w.servers = append(w.servers, server)
			w.conns = append(w.conns, connect(t, server.DSN(f.database)))
		}
	}
	return w
}

// count is how many connections there were for sure at one moment: those that a server had, and that the proxy had not closed when all
// servers had been asked. A server process outlives its connection by a moment, and must not be counted.
func (w *budgetWatch) count(t *testing.T) int {
	t.Helper()
	var all errgroup.Group // at once: few connections outlive a sample that takes long
	ports := make([][]int, len(w.conns))
	for i, c := range w.conns {
		all.Go(func() error {
			rows, err := c.Query(t.Context(), "SELECT client_port FROM pg_stat_activity WHERE "+budgetServers)
			if err != nil {
				return err
			}
			ports[i], err = pgx.CollectRows(rows, pgx.RowTo[int])
			return err
		})
	}
	if err := all.Wait(); err != nil {
		t.Fatal(err)
	}
	open := established(t)
	known := 0
	for i, s := range w.servers {
		for _, port := range ports[i] {
			if open[[2]int{port, s.Port}] {
				known++
			}
		}
	}
	return known
}

// established are the connections over TCP of this machine, by local and remote port.
func established(t *testing.T) map[[2]int]bool {
	t.Helper()
	found := map[[2]int]bool{}
	for _, file := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		b, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		for _, line := range strings.Split(string(b), "\n")[1:] {
			fields := strings.Fields(line)
			if len(fields) < 4 || fields[3] != "01" { // ESTABLISHED
				continue
			}
			found[[2]int{portOf(t, fields[1]), portOf(t, fields[2])}] = true
		}
	}
	return found
}

func portOf(t *testing.T, address string) int {
	t.Helper()
	_, port, _ := strings.Cut(address, ":")
	n, err := strconv.ParseInt(port, 16, 32)
	if err != nil {
		t.Fatal(err)
	}
	return int(n)
}

// disturb gives an administrator's commands, and ends server processes.
func (w *budgetWatch) disturb(ctx context.Context, rnd *rand.Rand, console string) {
	admin, err := pgx.Connect(ctx, console)
	if err != nil {
		return
	}
	defer func() { _ = admin.Close(context.Background()) }()
	for ctx.Err() == nil {
		switch rnd.IntN(5) {
		case 0:
			_, _ = admin.Exec(ctx, "KILL USER bu_b")
		case 1:
			_, _ = admin.Exec(ctx, "RECONNECT")
		case 2:
			paused, stop := context.WithTimeout(ctx, 50*time.Millisecond)
			_, _ = admin.Exec(paused, "PAUSE")
			stop()
			for admin.IsClosed() && ctx.Err() == nil {
				if again, err := pgx.Connect(ctx, console); err == nil {
					admin = again
				}
			}
			_, _ = admin.Exec(ctx, "RESUME")
		case 3:
			if d, err := pgx.Connect(ctx, w.conns[0].Config().ConnString()); err == nil {
				_, _ = d.Exec(ctx, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE "+budgetServers+" AND random() < 0.5")
				_ = d.Close(ctx)
			}
		}
		time.Sleep(time.Duration(rnd.IntN(100)) * time.Millisecond)
	}
}

package proxy_test

import (
	"cmp"
	"context"
	"fmt"
	"math/rand"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidemarkdb/tidemark/internal/backend"
	"github.com/tidemarkdb/tidemark/internal/wire"
	"github.com/tidemarkdb/tidemark/proxy"
)

// TestLeaks has many clients do at random, and all at once, what leaves traces in a session, over few server connections.
// Each has a private connection to PostgreSQL beside it: whatever Tidemark answers must be what PostgreSQL answers there.
//
//	TIDEMARK_LEAK_FOR   how long each of leakVariants; without it as long as that says, or not at all in go test -short
//	TIDEMARK_SEED       what the statements are made from: with it a client's statements are the same, how clients interleave is not.
//	                    Without it 1
//
// `make test` thus has the same statements each time, so that what a change breaks shows, and `make leaks FOR=1h` a new seed, so that
// what was always wrong does. The seed is printed.
//
// A failure shows what the client said since it connected, made as short as still fails when it is alone.
func TestLeaks(t *testing.T) {
	span := os.Getenv("TIDEMARK_LEAK_FOR")
	if span == "" && testing.Short() {
		t.Skip("it takes a minute")
	}
	seed, err := strconv.ParseInt(cmp.Or(os.Getenv("TIDEMARK_SEED"), "1"), 10, 64)
	if err != nil {
		t.Fatalf("TIDEMARK_SEED: %v", err)
	}
	t.Logf("TIDEMARK_SEED=%d", seed)
	for _, v := range leakVariants {
		t.Run(v.name, func(t *testing.T) {
			lasts, err := time.ParseDuration(cmp.Or(span, v.lasts))
			if err != nil {
				t.Fatalf("TIDEMARK_LEAK_FOR: %v", err)
			}
			t.Cleanup(func() {
				if t.Failed() {
					t.Logf("again: make leaks OF=%s FOR=%v SEED=%d", v.name, lasts, seed)
				}
			})
			for i, engineName := range []string{"epoll", "goroutines"} { // at the same time
				t.Run(engineName, func(t *testing.T) {
					t.Parallel()
					newLeaks(t, v, engineName).run(2*seed+int64(i), lasts)
				})
			}
		})
	}
}

// leakVariant is what lies behind Tidemark. What lies beside it is always one PostgreSQL.
type leakVariant struct {
	name, lasts      string
	shards, replicas int
}

// leakVariants: with two shards, what a session is must be the same on both; with a replica, there too, and what it reads there
// must be as new as what it has seen.
var leakVariants = []leakVariant{{"alone", "50s", 1, 0}, {"shards", "10s", 2, 0}, {"replica", "10s", 1, 1}}

const (
	leakClients = 16
	leakPool    = 4
	leakUser    = "leak_boss" // a superuser, for SET SESSION AUTHORIZATION
)

// leaks is one run: a proxy, and a PostgreSQL of its own to compare with. They are two databases, so that locks of the one
// do not meet those of the other.
type leaks struct {
	t               *testing.T
	tidemark, plain string // how to get there

	keys [][]int  // of leak_key, by shard
	log  *tail    // of the proxy
	logs []string // of its servers: their files
	late recent

	cleaning  sync.Mutex
	left      [leakClients]struct{ here, plain uint32 } // the client of Tidemark, and the server process, that each was last
	console   *peer                                     // the admin database
	primaries []*peer                                   // connections to the databases themselves
	replicas  []*peer                                   // of the first of these

	sessions, actions, diverged atomic.Int64
	failed                      atomic.Bool // somebody has: all stop
}

func newLeaks(t *testing.T, v leakVariant, engineName string) *leaks {
	t.Helper()
	verifier, err := wire.NewVerifier(clientPassword)
	if err != nil {
		t.Fatal(err)
	}
	spec := fixtureSpec{shards: v.shards, replicas: v.replicas, pool: leakPool, user: leakUser}
	if v.shards > 1 {
		spec.tables = leakSharded(leakClients)
	}
	spec.backend = func(c *backend.Config) {
		c.User, c.Password, c.AcquireTimeout = leakUser, clientPassword, 5*time.Minute
		c.StatementBytes = 8 << 10 // so that some are forgotten
		if v.shards > 1 {
			c.AcquireTimeout = 20 * time.Second // for those who wait for each other
		}
	}
	spec.config = func(c *proxy.Config) {
		c.Users, c.Admins = []proxy.User{{Name: leakUser, Secret: proxy.VerifierSecret(verifier)}}, []string{leakUser}
	}
	log := &tail{}
	spec.log = log
	f, plain := newFixture(t, spec), newFixture(t, spec)
	shards := f.cluster.Shards[:v.shards]
	for _, s := range shards {
		super := connect(t, s.Primary.DSN("postgres"))
		exec(t, super, `select pg_advisory_lock(1)`) // two engines come at once
		exec(t, super, `do $$ declare r text; begin
			foreach r in array '{leak_boss,leak_a,leak_b}'::text[] loop
				if not exists (select from pg_roles where rolname = r) then execute format('create role %I', r); end if;
			end loop; end $$`)
		exec(t, super, `alter role leak_boss superuser login password '`+clientPassword+`'`)
		_ = super.Close(t.Context())
	}
	k := &leaks{t: t, log: log, plain: plain.cluster.Shards[0].Primary.DSNAs(leakUser, clientPassword, plain.database)}
	dsns := []string{k.plain}
	for _, s := range shards {
		if process, ok := s.Primary.Service.(interface{ LogFile() string }); ok { // none in a container
			k.logs = append(k.logs, process.LogFile())
		}
		dsns = append(dsns, s.Primary.DSNAs(leakUser, clientPassword, f.database))
	}
	for i, dsn := range dsns {
		c := connect(t, dsn)
		for _, sql := range leakSchema(leakClients) {
			exec(t, c, sql)
		}
		exec(t, c, `do $$ declare s text; begin
			foreach s in array '{enable_bitmapscan,enable_indexonlyscan,enable_seqscan}'::text[] loop
				execute format('alter database %I set %I = off', current_database(), s);
			end loop; end $$`) // so that plans over catalogs do not depend on their sizes
		if i == 0 {
			exec(t, c, fmt.Sprintf("insert into leak_key select n, 'r' || n from generate_series(1, %d) n", leakKeys))
		}
		_ = c.Close(t.Context())
		k.primaries = append(k.primaries, k.dial(dsn))
	}
	for _, r := range shards[0].Replicas[:v.replicas] {
		k.replicas = append(k.replicas, k.dial(r.DSNAs(leakUser, clientPassword, f.database)))
	}
	k.tidemark = altered(f.start(t, engineName), clientUser+":", leakUser+":")
	k.console = k.dial(consoleDSN(k.tidemark))
	c := connect(t, k.tidemark)
	for n := 1; n <= leakKeys; n++ {
		exec(t, c, fmt.Sprintf("insert into leak_key values (%d, 'r%[1]d')", n))
	}
	_ = c.Close(t.Context())
	for _, dsn := range dsns[1:] {
		c := connect(t, dsn)
		rows, _ := c.Query(t.Context(), "select a from leak_key")
		keys, err := pgx.CollectRows(rows, pgx.RowTo[int])
		if err != nil || len(keys) == 0 {
			t.Fatalf("keys of a shard: %v, %v", keys, err)
		}
		k.keys = append(k.keys, keys)
		_ = c.Close(t.Context())
	}
	return k
}

// dial connects until the test ends.
func (k *leaks) dial(dsn string) *peer {
	k.t.Helper()
	p, err := dialPeer(dsn, nil)
	if err != nil {
		k.t.Fatal(err)
	}
	k.t.Cleanup(func() { _ = p.conn.Close() })
	return p
}

// clean empties a client's tables when nothing works there any more for the one before: what that has left is not the same here and there if it
// went its own way.
// Tidemark does not see it, so that replicas are to have it before the client comes.
func (k *leaks) clean(slot int) error {
	k.cleaning.Lock()
	defer k.cleaning.Unlock()
	for until := time.Now().Add(leakTimeout); !strings.Contains(k.console.play(simpleAction(fmt.Sprintf("select id from clients where id = %d", k.left[slot].here))), "SELECT 0"); {
		if time.Now().After(until) {
			return fmt.Errorf("client %d has left, and Tidemark goes on", slot)
		}
		time.Sleep(time.Millisecond)
	}
	for i, p := range k.primaries {
		still := fmt.Sprintf("pid = %d", k.left[slot].plain)
		if i > 0 { // of Tidemark's connections nobody knows which it was
			still = fmt.Sprintf(`pid <> pg_backend_pid() and datname = current_database() and backend_type = 'client backend' and state <> 'idle' and query ~ '(leak|split|leak_seq)_%d\M'`, slot)
		}
		for until := time.Now().Add(leakTimeout); !strings.Contains(p.play(simpleAction("select count(*) = 0 from pg_stat_activity where "+still)), `"t"`); {
			if time.Now().After(until) {
				return fmt.Errorf("database %d goes on behind client %d: %s", i, slot, p.play(simpleAction("select * from pg_stat_activity where "+still)))
			}
			time.Sleep(time.Millisecond)
		}
		if got := p.play(simpleAction(fmt.Sprintf("delete from leak_%d; delete from split_%[1]d; alter sequence leak_seq_%[1]d restart", slot))); !strings.HasPrefix(got, "  DELETE") || strings.Contains(got, "ERROR") {
			return fmt.Errorf("cleaning what client %d has left: %s", slot, got)
		}
	}
	for _, p := range k.replicas {
		level := strings.Fields(k.primaries[1].play(simpleAction("select pg_current_wal_flush_lsn() as at")))
		for until := time.Now().Add(leakTimeout); !strings.Contains(p.play(simpleAction(fmt.Sprintf("select pg_last_wal_replay_lsn() >= '%s'", strings.Trim(level[2], `"`)))), `"t"`); {
			if time.Now().After(until) {
				return fmt.Errorf("a replica does not come to %v", level)
			}
			time.Sleep(time.Millisecond)
		}
	}
	return nil
}

// run lets all clients loose until the time is over or one has seen what it should not.
func (k *leaks) run(seed int64, lasts time.Duration) {
	end := time.Now().Add(lasts)
	var all sync.WaitGroup
	for i := range leakClients {
		all.Go(func() {
			rnd := rand.New(rand.NewSource(seed*leakClients + int64(i)))
			for time.Now().Before(end) && !k.failed.Load() {
				k.session(i, rnd, end)
			}
		})
	}
	all.Wait()
	k.t.Logf("%d sessions, %d of them to a known divergence, %d requests", k.sessions.Load(), k.diverged.Load(), k.actions.Load())
	if k.actions.Load() < leakClients {
		k.t.Error("nothing happened")
	}
}

// session is one client from its login to its end.
func (k *leaks) session(slot int, rnd *rand.Rand, end time.Time) {
	n := k.sessions.Add(1)
	g := newGenerator(rnd, k.keys, slot, int(n))
	options := g.options()
	p, err := k.open(slot, options)
	if err != nil {
		k.fail(history{slot: slot, options: options}, err.Error())
		return
	}
	defer func() {
		p.end()
		k.left[slot].here, k.left[slot].plain = p.tidemark.pid, p.plain.pid
	}()
	for time.Now().Before(end) && !k.failed.Load() {
		a := g.next(p.plain.status)
		k.actions.Add(1)
		began := time.Now()
		diff, diverged := p.do(a)
		k.late.add(began, slot, a)
		if d := time.Since(began); d > 2*time.Second {
			k.t.Logf("client %d: %s took %v", slot, a.text, d)
		}
		if diff != "" {
			if strings.Contains(diff, "i/o timeout") || strings.Contains(diff, " was lost") {
				k.t.Log(k.scene())
			}
			p.end()
			k.fail(p.life, diff)
			return
		}
		if diverged {
			k.diverged.Add(1)
		}
		if a.leaves || diverged { // from there on its state may be another
			return
		}
	}
}

// fail reports what one client saw; what others see from then on is of no interest.
func (k *leaks) fail(life history, diff string) {
	if k.failed.Swap(true) {
		return
	}
	k.t.Errorf("client %d: %s", life.slot, diff)
	k.t.Logf("what all did just before:\n%s", &k.late)
	if short, diff := k.shrink(life); diff != "" {
		k.t.Errorf("alone it fails with\n%s%s", short, diff)
		return
	}
	k.t.Logf("alone it does not fail so, another client has to do with it; what this one did:\n%s", life)
}

var leakTimeout = 3 * time.Minute

func dialPeer(dsn string, options map[string]string) (*peer, error) {
	ctx, stop := context.WithTimeout(context.Background(), leakTimeout)
	defer stop()
	return newPeer(ctx, dsn, options)
}

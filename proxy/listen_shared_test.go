package proxy_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"golang.org/x/sync/errgroup"

	"github.com/tidemarkdb/tidemark/internal/backend"
	"github.com/tidemarkdb/tidemark/proxy"
	"github.com/tidemarkdb/tidemark/testcontainers"
)

// listeners counts the server connections that listen, as the servers table tells.
const listeners = "select count(*) from servers where state = 'listening'"

// Many clients listen over one server connection, and none of them keeps one.
func TestManyListeners(t *testing.T) {
	const n = 500
	f := newFixture(t, fixtureSpec{shards: 1, pool: 2, config: func(c *proxy.Config) {
		asAdmin(c)
		c.Users[0].Secret = proxy.VerifierSecret(quickVerifier(t, clientPassword))
	}})
	engines(t, func(t *testing.T, engineName string) {
		dsn := f.start(t, engineName)
		admin := console(t, dsn)
		clients := make([]*pgx.Conn, n)
		each := func(do func(i int, c *pgx.Conn) error) {
			t.Helper()
			var g errgroup.Group
			g.SetLimit(20)
			for i := range clients {
				g.Go(func() error { return do(i, clients[i]) })
			}
			if err := g.Wait(); err != nil {
				t.Fatal(err)
			}
		}
		each(func(i int, _ *pgx.Conn) (err error) {
			if clients[i], err = pgx.Connect(t.Context(), dsn); err == nil {
				_, err = clients[i].PgConn().Exec(t.Context(), fmt.Sprintf("listen everybody; listen only%d", i)).ReadAll()
			}
			return err
		})
		for sql, want := range map[string]string{
			"select count(*) from clients where channels = 2 and pinned is null": fmt.Sprint(n),
			"select clients from channels where channel = 'everybody'":           fmt.Sprint(n),
			"select clients from channels where channel = 'only7'":               "1",
			"select count(*) from channels":                                      fmt.Sprint(n + 1),
			listeners:                                                            "1",
		} {
			awaitRow(t, admin, sql, want)
		}
		speaker := connect(t, dsn)
		exec(t, speaker, "notify everybody, 'all'")
		each(func(i int, c *pgx.Conn) error {
			_, err := c.Exec(t.Context(), fmt.Sprintf("notify only%d, 'own %d'", i, i), pgx.QueryExecModeSimpleProtocol)
			return err
		})
		each(func(i int, c *pgx.Conn) error {
			ctx, stop := context.WithTimeout(t.Context(), time.Minute)
			defer stop()
			for _, want := range []string{"everybody=all", fmt.Sprintf("only%d=own %d", i, i)} {
				x, err := c.WaitForNotification(ctx)
				if err != nil {
					return err
				}
				if got := x.Channel + "=" + x.Payload; got != want || (x.PID == c.PgConn().PID()) != (x.Channel != "everybody") {
					return fmt.Errorf("client %d, which was told process id %d, heard %s of %d, want %s", i, c.PgConn().PID(), got, x.PID, want)
				}
			}
			return nil
		})
		each(func(_ int, c *pgx.Conn) error { return c.Close(context.Background()) })
		awaitRow(t, admin, "select count(*) from channels", "0")
		awaitRow(t, admin, listeners, "0")
	})
}

// Who listens is told when notifications may have been lost: behind the end of the transaction that it is in, at once if it is in
// none. Nobody else notices, and whoever connects and listens again hears again.
func TestListeningConnectionLost(t *testing.T) {
	f := newFixture(t, fixtureSpec{shards: 1, pool: 3, config: asAdmin})
	direct := connect(t, f.direct(0))
	engines(t, func(t *testing.T, engineName string) {
		dsn := f.start(t, engineName)
		admin := console(t, dsn)
		idle, busy, bystander := connect(t, dsn), connect(t, dsn), connect(t, dsn)
		exec(t, direct, "drop table if exists kept")
		exec(t, direct, "create table kept (a int)")
		exec(t, idle, "listen a")
		exec(t, busy, "listen a")
		exec(t, busy, "begin")
		exec(t, busy, "insert into kept values (1)")
		exec(t, bystander, "begin")
		exec(t, bystander, "select txid_current()")
		terminate(t, direct, cell(t, admin, "select server_pid from channels"))
		if err := sentAway(t, idle); code(err) != "57P01" {
			t.Errorf("an idle client that listens: %v, want 57P01", err)
		}
		exec(t, busy, "insert into kept values (2)")
		if got := toldBehind(t, busy, "commit"); got != "57P01" {
			t.Errorf("a client that listens, behind its COMMIT: %s, want 57P01", got)
		}
		if got := outcome(t, direct, "select count(*) from kept"); got != "2" {
			t.Errorf("%s rows of that transaction were committed, want 2", got)
		}
		exec(t, bystander, "commit")
		again := connect(t, dsn)
		exec(t, again, "listen a")
		exec(t, bystander, "notify a, 'again'")
		if diff := cmp.Diff([]string{"a=again"}, heard(t, again, 1)); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
		awaitRow(t, admin, listeners, "1")
	})
}

// toldBehind is the error that a client gets behind a statement: with it, or as soon as it is idle.
func toldBehind(t *testing.T, c *pgx.Conn, sql string) string {
	t.Helper()
	if got := outcome(t, c, sql); got != "" {
		return got
	}
	return code(sentAway(t, c))
}

// What waits for a client is bounded, and a client that has no room for more is told.
func TestSlowListeners(t *testing.T) {
	f := newFixture(t, fixtureSpec{shards: 1, pool: 3, config: func(c *proxy.Config) { asAdmin(c); c.MaxNotifications = 1 << 20 }})
	engines(t, func(t *testing.T, engineName string) {
		dsn := f.start(t, engineName)
		admin := console(t, dsn)
		silent, inTransaction, reads := dialWire(t, dsn), connect(t, dsn), connect(t, dsn)
		silent.play(t, &datadriven.TestData{Cmd: "send", Input: "Query listen a"})
		exec(t, inTransaction, "listen a")
		exec(t, reads, "listen a")
		exec(t, inTransaction, "begin")
		exec(t, inTransaction, "select txid_current()")
		speaker := connect(t, dsn)
		rounds := 0
		eventually(t, "the client that does not read is sent away", func() error {
			rounds++ // the client's socket takes some
			for i := range 20 {
				exec(t, speaker, fmt.Sprintf("select pg_notify('a', '%d.%d ' || n || repeat('x', 7000)) from generate_series(1, 10) n", rounds, i))
				exec(t, reads, "select 1") // pgx reads, and keeps
			}
			if got := cell(t, admin, fmt.Sprintf("select count(*) from clients where id = %d", silent.pid)); got != "0" {
				return errors.New("it is there")
			}
			return nil
		})
		var last *pgproto3.ErrorResponse
		for last == nil {
			m, err := silent.fe.Receive()
			if err != nil {
				break // it came too late for its last words
			}
			last, _ = m.(*pgproto3.ErrorResponse)
		}
		if last != nil && last.Code != "53400" {
			t.Errorf("a client that does not read: %s %s, want 53400", last.Code, last.Message)
		}
		if got := outcome(t, inTransaction, "commit"); got != "53400" {
			t.Errorf("a client in a transaction, behind its COMMIT: %s, want 53400", got)
		}
		if got := len(heard(t, reads, rounds*200)); got != rounds*200 {
			t.Errorf("a client that reads heard %d of %d", got, rounds*200)
		}
	})
}

// The listening connection counts against the budget, and leaves room to work with.
func TestListeningWithinTheBudget(t *testing.T) {
	engines(t, func(t *testing.T, engineName string) {
		f := newFixture(t, fixtureSpec{shards: 1, backend: func(c *backend.Config) { c.Budget = 2 }})
		p := f.run(t, engineName)
		a, b := connect(t, p.dsn), connect(t, p.dsn)
		exec(t, a, "listen a")
		for i := range 3 {
			exec(t, b, "begin")
			exec(t, b, fmt.Sprintf("notify a, '%d'", i))
			exec(t, b, "commit")
			if used := p.backend.BudgetUsed(); used > 2 {
				t.Errorf("%d server connections, of 2 at most", used)
			}
		}
		if diff := cmp.Diff([]string{"a=0", "a=1", "a=2"}, heard(t, a, 3)); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
		f = newFixture(t, fixtureSpec{shards: 1, backend: func(c *backend.Config) { c.Budget = 1 }})
		c := connect(t, f.start(t, engineName))
		if got := outcome(t, c, "listen a"); got != "53300" {
			t.Errorf("LISTEN where there may be one connection: %s, want 53300", got)
		}
		if got := outcome(t, c, "select 1"); got != "1" {
			t.Errorf("the session goes on with %s", got)
		}
	})
}

// PAUSE does not wait for who listens, and loses nothing of what comes meanwhile; nor do RECONNECT and a reload. DRAIN sends away who
// only listens.
func TestListenersThroughALife(t *testing.T) {
	f := newFixture(t, fixtureSpec{shards: 1, pool: 2, config: asAdmin})
	direct := connect(t, f.direct(0))
	engines(t, func(t *testing.T, engineName string) {
		p := f.run(t, engineName)
		admin := console(t, p.dsn)
		a := connect(t, p.dsn)
		exec(t, a, "listen a")
		execute(t, admin, "PAUSE")
		exec(t, direct, "notify a, 'paused'")
		if diff := cmp.Diff([]string{"a=paused"}, heard(t, a, 1)); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
		execute(t, admin, "RESUME")
		execute(t, admin, "RECONNECT")
		exec(t, direct, "notify a, 'reconnected'")
		exec(t, a, "notify a, 'own'")
		cfg := p.config
		cfg.PoolSize, cfg.Budget, cfg.Mode, cfg.IdleTime, cfg.Lifetime = 1, 2, backend.Statement, time.Second, time.Second
		apply, err := p.backend.Prepare(cfg)
		if err != nil {
			t.Fatal(err)
		}
		apply()
		exec(t, direct, "notify a, 'reloaded'")
		exec(t, a, "notify a, 'own, reloaded'")
		if diff := cmp.Diff([]string{"a=reconnected", "a=own", "a=reloaded", "a=own, reloaded"}, heard(t, a, 4)); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
		p.drain()
		if err := sentAway(t, a); code(err) != "57P01" {
			t.Errorf("a client that listens, in a drain: %v, want 57P01", err)
		}
	})
}

// The primary moves to another server, and the old one lets nobody in any more, but ends no connection and goes on notifying: who
// listens is told, in a transaction behind its end, and hears again when it has connected and listened again. Others go on.
func TestListenersWhenThePrimaryMoves(t *testing.T) {
	c := testcontainers.New(t, testcontainers.Spec{Shards: 1, Replicas: 1})
	f := newFixture(t, fixtureSpec{shards: 1, replicas: 1, cluster: c, config: asAdmin})
	type party struct {
		engine, dsn                      string
		idle, begun, bystander, listener *pgx.Conn
	}
	var parties []*party
	for _, e := range []string{"epoll", "goroutines"} {
		p := &party{engine: e, dsn: f.start(t, e)}
		p.idle, p.begun, p.bystander, p.listener = connect(t, p.dsn), connect(t, p.dsn), connect(t, p.dsn), connect(t, p.dsn)
		exec(t, p.idle, "listen a")
		exec(t, p.begun, "listen a")
		exec(t, p.begun, "begin")
		exec(t, p.listener, "listen a")
		exec(t, p.listener, "unlisten a") // who listens to nothing any more has nothing to lose
		parties = append(parties, p)
	}
	exec(t, parties[0].bystander, "notify a, 'before'")
	for _, p := range parties {
		if diff := cmp.Diff([]string{"a=before"}, heard(t, p.idle, 1)); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", p.engine, diff)
		}
	}
	old := c.Shards[0].Primary
	beat := connect(t, old.DSN(f.database))
	if err := c.Shards[0].Replicas[0].Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	super := connect(t, old.DSN("postgres"))
	exec(t, super, "alter database "+f.database+" allow_connections false")
	exec(t, super, "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'tidemark health'")
	ctx, stop := context.WithTimeout(t.Context(), 60*time.Second)
	defer stop()
	beats := make(chan error)
	go func() {
		for ctx.Err() == nil {
			if _, err := beat.Exec(ctx, "notify a, 'beat'"); err != nil {
				beats <- err
				return
			}
			time.Sleep(50 * time.Millisecond)
		}
		beats <- nil
	}()
	defer func() {
		stop()
		if err := <-beats; err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}()
	for _, p := range parties {
		var err error
		for err == nil {
			_, err = p.idle.WaitForNotification(ctx)
		}
		if code(err) != "57P01" {
			t.Errorf("%s: a client that listens: %v, want 57P01", p.engine, err)
		}
		if got := toldBehind(t, p.begun, "commit"); got != "57P01" {
			t.Errorf("%s: a client that listens, behind its transaction: %s, want 57P01", p.engine, got)
		}
		for _, x := range []*pgx.Conn{p.bystander, p.listener} {
			if got := outcome(t, x, "select pg_is_in_recovery()"); got != "f" {
				t.Errorf("%s: who does not listen: %s", p.engine, got)
			}
		}
		again := connect(t, p.dsn)
		exec(t, again, "listen a")
		exec(t, p.bystander, "notify a, 'behind'")
		if diff := cmp.Diff([]string{"a=behind"}, heard(t, again, 1)); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", p.engine, diff)
		}
	}
}

// Who cannot share keeps a connection: in session mode, and where notifications come in another encoding.
func TestListenersWithConnectionsOfTheirOwn(t *testing.T) {
	f := newFixture(t, fixtureSpec{shards: 1, pool: 5, config: asAdmin})
	session := newFixture(t, fixtureSpec{shards: 1, pool: 5, config: asAdmin, backend: func(c *backend.Config) { c.Mode = backend.Session }})
	engines(t, func(t *testing.T, engineName string) {
		for _, tt := range []struct {
			name, dsn, set, why string
		}{
			{"session mode", session.start(t, engineName), "select 1", "LISTEN"},
			{"another encoding", f.start(t, engineName), "set client_encoding = 'LATIN1'", "LISTEN"},
		} {
			admin := console(t, tt.dsn)
			a, b := connect(t, tt.dsn), connect(t, tt.dsn)
			exec(t, a, tt.set)
			exec(t, a, "listen a")
			if got := cell(t, admin, "select pinned from clients where pinned like 'LISTEN%'"); got != tt.why {
				t.Errorf("%s: pinned by %q, want %q", tt.name, got, tt.why)
			}
			exec(t, b, "select pg_notify('a', U&'\\00e9')")
			exec(t, a, "notify a, 'own'")
			for _, want := range []string{"\u00e9", "own"} {
				ctx, stop := context.WithTimeout(t.Context(), 20*time.Second)
				x, err := a.WaitForNotification(ctx)
				if stop(); err != nil {
					t.Fatal(err)
				}
				if strings.HasPrefix(tt.name, "another") && want != "own" {
					want = "\xe9"
				}
				if x.Payload != want || (x.PID == a.PgConn().PID()) != (want == "own") {
					t.Errorf("%s: heard %q of %d, want %q; own process id %d", tt.name, x.Payload, x.PID, want, a.PgConn().PID())
				}
			}
			_, _ = a.Close(t.Context()), b.Close(t.Context())
		}
		c := connect(t, f.start(t, engineName))
		exec(t, c, "listen a")
		if got := outcome(t, c, "set client_encoding = 'LATIN1'"); got != "0A000" {
			t.Errorf("another encoding in a session that listens: %s, want 0A000", got)
		}
		exec(t, c, "set client_encoding = 'utf-8'")
		exec(t, c, "unlisten *")
		exec(t, c, "set client_encoding = 'LATIN1'")
	})
}

// Clients listen and notify at random, over a pool smaller than they are many; each must hear what a connection to a PostgreSQL
// of its own hears, by the end of each of its statements outside of a transaction.
func TestListeningAtRandom(t *testing.T) {
	f := newFixture(t, fixtureSpec{shards: 1, pool: 4})
	plain := newFixture(t, fixtureSpec{shards: 1}) // another database
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	engines(t, func(t *testing.T, engineName string) {
		dsn := f.start(t, engineName)
		rnd := rand.New(rand.NewSource(seed))
		var crowd []*ears
		for i := range 4 {
			crowd = append(crowd, newEars(t, fmt.Sprint(i), dsn, plain.direct(0)))
		}
		channel := func() string { return fmt.Sprintf("c%d", rnd.Intn(3)) }
		said := 0
		for end := time.Now().Add(3 * time.Second); time.Now().Before(end); {
			x := crowd[rnd.Intn(len(crowd))]
			c, notifies := channel(), ""
			var sql string
			switch n := rnd.Intn(20); {
			case n < 3:
				sql = "listen " + c
			case n == 3:
				sql = "unlisten " + c
			case n == 4 && rnd.Intn(3) == 0:
				sql = []string{"unlisten *", "discard all", "do $$ begin unlisten *; end $$"}[rnd.Intn(3)]
			case n < 8:
				said++
				sql, notifies = fmt.Sprintf("notify %s, '%d'", c, said), c
			case n == 8:
				said++
				sql, notifies = fmt.Sprintf("select pg_notify('%s', '%d')", c, said), c
			case n == 9:
				said++
				sql, notifies = fmt.Sprintf("begin; listen %s; notify %s, '%d'; commit", c, c, said), c
			case n == 10 && x.inTransaction():
				sql = fmt.Sprintf("listen %s; commit", c)
			case n == 10:
				sql = fmt.Sprintf("unlisten %s; listen %s; select 1/0", c, channel())
			case n < 13:
				sql = "begin"
			case n < 15:
				sql = "commit"
			case n == 15:
				sql = []string{"rollback", "savepoint s", "rollback to s", "release s"}[rnd.Intn(4)]
			case n == 16 && !x.inTransaction():
				sql = "select * from pg_listening_channels() c order by 1"
			default:
				sql = "select 1"
			}
			if x.inTransaction() && (strings.HasPrefix(sql, "do ") || strings.Contains(sql, "listen "+c) && x.late[c]) {
				// What a function unlistens in a transaction is not seen. PostgreSQL lets a session that listens already hear what
				// was committed on a new channel since its transaction began.
				continue
			}
			if sql == "begin" && !x.inTransaction() { // what PostgreSQL gives an idle client must not depend on when that begins
				exec(t, x.tidemark, "select 1")
			}
			x.said = append(x.said, sql)
			got, want := outcome(t, x.tidemark, sql), outcome(t, x.postgres, sql)
			if got != want || x.tidemark.PgConn().TxStatus() != x.postgres.PgConn().TxStatus() {
				t.Fatalf("client %s, behind %s:\ngot  %q %c\nwant %q %c", x.name, strings.Join(x.said, "; "), got, x.tidemark.PgConn().TxStatus(), want, x.postgres.PgConn().TxStatus())
			}
			if notifies != "" {
				x.notified = append(x.notified, notifies)
			}
			if x.inTransaction() {
				continue
			}
			for _, y := range crowd {
				for _, c := range x.notified {
					y.late[c] = y.inTransaction()
				}
			}
			x.notified, x.late = nil, map[string]bool{}
			if diff := cmp.Diff(x.heardThere, x.heardHere); diff != "" {
				t.Fatalf("client %s, behind %s: heard (-want +got)\n%s", x.name, strings.Join(x.said[max(0, len(x.said)-40):], "; "), diff)
			}
		}
		if said < 20 {
			t.Errorf("%d notifications", said)
		}
	})
}

// A statement that is prepared anew while its client listens is answered once.
func TestPreparedAnewWhileListening(t *testing.T) {
	f := newFixture(t, fixtureSpec{shards: 1, pool: 1})
	direct := connect(t, f.direct(0))
	engines(t, func(t *testing.T, engineName string) {
		exec(t, direct, "drop table if exists changing")
		exec(t, direct, "create table changing as select 1 as a")
		c := dialWire(t, f.start(t, engineName))
		play := func(messages, want string) {
			t.Helper()
			got := c.play(t, &datadriven.TestData{Cmd: "send", Input: messages})
			if diff := cmp.Diff(want, strings.TrimSpace(got)); diff != "" {
				t.Errorf("%s (-want +got)\n%s", messages, diff)
			}
		}
		play("Query listen a", "CommandComplete LISTEN\nReadyForQuery I")
		play("Parse {\"Name\":\"s\",\"Query\":\"select * from changing\"}\nBind {\"PreparedStatement\":\"s\"}\nExecute\nSync",
			"ParseComplete\nBindComplete\nDataRow \"1\"\nCommandComplete SELECT 1\nReadyForQuery I")
		exec(t, direct, "alter table changing add b int default 2")
		exec(t, direct, "notify a, 'changed'")
		play("Bind {\"PreparedStatement\":\"s\"}\nDescribe {\"ObjectType\":\"P\"}\nExecute\nSync",
			"BindComplete\nRowDescription a:23/0 b:23/0\nDataRow \"1\" \"2\"\nCommandComplete SELECT 1\nNotificationResponse \"a\" \"changed\" other\nReadyForQuery I")
		play("Query select 5", "RowDescription ?column?:23/0\nDataRow \"5\"\nCommandComplete SELECT 1\nReadyForQuery I")
	})
}

// ears are one client by way of Tidemark, and one that says the same to PostgreSQL itself.
type ears struct {
	name                  string
	tidemark, postgres    *pgx.Conn
	heardHere, heardThere []string
	said, notified        []string
	late                  map[string]bool // channels on which something was committed since its transaction began
}

func newEars(t *testing.T, name, dsn, direct string) *ears {
	t.Helper()
	x := &ears{name: name, late: map[string]bool{}}
	dial := func(dsn string, heard *[]string) *pgx.Conn {
		cfg, err := pgx.ParseConfig(dsn)
		if err != nil {
			t.Fatal(err)
		}
		cfg.OnNotification = func(c *pgconn.PgConn, n *pgconn.Notification) {
			from := "other"
			if n.PID == c.PID() {
				from = "own"
			}
			*heard = append(*heard, n.Channel+"="+n.Payload+" "+from)
		}
		c, err := pgx.ConnectConfig(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close(context.Background()) })
		return c
	}
	x.tidemark, x.postgres = dial(dsn, &x.heardHere), dial(direct, &x.heardThere)
	return x
}

func (x *ears) inTransaction() bool { return x.postgres.PgConn().TxStatus() != 'I' }

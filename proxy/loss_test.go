package proxy_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tidemarkdb/tidemark/internal/backend"
	"github.com/tidemarkdb/tidemark/testcontainers"
)

// unreachable says whether an error tells that a server is not there: class 08, or what a server says that goes down or up.
func unreachable(err error) bool {
	c := code(err)
	return strings.HasPrefix(c, "08") || strings.HasPrefix(c, "57P")
}

// keysOn finds a customer's id for each of two shards.
func keysOn(t *testing.T, c *pgx.Conn) (keys [2]int) {
	t.Helper()
	keys = [2]int{-1, -1}
	for i := 0; keys[0] < 0 || keys[1] < 0; i++ {
		text(t, c, "select name from customers where id = $1", i)
		switch r := route(t, c); {
		case strings.HasPrefix(r, "route shard0"):
			keys[0] = i
		case strings.HasPrefix(r, "route shard1"):
			keys[1] = i
		default:
			t.Fatalf("route is %q", r)
		}
	}
	return keys
}

// A shard that dies takes with it what needs it, at once, and nothing else; it is back by itself.
func TestDeadShard(t *testing.T) {
	cluster := testcontainers.New(t, testcontainers.Spec{Shards: 2})
	engines(t, func(t *testing.T, engineName string) {
		_, p := shopProxy(t, engineName, fixtureSpec{cluster: cluster, config: asAdmin, backend: func(c *backend.Config) { c.ConnectTimeout = time.Second }})
		c, console := connect(t, p.dsn), connectTo(t, consoleDSN(p.dsn))
		keys := keysOn(t, c)
		for _, k := range keys {
			exec(t, c, "insert into customers values ($1, 'here')", k)
		}
		dead, alive := cluster.Shards[1].Primary, keys[0]
		for _, fault := range []struct {
			name        string
			cause, undo func() error
		}{
			{"killed", dead.Kill, func() error { return dead.Start(t.Context()) }},
			{"hangs", dead.Pause, dead.Resume},
			{"stopped", func() error { return dead.Stop(t.Context()) }, func() error { return dead.Start(t.Context()) }},
		} {
			if err := fault.cause(); err != nil {
				t.Fatal(err)
			}
			defer func() {
				if t.Failed() {
					_ = fault.undo() // so that what else there is to say does not take minutes
				}
			}()
			eventually(t, fault.name+": the dead shard is seen", func() error {
				s := p.backend.Shard("shard1")
				if s.Endpoints()[0].Healthy() {
					return errors.New("still healthy")
				}
				return nil
			})
			var why *string
			if err := console.QueryRow(t.Context(), "SELECT error FROM shards WHERE shard = 'shard1'").Scan(&why); err != nil || why == nil {
				t.Errorf("%s: the admin database knows no reason: %v", fault.name, err)
			}
			for range 5 {
				ctx, stop := context.WithTimeout(t.Context(), 10*time.Second)
				var got string
				err := c.QueryRow(ctx, "select name from customers where id = $1", pgx.QueryExecModeExec, keys[1]).Scan(&got)
				stop()
				if !unreachable(err) {
					t.Fatalf("%s: a statement for the dead shard: %v", fault.name, err)
				}
				if got := text(t, c, "select name from customers where id = $1", pgx.QueryExecModeExec, alive); got != "here" {
					t.Fatalf("%s: the other shard says %q", fault.name, got)
				}
			}
			if _, err := c.Exec(t.Context(), "select name from customers"); !unreachable(err) {
				t.Errorf("%s: half a scatter: %v", fault.name, err)
			}
			exec(t, c, "begin")
			if _, err := c.Exec(t.Context(), "update customers set name = 'x' where id = $1", pgx.QueryExecModeExec, keys[1]); !unreachable(err) {
				t.Errorf("%s: in a transaction: %v", fault.name, err)
			}
			if _, err := c.Exec(t.Context(), "update customers set name = 'x' where id = $1", pgx.QueryExecModeExec, alive); code(err) != "25P02" {
				t.Errorf("%s: the transaction goes on elsewhere: %v", fault.name, err)
			}
			if tag, err := c.Exec(t.Context(), "commit"); err != nil || tag.String() != "ROLLBACK" {
				t.Errorf("%s: COMMIT says %v, %v", fault.name, tag, err)
			}
			if err := fault.undo(); err != nil {
				t.Fatal(err)
			}
			eventually(t, fault.name+": the shard is back", func() error {
				var got string
				return c.QueryRow(t.Context(), "select name from customers where id = $1", pgx.QueryExecModeExec, keys[1]).Scan(&got)
			})
		}
	})
}

// terminate ends a server process and waits until it is gone.
func terminate(t *testing.T, d *pgx.Conn, pid string) {
	t.Helper()
	if got := text(t, d, "select pg_terminate_backend($1, 10000)", pgx.QueryExecModeSimpleProtocol, pid); got != "true" {
		t.Fatalf("process %s: %s", pid, got)
	}
}

func TestServerConnectionLost(t *testing.T) {
	f := newFixture(t, fixtureSpec{shards: 1, pool: 1})
	engines(t, func(t *testing.T, engineName string) {
		c, d := connect(t, f.start(t, engineName)), connect(t, f.direct(0))
		exec(t, c, "drop table if exists lost")
		exec(t, c, "create table lost (a int)")
		pid := func() string { return text(t, c, "select pg_backend_pid()", pgx.QueryExecModeSimpleProtocol) }
		count := func() string { return text(t, c, "select count(*) from lost", pgx.QueryExecModeSimpleProtocol) }

		for range 3 {
			terminate(t, d, pid())
			if got := count(); got != "0" {
				t.Fatalf("after an idle connection was lost: %s", got)
			}
		}

		for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec, pgx.QueryExecModeCacheStatement} {
			p := pid()
			failed := make(chan error, 1)
			go func() {
				_, err := c.Exec(t.Context(), "select pg_sleep(60), $1::text", mode, "find me")
				failed <- err
			}()
			eventually(t, "the query runs", func() error { return sleeps(t, d, p) })
			terminate(t, d, p)
			if err := <-failed; !unreachable(err) {
				t.Fatalf("in mid-query, %v: %v", mode, err)
			}
			if got := count(); got != "0" {
				t.Fatal(got)
			}

			exec(t, c, "begin", mode)
			exec(t, c, "insert into lost values (1)", mode)
			terminate(t, d, pid())
			if _, err := c.Exec(t.Context(), "insert into lost values (2)", mode); !unreachable(err) {
				t.Fatalf("in a transaction, %v: %v", mode, err)
			}
			if s := c.PgConn().TxStatus(); s != 'E' {
				t.Fatalf("%v: transaction status %c", mode, s)
			}
			if _, err := c.Exec(t.Context(), "insert into lost values (3)", mode); code(err) != "25P02" {
				t.Fatalf("a failed transaction, %v: %v", mode, err)
			}
			if _, err := c.Exec(t.Context(), "savepoint a", mode); code(err) != "25P02" {
				t.Fatalf("a failed transaction, %v: %v", mode, err)
			}
			if tag, err := c.Exec(t.Context(), "commit", mode); err != nil || tag.String() != "ROLLBACK" {
				t.Fatalf("COMMIT after a loss, %v: %v, %v", mode, tag, err)
			}
			if got := count(); got != "0" {
				t.Fatalf("%v: a lost transaction left %s rows", mode, got)
			}
		}

		// The client hears of it before it says anything: nothing of the next statement runs outside.
		exec(t, c, "begin")
		exec(t, c, "insert into lost values (1)")
		terminate(t, d, pid())
		results := c.PgConn().Exec(t.Context(), "insert into lost values (2); commit")
		if _, err := results.ReadAll(); err == nil {
			t.Fatal("statements behind a lost transaction were run")
		}
		if _, err := c.Exec(t.Context(), "rollback"); err != nil {
			t.Fatal(err)
		}
		if got := count(); got != "0" {
			t.Fatalf("%s rows", got)
		}

		// In the middle of a COPY, both ways.
		p := pid()
		r, w := io.Pipe()
		failed := make(chan error, 1)
		go func() {
			_, err := c.PgConn().CopyFrom(t.Context(), r, "copy lost from stdin")
			r.CloseWithError(errors.New("over"))
			failed <- err
		}()
		if _, err := io.WriteString(w, "1\n2\n"); err != nil {
			t.Fatal(err)
		}
		eventually(t, "COPY runs", func() error { return active(t, d, p) })
		terminate(t, d, p)
		for { // pgconn looks at what it receives while it sends
			if _, err := io.WriteString(w, strings.Repeat("3\n", 10000)); err != nil {
				break
			}
		}
		if err := <-failed; !unreachable(err) {
			t.Fatalf("COPY FROM: %v", err)
		}
		if got := count(); got != "0" {
			t.Fatalf("half a COPY left %s rows", got)
		}
		p = pid()
		killer := &killAt{after: 3 << 20, kill: func() { terminate(t, d, p) }}
		_, err := c.PgConn().CopyTo(t.Context(), killer, "copy (select repeat('x', 1000) from generate_series(1, 200000)) to stdout")
		if err == nil {
			t.Fatal("COPY TO ended well without its server")
		}
	})
}

// Amid a request of which the client has heard the beginning: nothing that is in a transaction for the client runs outside of it, and nothing
// that was committed is forgotten. Where neither can be told by a failed transaction the session ends, as PostgreSQL's would.
func TestServerConnectionLostAmidRequest(t *testing.T) {
	engines(t, func(t *testing.T, engineName string) {
		k := newLeaks(t, leakVariants[0], engineName)
		other := k.primaries[1]
		const fatal = "FATAL 57P01 "
		for _, step := range []struct{ before, request, want string }{
			{"", "begin; insert into leak_1 values (5, ''); select pg_sleep(60)", fatal},
			{"", "begin; insert into leak_1 values (5, ''); savepoint a; select pg_sleep(60); commit", fatal},
			{"begin", "insert into leak_1 values (5, ''); rollback and chain; select pg_sleep(60)", fatal},
			{"", "set my.x = 'new'; commit; select pg_sleep(60)", fatal},
			{"", "prepare kk as select 5; commit; select pg_sleep(60)", fatal},
			{"", "prepare kk as select 5; select pg_sleep(60)", fatal},
			{"", "[set my.x = 'new'] ; [commit] ; [select pg_sleep(60)] ; sync", fatal},
			{"begin", "[set my.x = 'new'] ; [commit] ; [select pg_sleep(60)] ; sync", fatal},
			{"begin; set my.x = 'new'", "[commit] ; [select pg_sleep(60)] ; sync", fatal},
			{"", "[prepare kk as select 5] ; [select pg_sleep(60)] ; sync", "ready I"}, // which the proxy knows by itself
			{"", "insert into leak_1 values (5, ''); select pg_sleep(60)", "ready I"},
			{"", "select pg_sleep(60); begin", "ready I"},
			{"begin", "insert into leak_1 values (5, ''); select pg_sleep(60)", "ready E"},
			{"", "[begin] ; [insert into leak_1 values (5, '')] ; [select pg_sleep(60)] ; sync", "ready E"},
		} {
			client := k.dial(k.tidemark)
			if step.before != "" {
				client.play(simpleAction(step.before))
			}
			answer := make(chan string, 1)
			go func() { answer <- client.play(parseSession(step.request).actions[0]) }()
			sleeper := "from pg_stat_activity where datname = current_database() and wait_event = 'PgSleep'"
			for !strings.Contains(other.play(simpleAction("select count(pg_terminate_backend(pid, 10000)) "+sleeper)), `"1"`) {
				time.Sleep(time.Millisecond)
			}
			if got := <-answer; !strings.Contains(got, step.want) {
				t.Errorf("%s, behind %s\ngot\n%swant %s", step.request, step.before, got, step.want)
			}
			if strings.Contains(step.request, "[prepare") {
				if got := client.play(simpleAction("execute kk")); !strings.Contains(got, `"5"`) {
					t.Errorf("%s\nexecute kk\n%s", step.request, got)
				}
			}
			if got := other.play(simpleAction("select count(*) from leak_1")); !strings.Contains(got, `"0"`) {
				t.Fatalf("%s, behind %s: rows\n%s", step.request, step.before, got)
			}
			_ = client.conn.Close()
		}
	})
}

// A client that keeps something on its server connection loses that with it, and hears of it as from PostgreSQL: its session ends.
func TestPinnedServerConnectionLost(t *testing.T) {
	f := newFixture(t, fixtureSpec{shards: 1, pool: 2})
	engines(t, func(t *testing.T, engineName string) {
		dsn, d := f.start(t, engineName), connect(t, f.direct(0))
		for _, keeps := range []string{"select pg_advisory_lock(4)", "create temp table kept (a int)"} {
			for _, idle := range []bool{true, false} {
				c := connect(t, dsn)
				exec(t, c, keeps)
				pid := text(t, c, "select pg_backend_pid()", pgx.QueryExecModeSimpleProtocol)
				failed := make(chan error, 1)
				if !idle {
					go func() {
						_, err := c.Exec(t.Context(), "select pg_sleep(60)")
						failed <- err
					}()
					eventually(t, "the query runs", func() error { return sleeps(t, d, pid) })
				}
				terminate(t, d, pid)
				if idle {
					_, err := c.Exec(t.Context(), "select 1")
					failed <- err
				}
				if err := <-failed; !c.IsClosed() {
					t.Errorf("%s, idle %v: the client goes on behind %v", keeps, idle, err)
				} else if e := new(pgconn.PgError); errors.As(err, &e) && (e.Severity != "FATAL" || e.Code != "57P01") {
					t.Errorf("%s, idle %v: %v", keeps, idle, err)
				}
			}
		}
	})
}

// killAt calls kill once some bytes have passed.
type killAt struct {
	seen, after int
	kill        func()
}

func (k *killAt) Write(b []byte) (int, error) {
	k.seen += len(b)
	if k.kill != nil && k.seen > k.after {
		k.kill()
		k.kill = nil
	}
	return len(b), nil
}

// active says whether a server process is at work for the proxy.
func active(t *testing.T, d *pgx.Conn, pid string) error {
	t.Helper()
	if got := text(t, d, "select state from pg_stat_activity where pid = "+pid, pgx.QueryExecModeSimpleProtocol); got != "active" {
		return fmt.Errorf("process %s is %q", pid, got)
	}
	return nil
}

// sleeps says whether a server process is in pg_sleep(): it is active while it prepares that, too.
func sleeps(t *testing.T, d *pgx.Conn, pid string) error {
	t.Helper()
	if got := text(t, d, "select wait_event from pg_stat_activity where pid = "+pid, pgx.QueryExecModeSimpleProtocol); got != "PgSleep" {
		return fmt.Errorf("process %s waits for %q", pid, got)
	}
	return nil
}

// Those who wait for a server connection get one in order, or hear why not.
func TestPoolFull(t *testing.T) {
	timeout := time.Minute
	f := newFixture(t, fixtureSpec{shards: 1, pool: 1, config: asAdmin, backend: func(c *backend.Config) { c.AcquireTimeout = timeout }})
	engines(t, func(t *testing.T, engineName string) {
		timeout = time.Minute
		p := f.run(t, engineName)
		holder := connect(t, p.dsn)
		exec(t, holder, "begin")
		exec(t, holder, "select txid_current()")
		const n = 5
		xids := make([]int64, n) // the server numbers them in the order in which it serves them
		var served sync.WaitGroup
		for i := range n {
			c := connect(t, p.dsn)
			served.Go(func() {
				if err := c.QueryRow(context.Background(), "select txid_current()", pgx.QueryExecModeSimpleProtocol).Scan(&xids[i]); err != nil {
					t.Error(err)
				}
			})
			eventually(t, "the client waits", func() error {
				if w := p.backend.Stats()[0].Waiting; w != i+1 {
					return fmt.Errorf("%d wait", w)
				}
				return nil
			})
		}
		if got, want := cell(t, console(t, p.dsn), "SELECT state FROM clients ORDER BY connected_at"), "active"+strings.Repeat(" waiting", n); got != want {
			t.Errorf("states of the clients: %s, want %s", got, want)
		}
		if s := p.proxy.Stats(); s.Sessions["waiting"] != n || s.Sessions["active"] != 1 {
			t.Errorf("sessions by state: %v", s.Sessions)
		}
		exec(t, holder, "commit")
		served.Wait()
		if !slices.IsSorted(xids) {
			t.Errorf("served in another order than they came: transactions %v", xids)
		}

		timeout = 300 * time.Millisecond
		p = f.run(t, engineName)
		holder, late := connect(t, p.dsn), connect(t, p.dsn)
		exec(t, holder, "begin")
		exec(t, holder, "select txid_current()")
		_, err := late.Exec(t.Context(), "select txid_current()")
		var e *pgconn.PgError
		if !errors.As(err, &e) || e.Code != "53300" || e.Hint == "" {
			t.Fatalf("a full pool: %v", err)
		}
		exec(t, holder, "commit")
		eventually(t, "it is served in the end", func() error {
			_, err := late.Exec(t.Context(), "select txid_current()")
			return err
		})
	})
}

// A client whose state is on a connection that breaks amid a query of several shards is ended, as amid one of its own: it would go on
// without its lock.
func TestLossOfWhatIsKeptAmidAQueryOfSeveralShards(t *testing.T) {
	engines(t, func(t *testing.T, engineName string) {
		k := newLeaks(t, leakVariants[1], engineName)
		client, other, holder := k.dial(k.tidemark), k.dial(k.tidemark), k.primaries[1]
		client.play(simpleAction("select pg_advisory_lock(5)"))
		pid := strings.Split(client.play(simpleAction("select pg_backend_pid()")), `"`)[1]
		if got := holder.play(simpleAction("begin; lock table leak_key")); !strings.HasSuffix(got, "ready T\n") {
			t.Fatal(got)
		}
		answer := make(chan string, 1)
		go func() { answer <- client.play(simpleAction("select a from leak_key where b like 'r%'")) }()
		for waits := "select wait_event_type from pg_stat_activity where pid = " + pid; !strings.Contains(other.play(simpleAction(waits)), `"Lock"`); {
			time.Sleep(time.Millisecond)
		}
		other.play(simpleAction(fmt.Sprintf("select pg_terminate_backend(%s)", pid)))
		got := <-answer + client.play(simpleAction("select 1"))
		if !strings.Contains(got, "57P01 ") || !strings.Contains(got, "(connection: ") {
			t.Errorf("the client goes on:\n%s", got)
		}
		holder.play(simpleAction("rollback"))
	})
}

package proxy_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/tidemarkdb/tidemark/proxy"
)

// running counts what works on servers for the test's database with a text like this.
func running(t *testing.T, d *pgx.Conn, like string) string {
	t.Helper()
	return text(t, d, "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid() and state <> 'idle' and query like '"+like+"'", pgx.QueryExecModeSimpleProtocol)
}

func eventuallyRunning(t *testing.T, d *pgx.Conn, like, want string) {
	t.Helper()
	eventually(t, want+" server processes run "+like, func() error {
		if got := running(t, d, like); got != want {
			return fmt.Errorf("%s do", got)
		}
		return nil
	})
}

// send gives messages without waiting for an answer.
func (c *wireClient) send(t *testing.T, messages ...pgproto3.FrontendMessage) {
	t.Helper()
	for _, m := range messages {
		c.fe.Send(m)
	}
	if err := c.fe.Flush(); err != nil {
		t.Fatal(err)
	}
}

// A client that leaves stops what it began, and the next one finds nothing of it.
func TestClientLeaves(t *testing.T) {
	f := newFixture(t, fixtureSpec{shards: 1, pool: 1})
	engines(t, func(t *testing.T, engineName string) {
		dsn := f.start(t, engineName)
		next, d := connect(t, dsn), connect(t, f.direct(0))
		exec(t, next, "drop table if exists left_behind")
		exec(t, next, "create table left_behind (a int)")
		bind := func(sql string) []pgproto3.FrontendMessage {
			return []pgproto3.FrontendMessage{&pgproto3.Parse{Query: sql}, &pgproto3.Bind{}, &pgproto3.Execute{}}
		}
		for _, tc := range []struct {
			name, runs string
			sent       []pgproto3.FrontendMessage
		}{
			{"in mid-query", "%pg_sleep(60)%", []pgproto3.FrontendMessage{&pgproto3.Query{String: "insert into left_behind select 1 from pg_sleep(60)"}}},
			{"in mid-COPY", "copy%", []pgproto3.FrontendMessage{&pgproto3.Query{String: "copy left_behind from stdin"}, &pgproto3.CopyData{Data: []byte("1\n")}}},
			{"in a transaction", "", []pgproto3.FrontendMessage{&pgproto3.Query{String: "begin"}, &pgproto3.Query{String: "insert into left_behind values (1)"}}},
			{"in a failed transaction", "", []pgproto3.FrontendMessage{&pgproto3.Query{String: "begin"}, &pgproto3.Query{String: "insert into left_behind select 1/0"}}},
			{"in mid-batch", "", bind("insert into left_behind values (1)")},
			{"in mid-batch of a query that runs", "%pg_sleep(60)%", append(bind("select pg_sleep(60)"), &pgproto3.Flush{})},
			{"with unread rows", "", []pgproto3.FrontendMessage{&pgproto3.Query{String: "select repeat('x', 1000) from generate_series(1, 100000)"}}},
			{"with half a message", "", []pgproto3.FrontendMessage{&pgproto3.Query{String: "begin"}, &pgproto3.Query{String: "insert into left_behind values (1)"}, half{}}},
		} {
			c := dialWire(t, dsn)
			c.send(t, tc.sent...)
			if tc.runs != "" {
				eventuallyRunning(t, d, tc.runs, "1")
			}
			_ = c.conn.Close()
			if got := text(t, next, "select count(*) from left_behind", pgx.QueryExecModeSimpleProtocol); got != "0" {
				t.Errorf("%s: %s rows were left behind", tc.name, got)
			}
			eventuallyRunning(t, d, "%", "0")
		}
	})
}

// What a client has prepared is forgotten with it, also while it may just have been given up.
func TestPreparedStatementsOfAClientThatLeaves(t *testing.T) {
	f := newFixture(t, fixtureSpec{shards: 1, config: asAdmin})
	engines(t, func(t *testing.T, engineName string) {
		dsn := f.start(t, engineName)
		c, d := console(t, dsn), connect(t, f.direct(0))
		count := func(want string) {
			t.Helper()
			eventually(t, want+" statements are known", func() error {
				if got := cell(t, c, "SELECT count(*) FROM prepared_statements"); got != want {
					return fmt.Errorf("%s are", got)
				}
				return nil
			})
		}
		sleeps := []pgproto3.FrontendMessage{&pgproto3.Parse{Query: "select pg_sleep(60)"}, &pgproto3.Bind{}, &pgproto3.Execute{}, &pgproto3.Flush{}}
		for _, tc := range []struct {
			name string
			sent []pgproto3.FrontendMessage
		}{
			{"idle", nil},
			{"with a query under way", []pgproto3.FrontendMessage{&pgproto3.Query{String: "select pg_sleep(60)"}}},
			{"behind a DEALLOCATE ALL that is not yet known to have run", append([]pgproto3.FrontendMessage{
				&pgproto3.Query{String: "begin"}, &pgproto3.Query{String: "select 1"}, &pgproto3.Parse{Query: "deallocate all"}, &pgproto3.Bind{}, &pgproto3.Execute{},
			}, sleeps...)},
		} {
			w := dialWire(t, dsn)
			w.send(t, &pgproto3.Parse{Name: "one", Query: "select 1"}, &pgproto3.Sync{}, &pgproto3.Query{String: "prepare two as select 2"})
			count("2")
			if w.send(t, tc.sent...); len(tc.sent) > 0 {
				eventuallyRunning(t, d, "%pg_sleep(60)%", "1")
			}
			_ = w.conn.Close()
			if count("0"); t.Failed() {
				t.Fatal(tc.name)
			}
		}
	})
}

// half is a message that does not end.
type half struct{}

func (half) Frontend()           {}
func (half) Decode([]byte) error { return nil }
func (half) Encode(dst []byte) ([]byte, error) {
	return append(dst, 'Q', 0, 0, 1, 0, 's', 'e', 'l'), nil
}

// A client that says goodbye behind its last statement has it done, whether it stays until then or not.
func TestTerminateBehindAStatement(t *testing.T) {
	f := newFixture(t, fixtureSpec{shards: 1})
	engines(t, func(t *testing.T, engineName string) {
		dsn := f.start(t, engineName)
		next := connect(t, dsn)
		exec(t, next, "drop table if exists done")
		exec(t, next, "create table done (a int)")
		rows := func() string {
			return text(t, next, "select count(*) from done", pgx.QueryExecModeSimpleProtocol)
		}
		c := dialWire(t, dsn)
		c.send(t, &pgproto3.Query{String: "insert into done select 1 from pg_sleep(0.3)"}, &pgproto3.Terminate{})
		if err := untilClosed(c.conn); err != nil {
			t.Fatal(err)
		}
		if got := rows(); got != "1" {
			t.Errorf("%s rows", got)
		}
		want := 1
		for _, sent := range [][]pgproto3.FrontendMessage{
			{&pgproto3.Query{String: "insert into done select 1 from pg_sleep(0.3)"}},
			{&pgproto3.Query{String: "insert into done values (1); select pg_sleep(0.3)"}},
			{&pgproto3.Query{String: "select pg_sleep(0.3)"}, &pgproto3.Query{String: "insert into done values (1)"}},
			{&pgproto3.Query{String: "begin"}, &pgproto3.Query{String: "insert into done values (1)"}, &pgproto3.Query{String: "commit"}},
			{&pgproto3.Parse{Query: "insert into done select 1 from pg_sleep(0.3)"}, &pgproto3.Bind{}, &pgproto3.Execute{}, &pgproto3.Sync{}},
			{&pgproto3.Query{String: "set work_mem = '1MB'"}, &pgproto3.Query{String: "do $$ begin perform pg_sleep(0.3); end $$; insert into done values (1)"}},
		} {
			c := dialWire(t, dsn)
			c.send(t, append(sent, &pgproto3.Terminate{})...)
			_ = c.conn.Close()
			want++
			eventually(t, fmt.Sprintf("%v is done", sent), func() error {
				if got := rows(); got != strconv.Itoa(want) {
					return fmt.Errorf("%s rows", got)
				}
				return nil
			})
		}
	})
}

// ... also when it has to wait for a server connection first.
func TestTerminateBehindAStatementThatWaits(t *testing.T) {
	f := newFixture(t, fixtureSpec{shards: 1, pool: 1})
	engines(t, func(t *testing.T, engineName string) {
		dsn := f.start(t, engineName)
		holder, d := connect(t, dsn), connect(t, f.direct(0))
		exec(t, d, "drop table if exists done")
		exec(t, d, "create table done (a int)")
		exec(t, holder, "begin")
		exec(t, holder, "select * from done")
		sent := [][]pgproto3.FrontendMessage{
			{&pgproto3.Query{String: "insert into done values (1)"}},
			{&pgproto3.Query{String: "insert into done values (1); select 2"}},
			{&pgproto3.Parse{Query: "insert into done values (1)"}, &pgproto3.Bind{}, &pgproto3.Execute{}, &pgproto3.Sync{}},
		}
		for _, m := range sent {
			dialWire(t, dsn).send(t, m...) // stays, and waits too
			c := dialWire(t, dsn)
			c.send(t, append(m, &pgproto3.Terminate{})...)
			_ = c.conn.Close()
		}
		time.Sleep(50 * time.Millisecond) // most have queued
		exec(t, holder, "commit")
		eventually(t, "what waits is done", func() error {
			if got := text(t, d, "select count(*) from done"); got != strconv.Itoa(2*len(sent)) {
				return fmt.Errorf("%s rows", got)
			}
			return nil
		})
	})
}

// A client that leaves a scatter stops it on every shard.
func TestClientLeavesScatter(t *testing.T) {
	engines(t, func(t *testing.T, engineName string) {
		f, dsn := shop(t, engineName, fixtureSpec{})
		c := connect(t, dsn)
		keys := keysOn(t, c)
		for _, k := range keys {
			exec(t, c, "insert into customers values ($1, 'c')", k)
		}
		var shards [2]*pgx.Conn
		for i := range shards {
			shards[i] = connect(t, f.direct(i))
		}
		w := dialWire(t, dsn)
		w.send(t, &pgproto3.Query{String: "select id, (select count(*) from generate_series(1, 2000000000) g where g % 3 = id) from customers"})
		for _, d := range shards {
			eventuallyRunning(t, d, "%generate_series%", "1")
		}
		_ = w.conn.Close()
		for _, d := range shards {
			eventuallyRunning(t, d, "%generate_series%", "0")
		}
	})
}

// A cancel request ends the statement of its own client, on all shards that it runs on, and no other.
func TestCancel(t *testing.T) {
	engines(t, func(t *testing.T, engineName string) {
		f, dsn := shop(t, engineName, fixtureSpec{})
		a, b := connect(t, dsn), connect(t, dsn)
		for _, k := range keysOn(t, a) {
			exec(t, a, "insert into customers values ($1, 'c')", k)
		}
		d := connect(t, f.direct(0))
		for _, tc := range []struct {
			name, sql, like string
			mode            pgx.QueryExecMode
		}{
			{"simple", "select pg_sleep(60)", "%pg_sleep(60)%", pgx.QueryExecModeSimpleProtocol},
			{"extended", "select pg_sleep(60)", "%pg_sleep(60)%", pgx.QueryExecModeCacheStatement},
			{"scatter", "select id, (select count(*) from generate_series(1, 2000000000) g where g % 3 = id) from customers", "%generate_series%", pgx.QueryExecModeSimpleProtocol},
		} {
			others := make(chan error, 1)
			go func() {
				_, err := b.Exec(t.Context(), "select pg_sleep(2) -- other")
				others <- err
			}()
			mine := make(chan error, 1)
			go func() {
				_, err := a.Exec(t.Context(), tc.sql, tc.mode)
				mine <- err
			}()
			eventuallyRunning(t, d, tc.like, "1")
			eventually(t, "the statement ends", func() error {
				if err := a.PgConn().CancelRequest(t.Context()); err != nil {
					return err
				}
				select {
				case err := <-mine:
					if code(err) != "57014" {
						t.Errorf("%s: the statement that was cancelled: %v", tc.name, err)
					}
					return nil
				case <-time.After(time.Second): // the request came when the statement was prepared, and had not begun
					return errors.New("it runs")
				}
			})
			if err := <-others; err != nil {
				t.Errorf("%s: another client's statement: %v", tc.name, err)
			}
			// A request that comes too late hits nothing.
			if err := a.PgConn().CancelRequest(t.Context()); err != nil {
				t.Fatal(err)
			}
			for range 5 {
				exec(t, a, "select 1", tc.mode)
				exec(t, b, "select 1", tc.mode)
			}
		}
	})
}

func TestStatementTimeout(t *testing.T) {
	f := newFixture(t, fixtureSpec{shards: 1, pool: 1})
	engines(t, func(t *testing.T, engineName string) {
		dsn := f.start(t, engineName)
		hasty, patient := connect(t, dsn), connect(t, dsn)
		exec(t, hasty, "set statement_timeout = '50ms'")
		for range 3 {
			if _, err := hasty.Exec(t.Context(), "select pg_sleep(30)"); code(err) != "57014" {
				t.Errorf("over the timeout: %v", err)
			}
			exec(t, patient, "select pg_sleep(0.2)")
		}
	})
}

// A message that is too large for the proxy is answered, skipped, and the session goes on.
func TestMessageTooLarge(t *testing.T) {
	f := newFixture(t, fixtureSpec{shards: 2, tables: shopTables, config: func(c *proxy.Config) { c.MaxMessage = 100_000 }})
	engines(t, func(t *testing.T, engineName string) {
		c := connect(t, f.start(t, engineName))
		exec(t, c, "drop table if exists customers")
		exec(t, c, "create table customers (id bigint primary key, name text)")
		big := fmt.Sprintf("select '%0300000d'", 1)
		for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec, pgx.QueryExecModeCacheStatement} {
			if _, err := c.Exec(t.Context(), big, mode); code(err) != "54000" {
				t.Errorf("%v: %v", mode, err)
			}
			exec(t, c, "select 1", mode)
			exec(t, c, "begin", mode)
			exec(t, c, "insert into customers values (1, 'a')", mode)
			if _, err := c.Exec(t.Context(), big, mode); code(err) != "54000" {
				t.Errorf("%v: in a transaction: %v", mode, err)
			}
			if _, err := c.Exec(t.Context(), "select 1", mode); code(err) != "25P02" {
				t.Errorf("%v: the transaction goes on: %v", mode, err)
			}
			exec(t, c, "rollback", mode)
		}
		// A value that chooses no shard passes whatever its size; beside one that does, it cannot.
		if got := text(t, c, "select length($1::text)", pgx.QueryExecModeExec, big); got != fmt.Sprint(len(big)) {
			t.Errorf("a long value came as %s bytes", got)
		}
		if _, err := c.Exec(t.Context(), "insert into customers values ($1, $2)", pgx.QueryExecModeExec, 1, big); code(err) != "54000" {
			t.Errorf("a long value beside a key: %v", err)
		}
		exec(t, c, "insert into customers values ($1, $2)", pgx.QueryExecModeExec, 1, "short")
	})
}

// While it shuts down a proxy lets transactions end, and tells the others.
func TestDrain(t *testing.T) {
	f := newFixture(t, fixtureSpec{shards: 1})
	engines(t, func(t *testing.T, engineName string) {
		p := f.run(t, engineName)
		idle, busy, pinned := dialWire(t, p.dsn), connect(t, p.dsn), dialWire(t, p.dsn)
		exec(t, busy, "drop table if exists drained")
		exec(t, busy, "create table drained (a int)")
		pinned.send(t, &pgproto3.Query{String: "create temp table t (a int)"})
		if _, err := receive[*pgproto3.ReadyForQuery](pinned); err != nil {
			t.Fatal(err)
		}
		exec(t, busy, "begin")
		exec(t, busy, "insert into drained values (1)")
		begun := time.Now()
		newcomer := connect(t, p.dsn)
		p.drain()
		_, err := newcomer.Exec(t.Context(), "begin; insert into drained values (3); commit", pgx.QueryExecModeSimpleProtocol)
		asked := err == nil
		if !asked && time.Since(begun) < time.Second {
			t.Errorf("a client that has just logged in: %v", err)
		}
		if err := sentAway(t, newcomer); asked && code(err) != "57P01" {
			t.Errorf("a newcomer behind its first request: %v", err)
		}
		for name, c := range map[string]*wireClient{"idle": idle, "pinned": pinned} {
			e, err := receive[*pgproto3.ErrorResponse](c)
			if err != nil || e.Code != "57P01" || e.Severity != "FATAL" {
				t.Errorf("%s session: %v, %v", name, e, err)
			}
		}
		exec(t, busy, "insert into drained values (2)")
		exec(t, busy, "commit")
		if err := sentAway(t, busy); code(err) != "57P01" {
			t.Errorf("a session behind its transaction: %v", err)
		}
		want := "2"
		if asked {
			want = "3"
		}
		if got := text(t, connect(t, f.direct(0)), "select count(*) from drained"); got != want {
			t.Errorf("%s rows are committed", got)
		}
	})
}

// A farewell behind a transaction comes apart from its answer, or as the answer to what the client asks next: libpq takes an error that it
// reads together with an answer for a notice, and then knows no reason why its connection is lost. Some read an answer late.
func TestDrainBehindAnswer(t *testing.T) {
	f := newFixture(t, fixtureSpec{shards: 1, pool: 12})
	engines(t, func(t *testing.T, engineName string) {
		p := f.run(t, engineName)
		var begun [12]*wireClient
		ask := func(c *wireClient, query string) {
			c.send(t, &pgproto3.Query{String: query})
			if _, err := receive[*pgproto3.ReadyForQuery](c); err != nil {
				t.Fatal(err)
			}
		}
		for i := range begun {
			begun[i] = dialWire(t, p.dsn)
			ask(begun[i], "begin")
			ask(begun[i], "select 1")
		}
		for _, c := range begun[:6] {
			ask(c, "commit")
		}
		p.drain()
		apart := map[time.Duration]int{}
		for i, c := range begun {
			late := 20 * time.Millisecond // to read: so is a client with many connections
			if i >= 6 {
				ask(c, "commit")
				late *= 10
			}
			if i >= 6 && i%2 == 0 {
				c.send(t, &pgproto3.Query{String: "select 2"})
			} else if err := c.conn.SetReadDeadline(time.Now().Add(late)); err != nil {
				t.Fatal(err)
			} else if _, err := c.fe.Receive(); errors.Is(err, os.ErrDeadlineExceeded) {
				apart[late]++
			} else {
				continue
			}
			switch e, err := receive[*pgproto3.ErrorResponse](c); {
			case err != nil:
				t.Error(err)
			case e.Code != "57P01" || e.Severity != "FATAL" || e.Hint == "":
				t.Errorf("client %d: %+v", i, e)
			}
		}
		if len(apart) < 2 { // one of three would do: this machine may be slow
			t.Errorf("farewells come together with answers; apart by these times: %v", apart)
		}
	})
}

// sentAway waits for the end of a session whose client asks nothing: a statement that crosses the farewell would still be answered.
func sentAway(t *testing.T, c *pgx.Conn) error {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), 30*time.Second)
	defer stop()
	_, err := c.WaitForNotification(ctx)
	return err
}

// receive takes messages until one of type M.
func receive[M pgproto3.BackendMessage](c *wireClient) (M, error) {
	var none M
	if err := c.conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return none, err
	}
	for {
		m, err := c.fe.Receive()
		if err != nil {
			return none, err
		}
		if x, ok := m.(M); ok {
			return x, nil
		}
	}
}

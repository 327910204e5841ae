package proxy_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tidemarkdb/tidemark/cqrs"
	"github.com/tidemarkdb/tidemark/internal/wire"
)

// endless is a read model that is never read to its end.
type endless struct{ begun chan struct{} }

func (endless) Name() string                  { return "endless" }
func (endless) Columns() []cqrs.Column        { return []cqrs.Column{{Name: "id", OID: 20, TypeMod: -1}} }
func (endless) Refresh(context.Context) error { return nil }
func (v endless) Scan(ctx context.Context, _ cqrs.Query, _ func([][]byte) error) error {
	v.begun <- struct{}{}
	<-ctx.Done()
	return ctx.Err()
}

// A client whose statement has not reached a server yet is cancelled and killed as well as one whose statement runs there.
func TestCancelOfAStatementThatWaits(t *testing.T) {
	slow := endless{begun: make(chan struct{}, 1)}
	f := newFixture(t, fixtureSpec{shards: 1, pool: 1, config: asAdmin, views: map[string]cqrs.View{"endless": slow}})
	engines(t, func(t *testing.T, engineName string) {
		dsn := f.start(t, engineName)
		c, holder := console(t, dsn), connect(t, dsn)
		waits := func() { awaitRow(t, c, "SELECT count(*) FROM clients WHERE state = 'waiting'", "1") }
		begin := func(x *pgx.Conn, sql string) <-chan error {
			ended := make(chan error, 1)
			go func() { _, err := x.Exec(t.Context(), sql, pgx.QueryExecModeSimpleProtocol); ended <- err }()
			return ended
		}
		cancel := func(what string, x *pgx.Conn, ended <-chan error) {
			t.Helper()
			if err := x.PgConn().CancelRequest(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := <-ended; code(err) != wire.QueryCanceled {
				t.Errorf("%s: %v", what, err)
			}
		}
		a, b := connect(t, dsn), connect(t, dsn)

		exec(t, holder, "begin")
		exec(t, holder, "select 1")
		ended := begin(a, "select 1")
		waits()
		cancel("waiting for a connection", a, ended)

		exec(t, a, "begin") // needs no server yet
		ended = begin(a, "select 1")
		waits()
		cancel("waiting for a connection in a transaction", a, ended)
		if _, err := a.Exec(t.Context(), "select 1"); code(err) != wire.InFailedSQLTransaction {
			t.Errorf("behind it: %v", err)
		}
		exec(t, a, "rollback")

		for _, x := range []struct{ sql, tags, status string }{
			{"rollback; begin", "ROLLBACK,BEGIN", "T"},
			{"rollback; begin; select 1", "ROLLBACK,BEGIN,SELECT 1", "T"},
			{"commit; select 1", "ROLLBACK,SELECT 1", "I"},
			{"rollback; select 1; select 2", "ROLLBACK,SELECT 1,SELECT 1", "I"},
			{"rollback;;", "ROLLBACK", "I"},
			{"prepare transaction 'none'; select 1", "ROLLBACK,SELECT 1", "I"},
			{"rollback and chain; select 1", "ROLLBACK,SELECT 1", "T"},
			{"rollback; begin; commit", "ROLLBACK,BEGIN,COMMIT", "I"},
			{"rollback; set tidemark.consistency = eventual; select 1", "ROLLBACK,SET,SELECT 1", "I"},
			{"rollback; select 1; set tidemark.consistency = eventual; select 2", "ROLLBACK,SELECT 1,SET,SELECT 1", "I"},
			{"rollback; vacuum customers", "", "E"},
			{"select 1; rollback", "", "E"},
			{"savepoint a; rollback", "", "E"},
		} {
			exec(t, a, "begin")
			ended = begin(a, "select 1")
			waits()
			cancel("waiting, before "+x.sql, a, ended)
			exec(t, holder, "commit")
			results, err := a.PgConn().Exec(t.Context(), x.sql).ReadAll()
			if x.status == "E" && code(err) != wire.InFailedSQLTransaction || x.status != "E" && err != nil {
				t.Errorf("%s: %v", x.sql, err)
			}
			var tags []string
			for _, r := range results {
				tags = append(tags, r.CommandTag.String())
			}
			if got := strings.Join(tags, ","); x.status != "E" && got != x.tags {
				t.Errorf("%s: answered %s, want %s", x.sql, got, x.tags)
			}
			if status := string(a.PgConn().TxStatus()); status != x.status {
				t.Errorf("%s: status %s, want %s", x.sql, status, x.status)
			}
			if x.status != "I" {
				exec(t, a, "rollback")
			}
			exec(t, holder, "begin")
			exec(t, holder, "select 1")
		}

		exec(t, a, "begin")
		ended = begin(a, "select 1")
		waits()
		cancel("waiting, before a batch", a, ended)
		exec(t, holder, "commit")
		batch := &pgconn.Batch{}
		for _, sql := range []string{"rollback", "begin", "select 1"} {
			batch.ExecParams(sql, nil, nil, nil, nil)
		}
		if _, err := a.PgConn().ExecBatch(t.Context(), batch).ReadAll(); err != nil || a.PgConn().TxStatus() != 'T' {
			t.Errorf("rollback, begin, select 1 in a batch: %v, status %c", err, a.PgConn().TxStatus())
		}
		exec(t, a, "rollback")
		exec(t, holder, "begin")
		exec(t, holder, "select 1")

		ended = begin(b, "select 1")
		waits()
		execute(t, c, "KILL "+cell(t, c, "SELECT id FROM clients WHERE state = 'waiting'"))
		if err := <-ended; code(err) != wire.AdminShutdown {
			t.Errorf("killed: %v", err)
		}
		exec(t, holder, "commit")
		exec(t, a, "select 1") // whoever gave up has not lost the connection

		execute(t, c, "PAUSE")
		ended = begin(a, "select 1")
		waits()
		cancel("waiting for RESUME", a, ended)
		execute(t, c, "RESUME")
		exec(t, a, "select 1")

		ended = begin(a, "select * from endless")
		<-slow.begun
		cancel("reading a read model", a, ended)
		exec(t, a, "select 1")
	})
}

// A cancel request that comes when its statement has been answered may find the server asked what that has left in the session. It is asked
// again: what the session does not know is not there on another shard.
func TestCancelBehindAnAnswer(t *testing.T) {
	engines(t, func(t *testing.T, engineName string) {
		f, dsn := shop(t, engineName, fixtureSpec{})
		c := connect(t, dsn)
		exec(t, c, "create function becomes() returns int language plpgsql as $$ begin set work_mem = '77MB'; return 1; end $$")
		keys := keysOn(t, c)
		for _, k := range keys {
			exec(t, c, "insert into customers values ($1, 'c')", k)
		}
		super, d := connect(t, f.cluster.Shards[1].Primary.DSN(f.database)), connect(t, f.direct(1))
		exec(t, super, "begin")
		exec(t, super, "lock table pg_catalog.pg_depend") // which the question reads
		since := func() string {
			return text(t, d, "select coalesce(max(query_start)::text, 'never') from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'")
		}
		simply(t, c, fmt.Sprintf("select becomes() from customers where id = %d", keys[1]))
		before := "never"
		eventually(t, "the question waits", func() error {
			if before = since(); before == "never" {
				return errors.New("it does not")
			}
			return nil
		})
		if err := c.PgConn().CancelRequest(t.Context()); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it has been cancelled", func() error {
			if since() == before {
				return errors.New("it still waits")
			}
			return nil
		})
		exec(t, super, "rollback")
		for _, k := range keys {
			if got := text(t, c, "select current_setting('work_mem') from customers where id = $1", k); got != "77MB" {
				t.Errorf("on the shard of %d work_mem is %s, want 77MB", k, got)
			}
		}
	})
}

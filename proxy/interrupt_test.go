package proxy_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"

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

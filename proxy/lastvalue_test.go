package proxy_test

import (
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/tidemarkdb/tidemark/internal/backend"
)

// The last number of a sequence is that of the server connection: a client is not told another's.
func TestLastValueIsTheClientsOwn(t *testing.T) {
	f := newFixture(t, fixtureSpec{shards: 1, pool: 1})
	exec(t, connect(t, f.direct(0)), `create table numbered (id bigserial primary key, who text)`)
	engines(t, func(t *testing.T, engineName string) {
		dsn := f.start(t, engineName)
		a, b := connect(t, dsn), connect(t, dsn)
		exec(t, a, `insert into numbered (who) values ('a')`)
		for _, mode := range bothModes {
			for _, sql := range []string{`select lastval()`, `select currval('numbered_id_seq')`, `insert into numbered (who) values (lastval()::text)`} {
				if _, err := b.Exec(t.Context(), sql, mode); code(err) != "0A000" {
					t.Errorf("%v, %s: %v, want 0A000", mode, sql, err)
				}
			}
			if err := pgx.BeginFunc(t.Context(), b, func(tx pgx.Tx) error {
				var id, last int64
				if err := tx.QueryRow(t.Context(), `insert into numbered (who) values ('b') returning id`, mode).Scan(&id); err != nil {
					return err
				}
				err := tx.QueryRow(t.Context(), `select lastval()`, mode).Scan(&last)
				if last != id {
					t.Errorf("%v: lastval() is %d, want %d", mode, last, id)
				}
				return err
			}); err != nil {
				t.Errorf("%v: %v", mode, err)
			}
		}
		if _, err := a.Exec(t.Context(), `insert into numbered (who) values ('a'); select lastval()`, pgx.QueryExecModeSimpleProtocol); err != nil {
			t.Error(err)
		}
	})
	f.spec.backend = func(c *backend.Config) { c.Mode = backend.Session }
	c := connect(t, f.start(t, ""))
	if got, want := text(t, c, `insert into numbered (who) values ('c') returning id`), text(t, c, `select lastval()`); got != want {
		t.Errorf("in session mode lastval() is %s, want %s", want, got)
	}
}

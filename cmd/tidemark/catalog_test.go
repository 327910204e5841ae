package main

import (
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/tidemarkdb/tidemark/proxy"
	"github.com/tidemarkdb/tidemark/testcontainers"
)

// The connection that reads the schema is kept for the next reading, but not where it is broken, leads elsewhere, takes no writes any
// more, has failed, or is not needed.
func TestCatalogConnection(t *testing.T) {
	cluster := testcontainers.Shared(t, testcontainers.Spec{Shards: 1})
	db := cluster.Database(t)
	dsn := cluster.Shards[0].Primary.DSN(db)
	var c catalogConn
	t.Cleanup(c.close)
	pid := func(dsn string) (pid int) {
		t.Helper()
		err := c.use(t.Context(), dsn, 1, func(conn *pgx.Conn, _ *proxy.CatalogReader) error {
			return conn.QueryRow(t.Context(), `SELECT pg_backend_pid()`).Scan(&pid)
		})
		if err != nil {
			t.Fatal(err)
		}
		return pid
	}
	first := pid(dsn)
	if again := pid(dsn); again != first {
		t.Error("the connection is not kept")
	}
	for _, tt := range []struct {
		name string
		do   func()
	}{
		{"old", c.close},
		{"failed", func() {
			if err := c.use(t.Context(), dsn, 1, func(*pgx.Conn, *proxy.CatalogReader) error { return errors.ErrUnsupported }); !errors.Is(err, errors.ErrUnsupported) {
				t.Error(err)
			}
		}},
		{"broken", func() {
			_ = c.use(t.Context(), dsn, 1, func(conn *pgx.Conn, _ *proxy.CatalogReader) error {
				_, err := conn.Exec(t.Context(), `SELECT pg_terminate_backend(pg_backend_pid())`)
				if err == nil {
					t.Error("it has not ended")
				}
				return nil // as if it had broken behind the reading
			})
		}},
		{"read only", func() {
			_ = c.use(t.Context(), dsn, 1, func(conn *pgx.Conn, _ *proxy.CatalogReader) error {
				_, err := conn.Exec(t.Context(), `SET default_transaction_read_only = on`)
				return err
			})
		}},
	} {
		before := pid(dsn)
		tt.do()
		if after := pid(dsn); after == before {
			t.Errorf("%s: the connection is used again", tt.name)
		}
	}
	before := pid(dsn)
	if other := pid(dsn + "&application_name=x"); other == before {
		t.Error("a connection is used that was made in another way")
	}
}

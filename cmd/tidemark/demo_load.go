package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidemarkdb/tidemark/cmd/tidemark/shop"
	"github.com/tidemarkdb/tidemark/internal/localstack"
)

// createDatabases makes the empty database on each shard's primary, and waits until its replicas have it. This is the only thing
// that the demo does behind the proxy's back.
func createDatabases(ctx context.Context, stack *localstack.Stack) error {
	for _, pg := range stack.Postgres {
		there, err := hasDatabase(ctx, pg.Primary)
		if err == nil && !there {
			// The role has the name of the schema that capture makes for itself, and "$user" would find that one before public.
			err = runOn(ctx, pg.Primary, "CREATE DATABASE "+demoLogin+" OWNER "+localstack.User, "ALTER DATABASE "+demoLogin+" SET search_path = public")
		}
		if err != nil {
			return fmt.Errorf("create the database of %s: %w", pg.Name, err)
		}
		for _, replica := range pg.Replicas {
			for there = false; !there; time.Sleep(databasePoll) {
				if there, err = hasDatabase(ctx, replica); err != nil {
					return fmt.Errorf("wait for the database of a replica of %s: %w", pg.Name, err)
				}
			}
		}
	}
	return nil
}

const databasePoll = 50 * time.Millisecond

func hasDatabase(ctx context.Context, server *localstack.Server) (there bool, err error) {
	conn, err := pgx.Connect(ctx, server.DSN("postgres"))
	if err != nil {
		return false, err
	}
	defer func() { _ = conn.Close(ctx) }()
	err = conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", demoLogin).Scan(&there)
	return there, err
}

func runOn(ctx context.Context, server *localstack.Server, statements ...string) error {
	conn, err := pgx.Connect(ctx, server.DSN("postgres"))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	return execAll(ctx, conn, statements)
}

// demoURL is how clients connect to the demo.
func demoURL(address string) string {
	return fmt.Sprintf("postgres://%s:%s@%s/%s", demoLogin, demoLogin, address, demoLogin)
}

// createSchema creates the shop's tables through the proxy, unless an earlier demo has left them.
func createSchema(ctx context.Context, conn *pgx.Conn) (created bool, err error) {
	var there bool
	if err := conn.QueryRow(ctx, "SELECT to_regclass('public.order_lines') IS NOT NULL").Scan(&there); err != nil {
		return false, fmt.Errorf("look for the shop's tables: %w", err)
	}
	if there {
		return false, nil
	}
	return true, execAll(ctx, conn, shop.Schema())
}

// addConstraints adds the foreign keys and indexes, through the proxy too.
func addConstraints(ctx context.Context, conn *pgx.Conn, p *progress) error {
	step := p.start("foreign keys, indexes")
	begun := time.Now()
	if err := execAll(ctx, conn, shop.Constraints()); err != nil {
		step.failed()
		return err
	}
	step.done(fmt.Sprintf("on every shard, %.1f s", time.Since(begun).Seconds()))
	return nil
}

func execAll(ctx context.Context, conn *pgx.Conn, statements []string) error {
	for _, statement := range statements {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return fmt.Errorf("%w, in\n%s", err, statement)
		}
	}
	return nil
}

// loadShop copies the shop's rows through the proxy, a step for each table.
func loadShop(ctx context.Context, conn *pgx.Conn, s shop.Shop, p *progress) error {
	for _, table := range s.Tables() {
		if err := loadTable(ctx, conn, table, p); err != nil {
			return err
		}
	}
	return addConstraints(ctx, conn, p)
}

func loadTable(ctx context.Context, conn *pgx.Conn, table shop.Table, p *progress) error {
	step := p.start("load " + table.Name)
	begun := time.Now()
	data := table.Rows()
	defer func() { _ = data.Close() }()
	counted := &lineCounter{r: data, step: step}
	tag, err := conn.PgConn().CopyFrom(ctx, counted, table.Copy())
	if err != nil {
		step.failed()
		return fmt.Errorf("load %s: %w", table.Name, err)
	}
	if got, want := tag.RowsAffected(), counted.lines.Load(); got != want {
		step.failed()
		return fmt.Errorf("load %s: %d rows were sent and %d arrived", table.Name, want, got)
	}
	step.done(fmt.Sprintf("%s rows by COPY, %.1f s", thousands(int(tag.RowsAffected())), time.Since(begun).Seconds()))
	return nil
}

// lineCounter counts what passes through it.
type lineCounter struct {
	r     io.Reader
	step  *step
	lines atomic.Int64
}

func (c *lineCounter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.step.update(thousands(int(c.lines.Add(int64(bytes.Count(p[:n], []byte{'\n'}))))))
	return n, err
}

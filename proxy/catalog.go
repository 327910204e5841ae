package proxy

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidemarkdb/tidemark/router"
)

// catalogTimeout bounds one reading of the catalog.
const catalogTimeout = 30 * time.Second

// loadCatalog reads the catalog and puts a router in place that knows it. Plans made before stay valid for those who
// hold them; new ones come from the new router.
func (p *Proxy) loadCatalog(ctx context.Context) error {
	p.reload.Lock()
	defer p.reload.Unlock()
	return p.load(ctx)
}

// load is loadCatalog, of who has locked reload.
func (p *Proxy) load(ctx context.Context) error {
	defer p.statements.schemaChanges()
	ctx, stop := context.WithTimeout(ctx, catalogTimeout)
	defer stop()
	c, err := p.catalog(ctx)
	if err != nil {
		return err
	}
	for name, v := range p.views {
		m := router.Model{Name: name, Own: isOwn(name)}
		if schema, table, qualified := strings.Cut(name, "."); qualified {
			m.Schema, m.Name = schema, table
		}
		columns := v.Columns()
		if len(columns) == 0 {
			continue // its table does not exist yet
		}
		for _, col := range columns {
			m.Columns = append(m.Columns, router.ModelColumn{Name: col.Name, OID: col.OID, TypeMod: col.TypeMod})
		}
		c.Models = append(c.Models, m)
	}
	old := p.router.Load()
	if old != nil {
		c.Paths = old.Paths()
	}
	rt, err := router.New(router.Config{Map: p.shardMap, Catalog: c})
	if err != nil {
		return fmt.Errorf("plan with the new catalog: %w", err)
	}
	if old == nil && (len(p.shards) > 1 || len(p.views) > 0) {
		// What is known now counts for as long as the process lives, here and on all connections, whatever is altered meanwhile:
		// sessions that look names up in one way and connections that do in another would find other tables.
		p.backend.SearchPaths(rt.SearchPath)
	}
	p.router.Store(rt)
	return nil
}

// reloadCatalog reads it after a change that did pass. When that fails the old one stays, with a warning. Whose changes pass while it is
// read for another's share the next reading: many clients that change the schema at once wait for two, not for one each.
func (p *Proxy) reloadCatalog() {
	change := p.changes.Add(1)
	p.reload.Lock()
	defer p.reload.Unlock()
	if p.covered >= change {
		return
	}
	began := p.changes.Load()
	if err := p.load(context.Background()); err != nil {
		p.log.Warn("the catalog could not be read after a change of the schema", "error", err)
		return
	}
	p.covered = began
}

// ReadCatalog reads one state of the schema over a connection to the default shard's primary. shards: how many there are. Operators of
// the users' own, in a schema where it would look for them, are none that it means, and must not run as the role that reads.
func ReadCatalog(ctx context.Context, conn *pgx.Conn, shards int) (*router.Catalog, error) {
	var c *router.Catalog
	err := pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) (err error) {
		if _, err := tx.Exec(ctx, "SET LOCAL search_path TO pg_catalog, pg_temp"); err != nil {
			return err
		}
		c, err = router.ReadCatalog(func(statement string, each func(row [][]byte) error) error {
			return readRows(ctx, conn, statement, each)
		}, shards)
		return err
	})
	return c, err
}

// readRows calls each with the rows of a statement, in text format.
func readRows(ctx context.Context, conn *pgx.Conn, statement string, each func(row [][]byte) error) error {
	result := conn.PgConn().ExecParams(ctx, statement, nil, nil, nil, nil)
	for result.NextRow() {
		if err := each(result.Values()); err != nil {
			_, closed := result.Close()
			return errors.Join(err, closed)
		}
	}
	_, err := result.Close()
	return err
}

package proxy

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

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

// ReloadCatalog reads it after a change that did pass, here or on the servers directly. When that fails the old one stays, with a warning.
// Whose changes pass while it is read for another's share the next reading: many clients that change the schema at once wait for two, not
// for one each.
func (p *Proxy) ReloadCatalog() {
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

// CatalogReader reads the schema over a connection to the default shard's primary, which is its own from then on, and of no use after an
// error. What it asks is prepared there: PostgreSQL takes several times as long to plan it as to answer it.
type CatalogReader struct {
	conn     *pgconn.PgConn
	reader   *router.Reader
	prepared map[string]bool
}

// NewCatalogReader makes a CatalogReader. shards: how many there are.
func NewCatalogReader(conn *pgconn.PgConn, shards int) *CatalogReader {
	return &CatalogReader{conn: conn, reader: router.NewReader(shards), prepared: map[string]bool{}}
}

// Read reads one state of the schema, in one round trip. Operators of the users' own, in a schema where it would look for them, are none
// that it means, and must not run as the role that reads.
func (r *CatalogReader) Read(ctx context.Context) (c *router.Catalog, err error) {
	p := r.conn.StartPipeline(ctx)
	defer func() { err = errors.Join(err, p.Close()) }()
	return r.reader.Read(func(questions []router.Question) (router.Answers, error) {
		begin := []string{"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", "SET LOCAL search_path TO pg_catalog, pg_temp"}
		for _, statement := range begin {
			p.SendQueryParams(statement, nil, nil, nil, nil)
		}
		for _, q := range questions {
			if !r.prepared[q.Name] {
				r.prepared[q.Name] = true
				p.SendPrepare(q.Name, q.SQL, nil)
			}
			p.SendQueryPrepared(q.Name, q.Params, nil, nil)
		}
		p.SendQueryParams("COMMIT", nil, nil, nil, nil)
		if err := p.Sync(); err != nil {
			return nil, err
		}
		for range begin {
			if _, err := p.GetResults(); err != nil {
				return nil, err
			}
		}
		return func(each func(row [][]byte) error) error { return nextRows(p, each) }, nil
	})
}

// nextRows calls each with the rows of the next result that has any, in text format.
func nextRows(p *pgconn.Pipeline, each func(row [][]byte) error) error {
	for {
		result, err := p.GetResults()
		if err != nil {
			return err
		}
		rows, ok := result.(*pgconn.ResultReader)
		if !ok {
			continue // prepared
		}
		for rows.NextRow() {
			if err := each(rows.Values()); err != nil {
				return err
			}
		}
		_, err = rows.Close()
		return err
	}
}

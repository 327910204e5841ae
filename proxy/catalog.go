package proxy

import (
	"context"
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
	ctx, stop := context.WithTimeout(ctx, catalogTimeout)
	defer stop()
	c, err := p.catalog(ctx)
	if err != nil {
		return err
	}
	for name, v := range p.views {
		m := router.Model{Name: name}
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
	rt, err := router.New(router.Config{Map: p.shardMap, Catalog: c})
	if err != nil {
		return fmt.Errorf("plan with the new catalog: %w", err)
	}
	p.router.Store(rt)
	return nil
}

// Reload reads the catalog again, for a change of the schema that did not pass through this proxy.
func (p *Proxy) Reload(ctx context.Context) error { return p.loadCatalog(ctx) }

// reloadCatalog reads it after a change that did pass. When that fails the old one stays, with a warning.
func (p *Proxy) reloadCatalog() {
	if err := p.loadCatalog(context.Background()); err != nil {
		p.log.Warn("the catalog could not be read after a change of the schema", "error", err)
	}
}

// CatalogOf reads the catalog over connections of its own to the server that the connection string names: the default
// shard's primary.
func CatalogOf(dsn string) func(context.Context) (*router.Catalog, error) {
	return func(ctx context.Context) (*router.Catalog, error) {
		conn, err := pgx.Connect(ctx, dsn)
		if err != nil {
			return nil, err
		}
		defer conn.Close(context.WithoutCancel(ctx))
		return readCatalog(ctx, conn)
	}
}
func readCatalog(ctx context.Context, conn *pgx.Conn) (*router.Catalog, error) { return &router.Catalog{}, nil }

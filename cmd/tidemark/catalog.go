package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidemarkdb/tidemark/proxy"
	"github.com/tidemarkdb/tidemark/router"
)

const (
	// catalogKept is for how long the connection that reads the schema is kept: a client that changes the schema seldom does it once, and
	// waits for the reading, which takes 5 ms where the server has planned what is asked, and 50 over a new connection (measured). Plans
	// are made for the size that the schema has then, and not kept for ever.
	catalogKept = 30 * time.Second
	// catalogProof bounds the wait for a kept connection to say that it is one still.
	catalogProof = 2 * time.Second
)

// catalogConn is the connection that reads the schema: one at most.
type catalogConn struct {
	mu     sync.Mutex // guards what follows, and is held while it is used
	conn   *pgx.Conn  // nil: there is none
	reader *proxy.CatalogReader
	to     string // how conn was made
	old    *time.Timer
}

// use has f ask over a connection made by connString, to a database of so many shards: the one that is kept, where it still takes writes.
// After an error it is not kept.
func (c *catalogConn) use(ctx context.Context, connString string, shards int, f func(*pgx.Conn, *proxy.CatalogReader) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != nil && (c.to != connString || !takesWrites(ctx, c.conn)) {
		c.drop()
	}
	if c.conn == nil {
		conn, err := pgx.Connect(ctx, connString)
		if err != nil {
			return err
		}
		c.conn, c.reader, c.to = conn, proxy.NewCatalogReader(conn.PgConn(), shards), connString
		c.old = time.AfterFunc(catalogKept, c.close)
		if err := onCatalog(ctx, conn); err != nil {
			c.drop()
			return err
		}
	}
	if err := f(c.conn, c.reader); err != nil {
		c.drop()
		return err
	}
	return nil
}

// takesWrites is target_session_attrs=read-write of a connection that was one when it was made: its server may have become a standby since.
func takesWrites(ctx context.Context, conn *pgx.Conn) bool {
	ctx, cancel := context.WithTimeout(ctx, catalogProof)
	defer cancel()
	var readOnly string
	err := conn.QueryRow(ctx, "SELECT pg_catalog.current_setting('transaction_read_only')").Scan(&readOnly)
	return err == nil && readOnly == "off"
}

// close ends the connection that is kept.
func (c *catalogConn) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drop()
}

// drop is close for who holds mu.
func (c *catalogConn) drop() {
	if c.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = c.conn.Close(ctx) // it has served
	c.conn, c.reader = nil, nil
	c.old.Stop()
}

// catalog reads the schema, and with it the columns of the tables of views, from the primary of the default shard.
func (p *proxyProcess) catalog(ctx context.Context) (read *router.Catalog, err error) {
	home := p.c.Shards[0]
	for _, s := range p.c.Shards {
		if s.Name == p.c.Sharding.DefaultShard {
			home = s
		}
	}
	err = p.schema.use(ctx, p.current.Load().PrimaryConnString(home), len(p.c.Shards), func(conn *pgx.Conn, reader *proxy.CatalogReader) (err error) {
		for _, v := range p.views {
			if err := v.learn(ctx, conn); err != nil {
				return err
			}
		}
		read, err = reader.Read(ctx)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("shard %s: %w", home.Name, err)
	}
	return read, nil
}

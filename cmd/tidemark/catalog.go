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
	// catalogIdle is how long the connection that reads the schema is kept: a client that changes the schema seldom does it once, and a
	// server that has just answered the same questions needs 19 ms where a new connection needs 32 (measured), for which the client waits.
	catalogIdle = 10 * time.Second
	// catalogProof bounds the wait for a kept connection to say that it is one still.
	catalogProof = 2 * time.Second
)

// catalogConn is the connection that reads the schema: one at most.
type catalogConn struct {
	mu   sync.Mutex // guards what follows, and is held while it is used
	conn *pgx.Conn  // nil: there is none
	to   string     // how conn was made
	idle *time.Timer
}

// use has f ask over a connection made by connString: the one that is kept, where it still takes writes. After an error it is not kept.
func (c *catalogConn) use(ctx context.Context, connString string, f func(*pgx.Conn) error) error {
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
		c.conn, c.to = conn, connString
		if err := onCatalog(ctx, conn); err != nil {
			c.drop()
			return err
		}
	}
	if err := f(c.conn); err != nil {
		c.drop()
		return err
	}
	if c.idle == nil {
		c.idle = time.AfterFunc(catalogIdle, c.close)
	} else {
		c.idle.Reset(catalogIdle)
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
	c.conn = nil
}

// catalog reads the schema, and with it the columns of the tables of views, from the primary of the default shard.
func (p *proxyProcess) catalog(ctx context.Context) (read *router.Catalog, err error) {
	home := p.c.Shards[0]
	for _, s := range p.c.Shards {
		if s.Name == p.c.Sharding.DefaultShard {
			home = s
		}
	}
	err = p.schema.use(ctx, p.current.Load().PrimaryConnString(home), func(conn *pgx.Conn) (err error) {
		for _, v := range p.views {
			if err := v.learn(ctx, conn); err != nil {
				return err
			}
		}
		read, err = proxy.ReadCatalog(ctx, conn, len(p.c.Shards))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("shard %s: %w", home.Name, err)
	}
	return read, nil
}

package backend

import (
	"context"
	"net"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tidemarkdb/tidemark/internal/loop"
	"github.com/tidemarkdb/tidemark/internal/wire"
)

// CancelKey names the statement of one holder of a connection. It is a value: it may be kept beyond Release, and copied to
// the task that serves the client's CancelRequest. The zero value cancels nothing.
type CancelKey struct {
	conn  *Conn
	lease uint64
	addr  net.Addr
}

// CancelKey is how others cancel what runs on c while the caller holds it.
func (c *Conn) CancelKey() CancelKey {
	c.pool.mu.Lock()
	defer c.pool.mu.Unlock()
	return CancelKey{conn: c, lease: c.lease, addr: c.IO.RemoteAddr()}
}

// Cancel asks the server, over a connection of its own (with TLS if the first has it), to cancel what runs, and waits until
// the server has taken the request. It blocks, for the connect timeout at most: not for a task. When the holder has
// released the connection it does nothing; and a connection released meanwhile is given to nobody until the request is
// over, so that it cannot hit another session's statement.
func (k CancelKey) Cancel(ctx context.Context) error {
	if k.conn == nil {
		return nil
	}
	c, p := k.conn, k.conn.pool
	p.mu.Lock()
	if c.lease != k.lease || p.closed {
		p.mu.Unlock()
		return nil
	}
	c.cancels++
	p.b.openers.Add(1)
	p.mu.Unlock()
	defer p.b.openers.Done()

	// Who closes the Backend waits for this, and the holder of the connection may, too: not for long.
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	defer context.AfterFunc(p.b.ctx, func() { time.AfterFunc(lastCancels, stop) })()
	err := c.endpoint.cancel(ctx, c, k.addr)

	p.mu.Lock()
	c.cancels--
	resume := c.parked && c.cancels == 0
	if resume {
		c.parked = false
	}
	p.mu.Unlock()
	if resume {
		p.b.eng.Go(func(t *loop.Task) {
			t.Own(c.IO)
			c.Release()
		})
	}
	return err
}

// lastCancels is how long cancel requests under way may take when the Backend is closed.
const lastCancels = time.Second

// cancel sends one CancelRequest the way pgconn does: same address, same encryption.
func (e *Endpoint) cancel(ctx context.Context, c *Conn, addr net.Addr) error {
	ctx, stop := context.WithTimeout(ctx, e.login().timeout)
	defer stop()
	pg, err := pgconn.Construct(&pgconn.HijackedConn{
		Conn: addrOnly{addr: addr}, TLSConfig: c.tls, PID: c.pid, SecretKey: c.key,
		ParameterStatuses: map[string]string{}, TxStatus: wire.TxIdle, Config: e.login().plain,
	})
	if err != nil {
		return e.connectError(err, e.login().user)
	}
	if err := pg.CancelRequest(ctx); err != nil {
		return e.connectError(err, e.login().user)
	}
	return nil
}

// addrOnly is a connection of which only the peer's address is used: pgconn sends cancel requests there.
type addrOnly struct {
	net.Conn
	addr net.Addr
}

func (a addrOnly) RemoteAddr() net.Addr { return a.addr }

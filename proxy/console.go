package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"time"

	"github.com/tidemarkdb/tidemark/internal/sql"
	"github.com/tidemarkdb/tidemark/internal/wire"
)

// console is one connection to the admin database.
type console struct {
	a      *admin
	conn   net.Conn
	user   string
	rights rights
	pid    uint32
	key    []byte
	since  time.Time
	end    func() // ends the console; any goroutine
	cancel func() // ends the command that runs; guarded by admin.mu

	out     []byte
	status  byte // of the transaction that the client believes in: drivers begin one before they ask
	skip    bool // an error came, and no Sync since
	stmts   map[string]*adminStatement
	portals map[string]*adminPortal
}

// Bounds of a console.
const (
	consoleMessage    = 1 << 20 // bytes of one message
	consoleStatements = 100     // prepared statements, and portals
	consoleFlush      = 64 << 10
	consoleWrite      = 10 * time.Second // how long a client may take to receive what is written at once
)

// run greets the client and serves it until it leaves, or ctx ends. An error that is a *wire.Error is to be told.
func (c *console) run(ctx context.Context) error {
	for _, p := range c.a.greeting(c.user) {
		c.out = wire.AppendParameterStatus(c.out, p.Name, p.Value)
	}
	c.out = wire.AppendBackendKeyData(c.out, c.pid, c.key)
	c.ready()
	if err := c.conn.SetDeadline(time.Time{}); err != nil {
		return err
	}
	frames, failed := make(chan []byte), make(chan error, 1)
	go func() { // ends when the connection does, or when run has returned
		for {
			frame, err := readFrame(c.conn)
			if err != nil {
				failed <- err
				c.end() // a command that waits does so for nobody
				return
			}
			select {
			case frames <- frame:
			case <-ctx.Done():
				return
			}
		}
	}()
	for {
		if err := c.flush(); err != nil {
			return err
		}
		select {
		case err := <-failed:
			return err
		case <-ctx.Done():
			select {
			case err := <-failed:
				return err
			default:
				return errTerminated()
			}
		case frame := <-frames:
			if frame[0] == wire.MsgTerminate {
				return nil
			}
			if err := c.handle(ctx, frame[0], frame[wire.HeaderLen:]); err != nil {
				return err
			}
		}
	}
}

// readFrame reads one message of a client.
func readFrame(conn net.Conn) ([]byte, error) {
	b := make([]byte, wire.HeaderLen)
	if _, err := io.ReadFull(conn, b); err != nil {
		return nil, err
	}
	_, size, err := wire.Header(b, wire.Frontend)
	if err != nil {
		return nil, err
	}
	if size > consoleMessage {
		return nil, wire.Errorf(wire.ProgramLimitExceeded, "message of %d bytes is larger than the %d that the admin database takes", size, consoleMessage).Fatal()
	}
	b = append(b, make([]byte, size-wire.HeaderLen)...)
	_, err = io.ReadFull(conn, b[wire.HeaderLen:])
	return b, err
}

// flush writes what is to be said.
func (c *console) flush() error {
	if len(c.out) == 0 {
		return nil
	}
	if err := c.conn.SetWriteDeadline(time.Now().Add(consoleWrite)); err != nil {
		return err
	}
	_, err := c.conn.Write(c.out)
	c.out = c.out[:0]
	return err
}

// synced ends what PostgreSQL's implicit transaction would. Portals outlive it in one that the client has begun: JDBC fetches rows so.
func (c *console) synced() {
	if c.status != wire.TxOpen {
		clear(c.portals)
	}
	c.ready()
}

func (c *console) ready() { c.out = wire.AppendReadyForQuery(c.out, c.status) }

// handle takes one message. Errors that it returns end the console; all others are told.
func (c *console) handle(ctx context.Context, typ byte, body []byte) error {
	if c.skip && typ != wire.MsgSync {
		return nil
	}
	var err error
	switch typ {
	case wire.MsgQuery:
		err = c.query(ctx, body)
		c.told(err)
		c.synced()
		return fatal(err)
	case wire.MsgParse:
		err = c.parse(body)
	case wire.MsgBind:
		err = c.bind(body)
	case wire.MsgDescribe:
		err = c.describe(body)
	case wire.MsgExecute:
		err = c.execute(ctx, body)
	case wire.MsgClose:
		err = c.closeNamed(body)
	case wire.MsgFlush:
		return nil
	case wire.MsgSync:
		c.skip = false
		c.synced()
		return nil
	case wire.MsgCopyData, wire.MsgCopyDone, wire.MsgCopyFail:
		return nil // as PostgreSQL does outside of a COPY
	default:
		err = wire.Errorf(wire.FeatureNotSupported, "the admin database does not take messages of type %q", typ)
	}
	c.told(err)
	c.skip = err != nil
	return fatal(err)
}

// fatal is err if it ends the console.
func fatal(err error) error {
	var e *wire.Error
	if err == nil || errors.As(err, &e) && !e.EndsSession() {
		return nil
	}
	return err
}

// told gives the client an error that does not end the console.
func (c *console) told(err error) {
	if err == nil || fatal(err) != nil {
		return
	}
	c.out = wire.AppendErrorResponse(c.out, wire.AsError(err))
	if c.status == wire.TxOpen {
		c.status = wire.TxAborted
	}
}

// query runs the statements of a Query message, up to the first error.
func (c *console) query(ctx context.Context, body []byte) error {
	text, err := wire.DecodeQuery(body)
	if err != nil {
		return err
	}
	delete(c.stmts, "")
	var scan sql.Scanner
	if !scan.Scan(text) {
		st, err := c.a.prepare(text, nil) // a syntax error, most likely: the parser has the words for it
		if err != nil {
			return err
		}
		return c.once(ctx, st)
	}
	if len(scan.Statements) == 0 {
		c.out = wire.AppendEmptyQueryResponse(c.out)
		return nil
	}
	for _, span := range scan.Statements {
		st, err := c.a.prepare(text[span.Start:span.End], nil)
		if err != nil {
			return err
		}
		if err := c.once(ctx, st); err != nil {
			return err
		}
	}
	return nil
}

// once runs a statement without parameters, its rows described.
func (c *console) once(ctx context.Context, st *adminStatement) error {
	portal, err := c.open(st, nil, nil, nil)
	if err != nil {
		return err
	}
	if columns := st.columns(); columns != nil {
		c.out = appendColumns(c.out, columns, nil)
	}
	return c.fetch(ctx, portal, 0)
}

package backend

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/tidemarkdb/tidemark/internal/loop"
	"github.com/tidemarkdb/tidemark/internal/wire"
)

// Conn is a server connection that a session holds between Acquire and Release. The exported fields belong to the session
// in that time; nobody else looks at them. Its protocol state is the session's to keep: the session reads and writes IO
// and records here what the next holder, and Release, must know.
type Conn struct {
	IO *loop.Conn

	// Waited is how long its holder waited for it; 0: it was there.
	Waited time.Duration

	// TxStatus is that of the last ReadyForQuery. Outstanding counts Query, Sync and FunctionCall messages sent whose
	// ReadyForQuery has not been read: only a connection with none, in status I, goes back to the pool.
	TxStatus    byte
	Outstanding int

	// Dirty says that session state which the proxy does not track may be left behind. Release then cleans the
	// connection by DISCARD ALL before anybody else gets it.
	Dirty bool

	// Spoilt says that there is state which DISCARD ALL leaves: Release closes the connection.
	Spoilt bool

	// Settings is a fingerprint of the session settings applied on this connection; 0 is the server's defaults.
	Settings uint64
	// Params are the settings that the server has reported (ParameterStatus), Reported their fingerprint as of
	// ReportedPrint.
	Params   map[string]string
	Reported uint64

	// Statements are the named prepared statements on this connection. Unnamed is the id of the statement in the unnamed
	// one, 0 for none.
	Statements Statements
	Unnamed    uint64

	// Notifier is the client of whom a statement that ran here last may have sent notifications which have not been heard
	// yet, by the process id that it was told; 0: nobody.
	Notifier uint32

	endpoint *Endpoint
	pool     *pool
	pid      uint32
	key      []byte
	tls      *tls.Config // nil for a plain connection
	idleTime time.Duration
	opened   time.Time
	expires  time.Time

	// Guarded by pool.mu:
	lease     uint64    // changes whenever the holder changes
	cancels   int       // cancel requests under way
	parked    bool      // released, but waits for a cancel request to end
	retire    bool      // too old: close instead of using it again
	evicted   *bound    // being closed so that another pool, which lacks a slot of this bound, can open one
	idleSince time.Time // zero until the janitor has seen it idle
	unproven  bool      // idle for so long that it may be dead unnoticed; set while it is idle, read by its next holder
}

// Endpoint is the server that the connection leads to.
func (c *Conn) Endpoint() *Endpoint { return c.endpoint }

// PID is the server process behind the connection, as in pg_stat_activity.
func (c *Conn) PID() uint32 { return c.pid }

// Release gives the connection back; the caller must not touch it any more. It becomes the next session's only if it is
// idle and clean: in status I, nothing outstanding, nothing unread. A dirty one is cleaned first, in a task of its own.
// All others are closed.
func (c *Conn) Release() {
	switch {
	case c.Spoilt || c.TxStatus != wire.TxIdle || c.Outstanding != 0 || !c.quiet():
		c.Close()
	case c.Dirty:
		c.pool.b.eng.Go(c.clean)
	default:
		c.pool.put(c)
	}
}

// Close ends the connection instead of giving it back: for a connection whose state is not known any more. The caller must
// hold it, and not touch it afterwards.
func (c *Conn) Close() {
	if c.TxStatus == wire.TxIdle && c.Outstanding == 0 {
		// So the server logs no unexpected EOF. When it does not fit, closing says it as well.
		_, _ = c.IO.Write(wire.AppendTerminate(make([]byte, 0, wire.HeaderLen)))
	}
	_ = c.IO.Close() // whatever it reports, the connection is over
	c.pool.drop(c)
}

// usable finds out whether a connection that was just taken from the pool still leads to a server.
func (c *Conn) usable(t *loop.Task) bool {
	return c.quiet() && (!c.unproven || c.prove(t))
}

// checkTimeout bounds the proof that a connection which was idle for long is alive.
const checkTimeout = time.Second

// prove asks the server for the answer to an empty query. Firewalls forget idle connections without a word, and a machine
// that lost its power says nothing either; what else was idle for as long has most likely met the same fate, and is closed
// if this one is dead, so that no session finds out one after the other.
func (c *Conn) prove(t *loop.Task) bool {
	err := c.exec(t, "", "", time.Now().Add(checkTimeout))
	if err == nil {
		c.unproven = false
		return true
	}
	c.pool.b.log.Warn("an idle server connection was found dead and is replaced", "endpoint", c.endpoint.String(), "error", err)
	c.pool.dropUnproven()
	return false
}

// asyncBuffer is more than any message that a server sends unasked while a connection is idle is likely to have.
const asyncBuffer = 4096

// quiet finds out, mostly without a system call, whether the connection is alive and the server has nothing to say.
// Messages that a server may send at any time (a setting changed by reload, a notice) are taken; anything else, such as
// the FATAL error of a server that shuts down, makes the connection unusable, and so does its end: a server that crashes says
// a WARNING before it.
func (c *Conn) quiet() bool {
	if c.IO.Quiet() {
		return true
	}
	buf := make([]byte, asyncBuffer)
	for {
		n, err := c.IO.Read(buf)
		if errors.Is(err, loop.ErrWouldBlock) && n == 0 {
			return !c.IO.HungUp()
		}
		if err != nil || n == len(buf) {
			return false
		}
		for rest := buf[:n]; len(rest) > 0; {
			f, need, err := wire.Next(rest, wire.Backend, 0)
			if err != nil || need > 0 || !c.takeAsync(f) {
				return false
			}
			rest = rest[f.Len:]
		}
	}
}

// takeAsync handles a message that a server may send unasked; false for all others.
func (c *Conn) takeAsync(f wire.Frame) bool {
	switch f.Type {
	case wire.MsgParameterStatus:
		name, value, err := wire.DecodeParameterStatus(f.Body)
		if err != nil {
			return false
		}
		c.SetParam(name, value)
		return true
	case wire.MsgNoticeResponse, wire.MsgNotificationResponse:
		return true
	}
	return false
}

// SetParam records a ParameterStatus. It copies what it keeps.
func (c *Conn) SetParam(name, value []byte) {
	old, had := c.Params[string(name)]
	if had && old == string(value) {
		return
	}
	if c.Params == nil {
		c.Params = map[string]string{}
	}
	if had {
		c.Reported -= printOf(string(name), old)
	}
	c.Reported += printOf(string(name), string(value))
	c.Params[string(name)] = string(value)
}

// clean is the task that makes a dirty connection as good as new, proven by the server's answer, or closes it.
func (c *Conn) clean(t *loop.Task) {
	t.Own(c.IO)
	defer context.AfterFunc(c.pool.b.ctx, t.Wake)() // nobody will use it any more: see exec
	until := time.Now().Add(c.pool.b.cfg().ResetTimeout)
	err := c.exec(t, "DISCARD ALL", "DISCARD ALL", until)
	if err == nil {
		err = c.exec(t, reseed(), "SET", until)
	}
	if err != nil {
		if !errors.Is(err, ErrClosed) {
			c.pool.b.log.Warn("a server connection could not be cleaned and was closed", "endpoint", c.endpoint.String(), "error", err)
		}
		c.Close()
		return
	}
	c.Dirty, c.Settings, c.Unnamed = false, 0, 0
	c.Statements.Reset()
	c.pool.put(c)
}

// reseed gives random() a seed that nobody knows, as the server process began with: whoever had the connection may have set it.
func reseed() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // it never fails
	return fmt.Sprintf("SET seed = %.17f", float64(binary.BigEndian.Uint64(b[:])>>11)/(1<<52)-1)
}

// exec runs one statement without rows, whose command tag is known, and waits for its end. The connection must be
// idle; any other answer than that of this statement is an error, so that what an earlier one left unread is found out.
func (c *Conn) exec(t *loop.Task, sql, tag string, deadline time.Time) error {
	out := wire.AppendQuery(nil, sql)
	in := make([]byte, 0, asyncBuffer)
	var failed error
	answered := false
	c.Outstanding++
	for {
		for len(out) > 0 {
			n, err := c.IO.Write(out)
			out = out[n:]
			if errors.Is(err, loop.ErrWouldBlock) {
				break
			}
			if err != nil {
				return err
			}
		}
		n, err := c.IO.Read(in[len(in):cap(in)])
		in = in[:len(in)+n]
		switch {
		case errors.Is(err, loop.ErrWouldBlock) && n == 0:
			want := loop.Readable | loop.Hangup
			if len(out) > 0 {
				want |= loop.Writable
			}
			switch cause := t.Wait(deadline, loop.Source{Conn: c.IO, For: want}); cause {
			case loop.Timeout, loop.Closing:
				return wire.Errorf(wire.ConnectionFailure, "%s: no answer (%s)", sql, cause)
			case loop.Ready:
			case loop.Woken:
				if c.pool.b.ctx.Err() != nil {
					return ErrClosed
				}
			}
		case err != nil:
			return err
		}
		for {
			f, need, err := wire.Next(in, wire.Backend, asyncBuffer)
			if err != nil {
				return err
			}
			if need > 0 {
				break
			}
			switch f.Type {
			case wire.MsgReadyForQuery:
				status, err := wire.DecodeReadyForQuery(f.Body)
				if err != nil {
					return err
				}
				c.Outstanding--
				c.TxStatus = status
				if failed == nil && (!answered || status != wire.TxIdle || len(in) > f.Len) {
					return wire.Errorf(wire.ProtocolViolation, "%s: the connection is not idle afterwards", sql)
				}
				return failed
			case wire.MsgErrorResponse:
				e, err := wire.DecodeError(f.Body)
				if err != nil {
					return err
				}
				failed = e
			case wire.MsgCommandComplete, wire.MsgEmptyQueryResponse:
				if got := string(bytes.TrimSuffix(f.Body, []byte{0})); answered || got != tag {
					return wire.Errorf(wire.ProtocolViolation, "%s: the server answers something else: %q", sql, got)
				}
				answered = true
			default:
				if !c.takeAsync(f) {
					return wire.Errorf(wire.ProtocolViolation, "%s: unexpected message of type %q", sql, f.Type)
				}
			}
			in = append(in[:0], in[f.Len:]...)
		}
	}
}

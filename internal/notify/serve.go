package notify

import (
	"errors"
	"slices"
	"time"

	"github.com/tidemarkdb/tidemark/internal/backend"
	"github.com/tidemarkdb/tidemark/internal/loop"
	"github.com/tidemarkdb/tidemark/internal/wire"
)

// Bounds of a listening connection.
const (
	lookAfter     = time.Second      // how often it looks whether its server is still the primary
	beatAfter     = 30 * time.Second // how long it may have heard nothing before it asks whether the server is there
	answerTimeout = 30 * time.Second // for one round
	readSize      = 16 << 10         // bytes; no notification is larger
	messageLimit  = 1 << 20          // bytes of one message of the server
)

// run is the listener's task.
func (l *listener) run(t *loop.Task) {
	l.mu.Lock()
	l.task = t
	l.mu.Unlock()
	cause := wire.Errorf(wire.InternalError, "the task that listens has ended") // a panic's; its own errors follow
	defer func() {
		if cause != nil {
			l.fail(cause, errLost(cause))
		}
	}()
	cause = l.connect(t)
}

// connect serves the subscribers over a connection of their own until nobody listens any more (nil) or it is lost.
func (l *listener) connect(t *loop.Task) *wire.Error {
	e, err := l.hub.shard.Primary()
	if err != nil {
		return wire.AsError(err)
	}
	conn, err := e.AcquireListening(t, l.id)
	if err != nil {
		return wire.AsError(err)
	}
	c := &connection{Conn: conn, listener: l, heard: time.Now(), looked: time.Now()}
	ended := false
	defer func() {
		if ended {
			conn.Dirty = true
			conn.Release()
		} else {
			conn.Close()
		}
	}()
	l.mu.Lock()
	l.pid = conn.PID()
	l.mu.Unlock()
	for {
		finished, err := c.step(t)
		if err == errClosing {
			return err
		}
		if err != nil {
			l.hub.log.Warn("a connection that listens was lost", "endpoint", e.String(), "error", err.Message)
			return err
		}
		if finished {
			ended = true
			return nil
		}
	}
}

// connection is the server connection of a listener, with one round under way at most.
type connection struct {
	*backend.Conn
	listener *listener
	out      []byte // not yet accepted by the socket
	in       []byte // a message that has come in part
	round    bool   // ReadyForQuery is owed
	since    time.Time
	heard    time.Time // when the server last said something
	looked   time.Time // when it was last seen to be the primary
	err      *wire.Error
}

// step makes what progress is possible, or waits.
func (c *connection) step(t *loop.Task) (finished bool, err *wire.Error) {
	now := time.Now()
	if now.Sub(c.looked) >= lookAfter { // however busy it is
		c.looked = now
		if e, err := c.listener.hub.shard.Primary(); err == nil && e != c.Endpoint() {
			return false, wire.Errorf(wire.ConnectionFailure, "%s is not the primary any more", c.Endpoint())
		}
	}
	if !c.round {
		if sql, ok := c.listener.compose(); ok {
			c.ask(sql, now)
		} else if c.listener.finished() {
			return true, nil
		} else if now.Sub(c.heard) > beatAfter {
			c.ask("", now)
		}
	} else if now.Sub(c.since) > answerTimeout {
		return false, wire.Errorf(wire.ConnectionFailure, "the server has not answered for %s", answerTimeout)
	}
	if len(c.out) > 0 {
		n, err := c.IO.Write(c.out)
		c.out = c.out[n:]
		if err != nil && !errors.Is(err, loop.ErrWouldBlock) {
			return false, errBroken(err)
		}
	}
	moved, err := c.read()
	if moved || err != nil {
		return false, err
	}
	want := loop.Readable | loop.Hangup
	if len(c.out) > 0 {
		want |= loop.Writable
	}
	switch t.Wait(now.Add(lookAfter), loop.Source{Conn: c.IO, For: want}) {
	case loop.Closing:
		return false, errClosing
	case loop.Timeout, loop.Ready, loop.Woken:
	}
	return false, nil
}

func (c *connection) ask(sql string, now time.Time) {
	c.out = wire.AppendQuery(c.out, sql)
	c.round, c.since = true, now
	c.Outstanding++
}

// read takes what has come, once.
func (c *connection) read() (moved bool, failed *wire.Error) {
	if !c.IO.Readable() && !c.IO.HungUp() {
		return false, nil
	}
	c.in = slices.Grow(c.in, readSize)
	n, err := c.IO.Read(c.in[len(c.in):cap(c.in)])
	c.in = c.in[:len(c.in)+n]
	if err != nil && !errors.Is(err, loop.ErrWouldBlock) {
		return true, errBroken(err)
	}
	if n == 0 {
		return false, nil
	}
	c.heard = time.Now()
	rest := c.in
	for {
		f, need, err := wire.Next(rest, wire.Backend, messageLimit)
		if err != nil {
			return true, wire.AsError(err)
		}
		if need > 0 {
			break
		}
		if err := c.message(f); err != nil {
			return true, err
		}
		rest = rest[f.Len:]
	}
	c.in = append(c.in[:0], rest...)
	return true, nil
}

// message handles one message of the server.
func (c *connection) message(f wire.Frame) *wire.Error {
	switch f.Type {
	case wire.MsgNotificationResponse:
		n, err := wire.DecodeNotification(f.Body)
		if err != nil {
			return wire.AsError(err)
		}
		c.listener.dispatch(n)
	case wire.MsgParameterStatus:
		name, value, err := wire.DecodeParameterStatus(f.Body)
		if err != nil {
			return wire.AsError(err)
		}
		c.SetParam(name, value)
	case wire.MsgCommandComplete, wire.MsgEmptyQueryResponse, wire.MsgNoticeResponse:
	case wire.MsgErrorResponse:
		e, err := wire.DecodeError(f.Body)
		if err != nil {
			return wire.AsError(err)
		}
		if e.EndsSession() {
			return e
		}
		c.err = e // nothing of the round has taken effect, nor will again
	case wire.MsgReadyForQuery:
		status, err := wire.DecodeReadyForQuery(f.Body)
		if err != nil {
			return wire.AsError(err)
		}
		c.TxStatus = status
		c.Outstanding--
		c.round = false
		if c.err != nil {
			return c.err
		}
		c.listener.answered()
	default:
		return wire.Errorf(wire.ProtocolViolation, "unexpected message of type %q on a connection that listens", f.Type)
	}
	return nil
}

// errClosing is the end of the engine, which ends the sessions too.
var errClosing = wire.Errorf(wire.AdminShutdown, "terminating connection due to administrator command").
	WithHint("The proxy is stopped. Connect again, LISTEN again, then look at what may have changed meanwhile.").Fatal()

func errBroken(err error) *wire.Error {
	return wire.Errorf(wire.ConnectionFailure, "the server connection that listens was lost: %w", err)
}

// errLost is what a session is told whose notifications may be lost. Its own server process would have ended.
func errLost(cause *wire.Error) *wire.Error {
	return wire.Errorf(wire.AdminShutdown, "terminating connection because the server connection that listens for it was lost").
		WithDetail("Notifications may have been missed: %s", cause.Message).
		WithHint("Connect again, LISTEN again, then look at what may have changed meanwhile.").Fatal()
}

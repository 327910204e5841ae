package loop

import (
	"crypto/tls"
	"errors"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// wrappedConn lies under crypto/tls. Until Adopt it is the blocking connection that it wraps. Afterwards its Read returns
// ErrWouldBlock, after which crypto/tls can go on, and its Write never fails for want of room, because crypto/tls cannot go
// on after a failed write: it fills a buffer that the loop flushes.
type wrappedConn struct {
	net.Conn
	sock  atomic.Pointer[Conn] // set by Adopt
	ahead []byte               // what Unread or Detach gave back; empty after a handshake
}

func (w *wrappedConn) unread(p []byte) { w.ahead = slices.Concat(p, w.ahead) }

func (w *wrappedConn) Read(p []byte) (int, error) {
	c := w.sock.Load()
	if c == nil {
		if len(w.ahead) > 0 {
			n := copy(p, w.ahead)
			w.ahead = w.ahead[n:]
			return n, nil
		}
		return w.Conn.Read(p)
	}
	if len(p) == 0 {
		return 0, nil
	}
	return c.receive(p, c.state.Load())
}

func (w *wrappedConn) Write(p []byte) (int, error) {
	c := w.sock.Load()
	if c == nil {
		return w.Conn.Write(p)
	}
	return c.tls.buffer(p)
}

// Close leaves an adopted connection to Conn.Close.
func (w *wrappedConn) Close() error {
	if w.sock.Load() != nil {
		return nil
	}
	return w.Conn.Close()
}

// CloseWrite is for Finish.
func (w *wrappedConn) CloseWrite() error { return closeWrite(w.Conn) }

// The deadlines of an adopted connection are those of Wait.

func (w *wrappedConn) SetDeadline(t time.Time) error {
	if w.sock.Load() != nil {
		return nil
	}
	return w.Conn.SetDeadline(t)
}

func (w *wrappedConn) SetReadDeadline(t time.Time) error {
	if w.sock.Load() != nil {
		return nil
	}
	return w.Conn.SetReadDeadline(t)
}

func (w *wrappedConn) SetWriteDeadline(t time.Time) error {
	if w.sock.Load() != nil {
		return nil
	}
	return w.Conn.SetWriteDeadline(t)
}

// tlsSocket is the TLS half of a Conn.
type tlsSocket struct {
	conn    *tls.Conn
	wrapped *wrappedConn
	limit   int // of buffered data that lets Write go on, in bytes

	mu     sync.Mutex // guards the fields below: the user fills the buffer, and a loop, rarely another one, flushes it
	out    []byte     // encrypted; out[sent:] is still to be sent; nil when there is none
	sent   int
	pooled *[]byte // where out came from, and goes back to
	failed error   // sending failed for good
}

// slack is by how much the buffer may exceed its limit: what one Write adds in framing, and the alerts and key updates that
// crypto/tls sends by itself. A peer that provokes more of those than it reads is cut off.
const slack = 64 << 10

var errPeerDoesNotRead = errors.New("loop: TLS peer provokes answers without reading them")

// buffer is where crypto/tls writes to.
func (x *tlsSocket) buffer(p []byte) (int, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.failed == nil && len(x.out)-x.sent > 2*x.limit+slack {
		x.failed = errPeerDoesNotRead
	}
	if x.failed != nil {
		return 0, x.failed
	}
	if x.sent > 0 && len(x.out)+len(p) > cap(x.out) {
		x.out = x.out[:copy(x.out, x.out[x.sent:])]
		x.sent = 0
	}
	if x.pooled == nil {
		x.pooled = buffers.Get().(*[]byte)
		x.out = *x.pooled
	}
	x.out = append(x.out, p...)
	return len(p), nil
}

// flush sends what the socket takes. An idle connection keeps no buffer.
func (x *tlsSocket) flush(c *Conn) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.sent == len(x.out) || x.failed != nil {
		return
	}
	n, err := c.send(x.out[x.sent:], c.state.Load())
	x.sent += n
	if err != nil && !errors.Is(err, ErrWouldBlock) {
		x.failed = err
	}
	if x.sent == len(x.out) || x.failed != nil {
		x.dropBuffer()
	}
}

// fail ends sending: a flush that is on its way on another loop must not touch a descriptor that is about to be closed.
func (x *tlsSocket) fail(err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.failed == nil {
		x.failed = err
	}
	x.dropBuffer()
}

// buffers holds the buffers of connections that have nothing to send.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

// dropBuffer needs x.mu.
func (x *tlsSocket) dropBuffer() {
	if x.pooled == nil {
		return
	}
	*x.pooled = x.out[:0]
	buffers.Put(x.pooled)
	x.pooled, x.out, x.sent = nil, nil, 0
}

// room returns how many bytes a Write may encrypt now.
func (x *tlsSocket) room() (int, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return max(0, x.limit-(len(x.out)-x.sent)), x.failed
}

// roomy says whether waiting for room is over: at half, so that a slow peer does not cost a wake-up per packet.
func (x *tlsSocket) roomy() bool {
	room, err := x.room()
	return err != nil || room > x.limit/2
}

func (x *tlsSocket) drained() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.failed != nil || x.sent == len(x.out)
}

func (x *tlsSocket) read(c *Conn, p []byte) (int, error) {
	n, err := x.conn.Read(p)
	// Only an empty-handed read proves that crypto/tls holds no more decrypted or undecrypted data.
	switch {
	case err == nil:
		c.state.Or(bitPending)
	case errors.Is(err, ErrWouldBlock):
		c.forget(bitPending)
		err = ErrWouldBlock
	default:
		c.state.Or(bitPending | bitHangup) // a close_notify can come without the end of the TCP stream
	}
	if !x.drained() {
		x.flush(c) // it may have answered a key update
	}
	return n, err
}

func (x *tlsSocket) write(c *Conn, p []byte) (int, error) {
	total := 0
	for total < len(p) {
		room, err := x.room()
		if err != nil {
			return total, err
		}
		if room == 0 {
			return total, ErrWouldBlock
		}
		n, err := x.conn.Write(p[total:min(len(p), total+room)])
		total += n
		if err != nil {
			return total, err
		}
		x.flush(c)
	}
	return total, nil
}

// sayGoodbye sends close_notify and reports whether data is left that has to linger.
func (x *tlsSocket) sayGoodbye(c *Conn) bool {
	_ = x.conn.Close() // fails when sending has failed before; there is nothing to add to that
	x.flush(c)
	return !x.drained()
}

// linger is an internal task that sends what is left in the TLS buffer of a closed connection.
func (c *Conn) linger(t *Task) {
	defer func() { _ = c.free() }() // the user has left, so nobody can be told
	deadline := time.Now().Add(c.eng.cfg.Linger)
	for !c.readySocket(flushed) {
		if t.Wait(deadline, Source{c, flushed}) != Ready {
			return
		}
	}
}

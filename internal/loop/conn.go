package loop

import (
	"crypto/tls"
	"net"
)

// Conn is a connection that never blocks. One task uses it at a time; RemoteAddr, LocalAddr, TLS, Readable, HungUp and
// Abort may be called by anyone. A plain Conn of the epoll engine holds no buffers.
type Conn struct {
	local, remote net.Addr

	socket             // used by the epoll engine
	stream *streamConn // used by the goroutine engine, nil otherwise
}

// Read reads into p what is there: n > 0 and nil, or 0 and ErrWouldBlock, io.EOF or another error.
func (c *Conn) Read(p []byte) (int, error) {
	if c.stream != nil {
		return c.stream.read(p)
	}
	return c.readSocket(p)
}

// Ahead is what a loop has read of what the next Read brings: where that will do, SkipAhead takes it. It is valid until c's task next waits.
func (c *Conn) Ahead() []byte {
	if c.stream != nil {
		return nil
	}
	return c.aheadOnLoop()
}

// SkipAhead is Read for the first n bytes of Ahead.
func (c *Conn) SkipAhead(n int) { c.skipInbox(n) }

// Write writes as much of p as possible now. When that is not all of p, the error is not nil: ErrWouldBlock (wait for
// Writable, then write the rest) or what broke the connection. A TLS connection encrypts into a buffer that the engine
// flushes by itself, and a write would block while it is full.
func (c *Conn) Write(p []byte) (int, error) {
	if c.stream != nil {
		return c.stream.write(p)
	}
	return c.writeSocket(p)
}

// Readable reports, without a system call, whether a Read may return something else than ErrWouldBlock: remembered
// readiness of the socket, or data that TLS has already taken from it. It is a hint: under TLS it is also true when
// only a session ticket has arrived.
func (c *Conn) Readable() bool {
	if c.stream != nil {
		return c.stream.ready(Readable)
	}
	return c.socketReadable()
}

// HungUp reports, without a system call, whether the peer is known to have closed its sending side, or the connection
// to be broken. Data that the peer sent before can still be read. The goroutine engine learns of it only when
// everything before it fits into its read-ahead (32 KiB).
func (c *Conn) HungUp() bool {
	if c.stream != nil {
		return c.stream.ready(Hangup)
	}
	return c.socketHungUp()
}

// Quiet is neither Readable nor HungUp: whoever has the connection next finds nothing there.
func (c *Conn) Quiet() bool {
	if c.stream != nil {
		return !c.stream.ready(Readable) && !c.stream.ready(Hangup)
	}
	return !c.socketReadable()
}

// LowWater asks for readiness to be reported only when n bytes can be read, or the connection has ended; 1 takes that back,
// and what has come meanwhile counts as readable at once. It reports whether that is supported: not under TLS, nor by
// the goroutine engine.
func (c *Conn) LowWater(n int) bool { return c.stream == nil && c.setLowWater(n) }

// Abort breaks the connection from any goroutine: the task that uses it sees a hang-up and then errors. The task still
// has to Close it. Use it instead of Close where somebody else is using the connection.
func (c *Conn) Abort() {
	if c.stream != nil {
		c.stream.abort()
		return
	}
	c.abortSocket()
}

// Close closes the connection; only its user may call it. What Write accepted is still sent, within the linger time.
// A second Close returns net.ErrClosed, as Read and Write then do.
func (c *Conn) Close() error {
	if c.stream != nil {
		return c.stream.close()
	}
	return c.closeSocket()
}

// Finish is Close for a connection whose peer has been sent last words which it is to read, whatever it still sends itself: see finish.go.
// What goes on in the background goes on for finishTime at most, beside the linger time.
func (c *Conn) Finish() error {
	if !mayFinish() {
		return c.Close()
	}
	if c.stream != nil {
		return c.stream.finish()
	}
	return c.finishSocket()
}

// Detach is the opposite of Adopt, for what is to be done in ordinary goroutines: it returns a blocking connection, which Adopt takes
// again, also under TLS; a TLS connection as a *tls.Conn. What has been read ahead the next reads bring, before Adopt. c is closed, also by an
// error, as when the peer has not taken all that it was sent. Only its user may call it. In the goroutine engine it may block.
func (c *Conn) Detach() (net.Conn, error) {
	if c.stream != nil {
		return c.stream.detach()
	}
	return c.detachSocket()
}

// RemoteAddr returns the peer's address.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// LocalAddr returns our address; of an accepted connection the listener's.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// TLS returns the state of the TLS connection, or nil for a plain connection.
func (c *Conn) TLS() *tls.ConnectionState {
	if c.stream != nil {
		return tlsState(c.stream.nc)
	}
	return c.tlsOfSocket()
}

func tlsState(nc net.Conn) *tls.ConnectionState {
	tc, ok := nc.(*tls.Conn)
	if !ok {
		return nil
	}
	s := tc.ConnectionState()
	return &s
}

package loop

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// socket is what a Conn needs in the epoll engine.
type socket struct {
	eng  *epoll
	fd   int
	home atomic.Pointer[eventLoop] // whose epoll set the descriptor is in; nil before the first Own
	// state holds the generation of the registration in the upper half and remembered readiness in the lower.
	// Loops set bits there, only under the generation that they were told; the user clears them.
	state atomic.Uint64

	waiter atomic.Pointer[Task] // the parked task that waits for this connection
	want   Interest             // what for; valid with waiter, on the thread of its loop
	kept   bool                 // waiter stays when its wait is over, and want is 0 then: see Task.Keep

	tls      *tlsSocket // nil: plain
	batching            // belongs to the user of the connection, on the thread of its loop

	mu     sync.Mutex // guards the descriptor against being used when freed, and the fields below
	closed bool       // Close was called
	freed  bool       // the descriptor is closed
	failed error      // why Own did not work
}

// Remembered readiness, in the lower half of socket.state.
const (
	bitReadable uint64 = 1 << iota
	bitWritable
	bitHangup  // the peer has closed its sending side; stays
	bitBroken  // error, or both sides are closed; stays
	bitPending // TLS may have data that it took from the socket earlier
	bitClosed  // Close was called; stays
	bitFailed  // failed is set; stays
)

// flushed is an Interest of the engine itself: nothing is left in the TLS buffer, or it can never be sent.
const flushed Interest = 1 << 7

// watched is what every descriptor is registered for, once, edge-triggered.
const watched = unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET

func readinessOf(events uint32) (bits uint64) {
	if events&unix.EPOLLIN != 0 {
		bits |= bitReadable
	}
	if events&unix.EPOLLOUT != 0 {
		bits |= bitWritable
	}
	if events&unix.EPOLLRDHUP != 0 {
		bits |= bitReadable | bitHangup
	}
	if events&(unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		bits |= bitReadable | bitWritable | bitHangup | bitBroken
	}
	return bits
}

// remember adds bits if gen is still the current registration.
func (c *Conn) remember(gen uint32, bits uint64) bool {
	for {
		s := c.state.Load()
		if uint32(s>>32) != gen {
			return false
		}
		if s|bits == s || c.state.CompareAndSwap(s, s|bits) {
			return true
		}
	}
}

// renew starts a new generation, so that events of the old one are ignored from here on, and keeps the readiness.
func (c *Conn) renew(bits uint64) uint32 {
	gen := c.eng.nextGen()
	for {
		s := c.state.Load()
		if c.state.CompareAndSwap(s, uint64(gen)<<32|s&(1<<32-1)|bits) {
			return gen
		}
	}
}

func (c *Conn) keep() { c.kept = true }

func (t *Task) ownsOnLoop(c *Conn) bool { return c.home.Load() == t.loop.Load() }

func (t *Task) ownOnLoop(c *Conn) {
	if l := t.loop.Load(); l != nil && !l.take(c) {
		panic(errTwoWaiters)
	}
}

// take moves c to l. Adding a descriptor to an epoll set reports what is ready already, so nothing is lost on the way.
// It reports false, and moves nothing, when a task waits for c.
func (l *eventLoop) take(c *Conn) bool {
	old := c.home.Load()
	if old == l {
		return true
	}
	if c.waiter.Load() != nil && !c.kept {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.freed {
		return true
	}
	if old != nil {
		// Fails only when the old loop has stopped, or is to be stopped by an earlier failure here.
		_ = old.control(unix.EPOLL_CTL_DEL, c.fd, unix.EpollEvent{})
	}
	gen := c.renew(0)
	c.home.Store(l)
	if err := l.control(unix.EPOLL_CTL_ADD, c.fd, unix.EpollEvent{Events: watched, Fd: int32(c.fd), Pad: int32(gen)}); err != nil {
		c.failed = fmt.Errorf("move connection to event loop %d: %w", l.index, err)
		c.renew(bitFailed)
	}
	return true
}

// readyBits are those of which any makes a plain connection ready, by interest.
var readyBits = func() (bits [8]uint64) {
	for what := range bits {
		bits[what] = bitClosed | bitFailed
		for interest, b := range map[Interest]uint64{Readable: bitReadable | bitHangup | bitPending, Writable: bitWritable | bitBroken, Hangup: bitHangup} {
			if Interest(what)&interest != 0 {
				bits[what] |= b
			}
		}
	}
	return bits
}()

func (c *Conn) socketReadable() bool {
	return c.state.Load()&(bitClosed|bitFailed|bitReadable|bitHangup|bitPending) != 0
}

func (c *Conn) socketHungUp() bool { return c.state.Load()&(bitClosed|bitFailed|bitHangup) != 0 }

func (c *Conn) readySocket(what Interest) bool {
	if c.tls != nil && what&(Writable|flushed) != 0 {
		return c.readyTLS(what)
	}
	return c.state.Load()&readyBits[what&7] != 0
}

// readyTLS is readySocket where it matters what TLS has still to send.
func (c *Conn) readyTLS(what Interest) bool {
	s := c.state.Load()
	if what&flushed != 0 {
		return s&bitBroken != 0 || c.tls.drained()
	}
	return s&(readyBits[what&^Writable]|bitBroken) != 0 || c.tls.roomy()
}

// unusable returns why c cannot be used at all.
func (c *Conn) unusable(state uint64) error {
	if state&bitClosed != 0 {
		return net.ErrClosed
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failed
}

func (c *Conn) readSocket(p []byte) (int, error) {
	s := c.state.Load()
	switch {
	case s&(bitClosed|bitFailed) != 0:
		return 0, c.unusable(s)
	case len(p) == 0:
		return 0, nil
	case c.tls != nil:
		return c.tls.read(c, p)
	}
	if c.ahead != nil {
		return c.takeAhead(p)
	}
	n, err := c.receive(p, s)
	c.large, c.eager = n > aheadSize, false
	return n, err
}

func (c *Conn) writeSocket(p []byte) (int, error) {
	s := c.state.Load()
	switch {
	case s&(bitClosed|bitFailed) != 0:
		return 0, c.unusable(s)
	case len(p) == 0:
		return 0, nil
	case c.tls != nil:
		return c.tls.write(c, p)
	}
	if c.late {
		c.home.Load().sendLates() // first things first
		s = c.state.Load()
	}
	return c.send(p, s)
}

// receive reads from the socket if it is remembered readable in s, its state.
func (c *Conn) receive(p []byte, s uint64) (int, error) {
	if s&(bitReadable|bitHangup) == 0 {
		return 0, ErrWouldBlock
	}
	for {
		n, _, errno := syscall.RawSyscall6(unix.SYS_RECVFROM, uintptr(c.fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)), unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			if n == 0 {
				c.state.Or(bitHangup) // seen before the loop could report it
				return 0, io.EOF
			}
			// A short read has emptied the socket, and what comes later is a new edge. But the edge of a hang-up
			// has been reported already, and the end of the stream is still to be read.
			if int(n) < len(p) && s&bitHangup == 0 {
				c.forget(bitReadable)
			}
			return int(n), nil
		case unix.EAGAIN:
			c.forget(bitReadable)
			return 0, ErrWouldBlock
		case unix.EINTR:
		default:
			return 0, c.opError("read", os.NewSyscallError("recvfrom", errno))
		}
	}
}

// send writes to the socket if it is remembered writable in s, its state.
func (c *Conn) send(p []byte, s uint64) (int, error) {
	if s&(bitWritable|bitBroken) == 0 {
		return 0, ErrWouldBlock
	}
	total := 0
	for {
		n, _, errno := syscall.RawSyscall6(unix.SYS_SENDTO, uintptr(c.fd), uintptr(unsafe.Pointer(&p[total])), uintptr(len(p)-total),
			unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
		switch errno {
		case 0:
			total += int(n)
			if total == len(p) {
				return total, nil
			}
			// The kernel has noted that it owes an edge: it wants to write more and could not.
			c.forget(bitWritable)
			return total, ErrWouldBlock
		case unix.EAGAIN:
			c.forget(bitWritable)
			return total, ErrWouldBlock
		case unix.EINTR:
		default:
			return total, c.opError("write", os.NewSyscallError("sendto", errno))
		}
	}
}

func (c *Conn) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: c.local.Network(), Source: c.local, Addr: c.remote, Err: err}
}

// forget clears remembered readiness. Only the user of c does, so when it is at home on the user's loop, no event comes in
// between the system call and this. When it is not, the next Wait moves it, and that reports readiness again.
func (c *Conn) forget(bit uint64) { c.state.And(^bit) }

func (c *Conn) setLowWater(n int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.tls != nil || unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVLOWAT, n) != nil {
		return false
	}
	if n == 1 {
		c.state.Or(bitReadable) // for less than the old mark no event has come
	}
	return true
}

func (c *Conn) tlsOfSocket() *tls.ConnectionState {
	if c.tls == nil {
		return nil
	}
	return tlsState(c.tls.conn)
}

// epollNow polls without blocking, and so without telling the scheduler.
func epollNow(ep int, events []unix.EpollEvent) int {
	n, _, errno := syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(ep), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), 0, 0, 0)
	if errno != 0 {
		return 0 // EINTR; a real error shows in the blocking call
	}
	return int(n)
}

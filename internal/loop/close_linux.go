package loop

import (
	"errors"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

func (c *Conn) closeSocket() error {
	if !c.letGo() {
		return net.ErrClosed
	}
	if c.tls != nil && c.tls.sayGoodbye(c) {
		c.state.Or(bitClosed)
		c.eng.spawn(c.eng.place(), c.linger, true)
		return nil
	}
	c.state.Or(bitClosed)
	return c.free()
}

func (c *Conn) finishSocket() error {
	if !c.letGo() {
		finished()
		return net.ErrClosed
	}
	if c.tls != nil {
		c.tls.sayGoodbye(c)
	}
	c.eng.spawn(c.eng.place(), c.readToEnd, true)
	return nil
}

// letGo ends the user's use of c; false when it had ended.
func (c *Conn) letGo() bool {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return false
	}
	c.closed = true
	c.mu.Unlock()
	if c.late {
		c.home.Load().sendLates()
	}
	if c.kept {
		c.kept = false
		c.waiter.Store(nil)
	}
	c.dropAhead()
	return true
}

// readToEnd is an internal task that has the peer of a connection read to the end before it frees it.
func (c *Conn) readToEnd(t *Task) {
	defer finished()
	defer func() { _ = c.free() }() // the user has left, so nobody can be told
	deadline := time.Now().Add(c.eng.cfg.Linger)
	for c.tls != nil && !c.readySocket(flushed) {
		if t.Wait(deadline, Source{c, flushed}) != Ready {
			return
		}
	}
	if unix.Shutdown(c.fd, unix.SHUT_WR) != nil {
		return
	}
	c.forget(bitPending)
	waste := make([]byte, 16<<10)
	for deadline = time.Now().Add(finishTime); time.Now().Before(deadline); {
		if t.Wait(deadline, Source{c, Readable}) != Ready { // also where there is more: others have their turn
			return
		}
		if _, err := c.receive(waste, c.state.Load()); err != nil && !errors.Is(err, ErrWouldBlock) {
			return
		}
	}
}

// free gives the descriptor back, which takes it out of the epoll set: at the latest when no child process between fork and exec
// holds a copy any more.
func (c *Conn) free() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.retire()
	if err := unix.Close(c.fd); err != nil {
		return c.opError("close", os.NewSyscallError("close", err))
	}
	return nil
}

// retire is for a descriptor that c is about to lose; it needs c.mu. Events that are still on their way carry a generation that is over.
func (c *Conn) retire() {
	c.freed = true
	c.renew(bitClosed)
	c.eng.conns.remove(c.fd, c)
	if c.tls != nil {
		c.tls.fail(net.ErrClosed)
	}
}

func (c *Conn) abortSocket() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	// ENOTCONN: the peer was faster. Either way the loop now sees a hang-up.
	_ = unix.Shutdown(c.fd, unix.SHUT_RDWR)
}

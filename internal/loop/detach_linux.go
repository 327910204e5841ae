package loop

import (
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// errUnsent says why a connection is closed in place of being detached.
var errUnsent = errors.New("the peer has not taken what it was sent")

func (c *Conn) detachSocket() (net.Conn, error) {
	ahead := append([]byte(nil), c.aheadOnLoop()...)
	if !c.letGo() {
		return nil, net.ErrClosed
	}
	if c.tls != nil && !c.tls.drained() {
		return nil, errors.Join(errUnsent, c.free())
	}
	c.mu.Lock()
	c.retire()
	if l := c.home.Load(); l != nil { // the descriptor's duplicate would keep the registration
		_ = l.control(unix.EPOLL_CTL_DEL, c.fd, unix.EpollEvent{})
	}
	c.mu.Unlock()
	f := os.NewFile(uintptr(c.fd), "")
	nc, err := net.FileConn(f) // of a duplicate
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("detach connection with %v: %w", c.remote, err)
	}
	if c.tls == nil {
		return &wrappedConn{Conn: nc, ahead: ahead}, nil
	}
	w := c.tls.wrapped
	w.Conn = nc
	w.sock.Store(nil)
	return c.tls.conn, nil
}

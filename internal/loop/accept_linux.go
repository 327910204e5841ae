package loop

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// acceptKeepAlive finds a client that is gone without a word, as package net does by default.
const (
	acceptKeepAlive = 15 * time.Second
	acceptProbes    = 9
)

// Listen takes connections from the socket itself: what package net accepts it registers with the runtime's own poller, from which
// Adopt had to take it again, and what all connections of a socket have alike they inherit from it.
func (e *epoll) Listen(ln net.Listener) (*Listener, error) {
	f, err := descriptorOf(ln)
	if err != nil {
		return nil, fmt.Errorf("listen on %v: %w", ln.Addr(), err)
	}
	rc, err := f.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if _, tcp := ln.(*net.TCPListener); tcp {
		var failed error
		if err := rc.Control(func(fd uintptr) { failed = prepareListener(int(fd)) }); err != nil || failed != nil {
			return nil, errors.Join(err, failed, f.Close())
		}
	}
	local := ln.Addr()
	return &Listener{ln: ln, same: f, accept: func() (*Conn, error) { return e.accept(rc, local) }}, nil
}

// descriptorOf is a duplicate that can be waited for, which package net allows for none of its listeners.
func descriptorOf(ln net.Listener) (*os.File, error) {
	switch ln := ln.(type) {
	case *net.TCPListener:
		return ln.File()
	case *net.UnixListener:
		return ln.File()
	}
	return nil, fmt.Errorf("the epoll engine cannot accept from a %T: use a TCP or Unix listener, or the goroutine engine", ln)
}

// prepareListener sets what accepted connections inherit.
func prepareListener(fd int) error {
	seconds := int(acceptKeepAlive / time.Second)
	return errors.Join(
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1),
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, seconds),
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, seconds),
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPCNT, acceptProbes),
	)
}

func (e *epoll) accept(rc syscall.RawConn, local net.Addr) (*Conn, error) {
	fd, peer, failed := -1, syscall.Sockaddr(nil), error(nil)
	err := rc.Read(func(listener uintptr) (done bool) {
		for {
			fd, peer, failed = syscall.Accept4(int(listener), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
			if !errors.Is(failed, unix.EINTR) && !errors.Is(failed, unix.ECONNABORTED) { // these are as if that client had not come
				return !errors.Is(failed, unix.EAGAIN)
			}
		}
	})
	if err == nil {
		err = failed
	} else {
		err = net.ErrClosed // there is no other reason, and package os keeps its own to itself
	}
	if err != nil {
		return nil, fmt.Errorf("accept on %v: %w", local, err)
	}
	// What has come already the loop reports that it is registered with.
	c, err := e.newConn(fd, local, addrOf(peer), bitWritable)
	if err == nil && e.closing.Load() {
		err = errors.Join(ErrEngineClosed, c.free())
	}
	if err != nil {
		return nil, err
	}
	return c, nil
}

// addrOf is an address as package net has it.
func addrOf(sa syscall.Sockaddr) net.Addr {
	switch sa := sa.(type) {
	case *syscall.SockaddrInet4:
		return &net.TCPAddr{IP: sa.Addr[:], Port: sa.Port}
	case *syscall.SockaddrInet6:
		a := &net.TCPAddr{IP: sa.Addr[:], Port: sa.Port}
		if sa.ZoneId != 0 {
			a.Zone = strconv.FormatUint(uint64(sa.ZoneId), 10)
		}
		return a
	case *syscall.SockaddrUnix:
		return &net.UnixAddr{Name: sa.Name, Net: "unix"}
	}
	return &net.UnixAddr{Net: "unix"}
}

package loop

import (
	"errors"
	"fmt"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// PeerUID is who was at the other end of a Unix socket when it connected: the system's number of that user. Only the user of c may call it.
func (c *Conn) PeerUID() (uint32, error) {
	var cred *unix.Ucred
	err := c.descriptor(func(fd int) (err error) {
		cred, err = unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("ask who is at the other end of a socket: %w", err)
	}
	return cred.Uid, nil
}

func (c *Conn) descriptor(use func(fd int) error) error {
	if c.stream == nil {
		if c.closed {
			return net.ErrClosed
		}
		return use(c.fd)
	}
	sc, ok := c.stream.nc.(syscall.Conn)
	if !ok {
		return fmt.Errorf("a %T has no descriptor", c.stream.nc)
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return err
	}
	var used error
	err = rc.Control(func(fd uintptr) { used = use(int(fd)) })
	return errors.Join(err, used)
}

//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/user"
	"strconv"
	"strings"
	"syscall"
)

// unixSocket is the Unix socket that a proxy has of its own. Its file outlives a process that is killed, so that a lock tells whether it is
// in use: that of flock(2) on a file beside it, which ends with the last process that has it. As in PostgreSQL that file is named after the
// socket and has the process's number, so that a server of the same directory and port does not take the socket away.
type unixSocket struct {
	path  string // empty: there is none
	mode  fs.FileMode
	group string // a name or a number; empty: as the system chooses
}

// lockOf is the file that locks a socket.
func lockOf(socket string) string { return socket + ".lock" }

// listen opens the socket. Until it has its group and mode nobody may connect.
func (u unixSocket) listen(ctx context.Context) (net.Listener, *os.File, error) {
	lock, err := u.hold()
	if err != nil {
		return nil, nil, err
	}
	l, err := u.open(ctx)
	if err != nil {
		if info, serr := lock.Stat(); serr == nil && info.Size() == 0 { // else it is another program's
			err = errors.Join(err, os.Remove(lock.Name()))
		}
		return nil, nil, errors.Join(err, lock.Close())
	}
	return l, lock, claim(lock)
}

func (u unixSocket) open(ctx context.Context) (net.Listener, error) {
	if err := u.clear(ctx); err != nil {
		return nil, err
	}
	mask := syscall.Umask(0o777)
	l, err := new(net.ListenConfig).Listen(ctx, "unix", u.path)
	syscall.Umask(mask)
	if err != nil {
		return nil, err
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // the next process may have it
	if err := u.permit(); err != nil {
		return nil, errors.Join(err, l.Close(), os.Remove(u.path))
	}
	return l, nil
}

// hold takes the lock.
func (u unixSocket) hold() (*os.File, error) {
	name := lockOf(u.path)
	for {
		f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, err
		}
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
			if errors.Is(err, syscall.EWOULDBLOCK) {
				pid, _ := io.ReadAll(io.LimitReader(f, 20)) // for people only
				err = fmt.Errorf("process %s serves there", strings.TrimSpace(string(pid)))
			}
			return nil, errors.Join(err, f.Close())
		}
		held, err := f.Stat()
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		if there, err := os.Lstat(name); err == nil && os.SameFile(held, there) {
			return f, nil
		}
		_ = f.Close() // who had it has removed it meanwhile
	}
}

// clear removes what a process that was killed has left. Programs without such a lock answer, and keep what is theirs.
func (u unixSocket) clear(ctx context.Context) error {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", u.path)
	switch {
	case err == nil:
		return errors.Join(errors.New("another program serves there"), conn.Close())
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case !errors.Is(err, syscall.ECONNREFUSED):
		return err
	}
	if info, err := os.Lstat(u.path); err != nil || info.Mode()&fs.ModeSocket == 0 {
		return errors.Join(errors.New("something is there that is no socket"), err)
	}
	return os.Remove(u.path)
}

// permit gives the socket its group and mode.
func (u unixSocket) permit() error {
	if u.group != "" {
		gid, err := strconv.Atoi(u.group)
		if err != nil {
			g, err := user.LookupGroup(u.group)
			if err != nil {
				return err
			}
			if gid, err = strconv.Atoi(g.Gid); err != nil {
				return err
			}
		}
		if err := os.Chown(u.path, -1, gid); err != nil {
			return err
		}
	}
	return os.Chmod(u.path, u.mode)
}

// claim writes into the lock's file whose it is.
func claim(lock *os.File) error {
	if err := lock.Truncate(0); err != nil {
		return err
	}
	_, err := lock.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0)
	return err
}

//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tidemarkdb/tidemark/proxy"
)

const (
	hangupSignal   = syscall.SIGHUP
	handoverSignal = syscall.SIGUSR2
)

var controlSignals = []os.Signal{hangupSignal, handoverSignal}

// handoverTimeout is how long the new process may take until it serves.
const handoverTimeout = time.Minute

// handOver starts this program again, as it is on disk now and with the same arguments, on the listening sockets of this
// process. Only this one accepts until the new one serves; then this one drains. No connection is refused at any time, and a
// new process that does not come up changes nothing.
func (p *proxyProcess) handOver(ctx context.Context) error {
	if ctx.Err() != nil {
		return errors.New("this process is stopping already")
	}
	program, err := exec.LookPath(os.Args[0])
	if err != nil {
		if program, err = os.Executable(); err != nil {
			return fmt.Errorf("find this program: %w", err)
		}
	}
	served, told, err := os.Pipe()
	if err != nil {
		return err
	}
	defer func() { _, _ = served.Close(), told.Close() }() // nothing is lost with them
	names, fds := []string{readyPipe}, []uintptr{0, 1, 2, told.Fd()}
	for _, name := range []string{clientsSocket, httpSocket} {
		fd, err := duplicate(p.sockets.open[name])
		if err != nil {
			return fmt.Errorf("hand over the listening socket: %w", err)
		}
		if fd > 0 {
			defer func() { _ = syscall.Close(fd) }() // the new process has its own
			names, fds = append(names, name), append(fds, uintptr(fd))
		}
	}
	env := append(slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "WATCHDOG_PID=") }), handoverVariable+"="+strings.Join(names, ":"))
	p.log.Info("handing over to a new process", "program", program)
	// Not os/exec, which makes what it passes on blocking: these sockets go on being used here.
	pid, err := syscall.ForkExec(program, os.Args, &syscall.ProcAttr{Env: env, Files: fds})
	if err != nil {
		return fmt.Errorf("start %s: %w", program, err)
	}
	child, err := os.FindProcess(pid)
	if err != nil {
		return err
	}
	_ = told.Close() // so that the pipe ends with the new process
	ended := make(chan error, 1)
	go func() { // ends with the new process, or with this one
		state, err := child.Wait()
		if err == nil {
			err = errors.New(state.String())
		}
		ended <- err
	}()
	if err := awaitServing(ctx, served); err != nil {
		_ = child.Kill() // it may have ended
		return fmt.Errorf("the new process did not come to serve, its own log says why: %w", errors.Join(err, <-ended))
	}
	p.log.Info("a new process serves", "pid", pid)
	p.notify.handedOver(pid)
	p.stop(proxy.ErrHandedOver)
	return nil
}

// duplicate is another descriptor of a listening socket, which no other child gets; 0 when there is no socket.
func duplicate(l net.Listener) (fd int, err error) {
	sc, ok := l.(syscall.Conn)
	if !ok {
		return 0, nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return 0, err
	}
	var dupErr error
	err = raw.Control(func(from uintptr) { fd, dupErr = unix.FcntlInt(from, unix.F_DUPFD_CLOEXEC, firstInherited) })
	return fd, errors.Join(err, dupErr)
}

// awaitServing waits until the new process says that it serves.
func awaitServing(ctx context.Context, served *os.File) error {
	if err := served.SetReadDeadline(time.Now().Add(handoverTimeout)); err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = served.SetReadDeadline(time.Now()) })() // it fails only when this is over
	var word [1]byte
	if _, err := io.ReadFull(served, word[:]); err != nil {
		return err
	}
	return nil
}

// serving tells the process that handed over, if any, that it can go.
func (s *sockets) serving() error {
	if s.ready == nil {
		return nil
	}
	_, err := s.ready.Write([]byte{1})
	err = errors.Join(err, s.ready.Close())
	s.ready = nil
	return err
}

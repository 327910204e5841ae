//go:build unix

package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/tidemarkdb/tidemark/internal/wire"
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
	select {
	case <-p.serving:
	default:
		if p.sockets.handedOver() { // the one before waits for this one, not for the next
			return errors.New("this process is still taking over itself")
		}
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
	over := false
	defer func() {
		_ = told.Close() // nothing is lost with them
		if !over {
			_ = served.Close()
		}
	}()
	names, fds := []string{readyPipe}, []uintptr{0, 1, 2, told.Fd()}
	hand := func(name string, what any) error {
		fd, err := duplicate(what)
		if err != nil {
			return fmt.Errorf("hand over %s: %w", name, err)
		}
		if fd > 0 {
			names, fds = append(names, name), append(fds, uintptr(fd))
		}
		return nil
	}
	defer func() { // the new process has its own
		for _, fd := range fds[4:] {
			_ = syscall.Close(int(fd))
		}
	}()
	for _, l := range p.sockets.clients {
		if err := hand(clientsSocket, l); err != nil {
			return err
		}
	}
	if err := hand(httpSocket, p.sockets.http); err != nil {
		return err
	}
	if p.sockets.lock != nil {
		if err := hand(lockFile, p.sockets.lock); err != nil {
			return err
		}
	}
	for _, pipe := range p.sockets.earlier.all() {
		if err := hand(earlierPipe, pipe); err != nil && !errors.Is(err, os.ErrClosed) {
			return err
		}
	}
	env := append(slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "WATCHDOG_PID=") }), handoverVariable+"="+strings.Join(names, ":"))
	if p.sockets.kept {
		env = append(env, keptVariable+"=1")
	}
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
	over = true
	if err := p.sockets.release(); err != nil {
		p.log.Warn("the lock of the Unix socket is not left to the new process", "error", err)
	}
	go p.hearCancels(served) // ends with the new process, or with this one
	p.log.Info("a new process serves", "pid", pid)
	p.notify.handedOver(pid)
	p.stop(proxy.ErrHandedOver)
	return nil
}

// hearCancels serves cancel requests that a process which has taken over passes on.
func (p *proxyProcess) hearCancels(from *os.File) {
	defer func() { _ = from.Close() }() // it is read to its end
	if err := from.SetReadDeadline(time.Time{}); err != nil {
		p.log.Warn("cancel requests of the new process are not heard", "error", err)
		return
	}
	var delivering errgroup.Group // each blocks until a server has it
	delivering.SetLimit(maxDelivering)
	defer func() { _ = delivering.Wait() }() // its functions return no errors
	in := bufio.NewReader(from)
	for {
		size, err := in.Peek(4)
		if err != nil {
			return
		}
		packet := make([]byte, min(binary.BigEndian.Uint32(size), wire.MaxStartupLen))
		if _, err := io.ReadFull(in, packet); err != nil {
			return
		}
		if s, n, _, err := wire.NextStartup(packet); err == nil && n > 0 && s.Kind == wire.CancelRequest {
			delivering.Go(func() error { p.proxy.Cancel(s.PID, s.Key); return nil })
		}
	}
}

// maxDelivering bounds the cancel requests of other processes that are on their way to servers.
const maxDelivering = 64

// duplicate is another descriptor of a listening socket or a pipe, which no other child gets; 0 when there is none.
func duplicate(of any) (fd int, err error) {
	sc, ok := of.(syscall.Conn)
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
	var err error
	if s.lock != nil {
		err = claim(s.lock)
		s.claimed = true
	}
	_, told := s.ready.Write([]byte{1})
	return errors.Join(err, told)
}

// openInherited opens an inherited descriptor. Writing into a pipe is not to block.
func openInherited(fd uintptr, name string) *os.File {
	if name == readyPipe || name == earlierPipe {
		_ = syscall.SetNonblock(int(fd), true) // it fails for what is none: writing says so
	}
	return os.NewFile(fd, name)
}

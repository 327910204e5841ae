package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
)

// The names of the listening sockets that a process can be started with.
const (
	clientsSocket = "clients"
	httpSocket    = "http"
)

// Where inherited sockets are described: by systemd (sd_listen_fds(3)), or by a process that hands its own over, see
// handover.go.
const (
	listenPIDVariable   = "LISTEN_PID"
	listenFDsVariable   = "LISTEN_FDS"
	listenNamesVariable = "LISTEN_FDNAMES"
	handoverVariable    = "TIDEMARK_HANDOVER" // names of the descriptors from 3 on, separated by colons
	readyPipe           = "ready"             // among them: where the new process says that it serves, and passes on cancel requests
	earlierPipe         = "earlier"           // such a pipe of a process before the one that hands over, which may still drain
	lockFile            = "lock"              // among them: the lock of the Unix socket, which is held as long as a process has it
	keptVariable        = "TIDEMARK_KEPT"     // not empty: the clients' sockets are systemd's
)

// firstInherited is the first descriptor behind standard error.
const firstInherited = 3

// sockets are the listening sockets of a proxy: those that it was started with, or else those that it opened.
type sockets struct {
	clients []net.Listener
	http    net.Listener // nil: none
	lock    *os.File     // of the Unix socket among clients that is the proxy's own; nil: there is none, or the next process has it
	claimed bool         // lock is this process's alone
	kept    bool         // systemd has the clients' sockets too, where connections wait when no process accepts them
	ready   *os.File     // where to say that this process serves; nil: nobody waits for that
	earlier earlier
}

// inheritSockets finds the sockets that this process was started with. The variables are taken out of the environment, so
// that no child takes them for its own.
func inheritSockets(environ func(string) string, open func(fd uintptr, name string) *os.File) (*sockets, error) {
	s := &sockets{}
	var names []string
	switch handed, pid := environ(handoverVariable), environ(listenPIDVariable); {
	case handed != "":
		names, s.kept = strings.Split(handed, ":"), environ(keptVariable) != ""
	case pid == strconv.Itoa(os.Getpid()):
		n, err := strconv.Atoi(environ(listenFDsVariable))
		if err != nil || n < 0 || n > 64 {
			return nil, fmt.Errorf("%s is %q; expected the number of sockets", listenFDsVariable, environ(listenFDsVariable))
		}
		names = make([]string, n)
		copy(names, strings.Split(environ(listenNamesVariable), ":"))
	}
	for i, name := range names {
		f := open(uintptr(firstInherited+i), name)
		switch name {
		case readyPipe:
			s.ready = f
			continue
		case earlierPipe:
			s.earlier.add(f)
			continue
		case lockFile:
			s.lock = f
			continue
		}
		l, err := net.FileListener(f)
		if err != nil {
			return nil, fmt.Errorf("take over the listening socket %q: %w", name, err)
		}
		if err := f.Close(); err != nil { // FileListener has a duplicate
			return nil, err
		}
		if !s.take(l, name) {
			return nil, fmt.Errorf("this process was started with %d sockets, named %s; expected some for clients and at most one for HTTP", len(names), strings.Join(names, ", "))
		}
	}
	if s.ready != nil {
		s.earlier.add(s.ready) // the newest, though it comes first
	}
	s.kept = s.kept || s.ready == nil && len(s.clients) > 0
	return s, nil
}

// take finds out what an inherited socket is for. systemd names sockets after their unit unless FileDescriptorName= says otherwise: of these
// the first is for clients, and the second for HTTP; Unix sockets are for clients.
func (s *sockets) take(l net.Listener, name string) bool {
	_, local := l.(*net.UnixListener)
	switch {
	case name == clientsSocket, name != httpSocket && (local || len(s.clients) == 0):
		s.clients = append(s.clients, l)
	case s.http == nil:
		s.http = l
	default:
		return false
	}
	return true
}

// handedOver says whether another process serves on these sockets until this one does.
func (s *sockets) handedOver() bool { return s.ready != nil }

// listen opens what clients connect to, unless there are sockets for that: an address, and a Unix socket where there is to be one.
func (s *sockets) listen(ctx context.Context, address string, local unixSocket) error {
	if len(s.clients) > 0 {
		return nil
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("listen for clients: %w; the key listen names another address", err)
	}
	s.clients = append(s.clients, l)
	if local.path == "" {
		return nil
	}
	if l, s.lock, err = local.listen(ctx); err != nil {
		return fmt.Errorf("listen for clients on %s: %w; see the section unix_socket", local.path, err)
	}
	s.clients, s.claimed = append(s.clients, l), true
	return nil
}

// listenHTTP returns the socket for HTTP: the one that there is, whatever address it has, or a new one.
func (s *sockets) listenHTTP(ctx context.Context, address string) (l net.Listener, err error) {
	if s.http == nil {
		s.http, err = new(net.ListenConfig).Listen(ctx, "tcp", address)
	}
	return s.http, err
}

// close closes what clients connect to, if that is open, and removes the Unix socket unless it is another process's.
func (s *sockets) close() (err error) {
	for _, l := range s.clients {
		if cerr := l.Close(); !errors.Is(cerr, net.ErrClosed) {
			err = errors.Join(err, cerr)
		}
	}
	for _, l := range s.clients {
		if path := l.Addr().String(); l.Addr().Network() == "unix" && s.claimed {
			err = errors.Join(err, os.Remove(path), os.Remove(lockOf(path)))
		}
	}
	return errors.Join(err, s.release())
}

// release leaves the lock to the other process that has it. Else one that has handed over, and drains, would keep out whoever replaces its
// successor.
func (s *sockets) release() (err error) {
	if s.lock != nil {
		err = s.lock.Close()
	}
	s.lock, s.claimed = nil, false
	return err
}

// addresses are those that clients connect to.
func (s *sockets) addresses() []string {
	var all []string
	for _, l := range s.clients {
		all = append(all, l.Addr().String())
	}
	return all
}

// inheritedEnv reads and removes a variable.
func inheritedEnv(name string) string {
	v := os.Getenv(name)
	_ = os.Unsetenv(name) // it fails for impossible names only
	return v
}

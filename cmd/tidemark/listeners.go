package main

import (
	"context"
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
	keptVariable        = "TIDEMARK_KEPT"     // not empty: the clients' socket is systemd's
)

// firstInherited is the first descriptor behind standard error.
const firstInherited = 3

// sockets are the listening sockets of a proxy: those that it was started with, and those that it opened.
type sockets struct {
	inherited map[string]net.Listener
	open      map[string]net.Listener
	kept      bool     // systemd has the clients' socket too, where connections wait when no process accepts them
	ready     *os.File // where to say that this process serves; nil: nobody waits for that
	earlier   earlier
}

// inheritSockets finds the sockets that this process was started with. The variables are taken out of the environment, so
// that no child takes them for its own.
func inheritSockets(environ func(string) string, open func(fd uintptr, name string) *os.File) (*sockets, error) {
	s := &sockets{inherited: map[string]net.Listener{}, open: map[string]net.Listener{}}
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
		byOrder := []string{clientsSocket, httpSocket}
		for i, name := range names { // systemd names sockets after their unit unless FileDescriptorName= says otherwise
			if name != clientsSocket && name != httpSocket && i < len(byOrder) {
				names[i] = byOrder[i]
			}
		}
	}
	for i, name := range names {
		f := open(uintptr(firstInherited+i), name)
		switch name {
		case readyPipe:
			s.ready = f
			fallthrough
		case earlierPipe:
			s.earlier.add(f)
			continue
		}
		if s.inherited[name] != nil || name != clientsSocket && name != httpSocket {
			return nil, fmt.Errorf("this process was started with %d sockets, named %s; expected at most one for clients and one for HTTP", len(names), strings.Join(names, ", "))
		}
		l, err := net.FileListener(f)
		if err != nil {
			return nil, fmt.Errorf("take over the listening socket %q: %w", name, err)
		}
		if err := f.Close(); err != nil { // FileListener has a duplicate
			return nil, err
		}
		s.inherited[name] = l
	}
	s.kept = s.kept || s.ready == nil && s.inherited[clientsSocket] != nil
	return s, nil
}

// handedOver says whether another process serves on these sockets until this one does.
func (s *sockets) handedOver() bool { return s.ready != nil }

// listen returns the socket of that name: an inherited one, whatever address it has, or a new one.
func (s *sockets) listen(ctx context.Context, name, address string) (net.Listener, error) {
	l := s.inherited[name]
	if l == nil {
		var err error
		if l, err = new(net.ListenConfig).Listen(ctx, "tcp", address); err != nil {
			return nil, err
		}
	}
	s.open[name] = l
	return l, nil
}

// inheritedEnv reads and removes a variable.
func inheritedEnv(name string) string {
	v := os.Getenv(name)
	_ = os.Unsetenv(name) // it fails for impossible names only
	return v
}

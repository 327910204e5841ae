package localstack

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
)

// Ports are taken below the range that kernels hand out to outgoing connections (from 32768 on Linux), so that no connection made
// between choosing a port and binding it can take it.
const (
	firstPort = 20000
	lastPort  = 31999
	portTries = 200
)

// ports reserves TCP ports of 127.0.0.1 for one stack. Between choosing a port and the service binding it, and while a service is down,
// an flock on a file named after the port keeps it from the stacks of other processes; the kernel drops it with its process.
type ports struct {
	mu    sync.Mutex
	locks []*os.File
}

// reserve returns a port that nothing listens on: prefer if it is free, else a random one.
func (p *ports) reserve(prefer int) (int, error) {
	dir := filepath.Join(os.TempDir(), "tidemark-ports")
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return 0, fmt.Errorf("localstack: reserve a port: %w", err)
	}
	_ = os.Chmod(dir, 0o777|os.ModeSticky) // shared by all users; only its owner can, and has
	port := prefer
	for range portTries {
		if port == 0 {
			port = firstPort + rand.IntN(lastPort-firstPort+1)
		}
		if lock := lockPort(dir, port); lock != nil {
			p.mu.Lock()
			p.locks = append(p.locks, lock)
			p.mu.Unlock()
			return port, nil
		}
		port = 0
	}
	return 0, fmt.Errorf("localstack: no free TCP port found between %d and %d in %d tries", firstPort, lastPort, portTries)
}

// lockPort returns nil when the port is taken.
func lockPort(dir string, port int) *os.File {
	f, err := os.OpenFile(filepath.Join(dir, strconv.Itoa(port)), os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return nil // another user's file: leave that port to them
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err == nil {
		l, err := net.Listen("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			err = l.Close()
		}
		if err == nil {
			return f
		}
	}
	f.Close() //nolint:errcheck // only a lock
	return nil
}

// ReservePort is a port of 127.0.0.1 on which nothing listens, for a server that is no part of a stack. Until release no stack takes
// it, nor anybody else who asks here; a server may stop and start on it.
func ReservePort() (port int, release func(), err error) {
	p := &ports{}
	port, err = p.reserve(0)
	return port, p.release, err
}

// release gives all ports back.
func (p *ports) release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, f := range p.locks {
		f.Close() //nolint:errcheck // only a lock
	}
	p.locks = nil
}

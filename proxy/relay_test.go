package proxy_test

import (
	"net"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/tidemarkdb/tidemark/testcontainers"
)

// relay lies between Tidemark and a server, for what has to happen at the very moment in which one of them says something.
type relay struct {
	ln     net.Listener
	server string
	heard  atomic.Pointer[func(b []byte) (then func())] // sees what the server says before Tidemark does, and again when it has been sent there
	said   atomic.Pointer[func(b []byte)]               // sees what Tidemark says before the server does, and may change it
}

func newRelay(t *testing.T, server *testcontainers.Server) *relay {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	r := &relay{ln: ln, server: net.JoinHostPort(server.Host, strconv.Itoa(server.Port))}
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go r.serve(c)
		}
	}()
	return r
}

func (r *relay) addr() (host string, port int) {
	a := r.ln.Addr().(*net.TCPAddr)
	return a.IP.String(), a.Port
}

func (r *relay) serve(c net.Conn) {
	defer func() { _ = c.Close() }()
	s, err := net.Dial("tcp", r.server)
	if err != nil {
		return
	}
	go pass(s, c, func(b []byte) func() {
		if f := r.said.Load(); f != nil {
			(*f)(b)
		}
		return nil
	})
	pass(c, s, func(b []byte) func() {
		if f := r.heard.Load(); f != nil {
			return (*f)(b)
		}
		return nil
	})
}

// pass copies until one side ends, and closes to.
func pass(to, from net.Conn, look func(b []byte) (then func())) {
	defer func() { _ = to.Close() }()
	for b := make([]byte, 32<<10); ; {
		n, err := from.Read(b)
		then := look(b[:n])
		if _, werr := to.Write(b[:n]); err != nil || werr != nil {
			return
		}
		if then != nil {
			then()
		}
	}
}

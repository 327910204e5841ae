package proxy_test

import (
	"context"
	"io"
	"net"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"
)

// hangup lies between Tidemark and a server. What the server says next after set has a client hang up at the same time, or a moment before.
type hangup struct {
	ln     net.Listener
	server string
	armed  atomic.Pointer[leaving]
}

type leaving struct {
	client net.Conn
	before time.Duration
}

func newHangup(t *testing.T, server string) *hangup {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	h := &hangup{ln: ln, server: server}
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go h.serve(c)
		}
	}()
	return h
}

func (h *hangup) addr() (host string, port int) {
	a := h.ln.Addr().(*net.TCPAddr)
	return a.IP.String(), a.Port
}

func (h *hangup) serve(c net.Conn) {
	defer func() { _ = c.Close() }()
	s, err := net.Dial("tcp", h.server)
	if err != nil {
		return
	}
	go func() {
		_, _ = io.Copy(s, c)
		_ = s.Close()
	}()
	for b := make([]byte, 32<<10); ; {
		n, err := s.Read(b)
		x := h.armed.Swap(nil)
		if x != nil && x.before > 0 {
			_ = x.client.Close()
			time.Sleep(x.before)
		}
		if _, werr := c.Write(b[:n]); err != nil || werr != nil {
			return
		}
		if x != nil {
			_ = x.client.Close()
		}
	}
}

// A client may leave while its settings are made on a connection. If it is found gone in the very moment in which they are, the
// connection has them, and not those of before; and if it is gone before that, nobody is to hear the answer, and the next client all of
// its own.
func TestClientLeavesAsItsSettingsAreMade(t *testing.T) {
	f := newFixture(t, fixtureSpec{shards: 1, pool: 1})
	primary := f.cluster.Shards[0].Primary
	h := newHangup(t, net.JoinHostPort(primary.Host, strconv.Itoa(primary.Port)))
	f.spec.endpoint = h.addr
	engines(t, func(t *testing.T, engineName string) {
		dsn := f.start(t, engineName)
		mine, plain := connect(t, dsn), connect(t, dsn)
		exec(t, mine, "set application_name = 'mine'")
		for i := range 300 {
			w := dialWire(t, dsn, "application_name another's")
			before := time.Duration(i%2) * time.Millisecond
			h.armed.Store(&leaving{w.conn, before})
			w.fe.Send(&pgproto3.Query{String: "select 1"})
			_ = w.fe.Flush() // a health check may have had it hang up already
			if before > 0 {
				ctx, stop := context.WithTimeout(t.Context(), time.Minute)
				_, err := plain.Exec(ctx, "select from nosuch", pgx.QueryExecModeSimpleProtocol)
				if stop(); code(err) != "42P01" {
					t.Fatalf("the next client's error is %v", err)
				}
			}
			if got := text(t, mine, "select current_setting('application_name')", pgx.QueryExecModeSimpleProtocol); got != "mine" {
				t.Fatalf("application_name is %q", got)
			}
			h.armed.Store(nil)
			_ = w.conn.Close()
		}
	})
}

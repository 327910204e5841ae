package proxy_test

import (
	"io"
	"net"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"
)

// A client may be found gone in the very moment in which its settings have been made on a connection, which then is not known by those
// that it had before: the next client would have what the other wanted.
func TestClientGoneAsItsSettingsAreMade(t *testing.T) {
	f := newFixture(t, fixtureSpec{shards: 1, pool: 1})
	primary := f.cluster.Shards[0].Primary
	server := net.JoinHostPort(primary.Host, strconv.Itoa(primary.Port))
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	var leaving atomic.Pointer[wireClient] // as soon as the server has said something
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = c.Close() }()
				s, err := net.Dial("tcp", server)
				if err != nil {
					return
				}
				go func() {
					_, _ = io.Copy(s, c)
					_ = s.Close()
				}()
				for b := make([]byte, 32<<10); ; {
					n, err := s.Read(b)
					w := leaving.Swap(nil)
					if n > 0 {
						_, _ = c.Write(b[:n])
					}
					if w != nil {
						_ = w.conn.Close()
					}
					if err != nil {
						return
					}
				}
			}()
		}
	}()
	f.spec.endpoint = func() (string, int) {
		a := ln.Addr().(*net.TCPAddr)
		return a.IP.String(), a.Port
	}
	engines(t, func(t *testing.T, engineName string) {
		dsn := f.start(t, engineName)
		c := connect(t, dsn)
		exec(t, c, "set application_name = 'mine'")
		for range 300 {
			w := dialWire(t, dsn, "application_name another's")
			leaving.Store(w)
			w.send(t, &pgproto3.Query{String: "select 1"})
			if got := text(t, c, "select current_setting('application_name')", pgx.QueryExecModeSimpleProtocol); got != "mine" {
				t.Fatalf("application_name is %q", got)
			}
			leaving.Store(nil)
			_ = w.conn.Close()
		}
	})
}

package proxy_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/tidemarkdb/tidemark/proxy"
)

// A client that is in the middle of sending hears why it is sent away, and then the end: not that its connection was reset.
func TestLastWordsArrive(t *testing.T) {
	f := newFixture(t, fixtureSpec{shards: 1, config: asAdmin})
	junk := bytes.Repeat([]byte("y"), 2<<20) // no message begins with it, and the sockets' buffers do not hold it
	engines(t, func(t *testing.T, engineName string) {
		p := f.run(t, engineName)
		for name, dial := range map[string]func() net.Conn{
			"on its way in": func() net.Conn {
				c, err := net.Dial("tcp", p.addr)
				if err != nil {
					t.Fatal(err)
				}
				start := pgproto3.StartupMessage{ProtocolVersion: pgproto3.ProtocolVersion30, Parameters: map[string]string{"user": clientUser, "database": "shop"}}
				b, err := start.Encode(nil)
				if err != nil {
					t.Fatal(err)
				}
				write(t, c, b)
				return c
			},
			"in a session":          func() net.Conn { return dialWire(t, p.dsn).conn },
			"in the admin database": func() net.Conn { return dialWire(t, altered(p.dsn, "/shop?", "/"+proxy.AdminDatabase+"?")).conn },
		} {
			c := dial()
			sent := make(chan error, 1)
			go func() {
				_, err := c.Write(junk)
				sent <- errors.Join(err, c.(*net.TCPConn).CloseWrite())
			}()
			heard, err := io.ReadAll(c)
			if err != nil || !bytes.Contains(heard, []byte("SFATAL\x00")) {
				t.Errorf("%s: the client hears %q, %v", name, heard, err)
			}
			if err := <-sent; err != nil {
				t.Errorf("%s: the client sends: %v", name, err)
			}
			_ = c.Close()
		}
		whole(t, p, 0)
	})
}

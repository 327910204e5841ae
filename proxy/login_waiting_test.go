package proxy_test

import (
	"encoding/binary"
	"io"
	"net"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tidemarkdb/tidemark/proxy"
)

// Clients that open connections and say nothing keep nobody out: the most silent one makes room. Sooner than that the
// newest is refused, and hears why.
func TestSilentLoginsMakeRoom(t *testing.T) {
	const limit = 5
	f := newFixture(t, fixtureSpec{shards: 1, config: func(c *proxy.Config) { c.MaxLogins = limit }})
	p := f.run(t, "epoll")
	stay := connect(t, p.dsn) // those that are in do not count
	silent := make([]net.Conn, limit)
	eventually(t, "the newest is refused", func() error {
		for i := range silent { // anew where a busy machine has taken so long that the first ones count as silent already
			if silent[i] != nil {
				_ = silent[i].Close() // it would make room before the first of these
			}
			silent[i] = dialRaw(t, p.addr)
			write(t, silent[i], packet(3<<16, "user", clientUser, "database", "shop"))
			readN(t, silent[i], 1) // the request for a password, which gets no answer
		}
		_, err := pgconn.Connect(t.Context(), p.dsn)
		if code(err) == "53300" {
			return nil
		}
		return io.ErrNoProgress
	})
	eventually(t, "a silent one makes room", func() error {
		c, err := pgx.Connect(t.Context(), p.dsn)
		if err != nil {
			return err
		}
		return c.Close(t.Context())
	})
	exec(t, stay, "select 1")
	// It is gone long before login_timeout.
	if err := silent[0].SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(silent[0]); err != nil {
		t.Errorf("the first silent client is still there: %v", err)
	}
}

// What a stranger may say is bounded, and nothing but a login comes of it.
func TestHostileLogins(t *testing.T) {
	ca := newAuthority(t)
	server := ca.server()
	f := newFixture(t, fixtureSpec{shards: 1, config: func(c *proxy.Config) { c.TLS = server }})
	p := f.run(t, "epoll")
	start := packet(3<<16, "user", clientUser, "database", "shop")
	message := func(typ byte, size int32, body string) []byte {
		return append(binary.BigEndian.AppendUint32([]byte{typ}, uint32(size)), body...)
	}
	initial := "SCRAM-SHA-256\x00\x00\x00\x00\x0fn,,n=,r=abcdefg"
	for _, tt := range []struct {
		name string
		send [][]byte
		want string // the SQLSTATE of the last message, empty for a closed connection without one
	}{
		{"length of zero", [][]byte{{0, 0, 0, 0}}, ""},
		{"length of 2 GB", [][]byte{{0x7f, 0xff, 0xff, 0xff}}, ""},
		{"length of -1", [][]byte{{0xff, 0xff, 0xff, 0xff}}, ""},
		{"HTTP", [][]byte{[]byte("GET / HTTP/1.1\r\n\r\n")}, ""},
		{"Terminate at once", [][]byte{message('X', 4, "")}, ""},
		{"protocol 4", [][]byte{packet(4 << 16)}, "0A000"},
		{"protocol 2", [][]byte{packet(2 << 16)}, ""}, // its errors have no SQLSTATE
		{"no user", [][]byte{packet(3<<16, "database", "shop")}, "28000"},
		{"two SSL requests", [][]byte{packet(80877103), packet(80877103)}, ""}, // the second is no ClientHello
		{"two GSS requests", [][]byte{packet(80877104), packet(80877104)}, "08P01"},
		{"TLS garbage", [][]byte{{0x16, 3, 1, 0xff, 0xff, 1, 2, 3}}, ""},
		{"query before the login", [][]byte{start, message('Q', 13, "select 1\x00")}, "08P01"},
		{"password of 2 GB", [][]byte{start, message('p', 0x7fffffff, "")}, "08P01"},
		{"password of -1", [][]byte{start, message('p', -1, "")}, "08P01"},
		{"empty SASL", [][]byte{start, message('p', 4, "")}, "08P01"},
		{"SASL of another mechanism", [][]byte{start, message('p', int32(4+len("PLAIN\x00\xff\xff\xff\xff")), "PLAIN\x00\xff\xff\xff\xff")}, "08P01"},
		{"PLUS without TLS", [][]byte{start, message('p', int32(4+len("SCRAM-SHA-256-PLUS\x00\xff\xff\xff\xff")), "SCRAM-SHA-256-PLUS\x00\xff\xff\xff\xff")}, "08P01"},
		{"twice the first SASL message", [][]byte{start, message('p', int32(4+len(initial)), initial), message('p', int32(4+len(initial)), initial)}, "08P01"},
	} {
		c := dialRaw(t, p.addr)
		for _, b := range tt.send {
			if _, err := c.Write(b); err != nil {
				break // it has been closed
			}
		}
		if got := lastError(c); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
	exec(t, connect(t, p.dsn), "select 1")
}

// lastError is the SQLSTATE of the ErrorResponse that ends a connection.
func lastError(c net.Conn) string {
	_ = c.SetReadDeadline(time.Now().Add(20 * time.Second)) // reading fails if it fails
	all, _ := io.ReadAll(c)                                 // a reset is an end too
	for i := 0; i+7 < len(all); i++ {
		if all[i] == 0 && all[i+1] == 'C' && all[i+7] == 0 {
			return string(all[i+2 : i+7])
		}
	}
	return ""
}

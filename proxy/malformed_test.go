package proxy_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"net"
	"testing"
	"time"

	"github.com/tidemarkdb/tidemark/proxy"
)

// frame is a message with a length that is right.
func frame(typ byte, body string) []byte {
	b := binary.BigEndian.AppendUint32([]byte{typ}, uint32(4+len(body)))
	return append(b, body...)
}

// lying is a message with a length of its own.
func lying(typ byte, length uint32, body string) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{typ}, length), body...)
}

// Whatever a client sends, others do not notice, and its connection ends.
func TestMalformed(t *testing.T) {
	loginTimeout := time.Duration(0) // the usual one
	f := newFixture(t, fixtureSpec{shards: 1, pool: 2, config: func(c *proxy.Config) { c.LoginTimeout, c.MaxMessage = loginTimeout, 1<<20 }})
	engines(t, func(t *testing.T, engineName string) {
		loginTimeout = 2 * time.Second
		hasty := f.run(t, engineName)
		loginTimeout = 0
		p := f.run(t, engineName)
		atDoor, bystander := standBy(t, hasty.dsn), connect(t, p.dsn)
		exec(t, bystander, "begin")
		exec(t, bystander, "create temp table mine (a int) on commit drop")

		open := map[string]net.Conn{}
		start := packet(3<<16, "user", clientUser, "database", "shop")
		for name, sent := range map[string][]byte{
			"nothing":                    {},
			"half a length":              {0, 0},
			"half a startup packet":      start[:10],
			"length 0":                   {0, 0, 0, 0, 0, 3, 0, 0},
			"length 7":                   {0, 0, 0, 7, 0, 3, 0},
			"negative length":            {255, 255, 255, 255, 0, 3, 0, 0},
			"2 GB":                       {0x7f, 255, 255, 255, 0, 3, 0, 0},
			"11 kB":                      {0, 0, 0x2b, 0, 0, 3, 0, 0},
			"HTTP":                       []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
			"protocol 2":                 packet(2<<16, "user", "app"),
			"no terminator":              append([]byte{0, 0, 0, 13}, "\x00\x03\x00\x00user\x00"...),
			"no user":                    packet(3<<16, "database", "shop"),
			"SSLRequest twice":           append(packet(80877103), packet(80877103)...),
			"GSSENCRequest twice":        append(packet(80877104), packet(80877104)...),
			"a query before the login":   append(append([]byte{}, start...), frame('Q', "select 1\x00")...),
			"SASL that is not":           append(append([]byte{}, start...), frame('p', "garbage")...),
			"SASL of 2 GB":               append(append([]byte{}, start...), lying('p', 0x7fffffff, "SCRAM")...),
			"unknown mechanism":          append(append([]byte{}, start...), frame('p', "PLAIN\x00\x00\x00\x00\x00")...),
			"cancel of nobody":           append(packet(80877102), 0, 0, 0, 0, 0, 0, 0, 0),
			"cancel with a key too long": append([]byte{0, 0, 4, 0, 4, 210, 22, 46}, make([]byte, 1016)...),
		} {
			c := dialRaw(t, hasty.addr)
			write(t, c, sent)
			open[name] = c
		}
		for name, c := range open { // some are closed by the login timeout, all at once
			if err := untilClosed(c); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		atDoor.goesOn(t)
		atDoor.leave(t)
		whole(t, hasty, 1)
		for name, sent := range map[string][]byte{
			"type 0":                    frame(0, ""),
			"a type of servers":         frame('Z', "I"),
			"password in mid-session":   frame('p', "x\x00"),
			"length 3":                  lying('Q', 3, ""),
			"length 0":                  lying('S', 0, ""),
			"negative length":           lying('Q', 0xffffffff, "x"),
			"Sync of 2 GB":              lying('S', 0x7fffffff, "x"),
			"Describe of 2 GB":          lying('D', 0x7fffffff, "S"),
			"Query without end":         frame('Q', "select 1"),
			"Query with two ends":       frame('Q', "select 1\x00\x00"),
			"Parse cut short":           frame('P', "a\x00select"),
			"Parse with too many types": frame('P', "a\x00select 1\x00\x00\x09"),
			"Bind of counts that lie":   append(frame('P', "\x00select 1\x00\x00\x00"), frame('B', "\x00\x00\x7f\xff\x00\x00")...),
			"Bind cut short":            frame('B', "\x00"),
			"Describe of kind X":        frame('D', "Xa\x00"),
			"Close of kind X":           frame('C', "Xa\x00"),
			"Execute without a limit":   frame('E', "\x00"),
			"FunctionCall cut short":    frame('F', "\x00\x00"),
		} {
			c := dialWire(t, p.dsn).conn
			if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
				t.Fatal(err)
			}
			write(t, c, sent)
			_, _ = c.Write(append(frame('S', ""), frame('X', "")...)) // it may be closed by now
			if err := untilClosed(c); err != nil {
				t.Errorf("after the login, %s: %v", name, err)
			}
		}
		seed := time.Now().UnixNano()
		t.Logf("seed %d", seed)
		rnd := rand.New(rand.NewSource(seed))
		for range 40 {
			c := dialWire(t, p.dsn).conn
			if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
				t.Fatal(err)
			}
			sent := make([]byte, 0, 4096)
			for range 1 + rnd.Intn(8) {
				body := make([]byte, rnd.Intn(40))
				rnd.Read(body)
				sent = append(sent, frame("QPBDECSHFdcf"[rnd.Intn(12)], string(body))...)
			}
			write(t, c, sent)
			_ = c.(*net.TCPConn).CloseWrite() // the proxy may have closed it already
			if err := untilClosed(c); err != nil {
				t.Errorf("random messages %x: %v", sent, err)
			}
		}
		exec(t, bystander, "insert into mine values (1)")
		if got := text(t, bystander, "select count(*) from mine"); got != "1" {
			t.Errorf("the bystander's transaction has %s rows", got)
		}
		exec(t, bystander, "commit")
		eventually(t, "all others are gone", func() error {
			if n := p.proxy.Clients(); n != 1 {
				return fmt.Errorf("%d clients", n)
			}
			return nil
		})
		if got := text(t, connect(t, p.dsn), "select 1"); got != "1" {
			t.Error(got)
		}
	})
}

// untilClosed reads until the peer ends the connection.
func untilClosed(c net.Conn) error {
	_, err := io.Copy(io.Discard, c)
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return errors.New("the connection was left open")
	}
	return nil
}

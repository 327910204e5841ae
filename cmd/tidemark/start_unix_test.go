//go:build unix

package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// A proxy that loses its server connection while it reads the schema reads it again.
func TestStartWhileServerConnectionsBreak(t *testing.T) {
	l := newLife(t)
	conn, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	host, port := l.primary()
	broken := breaks{server: fmt.Sprintf("%s:%d", host, port), at: []byte("prosqlbody")}
	go broken.serve(conn)
	l.change(fmt.Sprintf("host: %s, port: %d", host, port), fmt.Sprintf("host: 127.0.0.1, port: %d", conn.Addr().(*net.TCPAddr).Port))
	l.start()
	eventually := time.Now().Add(lifePatience)
	for {
		c, err := l.tryConnect(l.database)
		if err == nil {
			if got := l.value(c, "select 'served'"); got != "served" {
				t.Errorf("it serves %q", got)
			}
			break
		}
		if time.Now().After(eventually) {
			t.Fatalf("it does not serve: %v", err)
		}
		time.Sleep(50 * time.Millisecond)
	}
	if n := broken.readings.Load(); n < 2 {
		t.Errorf("the schema was read %d times", n)
	}
}

// breaks stands before a server and ends each other connection in which the schema is read.
type breaks struct {
	server   string
	at       []byte // what a reading sends amid others
	readings atomic.Int32
}

func (b *breaks) serve(l net.Listener) {
	for {
		client, err := l.Accept()
		if err != nil {
			return
		}
		go b.forward(client)
	}
}

func (b *breaks) forward(client net.Conn) {
	defer func() { _ = client.Close() }()
	server, err := net.Dial("tcp", b.server)
	if err != nil {
		return
	}
	defer func() { _ = server.Close() }()
	go func() {
		_, _ = io.Copy(client, server)
		_ = client.Close()
	}()
	var sent []byte
	buf := make([]byte, 64<<10)
	for seen := false; ; {
		n, err := client.Read(buf)
		if err != nil {
			return
		}
		if sent = append(sent, buf[:n]...); !seen && bytes.Contains(sent, b.at) {
			if seen = true; b.readings.Add(1)%2 == 1 {
				return
			}
		}
		sent = sent[max(0, len(sent)-len(b.at)):]
		if _, err := server.Write(buf[:n]); err != nil {
			return
		}
	}
}

// primary is the server's address in the configuration.
func (l *life) primary() (host string, port int) {
	l.t.Helper()
	for line := range strings.Lines(l.text()) {
		if _, rest, ok := strings.Cut(line, "primary: {"); ok {
			if _, err := fmt.Sscanf(strings.ReplaceAll(rest, ",", " "), "host: %s port: %d", &host, &port); err != nil {
				l.t.Fatal(err)
			}
		}
	}
	return host, port
}

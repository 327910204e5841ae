package backend

import (
	"bytes"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/tidemarkdb/tidemark/internal/wire"
)

// fakeServer is one connection of a server that speaks as a test has it.
type fakeServer struct{ nc net.Conn }

// serveFake listens until the test ends. speak runs behind the startup message; when it returns the connection ends.
func serveFake(t *testing.T, speak func(f *fakeServer)) EndpointConfig {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for _, nc := range conns {
			_ = nc.Close()
		}
		mu.Unlock()
		running.Wait()
	})
	running.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, nc)
			mu.Unlock()
			running.Go(func() {
				defer func() { _ = nc.Close() }()
				f := &fakeServer{nc: nc}
				if f.startup() {
					speak(f)
				}
			})
		}
	})
	a := l.Addr().(*net.TCPAddr)
	return EndpointConfig{Host: a.IP.String(), Port: a.Port, Role: RolePrimary}
}

func (f *fakeServer) startup() bool {
	var b []byte
	for {
		_, n, need, err := wire.NextStartup(b)
		if err != nil || n > 0 {
			return err == nil
		}
		more := make([]byte, need-len(b))
		if _, err := io.ReadFull(f.nc, more); err != nil {
			return false
		}
		b = append(b, more...)
	}
}

func (f *fakeServer) say(b []byte) { _, _ = f.nc.Write(b) } // the other end finds out

// hear waits for one message; false when there is none.
func (f *fakeServer) hear() bool { return f.copyNext(io.Discard) }

// hearPassword waits for a password; empty when there is none.
func (f *fakeServer) hearPassword() string {
	var b bytes.Buffer
	f.copyNext(&b)
	return strings.TrimSuffix(b.String(), "\x00")
}

// copyNext copies the body of the next message.
func (f *fakeServer) copyNext(to io.Writer) bool {
	head := make([]byte, wire.HeaderLen)
	if _, err := io.ReadFull(f.nc, head); err != nil {
		return false
	}
	_, size, err := wire.Header(head, wire.Frontend)
	if err != nil {
		return false
	}
	_, err = io.CopyN(to, f.nc, int64(size-wire.HeaderLen))
	return err == nil
}

// welcome lets everybody in.
func (f *fakeServer) welcome() {
	f.say(wire.AppendReadyForQuery(wire.AppendBackendKeyData(wire.AppendAuthenticationOK(nil), 1, []byte{0, 0, 0, 1}), wire.TxIdle))
}

// serveQueries answers every Query by nothing but its end.
func (f *fakeServer) serveQueries() {
	for f.hear() {
		f.say(wire.AppendReadyForQuery(wire.AppendEmptyQueryResponse(nil), wire.TxIdle))
	}
}

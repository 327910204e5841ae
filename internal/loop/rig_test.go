package loop

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// patience is how long a test waits for what must happen. It bounds a hang; it is not a measurement.
const patience = 60 * time.Second

// rig is one engine with one kind of connection.
type rig struct {
	name      string
	newEngine func(t testing.TB, onPanic PanicFunc) Engine
	transport string // tcp, unix, tls or pipe
}

// rigs returns every combination that the suite runs on.
func rigs() []rig {
	goroutines := func(_ testing.TB, onPanic PanicFunc) Engine {
		return NewGoroutinesWith(GoroutinesConfig{Panic: onPanic})
	}
	all := []rig{
		{"goroutines/tcp", goroutines, "tcp"},
		{"goroutines/tls", goroutines, "tls"},
		{"goroutines/pipe", goroutines, "pipe"},
	}
	return append(all, systemRigs()...)
}

// onEachRig runs f on every rig. Tasks that panic fail the test, unless f says otherwise by onPanic.
func onEachRig(t *testing.T, f func(t *testing.T, r *bench)) {
	t.Helper()
	for _, r := range rigs() {
		t.Run(r.name, func(t *testing.T) {
			f(t, newBench(t, r, nil))
		})
	}
}

// bench is a running engine with what a test needs around it.
type bench struct {
	testing.TB
	Engine
	rig
}

func newBench(t testing.TB, r rig, onPanic PanicFunc) *bench {
	t.Helper()
	if onPanic == nil {
		onPanic = func(v any, stack []byte) { t.Errorf("task panicked: %v\n%s", v, stack) }
	}
	b := &bench{TB: t, Engine: r.newEngine(t, onPanic), rig: r}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := b.Close(ctx); err != nil {
			t.Errorf("close engine: %v", err)
		}
	})
	return b
}

// pair returns an adopted connection and its blocking peer, which is closed with the test.
func (b *bench) pair() (*Conn, net.Conn) {
	b.Helper()
	near, far := netPair(b.TB, b.transport)
	if b.transport == "tls" {
		near, far = handshake(b.TB, b.Wrap(near), far)
	} else {
		near = b.Wrap(near)
	}
	c, err := b.Adopt(near)
	if err != nil {
		b.Fatal(err)
	}
	return c, far
}

// netPair returns two connected net.Conns. The second is closed with the test.
func netPair(t testing.TB, transport string) (net.Conn, net.Conn) {
	t.Helper()
	if transport == "pipe" {
		near, far := net.Pipe()
		t.Cleanup(func() { _ = far.Close() })
		return near, far
	}
	network, addr := "tcp", "127.0.0.1:0"
	if transport == "unix" {
		network, addr = "unix", filepath.Join(t.TempDir(), "s")
	}
	ln, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	defer shut(ln)
	far, err := net.Dial(network, ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = far.Close() })
	near, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return near, far
}

// handshake makes a TLS server of near and a TLS client of far.
func handshake(t testing.TB, near, far net.Conn) (net.Conn, net.Conn) {
	t.Helper()
	server := tls.Server(near, &tls.Config{Certificates: []tls.Certificate{certificate()}})
	client := tls.Client(far, &tls.Config{InsecureSkipVerify: true})
	done := make(chan error, 1)
	go func() { done <- client.Handshake() }()
	if err := server.Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return server, client
}

var certificate = sync.OnceValue(func() tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	tmpl := x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "loop test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, &tmpl, &tmpl, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
})

// start runs f as a task and returns a channel that is closed when it ends, however it ends.
func (b *bench) start(f func(t *Task)) <-chan struct{} {
	done := make(chan struct{})
	b.Go(func(t *Task) {
		defer close(done)
		f(t)
	})
	return done
}

// do runs f as a task and waits for its end.
func (b *bench) do(f func(t *Task)) {
	b.Helper()
	b.await("task", b.start(f))
}

func (b *bench) await(what string, done <-chan struct{}) {
	b.Helper()
	select {
	case <-done:
	case <-time.After(patience):
		b.Fatalf("%s did not end within %s", what, patience)
	}
}

// inBackground runs f in a goroutine that the test waits for. An error fails the test.
func (b *bench) inBackground(what string, f func() error) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := f(); err != nil {
			b.Errorf("%s: %v", what, err)
		}
	}()
	return done
}

// The helpers below make a task's code as short as blocking code, for tests that are about something else. A Wake that
// nobody took is ignored.

func soon() time.Time { return time.Now().Add(patience) }

var errNotReady = errors.New("wait ended without readiness")

func readSome(t *Task, c *Conn, p []byte) (int, error) {
	for {
		n, err := c.Read(p)
		if !errors.Is(err, ErrWouldBlock) {
			return n, err
		}
		if cause := t.Wait(soon(), Source{c, Readable}); cause != Ready && cause != Woken {
			return 0, fmt.Errorf("%w: %s", errNotReady, cause)
		}
	}
}

func readFull(t *Task, c *Conn, p []byte) error {
	for len(p) > 0 {
		n, err := readSome(t, c, p)
		if err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

func writeAll(t *Task, c *Conn, p []byte) error {
	for {
		n, err := c.Write(p)
		if p = p[n:]; !errors.Is(err, ErrWouldBlock) {
			return err
		}
		if cause := t.Wait(soon(), Source{c, Writable}); cause != Ready && cause != Woken {
			return fmt.Errorf("%w: %s", errNotReady, cause)
		}
	}
}

// stream is an endless sequence of bytes that is cheap to make and to check at any position. Its period is a prime, so that
// a lost, repeated or exchanged block of any usual size shows.
type stream struct{ seed, pos uint64 }

var streamPattern = sync.OnceValue(func() []byte {
	p := make([]byte, 65521)
	x := uint64(1)
	for i := range p {
		x = x*6364136223846793005 + 1442695040888963407
		p[i] = byte(x >> 56)
	}
	return p
})

// next returns the next bytes, at most n.
func (s *stream) next(n int) []byte {
	p := streamPattern()
	p = p[(s.pos+s.seed*7919)%uint64(len(p)):]
	p = p[:min(n, len(p))]
	s.pos += uint64(len(p))
	return p
}

func (s *stream) fill(p []byte) {
	for len(p) > 0 {
		p = p[copy(p, s.next(len(p))):]
	}
}

func (s *stream) check(p []byte) error {
	for len(p) > 0 {
		start := s.pos
		want := s.next(len(p))
		if !bytes.Equal(p[:len(want)], want) {
			return fmt.Errorf("stream %d differs between bytes %d and %d", s.seed, start, s.pos)
		}
		p = p[len(want):]
	}
	return nil
}

// shut closes what only has to go away, however it takes that.
func shut(c io.Closer) { _ = c.Close() }

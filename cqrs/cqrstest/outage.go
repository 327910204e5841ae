package cqrstest

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/tidemarkdb/tidemark/cqrs"
)

// While the service is away every error is transient, and within the deadline; when it is back everything goes on
// without a restart.
func testOutage(t *testing.T, s Suite) {
	gate := newGate(t, s.Addr)
	b := s.benchAt(t, gate.addr(), idAndNote()...)
	b.apply(b.put(base+1, "1", "before"))
	gate.shut()
	ctx, cancel := context.WithTimeout(b.ctx, 20*time.Second)
	defer cancel()
	errs := b.Apply(ctx, []cqrs.Event{b.put(base+2, "1", "during"), b.put(base+2, "2", "during")})
	if len(errs) != 2 {
		t.Fatalf("applied while the service was away: %v", errs)
	}
	for _, err := range errs {
		if err == nil || errors.Is(err, cqrs.ErrPermanent) {
			t.Errorf("got %v, want a transient error", err)
		}
	}
	if _, err := b.try(cqrs.Query{Limit: -1}); err == nil {
		t.Error("a scan succeeds while the service is away")
	}
	if err := b.Check(ctx); err == nil {
		t.Error("Check succeeds while the service is away")
	}
	gate.open()
	b.apply(b.put(base+2, "1", "during"), b.put(base+2, "2", "during"))
	b.wantAll("1|during", "2|during")
	if err := b.Check(b.ctx); err != nil {
		t.Error(err)
	}

	expired, cancel := context.WithCancel(b.ctx)
	cancel()
	if errs := b.Apply(expired, []cqrs.Event{b.put(base+3, "1", "x")}); len(errs) != 1 || errors.Is(errs[0], cqrs.ErrPermanent) {
		t.Errorf("after its context ended Apply gives %v, want a transient error", errs)
	}

	// Never reached: the process starts all the same, and says what is wrong when asked.
	gate.shut()
	cold := s.Open(t, b.Name()+"-cold", b.cols, gate.addr())
	if errs := cold.Apply(ctx, []cqrs.Event{b.put(base+1, "1", "x")}); len(errs) != 1 || errs[0] == nil || errors.Is(errs[0], cqrs.ErrPermanent) {
		t.Errorf("got %v, want a transient error", errs)
	}
	if err := cold.Close(); err != nil {
		t.Error(err)
	}
}

// gate is a TCP relay that can be shut: open connections break and new ones are refused.
type gate struct {
	t      *testing.T
	target string
	listen net.Listener
	wg     sync.WaitGroup

	mu     sync.Mutex
	closed bool                  // guarded by mu
	conns  map[net.Conn]struct{} // guarded by mu
}

func newGate(t *testing.T, target string) *gate {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{t: t, target: target, listen: l, conns: map[net.Conn]struct{}{}}
	g.wg.Add(1)
	go g.accept()
	t.Cleanup(func() {
		_ = l.Close() // ends accept
		g.shut()
		g.wg.Wait()
	})
	return g
}

func (g *gate) addr() string { return g.listen.Addr().String() }

func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	for c := range g.conns {
		_ = c.Close() // breaking them is the point
	}
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = false
}

// hold registers a connection; false when the gate is shut.
func (g *gate) hold(c net.Conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return false
	}
	g.conns[c] = struct{}{}
	return true
}

func (g *gate) drop(c net.Conn) {
	g.mu.Lock()
	delete(g.conns, c)
	g.mu.Unlock()
	_ = c.Close() // may be closed already
}

func (g *gate) accept() {
	defer g.wg.Done()
	for {
		in, err := g.listen.Accept()
		if err != nil {
			return
		}
		g.wg.Add(1)
		go func() {
			defer g.wg.Done()
			defer g.drop(in)
			if !g.hold(in) {
				return
			}
			out, err := net.Dial("tcp4", g.target)
			if err != nil {
				return
			}
			defer g.drop(out)
			if !g.hold(out) {
				return
			}
			g.wg.Add(1)
			go func() {
				defer g.wg.Done()
				_, _ = io.Copy(out, in) // ends with either connection
				_ = out.Close()
			}()
			_, _ = io.Copy(in, out)
		}()
	}
}

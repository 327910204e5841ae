package engine

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/tidemarkdb/tidemark/internal/backend"
	"github.com/tidemarkdb/tidemark/internal/loop"
)

// A client that always has something under way never lets the queue run empty. It stays as long as what is owed.
func TestQueueOfAnEndlessPipeline(t *testing.T) {
	l := &Link{}
	for i := range uint64(100_000) {
		l.Expect(Expect{Kind: Execute, Statement: i})
		if i == 50_000 {
			l.EndCopy() // what is queued now stands before a CopyDone
		}
		if i >= 10 {
			if e := l.first(); e.Statement != i-10 {
				t.Fatalf("reply %d is first, want %d", e.Statement, i-10)
			}
			if before := i > 50_000 && i-10 <= 50_000; before != (l.ended != 0) && i > 50_000 {
				t.Fatalf("after %d requests: CopyDone is ahead: %v", i, l.ended != 0)
			}
			l.done()
		}
	}
	if l.Owed() != 10 || cap(l.queue) > 100 {
		t.Errorf("%d replies are owed in a queue of %d, want 10 in at most 100", l.Owed(), cap(l.queue))
	}
}

// A peer that always has something to read yet gets it all in order, and what was sent is not kept: neither for a server nor for a client.
func TestOutputOfAnEndlessPipeline(t *testing.T) {
	const waits, n = maxPending, 1 << 20 // bytes, and numbers of 4 bytes. The connection itself takes less than waits at once
	l, r := &Link{}, &Relay{}
	for name, to := range map[string]struct {
		connect func(*loop.Conn)
		add     func([]byte)
		flush   func() bool
		out     func() []byte
		sent    *int
	}{
		"server": {func(c *loop.Conn) { l.Conn = &backend.Conn{IO: c} }, l.Queue, l.flush, l.Out, &l.sent},
		"client": {func(c *loop.Conn) { r.Client = c }, r.Reply, r.writePending, r.Out, &r.sent},
	} {
		t.Run(name, func(t *testing.T) {
			e := loop.NewGoroutines()
			near, far := net.Pipe()
			c, err := e.Adopt(near)
			if err != nil {
				t.Fatal(err)
			}
			to.connect(c)
			got := make(chan error)
			go func() {
				in, next := bufio.NewReader(far), make([]byte, 4)
				for i := range uint32(n) {
					if _, err := io.ReadFull(in, next); err != nil || binary.BigEndian.Uint32(next) != i {
						got <- fmt.Errorf("%x comes, %w, want %x", next, err, i)
						return
					}
				}
				got <- nil
			}()
			for i := range uint32(n) {
				for to.add(binary.BigEndian.AppendUint32(nil, i)); len(to.out())-*to.sent > waits; {
					if !to.flush() {
						runtime.Gosched()
					}
				}
			}
			if kept := cap(to.out()); kept > 4*waits {
				t.Errorf("%d bytes are kept when %d wait at most", kept, waits)
			}
			for len(to.out()) > 0 {
				to.flush()
				runtime.Gosched()
			}
			if err := <-got; err != nil {
				t.Error(err)
			}
			_ = c.Close()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if err := e.Close(ctx); err != nil {
				t.Error(err)
			}
		})
	}
}

// A wait for output to be written is over when it cannot be any more: nothing else may ever come.
func TestOutputToAClientThatIsGone(t *testing.T) {
	e := loop.NewGoroutines()
	near, far := net.Pipe()
	c, err := e.Adopt(near)
	if err != nil {
		t.Fatal(err)
	}
	_ = far.Close()
	for r := (&Relay{Client: c}); !r.gone; runtime.Gosched() {
		r.Reply([]byte("nobody hears"))
		if moved := r.writePending(); r.gone && !moved {
			t.Error("that it is gone is no progress")
		}
	}
	_ = c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := e.Close(ctx); err != nil {
		t.Error(err)
	}
}

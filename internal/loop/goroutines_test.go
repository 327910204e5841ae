package loop

import (
	"context"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// The goroutine engine runs in a synctest bubble, where an hour passes at once and a lost signal is a detected deadlock.
func TestSynctest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := NewGoroutines()
		near, far := net.Pipe()
		c, err := e.Adopt(near)
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		var log []string
		note := func(what string) { log = append(log, what+" after "+time.Since(start).String()) }
		e.Go(func(tk *Task) {
			defer shut(c)
			p := make([]byte, 5)
			note(tk.Wait(time.Now().Add(time.Hour), Source{c, Readable}).String())
			if err := readFull(tk, c, p); err != nil {
				t.Error(err)
			}
			note("read " + string(p))
			note(tk.Wait(time.Now().Add(time.Hour), Source{c, Readable}).String())
			tk.Await(func() { time.Sleep(time.Minute) })
			note("slept")
			if err := writeAll(tk, c, []byte("bye")); err != nil {
				t.Error(err)
			}
		})
		time.Sleep(30 * time.Minute)
		if _, err := io.WriteString(far, "hello"); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(far)
		if err != nil || string(got) != "bye" {
			t.Errorf("got %q, %v", got, err)
		}
		if err := e.Close(context.Background()); err != nil {
			t.Error(err)
		}
		want := []string{"ready after 30m0s", "read hello after 30m0s", "timeout after 1h30m0s", "slept after 1h31m0s"}
		if diff := cmp.Diff(want, log); diff != "" {
			t.Error(diff)
		}
	})
}

// A connection that is closed with unsent data gives up after its linger time, and the engine's Close waits for that.
func TestLingerIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := NewGoroutinesWith(GoroutinesConfig{Linger: 3 * time.Second})
		near, far := net.Pipe() // nobody reads
		c, err := e.Adopt(near)
		if err != nil {
			t.Fatal(err)
		}
		e.Go(func(*Task) {
			if _, err := c.Write([]byte("unheard")); err != nil {
				t.Error(err)
			}
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		start := time.Now()
		if err := e.Close(context.Background()); err != nil {
			t.Error(err)
		}
		if d := time.Since(start); d != 3*time.Second {
			t.Errorf("lingered %s, want 3s", d)
		}
		_ = far.Close()
	})
}

func TestRing(t *testing.T) {
	r := ring{buf: make([]byte, 10)}
	in, out := stream{seed: 1}, stream{seed: 1}
	for i := range 1000 {
		p := make([]byte, i%13)
		before := in
		in.fill(p)
		n := r.write(p)
		if want := min(len(p), 10-(r.n-n)); n != want {
			t.Fatalf("step %d: wrote %d, want %d", i, n, want)
		}
		in = stream{seed: 1, pos: before.pos + uint64(n)}
		q := make([]byte, (i*7)%11)
		held := r.n
		if n := r.read(q); n != min(held, len(q)) {
			t.Fatalf("step %d: read %d of %d held", i, n, held)
		} else if err := out.check(q[:n]); err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
	}
	if out.pos < 1000 {
		t.Errorf("only %d bytes went through", out.pos)
	}
}

func TestNew(t *testing.T) {
	for engine, works := range map[string]bool{"": true, "auto": true, "epoll": epollSupported, "goroutines": true, "iouring": false} {
		e, err := New(Config{Engine: engine})
		if (err == nil) != works {
			t.Errorf("engine %q: %v", engine, err)
		}
		if err != nil {
			continue
		}
		if err := e.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}
	if _, err := New(Config{Engine: "epoll", Epoll: EpollConfig{Loops: -1}}); err == nil {
		t.Error("a negative number of loops was accepted")
	}
}

// brokenPipe is a connection that breaks while something is being written.
type brokenPipe struct {
	net.Conn
	writing, breaks chan struct{}
}

func (p *brokenPipe) Write([]byte) (int, error) {
	close(p.writing)
	<-p.breaks
	return 0, io.ErrClosedPipe
}

func (p *brokenPipe) SetWriteDeadline(time.Time) error { return io.ErrClosedPipe }

// A connection that breaks as it is finished is closed once, and the engine's Close waits for neither more nor fewer.
func TestFinishOfBroken(t *testing.T) {
	e, err := New(Config{Engine: "goroutines"})
	if err != nil {
		t.Fatal(err)
	}
	before := finishing.Load()
	here, there := net.Pipe()
	defer func() { _ = there.Close() }()
	p := &brokenPipe{here, make(chan struct{}), make(chan struct{})}
	c, err := e.Adopt(p)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	<-p.writing
	if err := c.Finish(); err != nil {
		t.Error(err)
	}
	close(p.breaks)
	c.stream.sending.Wait()
	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	if err := e.Close(ctx); err != nil {
		t.Error(err)
	}
	if ctx.Err() != nil {
		t.Error("Close waits for nothing")
	}
	if n := finishing.Load(); n != before {
		t.Errorf("%d connections are finishing, and %d were before", n, before)
	}
}

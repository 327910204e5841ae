package loop

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"context"
)

func TestEcho(t *testing.T) {
	onEachRig(t, func(t *testing.T, b *bench) {
		c, peer := b.pair()
		done := b.start(func(tk *Task) {
			defer c.Close()
			tk.Own(c)
			buf := make([]byte, 4096)
			for {
				n, err := readSome(tk, c, buf)
				if errors.Is(err, io.EOF) {
					return
				}
				if err == nil {
					err = writeAll(tk, c, buf[:n])
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
		for _, msg := range []string{"a", "hello", strings.Repeat("x", 3000), strings.Repeat("long ", 100_000)} {
			sent := b.inBackground("send", func() error { _, err := io.WriteString(peer, msg); return err })
			got := make([]byte, len(msg))
			if _, err := io.ReadFull(peer, got); err != nil {
				t.Fatal(err)
			}
			<-sent
			if string(got) != msg {
				t.Fatalf("echo of %d bytes differs", len(msg))
			}
		}
		if c.RemoteAddr() == nil || c.LocalAddr() == nil {
			t.Error("addresses are missing")
		}
		if isTLS := c.TLS() != nil; isTLS != (b.transport == "tls") {
			t.Errorf("TLS() != nil is %v on %s", isTLS, b.transport)
		}
		if err := peer.Close(); err != nil {
			t.Fatal(err)
		}
		b.await("echo", done)
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Read after Close: %v, want net.ErrClosed", err)
		}
		if err := c.Close(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("second Close: %v, want net.ErrClosed", err)
		}
	})
}

// relay passes data both ways until either side ends; its only memory is a small buffer per direction.
func relay(tk *Task, a, b *Conn) error {
	type direction struct {
		from, to *Conn
		buf      [8 << 10]byte
		data     []byte
	}
	ways := [2]*direction{{from: a, to: b}, {from: b, to: a}}
	for {
		progress := false
		var set [4]Source
		for i, w := range ways {
			if len(w.data) == 0 {
				n, err := w.from.Read(w.buf[:])
				if err != nil && !errors.Is(err, ErrWouldBlock) {
					return err
				}
				w.data = w.buf[:n]
			}
			if len(w.data) == 0 {
				set[2*i] = Source{w.from, Readable}
				continue
			}
			n, err := w.to.Write(w.data)
			if err != nil && !errors.Is(err, ErrWouldBlock) {
				return err
			}
			w.data = w.data[n:]
			progress = progress || n > 0
			if len(w.data) > 0 {
				set[2*i], set[2*i+1] = Source{w.to, Writable}, Source{w.from, Hangup}
			}
		}
		if progress {
			continue
		}
		if cause := tk.Wait(soon(), set[:]...); cause != Ready {
			return fmt.Errorf("%w: %s", errNotReady, cause)
		}
		for _, w := range ways {
			if len(w.data) > 0 && w.from.HungUp() {
				return io.EOF
			}
		}
	}
}

// A large result goes one way while a large parameter goes the other, and neither peer reads before it has begun to write.
func TestFullDuplex(t *testing.T) {
	const result, bind = 50 << 20, 20 << 20
	onEachRig(t, func(t *testing.T, b *bench) {
		client, clientPeer := b.pair()
		server, serverPeer := b.pair()
		done := b.start(func(tk *Task) {
			defer client.Close()
			defer server.Close()
			if err := relay(tk, client, server); !errors.Is(err, io.EOF) {
				t.Errorf("relay: %v, want the end of a stream", err)
			}
		})
		send := func(to net.Conn, seed, n uint64) func() error {
			return func() error {
				s, p := stream{seed: seed}, make([]byte, 64<<10)
				for s.pos < n {
					p := p[:min(uint64(len(p)), n-s.pos)]
					s.fill(p)
					if _, err := to.Write(p); err != nil {
						return err
					}
				}
				return nil
			}
		}
		receive := func(from net.Conn, seed, n uint64) func() error {
			return func() error {
				s, p := stream{seed: seed}, make([]byte, 64<<10)
				for s.pos < n {
					m, err := from.Read(p)
					if err == nil {
						err = s.check(p[:m])
					}
					if err != nil {
						return fmt.Errorf("after %d of %d bytes: %w", s.pos, n, err)
					}
				}
				return nil
			}
		}
		for _, end := range []<-chan struct{}{
			b.inBackground("send bind", send(clientPeer, 1, bind)),
			b.inBackground("send result", send(serverPeer, 2, result)),
			b.inBackground("receive bind", receive(serverPeer, 1, bind)),
			b.inBackground("receive result", receive(clientPeer, 2, result)),
		} {
			b.await("transfer", end)
		}
		_ = clientPeer.Close()
		b.await("relay", done)
	})
}

// A client that leaves in the middle of a result, without reading it, ends the relay.
func TestClientLeaves(t *testing.T) {
	onEachRig(t, func(t *testing.T, b *bench) {
		client, clientPeer := b.pair()
		server, serverPeer := b.pair()
		done := b.start(func(tk *Task) {
			defer client.Close()
			defer server.Close()
			if err := relay(tk, client, server); err == nil || errors.Is(err, errNotReady) {
				t.Errorf("relay: %v, want what the client's leaving causes", err)
			}
		})
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			p := make([]byte, 64<<10)
			for {
				if _, err := serverPeer.Write(p); err != nil {
					return // the relay has closed its side
				}
			}
		}()
		if _, err := io.CopyN(io.Discard, clientPeer, 1<<20); err != nil {
			t.Fatal(err)
		}
		_ = clientPeer.Close()
		b.await("relay", done)
		b.await("sender", sent)
	})
}

func TestHangupWhileWaitingForSomethingElse(t *testing.T) {
	onEachRig(t, func(t *testing.T, b *bench) {
		client, clientPeer := b.pair()
		server, _ := b.pair()
		waiting := make(chan struct{})
		done := b.start(func(tk *Task) {
			defer client.Close()
			defer server.Close()
			for _, c := range []*Conn{client, server} { // use up what is assumed of a fresh connection
				if _, err := c.Read(make([]byte, 1)); !errors.Is(err, ErrWouldBlock) {
					t.Errorf("Read without data: %v", err)
				}
			}
			close(waiting)
			for !client.HungUp() {
				if cause := tk.Wait(soon(), Source{server, Readable}, Source{client, Hangup}); cause != Ready {
					t.Errorf("Wait: %s, want ready", cause)
					return
				}
			}
			if server.HungUp() {
				t.Error("the other connection hung up too")
			}
			if !client.Readable() {
				t.Error("a connection that hung up must count as readable")
			}
		})
		<-waiting
		if err := clientPeer.Close(); err != nil {
			t.Fatal(err)
		}
		b.await("task", done)
	})
}

// What the peer sent before it closed its half is read first, and the other half still works.
func TestHalfClose(t *testing.T) {
	onEachRig(t, func(t *testing.T, b *bench) {
		c, peer := b.pair()
		half, ok := peer.(interface{ CloseWrite() error })
		if !ok {
			_ = c.Close()
			return // a pipe has no halves
		}
		done := b.start(func(tk *Task) {
			defer c.Close()
			tk.Own(c)
			var got []byte
			buf := make([]byte, 7)
			for {
				n, err := readSome(tk, c, buf)
				got = append(got, buf[:n]...)
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
			if !c.HungUp() {
				t.Error("HungUp is false after the end of the stream")
			}
			if err := writeAll(tk, c, append([]byte("got "), got...)); err != nil {
				t.Error(err)
			}
		})
		if _, err := io.WriteString(peer, "the last words"); err != nil {
			t.Fatal(err)
		}
		if err := half.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(peer)
		if err != nil || string(got) != "got the last words" {
			t.Errorf("answer %q, %v", got, err)
		}
		b.await("task", done)
	})
}

// A peer that does not read stops the writer within a bound; when it reads, the writer goes on.
func TestSlowReader(t *testing.T) {
	const bound = 64 << 20 // kernel buffers grow to several megabytes on loopback
	const total = 80 << 20
	onEachRig(t, func(t *testing.T, b *bench) {
		c, peer := b.pair()
		full := make(chan uint64, 1)
		done := b.start(func(tk *Task) {
			defer c.Close()
			tk.Own(c)
			s, p := stream{seed: 3}, make([]byte, 64<<10)
			var data []byte
			for s.pos < total || len(data) > 0 {
				if len(data) == 0 {
					data = p[:min(uint64(len(p)), total-s.pos)]
					s.fill(data)
				}
				n, err := c.Write(data)
				data = data[n:]
				switch {
				case err == nil:
				case errors.Is(err, ErrWouldBlock):
					select {
					case full <- s.pos:
					default:
					}
					if cause := tk.Wait(soon(), Source{c, Writable}); cause != Ready {
						t.Errorf("Wait: %s, want ready", cause)
						return
					}
				default:
					t.Error(err)
					return
				}
			}
		})
		select {
		case n := <-full:
			if n > bound {
				t.Errorf("the writer got rid of %d bytes before it had to wait, want at most %d", n, bound)
			}
		case <-done:
			t.Fatal("the writer never had to wait")
		}
		s, p := stream{seed: 3}, make([]byte, 256<<10)
		for s.pos < total {
			n, err := peer.Read(p)
			if err == nil {
				err = s.check(p[:n])
			}
			if err != nil {
				t.Fatalf("after %d bytes: %v", s.pos, err)
			}
		}
		b.await("writer", done)
	})
}

// What Write accepted arrives, although Close follows at once and the peer reads later.
func TestCloseSendsWhatWasWritten(t *testing.T) {
	onEachRig(t, func(t *testing.T, b *bench) {
		c, peer := b.pair()
		var accepted int
		b.do(func(tk *Task) {
			tk.Own(c)
			s, p := stream{seed: 4}, make([]byte, 10_000)
			for {
				s.fill(p)
				n, err := c.Write(p)
				if accepted += n; err != nil {
					break
				}
			}
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		})
		s := stream{seed: 4}
		got, err := io.ReadAll(peer)
		if err != nil && !errors.Is(err, io.EOF) {
			t.Errorf("read: %v", err)
		}
		if err := s.check(got); err != nil {
			t.Error(err)
		}
		if len(got) != accepted {
			t.Errorf("the peer got %d bytes, Write accepted %d", len(got), accepted)
		}
	})
}

func TestAbort(t *testing.T) {
	onEachRig(t, func(t *testing.T, b *bench) {
		c, _ := b.pair()
		waiting := make(chan struct{})
		done := b.start(func(tk *Task) {
			defer c.Close()
			tk.Own(c)
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, ErrWouldBlock) {
				t.Errorf("Read without data: %v", err)
			}
			close(waiting)
			if _, err := readSome(tk, c, make([]byte, 1)); err == nil || errors.Is(err, errNotReady) {
				t.Errorf("Read after Abort: %v, want an error or the end of the stream", err)
			}
		})
		<-waiting
		c.Abort()
		b.await("task", done)
		c.Abort() // and after Close it does nothing
	})
}

func TestTimers(t *testing.T) {
	onEachRig(t, func(t *testing.T, b *bench) {
		c, peer := b.pair()
		b.do(func(tk *Task) {
			defer c.Close()
			tk.Own(c)
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, ErrWouldBlock) {
				t.Errorf("Read without data: %v", err)
			}
			// Later, earlier, later: a timer that is armed lazily must not fire early, and must fire.
			for _, d := range []time.Duration{30, 5, 0, 40, 1, -10, 20} {
				deadline := time.Now().Add(d * time.Millisecond)
				if cause := tk.Wait(deadline, Source{c, Readable}); cause != Timeout {
					t.Errorf("Wait of %d ms: %s, want timeout", d, cause)
				}
				if early := time.Until(deadline); early > 0 {
					t.Errorf("Wait of %d ms ended %s early", d, early)
				}
			}
			// A far deadline first; what is ready comes before a deadline that has passed.
			tk.Await(func() {
				if _, err := io.WriteString(peer, "x"); err != nil {
					t.Error(err)
				}
			})
			if cause := tk.Wait(time.Now().Add(time.Hour), Source{c, Readable}); cause != Ready {
				t.Errorf("Wait with data: %s, want ready", cause)
			}
			if cause := tk.Wait(time.Now().Add(-time.Second), Source{c, Readable}); cause != Ready {
				t.Errorf("Wait with data and a deadline in the past: %s, want ready", cause)
			}
			if cause := tk.Wait(time.Now().Add(time.Millisecond)); cause != Timeout {
				t.Errorf("Wait for nothing: %s, want timeout", cause)
			}
		})
	})
}

func TestManyTimersFireInOrder(t *testing.T) {
	onEachRig(t, func(t *testing.T, b *bench) {
		const n = 300
		start := time.Now()
		ends := make([]<-chan struct{}, n)
		for i := range n {
			ends[i] = b.start(func(tk *Task) {
				for round := range 3 {
					deadline := start.Add(time.Duration((i*7919)%50+round*10) * time.Millisecond)
					if cause := tk.Wait(deadline); cause != Timeout {
						t.Errorf("task %d: %s, want timeout", i, cause)
					}
					if early := time.Until(deadline); early > 0 {
						t.Errorf("task %d: %s early", i, early)
					}
				}
			})
		}
		for _, end := range ends {
			b.await("timer task", end)
		}
	})
}

func TestWakeIsSticky(t *testing.T) {
	onEachRig(t, func(t *testing.T, b *bench) {
		c, peer := b.pair()
		if _, err := io.WriteString(peerAsync{peer, b}, "x"); err != nil {
			t.Fatal(err)
		}
		var tk atomic.Pointer[Task]
		asleep := make(chan struct{})
		done := b.start(func(self *Task) {
			defer c.Close()
			tk.Store(self)
			want := func(when string, got, want Cause) {
				t.Helper()
				if got != want {
					t.Errorf("%s: %s, want %s", when, got, want)
				}
			}
			self.Wake()
			self.Wake()
			want("after two wakes", self.Wait(soon()), Woken)
			want("after that", self.Wait(time.Now().Add(2*time.Millisecond)), Timeout)
			self.Wake()
			want("woken and ready", self.Wait(soon(), Source{c, Readable}), Woken)
			want("still ready", self.Wait(soon(), Source{c, Readable}), Ready)
			self.Wake()
			self.Await(func() {})
			want("woken before Await", self.Wait(soon()), Woken)
			self.Await(self.Wake)
			want("woken in Await", self.Wait(soon()), Woken)
			close(asleep)
			want("woken from outside", self.Wait(soon()), Woken)
		})
		<-asleep
		tk.Load().Wake()
		b.await("task", done)
		tk.Load().Wake() // a task that has ended does not mind
	})
}

// peerAsync writes in the background, because a pipe has no buffer.
type peerAsync struct {
	net.Conn
	b *bench
}

func (p peerAsync) Write(data []byte) (int, error) {
	data = bytes.Clone(data)
	p.b.inBackground("write", func() error { _, err := p.Conn.Write(data); return err })
	return len(data), nil
}

// Two tasks wake each other many times; a lost Wake would hang them.
func TestWakePingPong(t *testing.T) {
	onEachRig(t, func(t *testing.T, b *bench) {
		const rounds = 20_000
		var tasks [2]atomic.Pointer[Task]
		var turn atomic.Int64
		ends := make([]<-chan struct{}, 2)
		for i := range 2 {
			ends[i] = b.start(func(self *Task) {
				tasks[i].Store(self)
				for {
					now := turn.Load()
					switch {
					case now >= rounds:
						if other := tasks[1-i].Load(); other != nil {
							other.Wake()
						}
						return
					case now%2 == int64(i) && tasks[1-i].Load() != nil:
						turn.Store(now + 1)
						tasks[1-i].Load().Wake()
					default:
						// Until both are known, look again soon.
						deadline := soon()
						if tasks[1-i].Load() == nil {
							deadline = time.Now().Add(time.Millisecond)
						}
						if cause := self.Wait(deadline); cause == Timeout && tasks[1-i].Load() != nil && turn.Load() == now && now > 1 {
							t.Errorf("a wake was lost in round %d", now)
							return
						}
					}
				}
			})
		}
		for _, end := range ends {
			b.await("player", end)
		}
	})
}

func TestAwait(t *testing.T) {
	onEachRig(t, func(t *testing.T, b *bench) {
		release, ran := make(chan struct{}), make(chan struct{})
		var after atomic.Bool
		blocked := b.start(func(tk *Task) {
			x := 0
			tk.Await(func() {
				close(ran)
				<-release
				x = 1
			})
			if x != 1 {
				t.Error("Await returned before its function")
			}
			after.Store(true)
		})
		<-ran
		b.do(func(tk *Task) { // another task runs meanwhile
			if cause := tk.Wait(time.Now().Add(5 * time.Millisecond)); cause != Timeout {
				t.Errorf("Wait: %s", cause)
			}
		})
		if after.Load() {
			t.Error("Await did not wait")
		}
		close(release)
		b.await("awaiting task", blocked)
	})
}

func TestPanicEndsOnlyItsTask(t *testing.T) {
	for _, r := range rigs() {
		t.Run(r.name, func(t *testing.T) {
			type report struct {
				value any
				stack string
			}
			reports := make(chan report, 10)
			b := newBench(t, r, func(v any, stack []byte) { reports <- report{v, string(stack)} })
			c, peer := b.pair()
			echo := b.start(func(tk *Task) {
				defer c.Close()
				buf := make([]byte, 10)
				for {
					n, err := readSome(tk, c, buf)
					if err != nil {
						return
					}
					if err := writeAll(tk, c, buf[:n]); err != nil {
						t.Error(err)
					}
				}
			})
			for name, f := range map[string]func(tk *Task){
				"at once":     func(*Task) { explode("at once") },
				"after Wait":  func(tk *Task) { tk.Wait(time.Now().Add(time.Millisecond)); explode("after Wait") },
				"in Await":    func(tk *Task) { tk.Await(func() { explode("in Await") }) },
				"after Await": func(tk *Task) { tk.Await(func() {}); explode("after Await") },
			} {
				cleaned := false
				b.do(func(tk *Task) {
					defer func() { cleaned = true }()
					f(tk)
				})
				got := <-reports
				if got.value != name {
					t.Errorf("%s: panic value %v", name, got.value)
				}
				if !strings.Contains(got.stack, "loop.explode") {
					t.Errorf("%s: the stack does not show where it happened:\n%s", name, got.stack)
				}
				if !cleaned {
					t.Errorf("%s: deferred functions did not run", name)
				}
				if _, err := io.WriteString(peer, "alive"); err != nil {
					t.Fatal(err)
				}
				buf := make([]byte, 5)
				if _, err := io.ReadFull(peer, buf); err != nil {
					t.Fatalf("%s: the other task does not answer: %v", name, err)
				}
			}
			if s := b.Stats(); s.Panics != 4 {
				t.Errorf("Stats counts %d panics, want 4", s.Panics)
			}
			_ = peer.Close()
			b.await("echo", echo)
		})
	}
}

func explode(v any) { panic(v) }

func TestClose(t *testing.T) {
	for _, r := range rigs() {
		t.Run(r.name, func(t *testing.T) {
			e := r.newEngine(t, func(v any, stack []byte) { t.Errorf("task panicked: %v\n%s", v, stack) })
			b := &bench{TB: t, Engine: e, rig: r}
			c, _ := b.pair()
			var ended atomic.Int64
			for i := range 20 {
				b.Go(func(tk *Task) {
					defer ended.Add(1)
					switch i % 4 {
					case 0:
						for tk.Wait(time.Time{}) != Closing {
						}
						tk.Await(func() { time.Sleep(time.Millisecond) }) // cleaning up may block
					case 1:
						for tk.Wait(time.Now().Add(time.Millisecond)) != Closing {
						}
					case 2:
						tk.Await(func() { time.Sleep(5 * time.Millisecond) })
						for tk.Wait(soon()) != Closing {
						}
					case 3:
						for {
							tk.Wake() // always has something to do
							if tk.Wait(time.Time{}) == Closing {
								return
							}
						}
					}
				})
			}
			b.Go(func(tk *Task) {
				defer ended.Add(1)
				defer c.Close()
				if _, err := readSome(tk, c, make([]byte, 1)); !errors.Is(err, errNotReady) {
					t.Errorf("read: %v, want Closing", err)
				}
			})
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			if err := e.Close(ctx); err != nil {
				t.Fatal(err)
			}
			if ended.Load() != 21 {
				t.Errorf("Close returned when %d of 21 tasks had ended", ended.Load())
			}
			if err := e.Close(ctx); err != nil {
				t.Errorf("second Close: %v", err)
			}
			near, far := netPair(t, r.transport)
			defer near.Close()
			defer far.Close()
			if _, err := e.Adopt(near); !errors.Is(err, ErrEngineClosed) {
				t.Errorf("Adopt after Close: %v, want ErrEngineClosed", err)
			}
			late := make(chan Cause, 1)
			e.Go(func(tk *Task) {
				tk.Wake()
				tk.Await(func() {})
				late <- tk.Wait(time.Time{})
			})
			if cause := <-late; cause != Closing {
				t.Errorf("Wait of a task that was started after Close: %s, want closing", cause)
			}
		})
	}
}

// Tasks that ignore Closing are unwound when Close's patience ends, so that what they hold is released.
func TestCloseUnwindsStubbornTasks(t *testing.T) {
	for _, r := range rigs() {
		t.Run(r.name, func(t *testing.T) {
			e := r.newEngine(t, func(v any, stack []byte) { t.Errorf("task panicked: %v\n%s", v, stack) })
			released := make(chan struct{}, 2)
			for range 2 {
				e.Go(func(tk *Task) {
					defer func() { released <- struct{}{} }()
					for {
						tk.Wait(time.Time{})
					}
				})
			}
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
			defer cancel()
			if err := e.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Close: %v, want the context's error", err)
			}
			for range 2 {
				select {
				case <-released:
				case <-time.After(patience):
					t.Fatal("a stubborn task was not unwound")
				}
			}
			ctx, cancel = context.WithTimeout(context.Background(), patience)
			defer cancel()
			if err := e.Close(ctx); err != nil {
				t.Errorf("Close after all have ended: %v", err)
			}
		})
	}
}

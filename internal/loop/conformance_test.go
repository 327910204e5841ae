package loop

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
)

func TestEcho(t *testing.T) {
	onEachRig(t, func(t *testing.T, b *bench) {
		c, peer := b.pair()
		done := b.start(func(tk *Task) {
			defer shut(c)
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
			defer shut(client)
			defer shut(server)
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
			defer shut(client)
			defer shut(server)
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
			defer shut(client)
			defer shut(server)
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
			defer shut(c)
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
			defer shut(c)
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
			defer shut(c)
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

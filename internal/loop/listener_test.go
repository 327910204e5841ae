package loop

import (
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"
)

// A Listener's connections are served as those that were adopted, also what came before anybody looked; Close ends Accept.
func TestListen(t *testing.T) {
	onEachRig(t, func(t *testing.T, b *bench) {
		network, addr := "tcp", "127.0.0.1:0"
		switch b.transport {
		case "unix":
			network, addr = "unix", filepath.Join(t.TempDir(), "s")
		case "tls", "pipe":
			t.Skip("listeners are of TCP and Unix sockets")
		}
		ln, err := net.Listen(network, addr)
		if err != nil {
			t.Fatal(err)
		}
		l, err := b.Listen(ln)
		if err != nil {
			t.Fatal(err)
		}
		over := make(chan error, 1)
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					over <- err
					return
				}
				b.Go(func(tk *Task) {
					defer shut(c)
					if c.RemoteAddr().Network() != network {
						t.Errorf("a peer at %v", c.RemoteAddr())
					}
					word := make([]byte, 5)
					err := readFull(tk, c, word)
					if err == nil {
						err = writeAll(tk, c, word)
					}
					if err != nil {
						t.Error(err)
					}
				})
			}
		}()
		for i := range 20 {
			peer, err := net.Dial(network, ln.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			if i%2 == 0 {
				time.Sleep(2 * time.Millisecond) // its task waits already
			}
			if _, err := io.WriteString(peer, "hello"); err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(peer); string(got) != "hello" || err != nil {
				t.Errorf("the peer reads %q, %v", got, err)
			}
			shut(peer)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if err := <-over; !errors.Is(err, net.ErrClosed) {
			t.Errorf("Accept ends with: %v", err)
		}
	})
}

// A detached connection brings what the peer had sent, whatever of it was read ahead, and can be adopted again.
func TestDetach(t *testing.T) {
	onEachRig(t, func(t *testing.T, b *bench) {
		c, peer := b.pair()
		listens := make(chan struct{})
		said := b.inBackground("peer", func() error {
			<-listens
			for _, x := range []struct{ says, hears string }{{"one two three ", "1 2 "}, {"four", "3"}} {
				if _, err := io.WriteString(peer, x.says); err != nil {
					return err
				}
				got := make([]byte, len(x.hears))
				if _, err := io.ReadFull(peer, got); err != nil || string(got) != x.hears {
					return fmt.Errorf("the peer reads %q, %w", got, err)
				}
			}
			return nil
		})
		b.do(func(tk *Task) {
			tk.Own(c)
			tk.Keep(c)
			if n, err := c.Read(make([]byte, 1)); n > 0 || !errors.Is(err, ErrWouldBlock) {
				t.Errorf("read %d bytes, %v", n, err)
			}
			close(listens)
			tk.Wait(soon(), Source{c, Readable}) // and the loop reads ahead
			word := func(c *Conn, want, answer string) {
				t.Helper()
				got := make([]byte, len(want))
				err := readFull(tk, c, got)
				if err == nil {
					err = writeAll(tk, c, []byte(answer))
				}
				if err != nil || string(got) != want {
					t.Errorf("got %q, %v, want %q", got, err, want)
				}
			}
			word(c, "one ", "1 ")
			nc, err := c.Detach()
			if err != nil {
				t.Error(err)
				return
			}
			if err := c.Close(); !errors.Is(err, net.ErrClosed) {
				t.Errorf("close what is detached: %v", err)
			}
			want := "two three "
			if b.transport != "tls" { // where it is given back to what is under it
				nc, want = Unread(nc, []byte("again ")), "again "+want
			}
			tk.Await(func() {
				got := make([]byte, len(want))
				if _, err := io.ReadFull(nc, got); err != nil || string(got) != want {
					t.Errorf("blocking: got %q, %v, want %q", got, err, want)
				}
				if _, err := io.WriteString(nc, "2 "); err != nil {
					t.Error(err)
				}
			})
			if c, err = b.Adopt(nc); err != nil {
				t.Error(err)
				return
			}
			defer shut(c)
			word(c, "four", "3")
		})
		b.await("peer", said)
	})
}

package loop

import (
	"bytes"
	"context"
	"io"
	"net"
	"testing"
	"time"
)

func init() { finishTime = patience }

const (
	lastWords = "so long"
	stillSent = 2 << 20 // more than the sockets' buffers hold: the peer is in the middle of it when the connection ends
)

// hearsTheEnd has peer send what nobody reads any more, and read, to the end.
func hearsTheEnd(t *testing.T, peer net.Conn) {
	t.Helper()
	sent := make(chan error, 1)
	go func() {
		_, err := peer.Write(bytes.Repeat([]byte("x"), stillSent))
		if half, ok := peer.(interface{ CloseWrite() error }); err == nil && ok {
			err = half.CloseWrite()
		}
		sent <- err
	}()
	if got, err := io.ReadAll(peer); err != nil || string(got) != lastWords {
		t.Errorf("the peer reads %q, %v", got, err)
	}
	if err := <-sent; err != nil {
		t.Errorf("the peer sends: %v", err)
	}
	if err := peer.Close(); err != nil {
		t.Error(err)
	}
}

// Last words arrive whatever the peer was sending, and their connection is gone when the peer has closed it.
func TestFinish(t *testing.T) {
	onEachRig(t, func(t *testing.T, b *bench) {
		if b.transport == "pipe" {
			t.Skip("a pipe has no half that could be closed")
		}
		c, peer := b.pair()
		ended := b.start(func(tk *Task) {
			defer shut(c)
			tk.Own(c)
			tk.Keep(c)
			err := readFull(tk, c, make([]byte, 10)) // it is in the middle of something
			if err == nil {
				err = writeAll(tk, c, []byte(lastWords))
			}
			if err == nil {
				err = c.Finish()
			}
			if err != nil {
				t.Error(err)
			}
		})
		hearsTheEnd(t, peer)
		b.await("task", ended)
	})
	if n := finishing.Load(); n != 0 {
		t.Errorf("%d connections are still to be finished, though their engines are closed", n)
	}
}

// The same for connections that no engine has.
func TestFinishBlocking(t *testing.T) {
	for _, r := range rigs() {
		t.Run(r.name, func(t *testing.T) {
			b := newBench(t, r, nil)
			near, peer := netPair(t, r.transport)
			near = b.Wrap(near)
			switch r.transport {
			case "pipe":
				t.Skip("a pipe has no half that could be closed")
			case "tls":
				near, peer = handshake(t, near, peer)
			case "tcp":
				near = Unread(near, []byte("before"))
			}
			done := b.inBackground("finish", func() error {
				if _, err := io.WriteString(near, lastWords); err != nil {
					return err
				}
				return Finish(near)
			})
			hearsTheEnd(t, peer)
			b.await("finish", done)
		})
	}
}

// Where too many are to be finished already, a connection is just closed.
func TestFinishIsBounded(t *testing.T) {
	onEachRig(t, func(t *testing.T, b *bench) {
		finishing.Add(finishMost)
		defer finishing.Add(-finishMost)
		c, peer := b.pair()
		b.do(func(*Task) {
			if err := c.Finish(); err != nil {
				t.Error(err)
			}
		})
		if n, err := peer.Read(make([]byte, 1)); n != 0 || err == nil {
			t.Errorf("the peer reads %d bytes, %v", n, err)
		}
	})
}

// A peer that reads its last words and stays does not make it an error that the engine is closed.
func TestCloseWhilePeersStay(t *testing.T) {
	for _, r := range rigs() {
		t.Run(r.name, func(t *testing.T) {
			e := r.newEngine(t, nil)
			b := &bench{TB: t, Engine: e, rig: r}
			c, peer := b.pair()
			defer shut(peer)
			b.do(func(*Task) {
				if err := c.Finish(); err != nil {
					t.Error(err)
				}
			})
			left := int64(1) // the task that reads to the end
			if _, ok := e.(*goroutines); ok {
				left = 0
			}
			for until := time.Now().Add(patience); e.Stats().Tasks > left && time.Now().Before(until); {
				time.Sleep(time.Millisecond)
			}
			ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
			defer cancel()
			if err := e.Close(ctx); err != nil {
				t.Error(err)
			}
		})
	}
}

package loop

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"
)

// take reads n bytes in pieces of at most size, waiting for each.
func take(t *testing.T, tk *Task, c *Conn, n, size int) []byte {
	var got []byte
	p := make([]byte, size)
	for len(got) < n {
		k, err := c.Read(p[:min(size, n-len(got))])
		got = append(got, p[:k]...)
		if errors.Is(err, ErrWouldBlock) {
			if cause := tk.Wait(time.Now().Add(patience), Source{c, Readable}); cause != Ready {
				t.Errorf("wait for %d more bytes ended with %s", n-len(got), cause)
				return got
			}
		} else if err != nil {
			t.Errorf("read: %v", err)
			return got
		}
	}
	return got
}

// message is one that only this connection gets.
func message(conn, round, n int) []byte {
	return bytes.Repeat([]byte(fmt.Sprintf("<%d.%d>", conn, round)), n)
}

// Many connections get messages at a time, which a loop reads ahead; some tasks leave what was read for later turns, or read it in pieces.
func TestReadAhead(t *testing.T) {
	const conns, rounds = 40, 30
	b, _ := newLoops(t, "tcp", 1)
	var done []<-chan struct{}
	var peers []net.Conn
	for i := range conns {
		c, peer := b.pair()
		peers = append(peers, peer)
		done = append(done, b.start(func(tk *Task) {
			defer shut(c)
			tk.Keep(c)
			tk.Own(c)
			for r := range rounds {
				want := message(i, r, 1+i*r)
				if i%4 == 0 { // not in this turn
					for len(c.Ahead()) == 0 && !c.Readable() {
						tk.Wait(time.Time{}, Source{c, Readable})
					}
					ahead := string(c.Ahead())
					for range 2 {
						tk.Wait(time.Now().Add(time.Millisecond))
					}
					if string(c.Ahead()) != ahead {
						t.Errorf("connection %d, round %d: %q was read ahead, and is %q after a wait", i, r, ahead, c.Ahead())
					}
				}
				if got := take(t, tk, c, len(want), []int{1 << 16, 7, 100, 3}[i%4]); !bytes.Equal(got, want) {
					t.Errorf("connection %d, round %d: read %q, want %q", i, r, got, want)
					return
				}
				if _, err := c.Write([]byte{1}); err != nil {
					t.Error(err)
				}
			}
			for { // the end comes behind all that was read
				switch n, err := c.Read(make([]byte, 1)); {
				case errors.Is(err, ErrWouldBlock):
					tk.Wait(time.Time{}, Source{c, Readable})
					continue
				case n != 0 || !errors.Is(err, io.EOF):
					t.Errorf("connection %d: %d, %v at the end", i, n, err)
				}
				return
			}
		}))
	}
	for r := range rounds {
		for i, peer := range peers {
			if _, err := peer.Write(message(i, r, 1+i*r)); err != nil {
				t.Fatal(err)
			}
		}
		for _, peer := range peers {
			if _, err := io.ReadFull(peer, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for i, peer := range peers {
		_ = peer.Close()
		b.await(fmt.Sprint("connection ", i), done[i])
	}
}

// A connection that was read ahead goes to a task on another loop in the middle of a turn.
func TestReadAheadThenMoves(t *testing.T) {
	b, e := newLoops(t, "tcp", 2)
	for range 50 {
		c, peer := b.pair()
		ready := make(chan struct{})
		turn := func(tk *Task) {
			tk.Own(c)
			_, _ = c.Read(make([]byte, 1)) // finds nothing
			tk.WriteLate(c, []byte("?"), &unsent{})
			if got := string(take(t, tk, c, len("an answer"), 100)); got != "an answer" {
				t.Errorf("read %q", got)
			}
		}
		first := b.startOn(e.loops[0], func(tk *Task) {
			turn(tk)
			close(ready)
			for range 100 {
				tk.FlushLate() // the turn goes on
			}
		})
		answer := func() {
			if _, err := io.ReadFull(peer, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			if _, err := peer.Write([]byte("an answer")); err != nil {
				t.Fatal(err)
			}
		}
		answer()
		<-ready
		second := b.startOn(e.loops[1], func(tk *Task) {
			defer shut(c)
			turn(tk)
		})
		answer()
		b.await("first owner", first)
		b.await("second owner", second)
	}
}

// unsent notes what a late write could not send.
type unsent struct {
	bytes []byte
	err   error
}

func (u *unsent) Unsent(p []byte, err error) { u.bytes, u.err = append(u.bytes, p...), err }

// Late writes go out in order with others, and before the connection is closed.
func TestLateWritesInOrder(t *testing.T) {
	onEachRig(t, func(t *testing.T, r *bench) {
		c, peer := r.pair()
		done := r.start(func(tk *Task) {
			tk.Own(c)
			var u unsent
			tk.WriteLate(c, []byte("a"), &u)
			tk.WriteLate(c, []byte("b"), &u)
			if _, err := c.Write([]byte("c")); err != nil {
				t.Error(err)
			}
			tk.WriteLate(c, []byte("d"), &u)
			tk.Wait(time.Now().Add(time.Millisecond))
			tk.WriteLate(c, []byte("e"), &u)
			tk.FlushLate()
			tk.WriteLate(c, []byte("f"), &u)
			shut(c)
			if len(u.bytes) > 0 || u.err != nil {
				t.Errorf("not sent: %q, %v", u.bytes, u.err)
			}
		})
		got, err := io.ReadAll(peer)
		if string(got) != "abcdef" || err != nil {
			t.Errorf("%q came, %v", got, err)
		}
		r.await("writer", done)
	})
}

// What a socket does not take comes back, and ends the wait of the task.
func TestLateWriteThatDoesNotFit(t *testing.T) {
	b, _ := newLoops(t, "tcp", 1)
	c, peer := b.pair()
	done := b.start(func(tk *Task) {
		defer shut(c)
		tk.Own(c)
		want := 0
		for piece := bytes.Repeat([]byte("x"), 1<<16); ; {
			n, err := c.Write(piece)
			if want += n; errors.Is(err, ErrWouldBlock) {
				break
			}
		}
		_, _ = c.Read(make([]byte, 1)) // finds nothing
		var u unsent
		tk.WriteLate(c, []byte("the rest"), &u)
		if cause := tk.Wait(time.Now().Add(patience), Source{c, Readable}); cause != Ready {
			t.Errorf("the wait ended with %s", cause)
		}
		if string(u.bytes) != "the rest" || !errors.Is(u.err, ErrWouldBlock) {
			t.Errorf("came back: %q, %v", u.bytes, u.err)
		}
		go func() { _, _ = io.CopyN(io.Discard, peer, int64(want)) }()
		for tk.Wait(time.Now().Add(patience), Source{c, Writable}) != Ready {
			t.Error("never writable again")
			return
		}
		if _, err := c.Write([]byte("x")); err != nil {
			t.Errorf("write when it is writable again: %v", err)
		}
	})
	b.await("writer", done)
}

// A late write to a connection that is broken says so, and ends the wait of the task.
func TestLateWriteToBroken(t *testing.T) {
	b, _ := newLoops(t, "tcp", 1)
	c, peer := b.pair()
	done := b.start(func(tk *Task) {
		defer shut(c)
		tk.Own(c)
		_ = peer.(*net.TCPConn).SetLinger(0)
		_ = peer.Close()
		for until := time.Now().Add(patience); time.Now().Before(until); {
			var u unsent
			tk.WriteLate(c, []byte("x"), &u)
			if tk.Wait(time.Now().Add(patience), Source{c, Readable}) == Ready && u.err != nil && !errors.Is(u.err, ErrWouldBlock) {
				return
			}
		}
		t.Error("never told")
	})
	b.await("writer", done)
}

// A late write that fails when its task is about to move ends the task's wait, and the task stays: only its loop may resume it.
func TestLateWriteToBrokenAmidAMove(t *testing.T) {
	b, e := newLoops(t, "tcp", 2)
	c, peer := b.pair()
	ended := make(chan error, 1)
	b.startOn(e.loops[1], func(tk *Task) {
		tk.Own(c)
		_, _ = c.Read(make([]byte, 1)) // finds nothing
		_ = peer.(*net.TCPConn).SetLinger(0)
		_ = peer.Close()
		e.loops[1].shed, e.loops[1].shedTo = 1, e.loops[0]
		var u unsent
		tk.WriteLate(c, []byte("x"), &u)
		if _, over := tk.Rest(func(tk *Task, cause Cause) {
			defer shut(c)
			var err error
			if u.err == nil || cause != Ready {
				err = fmt.Errorf("its write came to %v, its wait to %s", u.err, cause)
			}
			if tk.loop.Load().current != tk {
				err = errors.Join(err, errors.New("a loop resumes it that it does not belong to"))
			}
			ended <- err
		}, Source{c, Readable}); over {
			ended <- errors.New("there was nothing to wait for")
		}
	})
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

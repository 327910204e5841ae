package loop

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// needUring skips a test where the system does not let this process use io_uring.
func needUring(t *testing.T) {
	t.Helper()
	u, err := newUring(maxLates)
	if err != nil {
		t.Skip(err)
	}
	u.close()
}

// Late writes of one round, by one system call: some to connections that take all, one to a connection that takes a part, one to a broken one.
func TestSendsTogether(t *testing.T) {
	needUring(t)
	b, e := newLoops(t, "tcp", 1)
	const conns = 10
	const full, broken = 3, 6 // of them
	var cs [conns]*Conn
	var peers [conns]net.Conn
	for i := range conns {
		cs[i], peers[i] = b.pair()
	}
	_ = peers[broken].(*net.TCPConn).SetLinger(0)
	_ = peers[broken].Close()
	stuffed := 0
	var outs [conns]unsent
	b.await("writer", b.start(func(tk *Task) {
		for _, c := range cs {
			tk.Own(c)
		}
		tk.Wait(time.Now().Add(10*time.Millisecond), Source{cs[broken], Hangup})
		_ = unix.SetsockoptInt(cs[full].fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 1) // as little as there is
		_ = unix.SetsockoptInt(cs[full].fd, unix.IPPROTO_TCP, unix.TCP_MAXSEG, 88)
		for {
			n, err := cs[full].Write(message(full, 0, 1))
			if stuffed += n; err != nil {
				break
			}
		}
		cs[full].state.Or(bitWritable) // as far as the loop knows
		before := e.Stats().Batches
		for round := range 3 {
			for i, c := range cs {
				tk.WriteLate(c, message(i, round, 7), &outs[i])
			}
			tk.FlushLate()
		}
		if n := e.Stats().Batches - before; n != 3 {
			t.Errorf("%d system calls for three rounds", n)
		}
		for i, c := range cs {
			var want []byte
			var err error
			switch i {
			case full:
				want, err = bytes.Join([][]byte{message(i, 0, 7), message(i, 1, 7), message(i, 2, 7)}, nil), ErrWouldBlock
			case broken:
				want, err = outs[i].bytes, nil
				if outs[i].err == nil || errors.Is(outs[i].err, ErrWouldBlock) {
					t.Errorf("the broken connection says %v", outs[i].err)
				}
				outs[i].err = nil
			}
			if !bytes.Equal(outs[i].bytes, want) || !errors.Is(outs[i].err, err) {
				t.Errorf("connection %d: %q came back, with %v; want %q, %v", i, outs[i].bytes, outs[i].err, want, err)
			}
			shut(c)
		}
	}))
	for i, peer := range peers {
		got, err := io.ReadAll(peer)
		want := bytes.Join([][]byte{message(i, 0, 7), message(i, 1, 7), message(i, 2, 7)}, nil)
		switch {
		case i == full && len(got) != stuffed:
			t.Errorf("the full connection got %d bytes of %d", len(got), stuffed)
		case i != full && i != broken && (!bytes.Equal(got, want) || err != nil):
			t.Errorf("connection %d got %q, %v", i, got, err)
		}
	}
}

// A part of what is sent together is taken: the rest comes back, and nothing is lost, repeated or out of order.
func TestSendsTogetherInPart(t *testing.T) {
	needUring(t)
	const conns, rounds = 4, 3000
	b, e := newLoops(t, "unix", 1)
	var cs [conns]*Conn
	var got [conns]chan []byte
	for i := range conns {
		c, peer := b.pair()
		cs[i], got[i] = c, make(chan []byte, 1)
		_ = unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 1)
		go func() {
			var all []byte
			for p := make([]byte, 1000+i); ; {
				n, err := peer.Read(p)
				if all = append(all, p[:n]...); err != nil {
					got[i] <- all
					return
				}
			}
		}()
	}
	var want [conns][]byte
	returned := 0
	b.await("writer", b.start(func(tk *Task) {
		for _, c := range cs {
			tk.Own(c)
			defer shut(c)
		}
		for r := range rounds {
			var outs [conns]unsent
			for i, c := range cs {
				m := message(i, r, 700)[:lateSize-8*i]
				want[i] = append(want[i], m...)
				tk.WriteLate(c, m, &outs[i])
			}
			tk.FlushLate()
			for i, c := range cs {
				for p := outs[i].bytes; len(p) > 0; {
					returned++
					n, err := c.Write(p)
					if p = p[n:]; errors.Is(err, ErrWouldBlock) {
						tk.Wait(time.Now().Add(patience), Source{c, Writable})
					} else if err != nil {
						t.Error(err)
						return
					}
				}
			}
		}
	}))
	for i := range conns {
		if all := <-got[i]; !bytes.Equal(all, want[i]) {
			t.Errorf("connection %d got %d bytes, not the %d that were sent to it", i, len(all), len(want[i]))
		}
	}
	if n := e.Stats().Batches; n == 0 || returned == 0 {
		t.Errorf("%d system calls for several, %d writes came back", n, returned)
	}
}

// A ring that the kernel refuses is given up, and nothing is lost.
func TestRingThatIsRefused(t *testing.T) {
	needUring(t)
	b, e := newLoops(t, "tcp", 1)
	var cs [3]*Conn
	var peers [3]net.Conn
	for i := range cs {
		cs[i], peers[i] = b.pair()
	}
	b.await("writer", b.start(func(tk *Task) {
		if err := unix.Dup3(e.loops[0].wakeFd, e.loops[0].ring.fd, unix.O_CLOEXEC); err != nil { // no ring any more
			t.Error(err)
		}
		for _, c := range cs {
			tk.Own(c)
		}
		for range 2 {
			var u unsent
			for _, c := range cs {
				tk.WriteLate(c, []byte("x"), &u)
			}
			tk.FlushLate()
			if u.bytes != nil || u.err != nil {
				t.Errorf("%q came back, %v", u.bytes, u.err)
			}
		}
		if e.loops[0].ring != nil {
			t.Error("the ring is still there")
		}
		for _, c := range cs {
			shut(c)
		}
	}))
	for i, peer := range peers {
		if got, err := io.ReadAll(peer); string(got) != "xx" || err != nil {
			t.Errorf("connection %d got %q, %v", i, got, err)
		}
	}
}

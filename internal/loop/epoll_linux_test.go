package loop

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// newLoops returns an engine with n loops that never migrate tasks by themselves.
func newLoops(t testing.TB, transport string, n int) (*bench, *epoll) {
	t.Helper()
	still := balance{window: time.Hour, saturated: 850, calm: 500}
	b := newBench(t, rig{transport, func(t testing.TB, onPanic PanicFunc) Engine {
		e, err := newEpoll(EpollConfig{Loops: n, Panic: onPanic}, still)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}, transport}, nil)
	return b, b.Engine.(*epoll)
}

// startOn is start on a given loop.
func (b *bench) startOn(l *eventLoop, f func(t *Task)) <-chan struct{} {
	done := make(chan struct{})
	b.Engine.(*epoll).spawn(l, func(t *Task) {
		defer close(done)
		f(t)
	}, false)
	return done
}

// An event that was taken from the kernel before its connection was closed, and is looked at when the descriptor number
// already belongs to another connection, must not touch that one.
func TestStaleEventOnReusedDescriptor(t *testing.T) {
	b, e := newLoops(t, "tcp", 1)
	old, _ := b.pair()
	var stale unix.EpollEvent
	b.do(func(tk *Task) {
		tk.Own(old)
		stale = unix.EpollEvent{
			Events: unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLHUP | unix.EPOLLOUT,
			Fd:     int32(old.fd), Pad: int32(uint32(old.state.Load() >> 32)),
		}
		if err := old.Close(); err != nil {
			t.Error(err)
		}
	})
	var reused *Conn
	for reused == nil { // the kernel gives out the lowest number that is free; others may be quicker
		if c, _ := b.pair(); c.fd == old.fd {
			reused = c
		} else {
			defer shut(c)
		}
	}
	waiting, resumed := make(chan struct{}), make(chan Cause, 1)
	waiter := b.start(func(tk *Task) {
		defer shut(reused)
		tk.Own(reused)
		if _, err := reused.Read(make([]byte, 1)); !errors.Is(err, ErrWouldBlock) {
			t.Errorf("Read without data: %v", err)
		}
		close(waiting)
		resumed <- tk.Wait(time.Now().Add(50*time.Millisecond), Source{reused, Readable | Hangup})
	})
	<-waiting
	b.do(func(*Task) { // on the loop's thread, as the loop itself would
		e.loops[0].dispatch([]unix.EpollEvent{stale})
		if reused.Readable() || reused.HungUp() {
			t.Error("a stale event changed the readiness of another connection")
		}
	})
	if cause := <-resumed; cause != Timeout {
		t.Errorf("Wait ended with %s; a stale event woke the wrong session", cause)
	}
	b.await("waiter", waiter)
}

// A registration that has moved to another loop ignores what its old loop still reports.
func TestStaleEventAfterMove(t *testing.T) {
	b, e := newLoops(t, "tcp", 2)
	c, _ := b.pair()
	var stale unix.EpollEvent
	b.await("first owner", b.startOn(e.loops[0], func(tk *Task) {
		tk.Own(c)
		if !tk.Owns(c) {
			t.Error("Owns is false after Own")
		}
		stale = unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(c.fd), Pad: int32(uint32(c.state.Load() >> 32))}
	}))
	b.await("second owner", b.startOn(e.loops[1], func(tk *Task) {
		defer shut(c)
		if tk.Owns(c) {
			t.Error("Owns is true before Own")
		}
		tk.Own(c)
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, ErrWouldBlock) {
			t.Errorf("Read without data: %v", err)
		}
		e.loops[0].dispatch([]unix.EpollEvent{stale})
		if c.Readable() {
			t.Error("the old loop changed readiness after the connection had moved")
		}
	}))
}

// A connection goes back and forth between tasks on two loops, with data arriving before, during and after each move.
func TestOwnAcrossLoops(t *testing.T) {
	for _, transport := range []string{"tcp", "tls"} {
		t.Run(transport, func(t *testing.T) {
			b, e := newLoops(t, transport, 2)
			const rounds, size = 2000, 100
			c, peer := b.pair()
			b.inBackground("send", func() error {
				s, p := stream{seed: 9}, make([]byte, 333)
				for s.pos < rounds*size {
					p := p[:min(uint64(len(p)), rounds*size-s.pos)]
					s.fill(p)
					if _, err := peer.Write(p); err != nil {
						return err
					}
				}
				return nil
			})
			received := b.inBackground("receive", func() error {
				s, p := stream{seed: 10}, make([]byte, rounds*size)
				if _, err := io.ReadFull(peer, p); err != nil {
					return err
				}
				return s.check(p)
			})
			in, out := stream{seed: 9}, stream{seed: 10}
			for round := range rounds {
				b.await("owner", b.startOn(e.loops[round%2], func(tk *Task) {
					tk.Own(c)
					p := make([]byte, size)
					if err := readFull(tk, c, p); err != nil {
						t.Error(err)
					}
					if err := in.check(p); err != nil {
						t.Error(err)
					}
					out.fill(p)
					if err := writeAll(tk, c, p); err != nil {
						t.Error(err)
					}
				}))
				if t.Failed() {
					return
				}
			}
			b.await("receiver", received)
			_ = c.Close()
		})
	}
}

// A Wake that was sent to the loop that the task has left meanwhile follows it.
func TestWakeFollowsTask(t *testing.T) {
	b, e := newLoops(t, "tcp", 2)
	var task atomic.Pointer[Task]
	started, woken := make(chan struct{}), make(chan Cause, 1)
	b.startOn(e.loops[0], func(tk *Task) {
		task.Store(tk)
		close(started)
		woken <- tk.Wait(soon())
	})
	<-started
	b.await("parked", b.startOn(e.loops[0], func(*Task) {})) // it runs behind the other, which has parked by then
	tk := task.Load()
	tk.woken.Store(true)
	e.loops[1].post(mail{tk, mailWake}) // as if Wake had read tk.loop before a move from 1 to 0
	if cause := <-woken; cause != Woken {
		t.Errorf("Wait: %s, want woken", cause)
	}
}

// An idle connection remembers the peer's leaving without anybody waiting for it, so that a pool can look.
func TestIdleConnRemembersHangup(t *testing.T) {
	b, e := newLoops(t, "tcp", 1)
	c, peer := b.pair()
	b.do(func(tk *Task) { tk.Own(c) })
	_ = peer.Close()
	for end := time.Now().Add(patience); !c.HungUp(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("HungUp stays false")
		}
	}
	b.await("other loop's task", b.startOn(e.loops[0], func(*Task) { _ = c.Close() }))
}

func TestGoexitEndsOnlyItsTask(t *testing.T) {
	b, _ := newLoops(t, "tcp", 1)
	woken := make(chan Cause, 1)
	var other atomic.Pointer[Task]
	ready := make(chan struct{})
	b.Go(func(tk *Task) {
		other.Store(tk)
		close(ready)
		woken <- tk.Wait(soon())
	})
	<-ready
	for _, f := range []func(tk *Task){
		func(*Task) { runtime.Goexit() },
		func(tk *Task) { tk.Wait(time.Now().Add(time.Millisecond)); runtime.Goexit() },
		func(tk *Task) { tk.Await(runtime.Goexit) },
	} {
		b.do(f)
	}
	other.Load().Wake()
	if cause := <-woken; cause != Woken {
		t.Errorf("the other task: %s, want woken", cause)
	}
	if s := b.Stats(); s.Panics != 0 {
		t.Errorf("%d panics counted, want none", s.Panics)
	}
}

func TestTwoWaitersAreRefused(t *testing.T) {
	panics := make(chan any, 1)
	b := newBench(t, systemRigs()[0], func(v any, _ []byte) { panics <- v })
	c, peer := b.pair()
	parked := make(chan struct{})
	first := b.start(func(tk *Task) {
		tk.Own(c)
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, ErrWouldBlock) {
			t.Errorf("Read without data: %v", err)
		}
		close(parked)
		if _, err := readSome(tk, c, make([]byte, 1)); err != nil {
			t.Error(err)
		}
	})
	<-parked
	b.do(func(tk *Task) { tk.Wait(soon(), Source{c, Readable}) })
	if v := <-panics; v != errTwoWaiters {
		t.Errorf("panic %v, want %q", v, errTwoWaiters)
	}
	if _, err := io.WriteString(peer, "x"); err != nil {
		t.Fatal(err)
	}
	b.await("first waiter", first) // still registered
	_ = c.Close()
}

func TestAdoptRefuses(t *testing.T) {
	b, _ := newLoops(t, "tcp", 1)
	pipe, _ := net.Pipe()
	raw, peer := netPair(t, "tcp")
	overRaw, _ := handshake(t, raw, peer)
	fresh, _ := netPair(t, "tcp")
	used, usedPeer := netPair(t, "tcp")
	usedTLS, _ := handshake(t, b.Wrap(used), usedPeer)
	c, err := b.Adopt(usedTLS)
	if err != nil {
		t.Fatal(err)
	}
	defer shut(c)
	for name, test := range map[string]struct {
		conn net.Conn
		want string
	}{
		"a pipe":                {pipe, "cannot take over a *net.pipe"},
		"TLS over a raw socket": {overRaw, "must come from Engine.Wrap"},
		"TLS without handshake": {tls.Server(b.Wrap(fresh), &tls.Config{}), "handshake must be complete"},
		"twice":                 {usedTLS, "adopted before"},
	} {
		if _, err := b.Adopt(test.conn); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want an error with %q", name, err, test.want)
		}
	}
	for _, nc := range []net.Conn{pipe, raw, fresh} {
		if err := nc.Close(); err != nil {
			t.Errorf("a refused connection must stay the caller's: %v", err)
		}
	}
}

// Data that TLS took from the socket together with earlier data counts as readable, though epoll will not report it.
func TestTLSBufferedDataIsReadable(t *testing.T) {
	b, _ := newLoops(t, "tls", 1)
	c, peer := b.pair()
	sent := make(chan struct{})
	done := b.start(func(tk *Task) {
		defer shut(c)
		tk.Own(c)
		tk.Await(func() { <-sent })
		p := make([]byte, 1)
		for want := range 10 {
			// Each record holds two bytes; after the first all of them lie inside crypto/tls.
			if cause := tk.Wait(time.Now().Add(patience), Source{c, Readable}); cause != Ready || !c.Readable() {
				t.Errorf("byte %d: %s, Readable %v", want, cause, c.Readable())
				return
			}
			if n, err := c.Read(p); n != 1 || err != nil || int(p[0]) != want {
				t.Errorf("byte %d: read %d bytes %v: %v", want, n, p, err)
				return
			}
		}
		if _, err := c.Read(p); !errors.Is(err, ErrWouldBlock) || c.Readable() {
			t.Errorf("after the last byte: %v, Readable %v", err, c.Readable())
		}
	})
	for i := byte(0); i < 10; i += 2 {
		if _, err := peer.Write([]byte{i, i + 1}); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(10 * time.Millisecond)
	close(sent)
	b.await("reader", done)
}

// A peer that makes crypto/tls answer again and again, and reads none of the answers, cannot fill our memory.
func TestTLSBufferIsBounded(t *testing.T) {
	x := tlsSocket{limit: 1000}
	total := 0
	for {
		n, err := x.buffer(make([]byte, 500))
		if total += n; errors.Is(err, errPeerDoesNotRead) {
			break
		}
		if err != nil || total > 1<<20 {
			t.Fatalf("after %d bytes: %v", total, err)
		}
	}
	if limit := 2*1000 + slack + 500; total > limit {
		t.Errorf("%d bytes were buffered, want at most %d", total, limit)
	}
	if room, err := x.room(); room != 0 || !errors.Is(err, errPeerDoesNotRead) {
		t.Errorf("room %d, %v", room, err)
	}
	if !x.drained() || !x.roomy() {
		t.Error("waits for a connection that failed must end")
	}
}

// A task on a saturated loop moves to a calm one, with its connections, and goes on.
func TestMigration(t *testing.T) {
	for _, transport := range []string{"tcp", "tls"} {
		t.Run(transport, func(t *testing.T) {
			b := newBench(t, rig{transport, func(t testing.TB, onPanic PanicFunc) Engine {
				e, err := newEpoll(EpollConfig{Loops: 3, Panic: onPanic}, restless)
				if err != nil {
					t.Fatal(err)
				}
				return e
			}, transport}, nil)
			ends := make([]<-chan struct{}, 4)
			for i := range ends {
				c, peer := b.pair()
				ends[i] = b.start(func(tk *Task) {
					defer shut(c)
					p := make([]byte, 8)
					for {
						if readFull(tk, c, p) != nil {
							return
						}
						if err := writeAll(tk, c, p); err != nil {
							t.Error(err)
						}
					}
				})
				b.inBackground("client", func() error {
					defer shut(peer)
					s, r, p := stream{seed: uint64(i)}, stream{seed: uint64(i)}, make([]byte, 8)
					for end := time.Now().Add(patience); b.Stats().Migrations < 100 && time.Now().Before(end); {
						s.fill(p)
						if _, err := peer.Write(p); err != nil {
							return err
						}
						if _, err := io.ReadFull(peer, p); err != nil {
							return err
						}
						if err := r.check(p); err != nil {
							return err
						}
					}
					return nil
				})
			}
			for _, end := range ends {
				b.await("echo", end)
			}
			if n := b.Stats().Migrations; n < 100 {
				t.Errorf("only %d migrations", n)
			}
		})
	}
}

func TestPlacementFillsTheFirstLoop(t *testing.T) {
	_, e := newLoops(t, "tcp", 3)
	for _, test := range []struct {
		loads []int64
		want  int
	}{
		{[]int64{0, 0, 0}, 0},
		{[]int64{849, 0, 0}, 0},
		{[]int64{850, 0, 0}, 1},
		{[]int64{990, 400, 0}, 1},
		{[]int64{990, 990, 10}, 2},
		{[]int64{990, 900, 950}, 1},
	} {
		for i, load := range test.loads {
			e.loops[i].measured.Store(load)
			e.loops[i].asleepSince.Store(now())
		}
		if got := e.place().index; got != test.want {
			t.Errorf("loads %v: loop %d, want %d", test.loads, got, test.want)
		}
	}
}

func TestWhatALoopGivesAway(t *testing.T) {
	type give struct {
		all, some bool
		to        int
	}
	_, e := newLoops(t, "tcp", 3)
	for _, test := range []struct {
		loads  []int64
		me     int
		active int
		want   give
	}{
		{[]int64{900, 0, 0}, 0, 16, give{some: true, to: 1}},
		{[]int64{900, 600, 0}, 0, 16, give{some: true, to: 2}},
		{[]int64{900, 0, 0}, 0, 1, give{}}, // one task is not less busy elsewhere
		{[]int64{900, 900, 900}, 0, 16, give{}},
		{[]int64{700, 0, 0}, 0, 16, give{}},
		{[]int64{100, 100, 0}, 1, 16, give{all: true, to: 0}},
		{[]int64{100, 100, 0}, 0, 16, give{}}, // never away from the first
		{[]int64{400, 200, 0}, 1, 16, give{}}, // would fill the first too much
		{[]int64{400, 450, 30}, 2, 16, give{all: true, to: 0}},
	} {
		for i, load := range test.loads {
			e.loops[i].measured.Store(load)
			e.loops[i].asleepSince.Store(now())
		}
		l := &eventLoop{eng: e, index: test.me}
		l.active = test.active
		others := slices.Clone(e.loops)
		e.loops[test.me] = l
		n, to := l.decide(test.loads[test.me])
		e.loops = others
		got := give{all: n > test.active, some: n > 0 && n <= test.active/shedFraction}
		if to != nil {
			got.to = to.index
		}
		if got != test.want {
			t.Errorf("loads %v, loop %d with %d active: %+v (%d tasks), want %+v", test.loads, test.me, test.active, got, n, test.want)
		}
	}
}

func TestStallsAreCounted(t *testing.T) {
	e, err := NewEpoll(EpollConfig{Loops: 1, StallAfter: 5 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{TB: t, Engine: e}
	b.do(func(*Task) {
		for start := time.Now(); time.Since(start) < 10*time.Millisecond; {
		}
	})
	b.do(func(tk *Task) { tk.Await(func() { time.Sleep(10 * time.Millisecond) }) }) // not a stall
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := e.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if s := e.Stats(); s.Stalls == 0 || s.Resumes < 3 || s.Started != 2 || s.Tasks != 0 {
		t.Errorf("stats %+v, want at least 1 stall, 3 resumes, 2 started, none left", s)
	}
}

func TestEngineReleasesItsDescriptors(t *testing.T) {
	count := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	once := func() {
		e, err := NewEpoll(EpollConfig{Loops: 4})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := e.Close(ctx); err != nil {
			t.Fatal(err)
		}
	}
	once()
	before := count()
	for range 10 {
		once()
	}
	if after := count(); after > before {
		t.Errorf("%d descriptors before, %d after ten engines", before, after)
	}
}

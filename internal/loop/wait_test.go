package loop

import (
	"bytes"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"
)

func TestTimers(t *testing.T) {
	onEachRig(t, func(t *testing.T, b *bench) {
		c, peer := b.pair()
		b.do(func(tk *Task) {
			defer shut(c)
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
			// A wait that ends before its deadline leaves its timer behind; a later wait must outlive it.
			go func() { time.Sleep(time.Millisecond); tk.Wake() }()
			if cause := tk.Wait(time.Now().Add(10 * time.Millisecond)); cause != Woken {
				t.Logf("the wake came late: %s", cause)
				tk.Wait(soon())
			}
			deadline := time.Now().Add(30 * time.Millisecond)
			if cause := tk.Wait(deadline); cause != Timeout || time.Until(deadline) > 0 {
				t.Errorf("Wait after a wait that was woken: %s, %s early", cause, time.Until(deadline))
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
			defer shut(c)
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

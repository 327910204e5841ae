package loop

import (
	"errors"
	"io"
	"net"
	"runtime"
	"testing"
	"time"
)

// Thousands of idle connections cost little, and each still answers.
func TestIdleConnections(t *testing.T) {
	const conns = 5000
	for _, r := range rigs() {
		if r.transport == "tls" || r.transport == "tcp" {
			continue // TLS handshakes would be most of the time; and TCP ports are fewer than sockets
		}
		t.Run(r.name, func(t *testing.T) {
			b := newBench(t, r, nil)
			before := memoryInUse()
			peers := make([]net.Conn, conns)
			for i := range peers {
				c, peer := b.pair()
				peers[i] = peer
				b.Go(func(tk *Task) {
					defer shut(c)
					tk.Own(c)
					p := make([]byte, 1)
					for readFull(tk, c, p) == nil {
						if err := writeAll(tk, c, p); err != nil {
							t.Error(err)
						}
					}
				})
			}
			p := make([]byte, 1)
			for round := range 2 {
				for i, peer := range peers {
					p[0] = byte(i)
					if _, err := peer.Write(p); err != nil {
						t.Fatal(err)
					}
					if _, err := io.ReadFull(peer, p); err != nil || p[0] != byte(i) {
						t.Fatalf("round %d, connection %d: byte %d, %v", round, i, p[0], err)
					}
				}
			}
			perConn := (int64(memoryInUse()) - int64(before)) / conns
			t.Logf("%d bytes of heap and stack per connection, its task, and the test's peer", perConn)
			// A coroutine has 2 to 4 KB of stack; the test's own half of a connection is in here, too.
			if limit := int64(12 << 10); r.transport == "unix" && perConn > limit && !raceDetector {
				t.Errorf("%d bytes per idle connection, want at most %d: does a Conn hold a buffer?", perConn, limit)
			}
			for _, peer := range peers {
				_ = peer.Close()
			}
		})
	}
}

func memoryInUse() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}

// In steady state, a message costs no allocation: no wait, read, write or resume does.
func TestNoAllocation(t *testing.T) {
	if raceDetector {
		return // it allocates by itself
	}
	for _, r := range rigs() {
		if r.transport == "tls" {
			continue // crypto/tls allocates
		}
		t.Run(r.name, func(t *testing.T) {
			b := newBench(t, r, nil)
			c, peer := b.pair()
			done := b.start(func(tk *Task) {
				defer shut(c)
				tk.Own(c)
				p := make([]byte, 8)
				for {
					// A deadline for each wait, as sessions have.
					switch cause := tk.Wait(soon(), Source{c, Readable}, Source{c, Hangup}); cause {
					case Ready:
					default:
						t.Errorf("Wait: %s", cause)
						return
					}
					n, err := c.Read(p)
					if n > 0 {
						if _, err := c.Write(p[:n]); err != nil {
							t.Error(err)
							return
						}
					} else if errors.Is(err, io.EOF) {
						return
					}
				}
			})
			p := make([]byte, 8)
			roundTrip := func() {
				if _, err := peer.Write(p); err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadFull(peer, p); err != nil {
					t.Fatal(err)
				}
			}
			roundTrip()
			// net.Pipe allocates by itself, up to twice per round trip.
			limit := 0.0
			if r.transport == "pipe" {
				limit = 2
			}
			if n := testing.AllocsPerRun(2000, roundTrip); n > limit {
				t.Errorf("%.2f allocations per round trip, want %.0f", n, limit)
			}
			_ = peer.Close()
			b.await("echo", done)
		})
	}
}

// A task that always finds something ready lets other tasks run all the same.
func TestReadyTaskDoesNotStarveOthers(t *testing.T) {
	onEachRig(t, func(t *testing.T, b *bench) {
		stop := make(chan struct{})
		greedy := b.start(func(tk *Task) {
			for {
				select {
				case <-stop:
					return
				default:
					tk.Wake()
					tk.Wait(soon())
				}
			}
		})
		c, peer := b.pair()
		polite := b.start(func(tk *Task) {
			defer shut(c)
			tk.Own(c)
			for range 10 {
				if cause := tk.Wait(time.Now().Add(time.Millisecond)); cause != Timeout {
					t.Errorf("Wait: %s", cause)
				}
			}
			if err := readFull(tk, c, make([]byte, 3)); err != nil {
				t.Error(err)
			}
		})
		if _, err := io.WriteString(peer, "abc"); err != nil {
			t.Fatal(err)
		}
		b.await("polite task", polite)
		close(stop)
		b.await("greedy task", greedy)
	})
}

package loop

import (
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"
)

var stressSeed = flag.Uint64("stress.seed", 0, "seed of TestStress; 0 takes one from the clock")

// errDeliberate is what tasks of the stress test panic with.
var errDeliberate = errors.New("deliberate panic")

// TestStress runs a small transaction pooler: many clients, few server connections that go from task to task, frames of all
// sizes, clients that leave in the middle of a frame, aborts, panics, timers, Await, and descriptors that are closed and
// reused all the time. Every client checks every byte that it gets.
func TestStress(t *testing.T) {
	seed := *stressSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	for _, r := range rigs() {
		t.Run(r.name, func(t *testing.T) {
			t.Logf("repeat with -stress.seed=%d", seed)
			b := newBench(t, r, func(v any, stack []byte) {
				if v != any(errDeliberate) {
					t.Errorf("task panicked: %v\n%s", v, stack)
				}
			})
			p := &stressPool{bench: b}
			defer p.close()
			for range 4 {
				p.add()
			}
			var clients sync.WaitGroup
			for i := range 12 {
				clients.Go(func() {
					rnd := rand.New(rand.NewPCG(seed, uint64(i)))
					for life := range 12 {
						if err := stressClient(p, rnd); err != nil {
							t.Errorf("client %d in life %d: %v", i, life, err)
						}
					}
				})
			}
			done := make(chan struct{})
			go func() { clients.Wait(); close(done) }()
			b.await("clients", done)
		})
	}
}

// stressClient connects, sends frames and checks the echoes, and leaves in one of several ways.
func stressClient(p *stressPool, rnd *rand.Rand) error {
	c, peer := p.pair()
	ended := p.start(func(tk *Task) { p.session(tk, c) })
	defer func() {
		_ = peer.Close()
		p.await("session", ended)
	}()
	if rnd.IntN(10) == 0 {
		c.Abort()
		return nil // whatever it would see now is right
	}
	for range rnd.IntN(8) {
		size := rnd.IntN(300)
		if rnd.IntN(5) == 0 {
			size = rnd.IntN(400_000)
		}
		frame := make([]byte, 4+1+size)
		binary.BigEndian.PutUint32(frame, uint32(1+size))
		frame[4] = "  apt"[rnd.IntN(5)] // what the session does on the way
		s := stream{seed: rnd.Uint64N(1 << 32)}
		s.fill(frame[5:])
		panics := frame[4] == 'p' && rnd.IntN(4) == 0
		if panics {
			frame[4] = 'P'
		}
		leaves := rnd.IntN(12) == 0
		wrote, writeErr := make(chan struct{}), error(nil)
		go func() {
			defer close(wrote)
			part := frame
			if leaves {
				part = frame[:len(frame)/2]
			}
			if _, writeErr = peer.Write(part); leaves {
				_ = peer.Close()
			}
		}()
		if leaves {
			_, _ = io.Copy(io.Discard, peer) // or both would only write, which no buffer is large enough for
			<-wrote
			return nil
		}
		echo := make([]byte, len(frame))
		if _, err := io.ReadFull(peer, echo); err != nil {
			_ = peer.Close()
			<-wrote
			if panics {
				return nil
			}
			return fmt.Errorf("echo of %d bytes: %w", len(frame), err)
		}
		if <-wrote; writeErr != nil {
			return writeErr
		}
		check := stream{seed: s.seed}
		if err := check.check(echo[5:]); err != nil || echo[4] != frame[4] {
			return fmt.Errorf("frame of %d bytes came back as another: %w", len(frame), err)
		}
	}
	return nil
}

// stressPool holds the idle server connections, and the tasks that wait for one.
type stressPool struct {
	*bench
	mu      sync.Mutex // guards the fields below; never held across a wait
	idle    []*Conn
	waiting []*Task
	peers   sync.WaitGroup
	adds    sync.WaitGroup
	closed  bool
}

// add opens a server connection. Its peer echoes frame by frame.
func (p *stressPool) add() {
	c, peer := p.pair()
	p.peers.Go(func() { stressServer(peer) })
	p.put(c)
}

func stressServer(peer net.Conn) {
	defer shut(peer)
	head, body := make([]byte, 4), make([]byte, 500_000)
	for {
		if _, err := io.ReadFull(peer, head); err != nil {
			return
		}
		// It answers while it still reads, so that a relay must do both at once.
		if _, err := peer.Write(head); err != nil {
			return
		}
		for left := int(binary.BigEndian.Uint32(head)); left > 0; {
			n, err := peer.Read(body[:min(left, len(body))])
			if err != nil {
				return
			}
			if _, err := peer.Write(body[:n]); err != nil {
				return
			}
			left -= n
		}
	}
}

func (p *stressPool) put(c *Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		_ = c.Close()
		return
	}
	p.idle = append(p.idle, c)
	if len(p.waiting) > 0 {
		p.waiting[0].Wake()
		p.waiting = p.waiting[1:]
	}
}

func (p *stressPool) get(tk *Task, client *Conn) *Conn {
	for {
		p.mu.Lock()
		if n := len(p.idle); n > 0 {
			c := p.idle[n-1]
			p.idle = p.idle[:n-1]
			p.mu.Unlock()
			tk.Own(c)
			return c
		}
		p.waiting = append(p.waiting, tk)
		p.mu.Unlock()
		// The deadline makes up for wakes that went to a task that had left.
		if tk.Wait(time.Now().Add(20*time.Millisecond), Source{client, Hangup}) == Closing || client.HungUp() {
			return nil
		}
	}
}

func (p *stressPool) close() {
	p.adds.Wait()
	p.mu.Lock()
	p.closed = true
	for _, c := range p.idle {
		_ = c.Close()
	}
	p.mu.Unlock()
	p.peers.Wait()
}

// session serves one client until it leaves.
func (p *stressPool) session(tk *Task, client *Conn) {
	defer shut(client)
	tk.Own(client)
	head := make([]byte, 5)
	for readFull(tk, client, head) == nil {
		server := p.get(tk, client)
		if server == nil {
			return
		}
		if !p.exchange(tk, client, server, head) {
			return
		}
	}
}

// exchange relays one frame and its echo. When that fails, the server connection is replaced.
func (p *stressPool) exchange(tk *Task, client, server *Conn, head []byte) (ok bool) {
	defer func() {
		if ok {
			p.put(server)
			return
		}
		_ = server.Close()
		p.adds.Add(1)
		p.Go(func(tk *Task) {
			defer p.adds.Done()
			tk.Await(p.add) // TLS makes it block
		})
	}()
	switch head[4] {
	case 'a':
		tk.Await(func() { time.Sleep(time.Duration(head[3]) * time.Microsecond) })
	case 'P':
		panic(errDeliberate)
	case 't':
		tk.Wait(time.Now().Add(time.Duration(head[3])*10*time.Microsecond), Source{client, Hangup})
	}
	if writeAll(tk, server, head) != nil {
		return false
	}
	up, down := int(binary.BigEndian.Uint32(head))-1, int(binary.BigEndian.Uint32(head))+4
	var upBuf, downBuf [2048]byte
	var upData, downData []byte
	for down > 0 || len(downData) > 0 {
		var set [4]Source
		step := func(from, to *Conn, buf []byte, data *[]byte, left *int, wait []Source) bool {
			if len(*data) == 0 && *left > 0 {
				n, err := from.Read(buf[:min(*left, len(buf))])
				if err != nil && !errors.Is(err, ErrWouldBlock) {
					return false
				}
				*data, *left = buf[:n], *left-n
				if n == 0 {
					wait[0] = Source{from, Readable}
				}
			}
			if len(*data) > 0 {
				n, err := to.Write(*data)
				*data = (*data)[n:]
				if err != nil && !errors.Is(err, ErrWouldBlock) {
					return false
				}
				if err != nil {
					wait[0] = Source{to, Writable}
				}
			}
			return true
		}
		if !step(client, server, upBuf[:], &upData, &up, set[0:1]) || !step(server, client, downBuf[:], &downData, &down, set[1:2]) {
			return false
		}
		if set[0].Conn != nil && set[1].Conn != nil || set[1].Conn != nil && up == 0 && len(upData) == 0 {
			set[2] = Source{client, Hangup}
			if cause := tk.Wait(soon(), set[:]...); cause != Ready && cause != Woken { // by a pool that did not know better
				return false
			}
			if client.HungUp() && up > 0 && !client.Readable() {
				return false
			}
		}
	}
	return true
}

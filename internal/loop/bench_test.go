package loop

import (
	"context"
	"fmt"
	"io"
	"iter"
	"net"
	"os"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// BenchmarkSwitch compares what it costs to give work to a session and get the thread back.
func BenchmarkSwitch(b *testing.B) {
	b.Run("coroutine", func(b *testing.B) {
		next, stop := iter.Pull(func(yield func(struct{}) bool) {
			for yield(struct{}{}) {
			}
		})
		defer stop()
		b.ReportAllocs()
		for b.Loop() {
			next()
		}
	})
	b.Run("channels", func(b *testing.B) {
		in, out := make(chan struct{}), make(chan struct{})
		go func() {
			for range in {
				out <- struct{}{}
			}
		}()
		defer close(in)
		b.ReportAllocs()
		for b.Loop() {
			in <- struct{}{}
			<-out
		}
	})
	for _, r := range rigs() {
		if r.transport != "tcp" {
			continue
		}
		b.Run("wake/"+r.name, func(b *testing.B) { // a whole Wake and Wait, with the engine around it
			e := newBench(b, r, nil)
			b.ReportAllocs()
			e.do(func(tk *Task) {
				for b.Loop() {
					tk.Wake()
					tk.Wait(time.Time{})
				}
			})
		})
	}
}

// BenchmarkEcho is a round trip of 64 bytes over loopback TCP to an echo session, for both engines and, as the peer to
// compare with, a goroutine over net.Conn. The clients are another process, so the CPU time is that of the sessions.
func BenchmarkEcho(b *testing.B) {
	for _, clients := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("clients=%d/net.Conn", clients), func(b *testing.B) {
			echo(b, clients, func(nc net.Conn) {
				go func() {
					defer shut(nc)
					p := make([]byte, 4096)
					for {
						n, err := nc.Read(p)
						if err != nil {
							return
						}
						if _, err := nc.Write(p[:n]); err != nil {
							return
						}
					}
				}()
			})
		})
		for _, r := range rigs() {
			if r.name != "goroutines/tcp" && r.name != "epoll/tcp" && r.name != "epoll2/tcp" {
				continue
			}
			b.Run(fmt.Sprintf("clients=%d/%s", clients, r.name), func(b *testing.B) {
				e := newBench(b, r, nil)
				echo(b, clients, func(nc net.Conn) {
					c, err := e.Adopt(nc)
					if err != nil {
						b.Fatal(err)
					}
					e.Go(func(tk *Task) {
						defer shut(c)
						tk.Own(c)
						p := make([]byte, 4096)
						for {
							n, err := readSome(tk, c, p)
							if err != nil {
								return
							}
							if err := writeAll(tk, c, p[:n]); err != nil {
								b.Error(err)
							}
						}
					})
				})
			})
		}
	}
}

// echo lets a child process exchange b.N messages with sessions that serve starts.
func echo(b *testing.B, clients int, serve func(net.Conn)) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer shut(ln)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d %d", echoClientEnv, ln.Addr(), clients, b.N))
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	for range clients {
		nc, err := ln.Accept()
		if err != nil {
			b.Fatal(err)
		}
		serve(nc)
	}
	before := cpuTime()
	b.ResetTimer()
	_ = stdin.Close() // the signal to start
	if err := cmd.Wait(); err != nil {
		b.Fatal(err)
	}
	b.StopTimer()
	b.ReportMetric(float64((cpuTime()-before).Nanoseconds())/1000/float64(b.N), "cpu-µs/op")
}

// echoClientEnv makes the test binary the client side of BenchmarkEcho: address, number of connections, messages in all.
const echoClientEnv = "TIDEMARK_LOOP_ECHO_CLIENT"

func TestMain(m *testing.M) {
	if arg := os.Getenv(echoClientEnv); arg != "" {
		if err := echoClient(arg); err != nil {
			fmt.Fprintln(os.Stderr, "echo client:", err)
			os.Exit(1)
		}
		return
	}
	m.Run()
}

func echoClient(arg string) error {
	var addr string
	var clients, messages int
	if _, err := fmt.Sscan(arg, &addr, &clients, &messages); err != nil {
		return err
	}
	conns := make([]net.Conn, clients)
	for i := range conns {
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			return err
		}
		conns[i] = nc
	}
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	var group errgroup.Group
	for i, nc := range conns {
		group.Go(func() error {
			p := make([]byte, 64)
			for n := i; n < messages; n += clients {
				if _, err := nc.Write(p); err != nil {
					return err
				}
				if _, err := io.ReadFull(nc, p); err != nil {
					return err
				}
			}
			return nc.Close()
		})
	}
	return group.Wait()
}

// BenchmarkStart is the life of a task that does nothing.
func BenchmarkStart(b *testing.B) {
	for _, r := range rigs() {
		if r.transport != "tcp" {
			continue
		}
		b.Run(r.name, func(b *testing.B) {
			e := r.newEngine(b, nil)
			b.ReportAllocs()
			for b.Loop() {
				e.Go(func(*Task) {})
			}
			if err := e.Close(context.Background()); err != nil {
				b.Fatal(err)
			}
		})
	}
}

package loop

import (
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// BenchmarkSecondLoop is what a second loop adds where nothing but the loops works: pairs of tasks that send each other
// messages. They begin on the first loop and move by the engine's own rules.
func BenchmarkSecondLoop(b *testing.B) {
	for _, loops := range []int{1, 2} {
		b.Run(fmt.Sprintf("loops=%d", loops), func(b *testing.B) {
			e := newBench(b, rig{"unix", func(t testing.TB, onPanic PanicFunc) Engine {
				e, err := NewEpoll(EpollConfig{Loops: loops, Panic: onPanic})
				if err != nil {
					t.Fatal(err)
				}
				return e
			}, "unix"}, nil)
			var left atomic.Int64
			left.Store(int64(b.N))
			before := cpuTime()
			b.ResetTimer()
			var ends []<-chan struct{}
			for range 64 {
				out, in := adoptPair(b, e)
				ends = append(ends, e.start(func(tk *Task) {
					defer shut(out)
					p := make([]byte, 4<<10)
					for left.Add(-1) >= 0 {
						if err := writeAll(tk, out, p[:1<<10]); err != nil {
							b.Error(err)
							return
						}
						if _, err := readSome(tk, out, p); err != nil {
							b.Error(err)
							return
						}
					}
				}), e.start(func(tk *Task) {
					defer shut(in)
					p := make([]byte, 4<<10)
					for {
						n, err := readSome(tk, in, p)
						if err != nil {
							return
						}
						if err := writeAll(tk, in, p[:n]); err != nil {
							b.Error(err)
							return
						}
					}
				}))
			}
			for _, end := range ends {
				<-end
			}
			b.StopTimer()
			b.ReportMetric(float64((cpuTime()-before).Nanoseconds())/1000/float64(b.N), "cpu-µs/op")
			b.ReportMetric((cpuTime()-before).Seconds()/b.Elapsed().Seconds(), "cores")
		})
	}
}

// adoptPair returns the two ends of a socket, both the engine's.
func adoptPair(b *testing.B, e *bench) (*Conn, *Conn) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		b.Fatal(err)
	}
	var ends [2]*Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "socketpair")
		nc, err := net.FileConn(f)
		if err != nil {
			b.Fatal(err)
		}
		shut(f)
		if ends[i], err = e.Adopt(nc); err != nil {
			b.Fatal(err)
		}
	}
	return ends[0], ends[1]
}

package loop

import (
	"io"
	"net"
	"runtime"
	"slices"
	"testing"
	"time"
)

// Loops that are never idle must leave the runtime a P for everything else: health checks, pollers, HTTP, projectors.
func TestOrdinaryGoroutinesStayPrompt(t *testing.T) {
	b, e := newLoops(t, "tcp", max(1, procsAtStart))
	if got, want := runtime.GOMAXPROCS(0), len(e.loops)+1; got < want {
		t.Fatalf("GOMAXPROCS is %d with %d loops, want at least %d", got, len(e.loops), want)
	}
	control := promptness(t)

	stop := make(chan struct{})
	var ends []<-chan struct{}
	for _, l := range e.loops {
		for range 2 {
			ends = append(ends, b.startOn(l, func(tk *Task) {
				for {
					select {
					case <-stop:
						return
					default:
					}
					for start := time.Now(); time.Since(start) < 100*time.Microsecond; {
					}
					tk.Wake()
					tk.Wait(time.Time{})
				}
			}))
		}
	}
	saturated := promptness(t)
	close(stop)
	for _, end := range ends {
		b.await("busy task", end)
	}
	t.Logf("a sleep of 1 ms and a round trip, median: %s with idle loops, %s with saturated ones", control, saturated)
	// With as many Ps as busy loops it takes 40 ms and more. The machine's own scheduler has its part too, when there
	// are as many loops as cores, so the bound is not tight.
	if limit := 8*control + 15*time.Millisecond; saturated > limit {
		t.Errorf("ordinary goroutines take %s beside saturated loops, want at most %s", saturated, limit)
	}
}

// promptness returns the median time that an ordinary goroutine takes to sleep for a millisecond and then to exchange a byte
// with another one over TCP.
func promptness(t *testing.T) time.Duration {
	near, far := netPair(t, "tcp")
	defer shut(near)
	go func() {
		_, _ = io.Copy(far, far) // ends with the connection
	}()
	took := make([]time.Duration, 31)
	for i := range took {
		start := time.Now()
		time.Sleep(time.Millisecond)
		exchange(t, near)
		took[i] = time.Since(start)
	}
	slices.Sort(took)
	return took[len(took)/2]
}

func exchange(t testing.TB, nc net.Conn) {
	p := []byte{1}
	if _, err := nc.Write(p); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(nc, p); err != nil {
		t.Fatal(err)
	}
}

package loop

import (
	"runtime"
	"sync/atomic"
	"testing"
	"time"
)

// A loop that tells the scheduler that it is alive stays on its thread: it queues where it is, not where any thread looks. With one P, on which
// another goroutine does the same all the time, the two take turns then. The queue of all threads is looked at once in 61 turns.
func TestLoopQueuesOnItsThread(t *testing.T) {
	b, e := newLoops(t, "tcp", 1)
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))

	var turns atomic.Int64
	stop := make(chan struct{})
	others := b.inBackground("the other goroutine", func() error {
		for {
			select {
			case <-stop:
				return nil
			default:
				turns.Add(1)
				goyield()
			}
		}
	})
	l := e.loops[0]
	fewest, seen := int64(-1), 0
	busy := b.startOn(l, func(tk *Task) {
		// The monitor of the runtime may preempt the loop beside, which then waits for all threads: not every time, however slow the machine.
		for last, yielded := turns.Load(), l.yielded; seen < 200 && (seen < 3 || fewest > 10); {
			tk.Wake()
			tk.Wait(time.Time{})
			if l.yielded != yielded {
				yielded = l.yielded
				if n := turns.Load() - last; fewest < 0 || n < fewest {
					fewest = n
				}
				seen++
			}
			last = turns.Load()
		}
	})
	b.await("the busy task", busy)
	close(stop)
	b.await("the other goroutine", others)
	t.Logf("the other goroutine had %d turns when the loop yielded, the fewest of %d times", fewest, seen)
	if fewest > 10 {
		t.Errorf("the other goroutine had at least %d turns whenever the loop yielded, want one: the loop has queued for any thread", fewest)
	}
}

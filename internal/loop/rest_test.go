package loop

import (
	"errors"
	"testing"
	"time"
)

// A rest with a deadline ends with that, with a wake, or when the peer hangs up, whichever comes first.
func TestRestUntil(t *testing.T) {
	onEachRig(t, func(t *testing.T, b *bench) {
		c, peer := b.pair()
		ended, resting := make(chan struct{}), make(chan *Task, 1)
		far := func() time.Time { return time.Now().Add(patience) }
		step := 0
		var on func(*Task, Cause)
		expect := func(got, want Cause) {
			if got != want {
				t.Errorf("rest %d: %s, want %s", step, got, want)
			}
		}
		on = func(tk *Task, cause Cause) {
			for over := true; over; step++ {
				deadline := far()
				switch step {
				case 0:
					deadline = time.Now().Add(20 * time.Millisecond)
				case 1:
					expect(cause, Timeout)
					deadline = time.Now().Add(-time.Second)
				case 2:
					expect(cause, Timeout)
					resting <- tk
				case 3:
					expect(cause, Woken)
					resting <- tk
				default:
					expect(cause, Ready)
					if !c.HungUp() {
						t.Error("the peer has not hung up")
					}
					shut(c)
					close(ended)
					return
				}
				cause, over = tk.RestUntil(deadline, on, Source{c, Hangup})
			}
		}
		b.Go(func(tk *Task) {
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, ErrWouldBlock) { // use up what is assumed of a fresh connection
				t.Errorf("Read without data: %v", err)
			}
			on(tk, Ready)
		})
		(<-resting).Wake()
		<-resting
		shut(peer)
		b.await("task", ended)
	})
}

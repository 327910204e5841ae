package loop

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestPanicEndsOnlyItsTask(t *testing.T) {
	for _, r := range rigs() {
		t.Run(r.name, func(t *testing.T) {
			type report struct {
				value any
				stack string
			}
			reports := make(chan report, 10)
			b := newBench(t, r, func(v any, stack []byte) { reports <- report{v, string(stack)} })
			c, peer := b.pair()
			echo := b.start(func(tk *Task) {
				defer shut(c)
				buf := make([]byte, 10)
				for {
					n, err := readSome(tk, c, buf)
					if err != nil {
						return
					}
					if err := writeAll(tk, c, buf[:n]); err != nil {
						t.Error(err)
					}
				}
			})
			for name, f := range map[string]func(tk *Task){
				"at once":     func(*Task) { explode("at once") },
				"after Wait":  func(tk *Task) { tk.Wait(time.Now().Add(time.Millisecond)); explode("after Wait") },
				"in Await":    func(tk *Task) { tk.Await(func() { explode("in Await") }) },
				"after Await": func(tk *Task) { tk.Await(func() {}); explode("after Await") },
			} {
				cleaned := false
				b.do(func(tk *Task) {
					defer func() { cleaned = true }()
					f(tk)
				})
				got := <-reports
				if got.value != name {
					t.Errorf("%s: panic value %v", name, got.value)
				}
				if !strings.Contains(got.stack, "loop.explode") {
					t.Errorf("%s: the stack does not show where it happened:\n%s", name, got.stack)
				}
				if !cleaned {
					t.Errorf("%s: deferred functions did not run", name)
				}
				if _, err := io.WriteString(peer, "alive"); err != nil {
					t.Fatal(err)
				}
				buf := make([]byte, 5)
				if _, err := io.ReadFull(peer, buf); err != nil {
					t.Fatalf("%s: the other task does not answer: %v", name, err)
				}
			}
			if s := b.Stats(); s.Panics != 4 {
				t.Errorf("Stats counts %d panics, want 4", s.Panics)
			}
			_ = peer.Close()
			b.await("echo", echo)
		})
	}
}

func explode(v any) { panic(v) }

func TestClose(t *testing.T) {
	for _, r := range rigs() {
		t.Run(r.name, func(t *testing.T) {
			e := r.newEngine(t, func(v any, stack []byte) { t.Errorf("task panicked: %v\n%s", v, stack) })
			b := &bench{TB: t, Engine: e, rig: r}
			c, _ := b.pair()
			var ended atomic.Int64
			for i := range 20 {
				b.Go(func(tk *Task) {
					defer ended.Add(1)
					switch i % 4 {
					case 0:
						for tk.Wait(time.Time{}) != Closing {
						}
						tk.Await(func() { time.Sleep(time.Millisecond) }) // cleaning up may block
					case 1:
						for tk.Wait(time.Now().Add(time.Millisecond)) != Closing {
						}
					case 2:
						tk.Await(func() { time.Sleep(5 * time.Millisecond) })
						for tk.Wait(soon()) != Closing {
						}
					case 3:
						for {
							tk.Wake() // always has something to do
							if tk.Wait(time.Time{}) == Closing {
								return
							}
						}
					}
				})
			}
			b.Go(func(tk *Task) {
				defer ended.Add(1)
				defer shut(c)
				if _, err := readSome(tk, c, make([]byte, 1)); !errors.Is(err, errNotReady) {
					t.Errorf("read: %v, want Closing", err)
				}
			})
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			if err := e.Close(ctx); err != nil {
				t.Fatal(err)
			}
			if ended.Load() != 21 {
				t.Errorf("Close returned when %d of 21 tasks had ended", ended.Load())
			}
			if err := e.Close(ctx); err != nil {
				t.Errorf("second Close: %v", err)
			}
			near, far := netPair(t, r.transport)
			defer shut(near)
			defer shut(far)
			if _, err := e.Adopt(near); !errors.Is(err, ErrEngineClosed) {
				t.Errorf("Adopt after Close: %v, want ErrEngineClosed", err)
			}
			late := make(chan Cause, 1)
			e.Go(func(tk *Task) {
				tk.Wake()
				tk.Await(func() {})
				late <- tk.Wait(time.Time{})
			})
			if cause := <-late; cause != Closing {
				t.Errorf("Wait of a task that was started after Close: %s, want closing", cause)
			}
		})
	}
}

// Tasks that ignore Closing are unwound when Close's patience ends, so that what they hold is released.
func TestCloseUnwindsStubbornTasks(t *testing.T) {
	for _, r := range rigs() {
		t.Run(r.name, func(t *testing.T) {
			e := r.newEngine(t, func(v any, stack []byte) { t.Errorf("task panicked: %v\n%s", v, stack) })
			released := make(chan struct{}, 2)
			for range 2 {
				e.Go(func(tk *Task) {
					defer func() { released <- struct{}{} }()
					for {
						tk.Wait(time.Time{})
					}
				})
			}
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
			defer cancel()
			if err := e.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Close: %v, want the context's error", err)
			}
			for range 2 {
				select {
				case <-released:
				case <-time.After(patience):
					t.Fatal("a stubborn task was not unwound")
				}
			}
			ctx, cancel = context.WithTimeout(context.Background(), patience)
			defer cancel()
			if err := e.Close(ctx); err != nil {
				t.Errorf("Close after all have ended: %v", err)
			}
		})
	}
}

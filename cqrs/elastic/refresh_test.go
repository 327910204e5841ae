package elastic

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// However many wait, each is served by a refresh that began after it asked, and few run.
func TestRefreshIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		runs := 0
		var began atomic.Pointer[time.Time] // when the last refresh that has ended began
		r := refresher{run: func() error {
			runs++
			now := time.Now()
			time.Sleep(100 * time.Millisecond)
			began.Store(&now)
			return nil
		}}
		const waiters = 50
		done := make(chan error, waiters)
		for i := range waiters {
			go func() {
				time.Sleep(time.Duration(i) * time.Millisecond)
				asked := time.Now()
				err := r.wait(t.Context())
				if began.Load().Before(asked) {
					err = errors.New("served by a refresh that had begun before")
				}
				done <- err
			}()
		}
		for range waiters {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if runs != 2 {
			t.Errorf("%d refreshes ran, want 2", runs)
		}
		if err := r.wait(t.Context()); err != nil || runs != 3 {
			t.Errorf("later: %v, %d refreshes", err, runs)
		}

		// One waiter that gives up does not end the refresh of the others.
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if err := r.wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the deadline", err)
		}
		synctest.Wait()
		time.Sleep(time.Second)
	})
}

package proxy

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// However many clients send passwords, only so many are checked at a time; the others wait for their turn, or until their
// login has taken too long.
func TestPasswordsTakeTurns(t *testing.T) {
	defer func(old chan struct{}) { checks = old }(checks)
	synctest.Test(t, func(t *testing.T) {
		checks = make(chan struct{}, 2)
		running, most, fit := 0, 0, make(chan bool)
		release := make(chan struct{})
		for range 5 {
			go func() {
				ok, err := checked(t.Context(), func() bool {
					running++
					most = max(most, running)
					<-release
					running--
					return true
				})
				fit <- ok && err == nil
			}()
			synctest.Wait() // so that they come one after the other
		}
		late, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		if ok, err := checked(late, func() bool { return true }); ok || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a check that had no turn: %t, %v", ok, err)
		}
		for range 5 {
			release <- struct{}{}
			if !<-fit {
				t.Error("a check that waited has failed")
			}
			synctest.Wait()
		}
		if most != 2 {
			t.Errorf("%d checks ran at a time, want 2", most)
		}
	})
}

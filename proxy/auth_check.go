package proxy

import (
	"context"
	"fmt"
	"runtime"
)

// checks are the passwords that are being checked, of all logins. One check takes a processor for as long as the verifier's
// iterations last, seconds at worst, and whoever knows a user's name may ask for as many as clients.max_logins: they
// leave half of the processors to the loops, which else would wait for a turn behind all of them.
var checks = make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2))

// checked runs f, which checks a password, when it is its turn; an error says that this was not before ctx ended.
func checked(ctx context.Context, f func() bool) (bool, error) {
	select {
	case checks <- struct{}{}:
	case <-ctx.Done():
		return false, fmt.Errorf("other passwords were being checked: %w", ctx.Err())
	}
	defer func() { <-checks }()
	return f(), nil
}

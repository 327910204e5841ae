package loop

import (
	"testing"
	"time"
)

// restless migrates tasks all the time: every loop that does anything counts as saturated, and as calm.
var restless = balance{window: time.Millisecond, saturated: 0, calm: 2000}

func systemRigs() []rig {
	engine := func(loops int, b balance) func(testing.TB, PanicFunc) Engine {
		return func(t testing.TB, onPanic PanicFunc) Engine {
			e, err := newEpoll(EpollConfig{Loops: loops, Panic: onPanic}, b)
			if err != nil {
				t.Fatal(err)
			}
			return e
		}
	}
	one, two, moving := engine(1, defaultBalance), engine(2, defaultBalance), engine(3, restless)
	return []rig{
		{"epoll/tcp", one, "tcp"},
		{"epoll/unix", one, "unix"},
		{"epoll/tls", one, "tls"},
		{"epoll2/tcp", two, "tcp"},
		{"epoll2/tls", two, "tls"},
		{"restless/tcp", moving, "tcp"},
		{"restless/tls", moving, "tls"},
	}
}

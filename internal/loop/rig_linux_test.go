package loop

import (
	"testing"
	"time"
)

// restless migrates tasks all the time: every loop that does anything counts as saturated, and as calm.
var restless = balance{window: time.Millisecond, saturated: 0, calm: 2000}

func systemRigs() []rig {
	engine := func(cfg EpollConfig, b balance) func(testing.TB, PanicFunc) Engine {
		return func(t testing.TB, onPanic PanicFunc) Engine {
			cfg.Panic = onPanic
			e, err := newEpoll(cfg, b)
			if err != nil {
				t.Fatal(err)
			}
			return e
		}
	}
	one, two, moving := engine(EpollConfig{Loops: 1}, defaultBalance), engine(EpollConfig{Loops: 2}, defaultBalance), engine(EpollConfig{Loops: 3}, restless)
	plain := engine(EpollConfig{Loops: 1, NoUring: true}, defaultBalance)
	return []rig{
		{"epoll/tcp", one, "tcp"},
		{"epoll/unix", one, "unix"},
		{"plain/tcp", plain, "tcp"},
		{"epoll/tls", one, "tls"},
		{"epoll2/tcp", two, "tcp"},
		{"epoll2/tls", two, "tls"},
		{"restless/tcp", moving, "tcp"},
		{"restless/tls", moving, "tls"},
	}
}

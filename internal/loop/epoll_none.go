package loop

import (
	"crypto/tls"
	"fmt"
	"runtime"
	"time"
)

const epollSupported = false

// NewEpoll returns an error: only Linux has epoll. Use New, or NewGoroutines.
func NewEpoll(EpollConfig) (Engine, error) {
	return nil, fmt.Errorf("loop: the epoll engine needs Linux, this is %s: use the goroutine engine", runtime.GOOS)
}

// Without the epoll engine no Task and no Conn ever reaches the methods below.

type coroutine struct{}

func (*coroutine) waitOnLoop(time.Time, []Source) Cause { panic("unreachable") }
func (*coroutine) wakeOnLoop()                          { panic("unreachable") }
func (*coroutine) awaitOnLoop(func())                   { panic("unreachable") }
func (*coroutine) ownOnLoop(*Conn)                      { panic("unreachable") }
func (*coroutine) ownsOnLoop(*Conn) bool                { panic("unreachable") }

type socket struct{}

func (*socket) readSocket([]byte) (int, error)    { panic("unreachable") }
func (*socket) writeSocket([]byte) (int, error)   { panic("unreachable") }
func (*socket) readySocket(Interest) bool         { panic("unreachable") }
func (*socket) abortSocket()                      { panic("unreachable") }
func (*socket) closeSocket() error                { panic("unreachable") }
func (*socket) tlsOfSocket() *tls.ConnectionState { panic("unreachable") }

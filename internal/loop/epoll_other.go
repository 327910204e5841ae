//go:build !linux

package loop

import (
	"crypto/tls"
	"fmt"
	"net"
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

func (*Task) waitOnLoop(time.Time, []Source) Cause { panic("unreachable") }
func (*Task) restOnLoop(func(*Task, Cause), int64, []Source) (cause Cause, over bool) {
	panic("unreachable")
}
func (*Task) clockOfLoop() time.Duration                     { panic("unreachable") }
func (*Task) wakeOnLoop()                                    { panic("unreachable") }
func (*Task) awaitOnLoop(func())                             { panic("unreachable") }
func (*Task) ownOnLoop(*Conn)                                { panic("unreachable") }
func (*Task) ownsOnLoop(*Conn) bool                          { panic("unreachable") }
func (*Task) writeLateOnLoop(*Conn, []byte, LateWriter) bool { panic("unreachable") }
func (*Task) flushLateOnLoop()                               { panic("unreachable") }
func (*Task) droppedOnLoop(int)                              { panic("unreachable") }
func (*Conn) aheadOnLoop() []byte                            { panic("unreachable") }
func (*Conn) skipInbox(int)                                  { panic("unreachable") }
func (*Conn) keep()                                          { panic("unreachable") }
func (*Task) shelf(int) *shelf                               { return nil }

type socket struct{}

func (*Conn) readSocket([]byte) (int, error)    { panic("unreachable") }
func (*Conn) writeSocket([]byte) (int, error)   { panic("unreachable") }
func (*Conn) readySocket(Interest) bool         { panic("unreachable") }
func (*Conn) socketReadable() bool              { panic("unreachable") }
func (*Conn) socketHungUp() bool                { panic("unreachable") }
func (*Conn) setLowWater(int) bool              { panic("unreachable") }
func (*Conn) abortSocket()                      { panic("unreachable") }
func (*Conn) closeSocket() error                { panic("unreachable") }
func (*Conn) finishSocket() error               { panic("unreachable") }
func (*Conn) detachSocket() (net.Conn, error)   { panic("unreachable") }
func (*Conn) tlsOfSocket() *tls.ConnectionState { panic("unreachable") }

// PeerUID needs Linux.
func (c *Conn) PeerUID() (uint32, error) {
	return 0, fmt.Errorf("who is at the other end of a socket is not known on %s", runtime.GOOS)
}

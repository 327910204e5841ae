package loop

import (
	"errors"
	"io"
	"net"
	"runtime"
	"sync/atomic"
	"testing"
	"time"
)

// Tasks at rest hold no stack, and go on when their peers speak, when they are woken, and when the engine closes.
func TestRest(t *testing.T) {
	e, err := NewEpoll(EpollConfig{Loops: 2})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	const n = 100
	var ended, woken, began atomic.Int64
	var peers [n]net.Conn
	var tasks [n]atomic.Pointer[Task]
	before := runtime.NumGoroutine()
	for i := range n {
		if peers[i], err = net.Dial("tcp", ln.Addr().String()); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = peers[i].Close() })
		nc, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		c, err := e.Adopt(e.Wrap(nc))
		if err != nil {
			t.Fatal(err)
		}
		var echo func(*Task, Cause)
		echo = func(task *Task, cause Cause) {
			began.Add(1)
			buf := make([]byte, 16)
			for over := true; ; {
				if !over {
					return
				}
				if cause == Woken {
					woken.Add(1)
					cause = Ready
				}
				if cause == Closing {
					break
				}
				k, err := c.Read(buf)
				if k > 0 {
					_, _ = c.Write(buf[:k])
					continue
				}
				if !errors.Is(err, ErrWouldBlock) {
					break
				}
				cause, over = task.Rest(echo, Source{Conn: c, For: Readable})
			}
			ended.Add(1)
			_ = c.Close()
		}
		e.Go(func(task *Task) {
			tasks[i].Store(task)
			task.Own(c)
			echo(task, Ready)
		})
	}
	say := func(i int) {
		t.Helper()
		_ = peers[i].SetDeadline(time.Now().Add(30 * time.Second))
		if _, err := peers[i].Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		var b [5]byte
		if _, err := io.ReadFull(peers[i], b[:]); err != nil || string(b[:]) != "hello" {
			t.Fatalf("peer %d hears %q, %v", i, b, err)
		}
	}
	until := func(what string, done func() bool) {
		t.Helper()
		for end := time.Now().Add(30 * time.Second); !done(); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s: %+v, %d began, %d woken, %d ended", what, e.Stats(), began.Load(), woken.Load(), ended.Load())
			}
		}
	}
	for i := range n {
		say(i)
	}
	until("all rest, and hold no coroutine", func() bool {
		return e.Stats().Rests >= n && runtime.NumGoroutine() <= before+n/2
	})
	for range 3 {
		rests := e.Stats().Rests
		for i := range n {
			say(i)
		}
		until("they rest again", func() bool { return e.Stats().Rests >= rests+n/2 })
	}
	for i := range n {
		tasks[i].Load().Wake()
	}
	until("all are woken", func() bool { return woken.Load() == n })
	for i := range n / 2 {
		_ = peers[i].Close()
	}
	until("those whose peers left have ended", func() bool { return ended.Load() == n/2 && e.Stats().Tasks == n/2 })
	if err := e.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if got := ended.Load(); got != n {
		t.Errorf("%d tasks have ended, want %d", got, n)
	}
}

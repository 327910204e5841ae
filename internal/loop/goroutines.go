package loop

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// GoroutinesConfig configures NewGoroutinesWith. The zero value is a good default.
type GoroutinesConfig struct {
	// Linger is how long Conn.Close may go on sending what Write has accepted. Default 5 s.
	Linger time.Duration
	// Panic is told about panics in tasks. Default: an error in slog.Default.
	Panic PanicFunc
}

// NewGoroutines returns the engine with a goroutine per task, over any net.Conn (net.Pipe included). It runs on every
// system, under the race detector and in testing/synctest bubbles.
func NewGoroutines() Engine { return NewGoroutinesWith(GoroutinesConfig{}) }

// NewGoroutinesWith is NewGoroutines with a configuration.
func NewGoroutinesWith(cfg GoroutinesConfig) Engine {
	if cfg.Linger <= 0 {
		cfg.Linger = defaultLinger
	}
	if cfg.Panic == nil {
		cfg.Panic = logPanic
	}
	return &goroutines{cfg: cfg, closing: make(chan struct{}), killed: make(chan struct{}), idle: make(chan struct{})}
}

// goroutines is the portable engine.
type goroutines struct {
	cfg     GoroutinesConfig
	closing chan struct{} // closed by Close
	killed  chan struct{} // closed when Close's context ended first
	idle    chan struct{} // closed when closing and nothing is held any more

	mu     sync.Mutex // guards the fields below, and closing the channels
	held   int        // tasks alive, and connections that still send after Close
	closed bool
	dead   bool

	tasks                    atomic.Int64
	started, panics, resumes atomic.Uint64
}

func (e *goroutines) Wrap(nc net.Conn) net.Conn { return nc }

func (e *goroutines) Adopt(nc net.Conn) (*Conn, error) {
	select {
	case <-e.closing:
		return nil, fmt.Errorf("adopt %v: %w", nc.RemoteAddr(), ErrEngineClosed)
	default:
	}
	// A login may have left a deadline behind.
	if err := nc.SetDeadline(time.Time{}); err != nil {
		return nil, fmt.Errorf("adopt %v: clear deadline: %w", nc.RemoteAddr(), err)
	}
	return &Conn{local: nc.LocalAddr(), remote: nc.RemoteAddr(), stream: newStreamConn(e, nc)}, nil
}

func (e *goroutines) Listen(ln net.Listener) (*Listener, error) {
	return &Listener{ln: ln, accept: func() (*Conn, error) {
		nc, err := ln.Accept()
		if err != nil {
			return nil, err
		}
		c, err := e.Adopt(nc)
		if err != nil {
			return nil, errors.Join(err, nc.Close())
		}
		return c, nil
	}}, nil
}

func (e *goroutines) Go(f func(t *Task)) {
	t := &Task{routine: &routine{eng: e, signal: make(chan struct{}, 1)}}
	e.hold()
	e.tasks.Add(1)
	e.started.Add(1)
	go func() {
		// Runs after a return, a panic and runtime.Goexit alike.
		defer func() {
			if v := recover(); v != nil {
				e.panics.Add(1)
				e.cfg.Panic(v, debug.Stack())
			}
			e.tasks.Add(-1)
			e.release()
		}()
		f(t)
	}()
}

func (e *goroutines) Close(ctx context.Context) error {
	e.mu.Lock()
	if !e.closed {
		e.closed = true
		close(e.closing)
		if e.held == 0 {
			close(e.idle)
		}
	}
	e.mu.Unlock()
	select {
	case <-e.idle:
		return nil
	case <-ctx.Done():
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.dead {
		e.dead = true
		close(e.killed)
	}
	n := e.tasks.Load() // the others are closed connections
	if n == 0 {
		return nil
	}
	return fmt.Errorf("loop: close: %d tasks still running: %w", n, context.Cause(ctx))
}

func (e *goroutines) Stats() Stats {
	return Stats{Tasks: e.tasks.Load(), Started: e.started.Load(), Panics: e.panics.Load(), Resumes: e.resumes.Load()}
}

func (e *goroutines) hold() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.held++
}

func (e *goroutines) release() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.held--
	if e.held == 0 && e.closed {
		select {
		case <-e.idle: // a task that was started after Close
		default:
			close(e.idle)
		}
	}
}

package backend

import (
	"sync"
	"sync/atomic"
	"time"
)

// breakerState is whether an endpoint is worth trying.
type breakerState uint32

const (
	breakerClosed   breakerState = iota // it works
	breakerHalfOpen                     // it is being tried again
	breakerOpen                         // it is down: fail at once
)

func (s breakerState) String() string {
	switch s {
	case breakerHalfOpen:
		return "recovering"
	case breakerOpen:
		return "down"
	}
	return "up"
}

// breaker follows an endpoint's successes and failures, of health checks and of connection attempts alike. While it is open only
// health checks try, which nobody waits for: a session would pay for its try by the time that a dead machine takes to say nothing.
//
//	state      failure              success
//	closed     fall-th: open        count from 0
//	half-open  open                 rise-th: closed
//	open       -                    half-open
type breaker struct {
	rise, fall int
	changed    func(from, to breakerState, cause error) // called without the lock

	state   atomic.Uint32 // breakerState; written under mu
	reached atomic.Bool   // there has been a success

	mu       sync.Mutex // guards the fields below
	count    int        // failures in a row when closed, successes in a row when half-open
	openedAt time.Time
	cause    error // the latest failure
}

func newBreaker(rise, fall int, changed func(from, to breakerState, cause error)) *breaker {
	return &breaker{rise: rise, fall: fall, changed: changed}
}

func (b *breaker) current() breakerState { return breakerState(b.state.Load()) }

// success reports that the endpoint answered.
func (b *breaker) success() {
	b.reached.Store(true)
	b.mu.Lock()
	from := b.current()
	switch from {
	case breakerClosed:
		b.count = 0
	case breakerOpen:
		b.count = 1
		b.set(breakerHalfOpen)
	case breakerHalfOpen:
		b.count++
	}
	if b.current() == breakerHalfOpen && b.count >= b.rise {
		b.count = 0
		b.set(breakerClosed)
	}
	to := b.current()
	b.mu.Unlock()
	if from != to {
		b.changed(from, to, nil)
	}
}

// failure reports that the endpoint did not.
func (b *breaker) failure(cause error) {
	b.mu.Lock()
	b.cause = cause
	from := b.current()
	switch from {
	case breakerClosed:
		if b.count++; b.count >= b.fall {
			b.set(breakerOpen)
		}
	case breakerHalfOpen:
		b.set(breakerOpen)
	case breakerOpen:
	}
	to := b.current()
	b.mu.Unlock()
	if from != to {
		b.changed(from, to, cause)
	}
}

// isOpen says whether the endpoint is down, and then since when and why.
func (b *breaker) isOpen() (since time.Time, cause error, open bool) {
	if b.current() != breakerOpen {
		return time.Time{}, nil, false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.openedAt, b.cause, true
}

func (b *breaker) set(s breakerState) {
	if s == breakerOpen {
		b.openedAt = time.Now()
	}
	b.state.Store(uint32(s))
}

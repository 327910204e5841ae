package engine

import (
	"time"

	"github.com/tidemarkdb/tidemark/internal/loop"
)

// Rest is Step without a deadline for an owner that has nothing on its stack which it still needs. Where there is something to wait
// for, rests is true: the owner returns, and its task goes on with body, which calls Rested first.
func (r *Relay) Rest(body func(*loop.Task, loop.Cause)) (rests bool, err error) {
	if r.move() {
		return false, nil
	}
	if err := r.sources(); err != nil {
		return false, err
	}
	if r.collecting {
		return false, r.Step(time.Time{})
	}
	if len(r.set) == 0 && r.gone {
		return false, ErrClientGone
	}
	cause, over := r.Task.Rest(body, r.set...)
	if !over {
		return true, nil
	}
	return false, r.Rested(cause)
}

// Rested is what Step does behind its wait.
func (r *Relay) Rested(cause loop.Cause) error {
	if err := r.ended(cause); err != nil {
		return err
	}
	r.move()
	return nil
}

// idleOut is the capacity in bytes that r.out may keep while the client uses no server: enough for the answer to BEGIN.
const idleOut = 128

// sources finds what to wait for.
func (r *Relay) sources() error {
	set := r.set[:0]
	if cap(r.out) > idleOut && len(r.out) == 0 && len(r.links) == 0 {
		r.out = nil // nobody is about to write: a client that is idle from here on holds next to nothing
	}
	client := loop.Interest(0)
	r.collecting = false
	if r.takes() {
		client |= loop.Readable
		if r.collecting = r.bulk.on; !r.collecting {
			r.in.shrink()
		}
	}
	if !r.has() {
		client |= loop.Writable
	}
	if client != 0 {
		set = append(set, loop.Source{Conn: r.Client, For: client})
	}
	for _, l := range r.links {
		if !l.held && !l.amid && !r.Holds {
			l.askBegun()
		}
		server := loop.Interest(0)
		if l.Err == nil && !l.Paused && r.has() {
			server |= loop.Readable
			r.collecting = r.collecting || l.bulk.on
		}
		if l.Err == nil && (l.held || len(l.out) > 0) {
			server |= loop.Writable
		}
		if server != 0 {
			set = append(set, loop.Source{Conn: l.Conn.IO, For: server})
		}
	}
	r.set = set
	if r.stop.Load() {
		return ErrStopped
	}
	return nil
}

func (r *Relay) wait(deadline time.Time) error {
	if err := r.sources(); err != nil {
		return err
	}
	if len(r.set) == 0 && r.gone && deadline.IsZero() {
		return ErrClientGone
	}
	until := deadline
	if r.collecting {
		if until = time.Now().Add(bulkPatience); !deadline.IsZero() && deadline.Before(until) {
			until, r.collecting = deadline, false
		}
	}
	return r.ended(r.Task.Wait(until, r.set...))
}

// ended is the end of a wait.
func (r *Relay) ended(cause loop.Cause) error {
	switch cause {
	case loop.Closing:
		return ErrClosing
	case loop.Timeout:
		if !r.collecting {
			return ErrDeadline
		}
		r.bulk.late(r.Client)
		for _, l := range r.links {
			l.bulk.late(l.Conn.IO)
		}
	case loop.Woken:
		r.woken = true
		if r.stop.Load() {
			return ErrStopped
		}
	}
	return nil
}

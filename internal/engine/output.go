package engine

import (
	"errors"
	"time"

	"github.com/tidemarkdb/tidemark/internal/loop"
)

// Reply appends bytes to what the client gets. They are sent by the next Step or Flush.
func (r *Relay) Reply(b []byte) { r.out = append(r.out, b...) }

// Out lends the pending output to be appended to: r.SetOut(wire.AppendX(r.Out(), …)) makes no copy.
func (r *Relay) Out() []byte     { return r.out }
func (r *Relay) SetOut(b []byte) { r.out = b }

// Flush waits until less than max bytes wait for the client's socket.
func (r *Relay) Flush(max int) error {
	for len(r.out)-r.sent > max {
		if err := r.Step(time.Time{}); err != nil {
			return err
		}
	}
	return nil
}

// Last gives the client what still waits for its socket, for at most d, and serves nothing else.
func (r *Relay) Last(d time.Duration) {
	until := time.Now().Add(d)
	for len(r.out) > 0 && !r.gone {
		r.writePending()
		if len(r.out) == 0 || r.gone || time.Now().After(until) {
			return
		}
		if r.Task.Wait(until, loop.Source{Conn: r.Client, For: loop.Writable}) == loop.Closing {
			return // what the socket took at once is all it gets
		}
	}
}

// forward writes to the client directly when nothing waits before, and keeps what its socket does not take.
func (r *Relay) forward(b []byte) {
	if len(r.out) == 0 && !r.gone {
		n, err := r.Client.Write(b)
		r.written += uint64(n)
		if err != nil && !errors.Is(err, loop.ErrWouldBlock) {
			r.gone = true
		}
		b = b[n:]
	}
	r.out = append(r.out, b...)
}

// writePending writes what waits; it reports whether anything moved.
func (r *Relay) writePending() bool {
	if len(r.out) == 0 {
		return false
	}
	n, err := r.Client.Write(r.out[r.sent:])
	r.sent += n
	r.written += uint64(n)
	if err != nil && !errors.Is(err, loop.ErrWouldBlock) {
		r.gone = true
		r.sent = len(r.out)
	}
	if r.out, r.sent = unsent(r.out, r.sent); len(r.out) == 0 && cap(r.out) > maxKept && !r.inBulk() {
		r.out = nil
	}
	return n > 0 || r.gone // who waits for it to be written need not
}

// maxHeld is how much may wait for a client to ask for it, in bytes. PostgreSQL has as much.
const maxHeld = 8 << 10

// holds says whether what waits for the client stays until it asks. Not where a server does not take all that it was sent: it may wait for
// its answers to be read.
func (r *Relay) holds() bool {
	if !r.Holds || len(r.out) >= maxHeld || r.gone {
		return false
	}
	for _, l := range r.links {
		if len(l.out) > 0 || l.held {
			return false
		}
	}
	return true
}

// has says whether the client has what it is to have so far, so that servers are read from.
func (r *Relay) has() bool { return len(r.out) == 0 || r.holds() }

// inBulk says whether a server is delivering in bulk.
func (r *Relay) inBulk() bool {
	for _, l := range r.links {
		if l.bulk.on {
			return true
		}
	}
	return false
}

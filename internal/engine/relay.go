package engine

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/tidemarkdb/tidemark/internal/loop"
)

// ErrClientGone says that the client has left or can no longer be written to.
var ErrClientGone = errors.New("client has left")

// ErrClosing says that the engine is shutting down and the task should end.
var ErrClosing = errors.New("shutting down")

// ErrStopped says that somebody has stopped the relay.
var ErrStopped = errors.New("stopped")

// Relay moves bytes between one client and the server connections that it uses now. It is full duplex: whatever its
// owner waits for, Step goes on taking rows from servers as long as the client takes them, and requests from the
// client as long as there is room, so that a large result and a large request never wait for each other.
//
// All verbs but Stop run on the relay's task.
type Relay struct {
	Task   *loop.Task
	Client *loop.Conn

	// Overhears is asked about each NotificationResponse that a server connection in use brings, by its body, which it may
	// change: whether the client gets it. nil: it does.
	Overhears func(l *Link, body []byte) bool

	in       buffer // from the client, not yet consumed
	consumed uint64
	bulk     bulk   // of what comes from the client
	out      []byte // to the client, not yet accepted by its socket: out[sent:]
	sent     int
	links    []*Link // in use: Step serves them
	gone     bool    // the client closed its side; what it sent before may still be in in
	woken    bool
	// Holds is the owner's: the client has not asked yet for what it is owed, and need not get it before its next message.
	Holds         bool
	read, written uint64 // bytes of the client since Moved was last asked
	stop          atomic.Bool
	set           []loop.Source // what wait waits for, kept to be filled again
	collecting    bool          // a wait ends after a while, to take what has come, see bulk
}

// NewRelay serves client on task t. Its large messages take of m, unless that is nil.
func NewRelay(t *loop.Task, client *loop.Conn, m *Memory) *Relay {
	t.Keep(client)
	return &Relay{Task: t, Client: client, in: buffer{task: t, all: m}}
}

// Stop has the relay's next wait, also one under way, return ErrStopped. Any goroutine may call it while the task lives.
func (r *Relay) Stop() {
	r.stop.Store(true)
	r.Task.Wake()
}

// Stopped says whether Stop was called.
func (r *Relay) Stopped() bool { return r.stop.Load() }

// Moved is how many bytes the client has sent and was given since the last call.
func (r *Relay) Moved() (in, out uint64) {
	in, out = r.read, r.written
	r.read, r.written = 0, 0
	return in, out
}

// Use adds a link to those that Step serves; Drop removes it.
func (r *Relay) Use(l *Link) { r.links = append(r.links, l) }

// Drop removes a link; the caller releases or closes its connection.
func (r *Relay) Drop(l *Link) {
	for i, x := range r.links {
		if x == l {
			r.links = append(r.links[:i], r.links[i+1:]...)
			return
		}
	}
}

// Links are those in use.
func (r *Relay) Links() []*Link { return r.links }

// Woken says whether the task was woken by Wake since the last call.
func (r *Relay) Woken() bool {
	w := r.woken
	r.woken = false
	return w
}

// ErrDeadline is returned by Step when its deadline passes first.
var ErrDeadline = errors.New("deadline")

// Step makes all the progress that needs no waiting; if there was none it waits until some is possible, or until the
// deadline (zero: none), and makes that. A nil return says that something may have changed.
func (r *Relay) Step(deadline time.Time) error {
	if r.move() {
		return nil
	}
	if err := r.wait(deadline); err != nil {
		return err
	}
	r.move()
	return nil
}

// move makes all the progress that needs no waiting; it reports whether there was any.
func (r *Relay) move() bool {
	moved := false
	for _, l := range r.links {
		moved = l.flush() || moved
	}
	if !r.holds() {
		moved = r.writePending() || moved
	}
	for _, l := range r.links {
		if r.has() && !l.Paused && l.Err == nil && l.Conn.IO.Readable() {
			if l.pull(r) {
				moved = true
			}
		}
	}
	if r.takes() && r.Client.Readable() {
		if r.fill() {
			moved = true
		}
	}
	if r.gone && len(r.out) > 0 {
		r.out, r.sent = nil, 0
	}
	return moved
}

// Gone says that the client has closed its side.
func (r *Relay) Gone() bool { return r.gone }

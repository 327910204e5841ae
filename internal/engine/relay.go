package engine

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/tidemarkdb/tidemark/internal/loop"
	"github.com/tidemarkdb/tidemark/internal/wire"
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

	in            buffer // from the client, not yet consumed
	bulk          bulk   // of what comes from the client
	out           []byte // to the client, not yet accepted by its socket: out[sent:]
	sent          int
	links         []*Link // in use: Step serves them
	gone          bool    // the client closed its side; what it sent before may still be in in
	woken         bool
	read, written uint64 // bytes of the client since Moved was last asked
	stop          atomic.Bool
	set           []loop.Source // what wait waits for, kept to be filled again
	collecting    bool          // a wait ends after a while, to take what has come, see bulk
}

// NewRelay serves client on task t.
func NewRelay(t *loop.Task, client *loop.Conn) *Relay {
	t.Keep(client)
	return &Relay{Task: t, Client: client, in: buffer{task: t}}
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

// Header returns the type and the whole size in bytes of the client's next message; size is 0 while its five bytes have
// not come. The error is a *wire.Error: no such message exists, and nothing behind it can be understood.
func (r *Relay) Header() (typ byte, size int, err error) {
	if r.in.r == r.in.w {
		return 0, 0, nil
	}
	return wire.Header(r.in.bytes(), wire.Frontend)
}

// Input is what the client has sent and nobody has consumed; valid until the next Step or Consume.
func (r *Relay) Input() []byte { return r.in.bytes() }

// Consume takes n bytes of Input.
func (r *Relay) Consume(n int) { r.in.consume(n) }

// Behind says whether behind the next n bytes of Input stands another message, a whole one.
func (r *Relay) Behind(n int) bool {
	in := r.in.bytes()
	if len(in) < n+wire.HeaderLen {
		return false
	}
	_, size, err := wire.Header(in[n:], wire.Frontend)
	return err == nil && size > 0 && len(in)-n >= size
}

// Replace puts b in the place of the first n bytes of Input.
func (r *Relay) Replace(n int, b []byte) { r.in.replace(n, b) }

// Frame waits until the whole next message is in Input and returns it, header included; limit bounds its size in
// bytes. The slice is valid until the next Step or Consume; the message stays at the start of Input until it is consumed.
func (r *Relay) Frame(limit int) ([]byte, error) {
	for {
		_, size, err := r.Header()
		if err != nil {
			return nil, err
		}
		if size > limit {
			return nil, wire.Errorf(wire.ProgramLimitExceeded, "message of %d bytes is larger than the %d bytes that can be routed", size, limit).
				WithHint("Raise max_message in the configuration, or send large values by COPY.")
		}
		if size > 0 && r.in.len() >= size {
			return r.in.bytes()[:size], nil
		}
		if size > 0 && r.in.full() {
			r.in.grow(size)
		}
		if err := r.More(); err != nil {
			return nil, err
		}
	}
}

// More waits until more of the client's bytes have come, serving the links meanwhile.
func (r *Relay) More() error {
	have := r.in.len()
	for r.in.len() == have {
		if r.gone {
			return ErrClientGone
		}
		if err := r.Step(time.Time{}); err != nil {
			return err
		}
	}
	return nil
}

// Room makes room for More where Input is full: for n bytes in all, if so many come.
func (r *Relay) Room(n int) {
	if r.in.full() {
		r.in.grow(n)
	}
}

// Pass forwards the next n bytes of the client to a link untouched, in bounded memory: what the server's socket does not take
// stays where it was read.
func (r *Relay) Pass(l *Link, n int) error {
	for n > 0 {
		k, err := r.pass(l, n)
		if err != nil {
			return err
		}
		n -= k
	}
	return nil
}

// PassCopy is Pass for a CopyData message of n bytes and all those that follow it closely: many clients send a message for
// each row, and these leave in one write.
func (r *Relay) PassCopy(l *Link, n int) error {
	for n > 0 {
		for in := r.in.bytes(); l.Owed() > 0 && len(in) >= n+wire.HeaderLen; {
			typ, size, err := wire.Header(in[n:], wire.Frontend)
			if err != nil || typ != wire.MsgCopyData {
				break
			}
			n += size
		}
		k, err := r.pass(l, n)
		if err != nil {
			return err
		}
		n -= k
	}
	return nil
}

// pass forwards as much as can be at once of the client's next n bytes, or waits until some can.
func (r *Relay) pass(l *Link, n int) (passed int, err error) {
	if r.in.len() == 0 {
		return 0, r.More()
	}
	b := r.in.bytes()
	b = b[:min(len(b), n)]
	switch {
	case l.Err != nil:
		passed = len(b) // see Send
	case len(l.out) > 0 && len(l.out)-l.sent+len(b) <= maxPending/2:
		l.out = append(l.out, b...) // they leave together
		passed = len(b)
	default:
		if l.flush(); len(l.out) == 0 {
			passed = l.write(b)
		}
	}
	r.in.consume(passed)
	if passed > 0 {
		return passed, nil
	}
	l.held = true
	err = r.Step(time.Time{})
	l.held = false
	return 0, err
}

// Skip consumes the next n bytes of the client.
func (r *Relay) Skip(n int) error {
	for n > 0 {
		if r.in.len() == 0 {
			if err := r.More(); err != nil {
				return err
			}
			continue
		}
		k := min(r.in.len(), n)
		r.in.consume(k)
		n -= k
	}
	return nil
}

// maxPending bounds what waits for a server's socket before the sender is held up.
const maxPending = 64 << 10

// room waits until a link has taken most of what was sent to it.
func (r *Relay) room(l *Link) error {
	for len(l.out)-l.sent > maxPending/2 && l.Err == nil {
		if err := r.Step(time.Time{}); err != nil {
			return err
		}
	}
	return nil
}

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
		r.flush()
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

// flush writes what waits; it reports whether anything moved.
func (r *Relay) flush() bool {
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
	if r.sent == len(r.out) {
		r.sent = 0
		if cap(r.out) > maxKept && !r.inBulk() {
			r.out = nil
		} else {
			r.out = r.out[:0]
		}
	}
	return n > 0
}

// inBulk says whether a server is delivering in bulk.
func (r *Relay) inBulk() bool {
	for _, l := range r.links {
		if l.bulk.on {
			return true
		}
	}
	return false
}

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

// move makes all the progress that needs no waiting; it reports whether there was any.
func (r *Relay) move() bool {
	moved := r.flush()
	for _, l := range r.links {
		if l.flush() {
			moved = true
		}
		if len(r.out) == 0 && !l.Paused && l.Err == nil && l.Conn.IO.Readable() {
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

// takes says whether the client is read from: not while what it sent before waits for a server, so that what comes next is
// collected by the kernel and does not fill this buffer in small pieces.
func (r *Relay) takes() bool {
	for _, l := range r.links {
		if l.held {
			return false
		}
	}
	return !r.gone && !r.in.full()
}

// fill reads once from the client.
func (r *Relay) fill() bool {
	n, err := r.Client.Read(r.in.space(r.bulk.on))
	if n > 0 {
		r.in.w += n
		r.read += uint64(n)
		r.bulk.read(r.Client, n)
		return true
	}
	r.in.release()
	if err == nil || errors.Is(err, loop.ErrWouldBlock) {
		return false
	}
	r.gone = true
	return true
}

// Free gives back what the client has sent and nobody will look at any more, such as its goodbye.
func (r *Relay) Free() { r.in.drop() }

// Gone says that the client has closed its side.
func (r *Relay) Gone() bool { return r.gone }

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
		r.collecting = r.bulk.on
	}
	if len(r.out) > 0 {
		client |= loop.Writable
	}
	if client != 0 {
		set = append(set, loop.Source{Conn: r.Client, For: client})
	}
	for _, l := range r.links {
		server := loop.Interest(0)
		if l.Err == nil && !l.Paused && len(r.out) == 0 {
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

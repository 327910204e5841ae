package engine

import (
	"bytes"
	"errors"
	"time"

	"github.com/tidemarkdb/tidemark/internal/loop"
	"github.com/tidemarkdb/tidemark/internal/wire"
)

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
func (r *Relay) Consume(n int) {
	r.in.consume(n)
	r.consumed += uint64(n)
}

// Consumed goes up by what Consume takes and Pass passes on, bytes.
func (r *Relay) Consumed() uint64 { return r.consumed }

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
// bytes, and so does the memory that is left for all. The slice is valid until the next Step or Consume; the message stays at the start of Input until it is consumed.
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
		if size > 0 && r.in.full() && !r.in.grow(size) {
			return nil, r.in.all.refusal(size)
		}
		if err := r.MoreOf(size); err != nil {
			return nil, err
		}
	}
}

// More waits until more of the client's bytes have come, serving the links meanwhile.
func (r *Relay) More() error { return r.moreUntil(time.Time{}) }

// MoreOf is More amid a message of size bytes, 0 for one of which that is not known yet. The client may not pause in a large one.
func (r *Relay) MoreOf(size int) error {
	if size <= chunkSize || r.in.all == nil {
		return r.More()
	}
	return r.moreWithin(r.in.all.Pause())
}

// moreUntil is More up to a deadline: ErrDeadline.
func (r *Relay) moreUntil(deadline time.Time) error {
	have := r.in.len()
	for r.in.len() == have {
		if r.gone {
			return ErrClientGone
		}
		if err := r.Step(deadline); err != nil {
			return err
		}
	}
	return nil
}

// moreWithin is More for a message that is passed on while it comes, or that is large: who pauses for longer in the middle of it, and so keeps a
// server or much memory waiting for the rest, is to go. What the client does between messages is its own affair, as with PostgreSQL.
func (r *Relay) moreWithin(pause time.Duration) error {
	err := r.moreUntil(time.Now().Add(pause))
	if errors.Is(err, ErrDeadline) {
		return wire.Errorf(wire.ProtocolViolation, "the rest of a message from the client has not come for %s", pause).
			WithHint("clients.message_timeout of the proxy bounds how long a client may pause within a message.").Fatal()
	}
	return err
}

// Room makes room for More where Input is full: for n bytes in all, if so many come. The error is a *wire.Error.
func (r *Relay) Room(n int) error {
	if r.in.full() && !r.in.grow(n) {
		return r.in.all.refusal(n)
	}
	return nil
}

// Pass forwards the next n bytes of the client to a link untouched, in bounded memory: what the server's socket does not take
// stays where it was read. The client may pause for so long.
func (r *Relay) Pass(l *Link, n int, pause time.Duration) error {
	for n > 0 {
		k, err := r.passSome(l, n, pause)
		if err != nil {
			return err
		}
		n -= k
	}
	return nil
}

// PassCopy is Pass for a CopyData message of n bytes and all those that follow it closely: many clients send a message for
// each row, and these leave in one write.
func (r *Relay) PassCopy(l *Link, n int, pause time.Duration) error {
	for n > 0 {
		for in := r.in.bytes(); l.Owed() > 0 && len(in) >= n+wire.HeaderLen; {
			typ, size, err := wire.Header(in[n:], wire.Frontend)
			if err != nil || typ != wire.MsgCopyData {
				break
			}
			n += size
		}
		k, err := r.passSome(l, n, pause)
		if err != nil {
			return err
		}
		n -= k
	}
	return nil
}

// passSome forwards as much as can be at once of the client's next n bytes, or waits until some can.
func (r *Relay) passSome(l *Link, n int, pause time.Duration) (passed int, err error) {
	if r.in.len() == 0 {
		l.amid = true
		err = r.moreWithin(pause)
		l.amid = false
		return 0, err
	}
	b := r.in.bytes()
	b = b[:min(len(b), n)]
	switch {
	case l.Err != nil:
		passed, l.lossy = len(b), true // see Send
	case len(l.out) > 0 && len(l.out)-l.sent+len(b) <= maxPending/2:
		l.out = append(l.out, b...) // they leave together
		passed = len(b)
	default:
		if l.flush(); len(l.out) == 0 {
			passed = l.write(b)
		}
	}
	r.Consume(passed)
	if passed > 0 {
		return passed, nil
	}
	l.held = true
	err = r.Step(time.Time{})
	l.held = false
	return 0, err
}

// Skip consumes the next n bytes of the client, a message or the rest of one.
func (r *Relay) Skip(n int) error {
	for size := n; n > 0; {
		if r.in.len() == 0 {
			if err := r.MoreOf(size); err != nil {
				return err
			}
			continue
		}
		k := min(r.in.len(), n)
		r.Consume(k)
		n -= k
	}
	return nil
}

// maxPending bounds what waits for a server's socket before the sender is held up.
const maxPending = 64 << 10

// awaitRoom waits until a link has taken most of what was sent to it.
func (r *Relay) awaitRoom(l *Link) error {
	for len(l.out)-l.sent > maxPending/2 && l.Err == nil {
		if err := r.Step(time.Time{}); err != nil {
			return err
		}
	}
	return nil
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

// Terminates reads what there is of a client that has hung up, and says whether that ends with a Terminate. What the session has read may move.
func (r *Relay) Terminates() bool {
	for r.takes() && r.Client.Readable() && r.fill() {
	}
	return r.saidGoodbye()
}

func (r *Relay) saidGoodbye() bool { return bytes.HasSuffix(r.in.bytes(), terminate) }

var terminate = []byte{wire.MsgTerminate, 0, 0, 0, 4}

// Free gives back what the client has sent and nobody will look at any more, such as its goodbye.
func (r *Relay) Free() { r.in.drop() }

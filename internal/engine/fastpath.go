package engine

import (
	"encoding/binary"
	"errors"
	"slices"
	"time"

	"github.com/tidemarkdb/tidemark/internal/loop"
	"github.com/tidemarkdb/tidemark/internal/wire"
)

// What follows is Step and Rest in parts, for an owner who knows that nothing else is under way.

// Clear says that nothing waits to be sent, and nothing of the client's to be looked at.
func (r *Relay) Clear() bool { return len(r.out) == 0 && !r.gone && !r.stop.Load() && !r.bulk.on }

// Peek reads once from the client, where nothing is left of what came before and no link has anything under way, and returns what has
// come: nil for none. It may still be the loop's, which has read it ahead: it is Input, and outlasts a wait, only after KeepPeeked.
func (r *Relay) Peek() []byte {
	if !r.Clear() || r.in.len() > 0 {
		return nil
	}
	for _, l := range r.links {
		if !l.Idle() {
			return nil
		}
	}
	if in := r.Client.Ahead(); len(in) > 0 {
		return in
	}
	if r.Client.Readable() {
		r.fill()
	}
	return r.in.bytes()
}

// KeepPeeked has what Peek has returned be Input.
func (r *Relay) KeepPeeked() {
	if r.in.len() == 0 {
		r.fill()
	}
}

// ConsumePeeked takes all that Peek has returned.
func (r *Relay) ConsumePeeked(n int) {
	if r.in.len() > 0 {
		r.in.consume(n)
		return
	}
	r.Client.SkipAhead(n)
	r.bulk.end(r.Client)
	r.read += uint64(n)
}

// Take reads once from a link, if there is something to read, and gives the client what came. It says whether all of that is on its way.
func (r *Relay) Take(l *Link) bool {
	if !r.Clear() || l.Paused || l.Err != nil || len(l.out) > 0 || !l.Conn.IO.Readable() {
		return false
	}
	if b := l.Conn.IO.Ahead(); len(b) > 0 && l.in.len() == 0 && l.answered(r, b) {
		l.Conn.IO.SkipAhead(len(b))
		l.bulk.end(l.Conn.IO)
	} else {
		l.pull(r)
	}
	return r.Clear() && l.Err == nil
}

// Pause is Rest for an owner that has nothing to say, neither to the client nor to servers, and waits for what they say.
func (r *Relay) Pause(body func(*loop.Task, loop.Cause)) (cause loop.Cause, over bool) {
	if !r.Clear() || r.in.len() > 0 {
		return loop.Ready, true
	}
	set := append(r.set[:0], loop.Source{Conn: r.Client, For: loop.Readable})
	for _, l := range r.links {
		set = append(set, loop.Source{Conn: l.Conn.IO, For: loop.Readable})
	}
	if len(r.links) == 0 && cap(r.out) > idleOut {
		r.out = nil
	}
	r.set = set
	return r.Task.Rest(body, set...)
}

// Queue is Pause for an owner that waits until somebody wakes it, at most until deadline, or the client hangs up.
func (r *Relay) Queue(deadline time.Time, body func(*loop.Task, loop.Cause)) (cause loop.Cause, over bool) {
	r.set = append(r.set[:0], loop.Source{Conn: r.Client, For: loop.Hangup})
	return r.Task.RestUntil(deadline, body, r.set...)
}

// Query sends a whole Query on an idle link, of whose answer the client gets everything.
func (l *Link) Query(b []byte) {
	l.owe(1)[0].Kind = Query
	l.Conn.Unnamed = 0
	l.sendLate(b)
}

// Batch is what SendBatch sends: perhaps a Parse of the unnamed statement, a Bind, perhaps a Describe of the portal, an Execute and a Sync.
type Batch struct {
	Statement uint64 // its id
	Name      string // what the server calls it
	Names     *Names
	Parses    bool
	Describes bool
	Again     bool // see Expect
}

// replies are how many it brings.
func (x *Batch) replies() int {
	n := 3
	if x.Parses {
		n++
	}
	if x.Describes {
		n++
	}
	return n
}

// owes fills in what is owed; q is empty.
func (x *Batch) owes(q []Expect) {
	if x.Parses {
		q[0].Kind, q[0].Statement = Parse, x.Statement
		q = q[1:]
	}
	q[0].Kind, q[0].Statement, q[0].Names, q[0].Again = Bind, x.Statement, x.Names, x.Again
	if q = q[1:]; x.Describes {
		q[0].Kind, q[0].Names = Describe, x.Names
		q = q[1:]
	}
	q[0].Kind, q[0].Names = Execute, x.Names
	q[1].Kind, q[1].Again = Sync, x.Again
}

// SendBatch sends a whole batch, of whose answer the client gets everything: b, or, where it does not begin with a Parse, b with the
// statement's name on the server. The link is idle, or has something to be sent ahead of it, which goes with it. What was sent is
// returned, until the link sends more.
func (l *Link) SendBatch(b []byte, x *Batch) ([]byte, error) {
	idle, n := l.Idle(), x.replies()
	out := l.out
	switch {
	case !x.Parses && x.Name != "":
		size := 1 + int(binary.BigEndian.Uint32(b[1:]))
		var err error
		if out, err = wire.AppendRenamed(out, b[:size], x.Name); err != nil {
			return nil, err
		}
		b = append(out, b[size:]...)
		out = b
	case !idle:
		out = append(out, b...)
	}
	if idle {
		if x.owes(l.owe(n)); x.Parses {
			l.parses++
		}
	} else {
		var q [maxSole]Expect
		x.owes(q[:n])
		for _, e := range q[:n] {
			l.Expect(e)
		}
	}
	if x.Parses {
		l.Conn.Unnamed = x.Statement
	}
	if idle {
		l.out = out[:0]
		l.sendLate(b)
		return b, nil
	}
	l.out = out
	l.flush()
	return out, nil
}

// owe is Expect for all n replies to a request on an idle link. They are empty.
func (l *Link) owe(n int) []Expect {
	if l.Since == 0 {
		l.Since = loop.Clock()
	}
	l.queue = slices.Grow(l.queue[:0], maxSole)[:n] // what was there before was cleared
	l.head, l.sole = 0, n
	l.Conn.Outstanding++
	return l.queue
}

// maxSole is how many replies a request of Query or SendBatch has at most.
const maxSole = 5

// sendLate is Send for a request that the owner is about to wait for the answer to.
func (l *Link) sendLate(b []byte) {
	if l.Err != nil {
		l.lossy = true
		return
	}
	l.in.task.WriteLate(l.Conn.IO, b, l)
}

// Unsent is for the loop.
func (l *Link) Unsent(b []byte, err error) {
	if !errors.Is(err, loop.ErrWouldBlock) {
		l.broke(err)
		return
	}
	l.out = append(l.out, b...)
}

// ReplyLate is Reply for an owner that is about to wait for the client's next request, and to whom nothing else waits to be sent.
func (r *Relay) ReplyLate(b []byte) {
	r.written += uint64(len(b))
	r.Task.WriteLate(r.Client, b, r)
}

// Unsent is for the loop.
func (r *Relay) Unsent(b []byte, err error) {
	if !errors.Is(err, loop.ErrWouldBlock) {
		r.gone = true
		return
	}
	r.written -= uint64(len(b))
	r.out = append(r.out, b...)
}

// answered passes b on, what was read, where that is the whole answer to what Query or SendBatch has sent, without an error.
func (l *Link) answered(r *Relay, b []byte) bool {
	if l.sole == 0 || l.sole != len(l.queue) || l.head > 0 || l.rest > 0 || len(r.out) > 0 || r.gone {
		return false
	}
	status := whole(b)
	if status == 0 {
		return false
	}
	l.Conn.TxStatus = status
	l.Conn.Outstanding--
	l.Skipping, l.Copying = false, false
	for i := range l.queue {
		q := &l.queue[i]
		q.Kind, q.Statement, q.Names, q.Again = 0, 0, nil, false // the rest of it is empty
	}
	l.queue, l.sole, l.parses, l.early, l.ended = l.queue[:0], 0, 0, 0, 0
	r.ReplyLate(b)
	return true
}

// whole is the transaction status at the end of b, if that is a whole answer with nothing but what a request brings that succeeds; else 0.
func whole(b []byte) byte {
	for len(b) > len(ready)+1 {
		size := int(binary.BigEndian.Uint32(b[1:]))
		switch b[0] {
		case 'D', 'T', 'C', '1', '2', 'n':
		default:
			return 0
		}
		if size < 4 || size >= len(b) {
			return 0
		}
		b = b[1+size:]
	}
	if len(b) != len(ready)+1 || string(b[:len(ready)]) != ready || b[len(ready)] == wire.TxAborted {
		return 0
	}
	return b[len(ready)]
}

// ready is a ReadyForQuery without its last byte, the status.
const ready = "Z\x00\x00\x00\x05"

package loop

import (
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A loop makes the system calls of a round together where it can: it reads ahead for the tasks that it is about to resume, and sends
// what they have written late when all had their turn. Each system call throws the program's code out of the processor's caches and
// forgets where its calls return to, so that what runs between two of them should be long, and the calls few levels deep.
type batch struct {
	inbox  []byte // what was read ahead for tasks that had no turn since is in inbox[:taken]
	taken  int
	outbox []byte // what is to be sent, in the order of lates
	lates  []late
	ring   *uring // sends them together; nil: one by one
}

const (
	boxSize   = 64 << 10
	aheadSize = 4 << 10 // what is read ahead at most; who gets more reads it itself, see Conn.large
	lateSize  = 2 << 10 // what is sent late at most
	maxLates  = 32      // so many wait at most for the end of a round; the ring has room for them
)

// late is a write to conn of the bytes of the outbox up to end, of which so many were sent.
type late struct {
	conn *Conn
	from LateWriter
	end  int
	sent int
}

// ahead is what was read before the turn of a task. It is the task's, for a connection may be another's by the end of the turn; but
// then nothing is left of it.
type ahead struct {
	got     []byte // in the inbox, or a copy
	err     error  // ... or this has come of it
	drained bool   // it was all there was
}

// batching is what a socket needs for it.
type batching struct {
	ahead *ahead // nil: nothing was read ahead
	eager bool   // the next read may be ahead: whoever waits will look at it
	large bool   // the last read has brought more than aheadSize
	late  bool   // something is in the outbox
}

func newBatch(plain bool) batch {
	b := batch{inbox: make([]byte, boxSize), outbox: make([]byte, 0, boxSize), lates: make([]late, 0, maxLates)}
	if !plain {
		b.ring, _ = newUring(maxLates) // without it nothing but time is lost
	}
	return b
}

// readAhead reads what has come for t, a queued task that waited for it.
func (l *eventLoop) readAhead(t *Task, c *Conn) {
	a := &t.ahead
	if !c.eager && !c.kept || c.large || c.tls != nil || len(a.got) > 0 || a.err != nil || boxSize-l.taken < aheadSize ||
		c.state.Load()&(bitReadable|bitHangup|bitClosed|bitFailed) != bitReadable {
		return
	}
	c.eager = false
	p := l.inbox[l.taken : l.taken+aheadSize]
	n, _, errno := syscall.RawSyscall6(unix.SYS_RECVFROM, uintptr(c.fd), uintptr(unsafe.Pointer(&p[0])), aheadSize, unix.MSG_DONTWAIT, 0, 0)
	switch {
	case errno == 0 && n > 0:
		a.got, a.drained = p[:n], n < aheadSize
		c.ahead = a
		l.taken += (int(n) + 63) &^ 63
	case errno == 0 || errno == unix.EAGAIN || errno == unix.EINTR: // the next read says so, too
	default:
		a.err = c.opError("read", os.NewSyscallError("recvfrom", errno))
		c.ahead = a
	}
}

// takeAhead is receive where something was read ahead.
func (c *Conn) takeAhead(p []byte) (int, error) {
	a := c.ahead
	if err := a.err; err != nil {
		a.err, c.ahead = nil, nil
		return 0, err
	}
	n := copy(p, a.got)
	c.skipInbox(n)
	return n, nil
}

// skipInbox is Conn.SkipAhead.
func (c *Conn) skipInbox(n int) {
	a := c.ahead
	if a.got = a.got[n:]; len(a.got) > 0 {
		return
	}
	a.got, c.ahead = nil, nil
	if a.drained {
		c.forget(bitReadable) // as if it had been read now: no event was taken in since
	}
}

// dropAhead forgets what was read ahead.
func (c *Conn) dropAhead() {
	if c.ahead != nil {
		*c.ahead, c.ahead = ahead{}, nil
	}
}

// keep copies what its task has left of it at the end of its turn: the inbox is used again from here on, and events are taken in.
func (a *ahead) keep() {
	a.got, a.drained = append([]byte(nil), a.got...), false
}

// aheadOnLoop is Conn.Ahead.
func (c *Conn) aheadOnLoop() []byte {
	if c.ahead == nil {
		return nil
	}
	return c.ahead.got
}

// writeLateOnLoop is WriteLate; it returns false where that has to be done at once. A connection has one late write at most, for what is
// sent together may be sent in part.
func (t *Task) writeLateOnLoop(c *Conn, p []byte, w LateWriter) bool {
	l := t.loop.Load()
	if l == nil || c.home.Load() != l || c.tls != nil || c.late || len(p) == 0 || len(p) > lateSize || len(l.lates) == maxLates || len(l.outbox)+len(p) > boxSize ||
		c.state.Load()&(bitClosed|bitFailed) != 0 {
		return false
	}
	l.outbox = append(l.outbox, p...)
	l.lates = append(l.lates, late{conn: c, from: w, end: len(l.outbox)})
	c.late, c.eager = true, true
	return true
}

// sendLates sends what was written late.
func (l *eventLoop) sendLates() {
	b := &l.batch
	if b.ring != nil && len(b.lates) > 1 {
		b.sendTogether()
		l.batches.Add(1)
	}
	from := 0
	for i := 0; i < len(b.lates); i++ {
		x := b.lates[i]
		b.lates[i] = late{}
		p := b.outbox[from+x.sent : x.end]
		from = x.end
		x.conn.late = false
		if len(p) == 0 {
			continue
		}
		if n, err := x.conn.send(p, x.conn.state.Load()); n < len(p) {
			x.from.Unsent(p[n:], err)
			if t := x.conn.waiter.Load(); t != nil && t.loop.Load() == l && t.state == parked {
				l.unpark(t, Ready)
			}
		}
	}
	b.lates, b.outbox = b.lates[:0], b.outbox[:0]
}

// sendTogether tries to send all with one system call. What it leaves, also what has failed, is as if it had not been tried.
func (b *batch) sendTogether() {
	from := 0
	for i := range b.lates {
		x := &b.lates[i]
		if x.conn.state.Load()&(bitWritable|bitBroken) != 0 {
			b.ring.put(i, x.conn.fd, b.outbox[from:x.end])
		}
		from = x.end
	}
	if !b.ring.send(func(i, n int) { b.lates[i].sent = n }) {
		b.dropRing()
	}
}

// dropRing goes on without the ring.
func (b *batch) dropRing() {
	if b.ring != nil {
		b.ring.close()
		b.ring = nil
	}
}

// flushLateOnLoop is FlushLate.
func (t *Task) flushLateOnLoop() {
	if l := t.loop.Load(); l != nil && len(l.lates) > 0 {
		l.sendLates()
	}
}

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
	inbox  []byte // what was read ahead is in inbox[:taken]
	taken  int
	aheads []*Conn // for whom
	outbox []byte  // what is to be sent, in the order of lates
	lates  []late
}

const (
	boxSize   = 64 << 10
	aheadSize = 4 << 10 // what is read ahead at most; who gets more reads it itself, see Conn.large
	lateSize  = 2 << 10 // what is sent late at most
	maxLates  = 32      // so many wait at most for the end of a round
)

// late is a write to conn of the bytes of the outbox up to end.
type late struct {
	conn *Conn
	from Sender
	end  int
}

// ahead is what a socket needs for it.
type ahead struct {
	got     []byte // was read, in the inbox
	err     error  // ... or this has come of it
	drained bool   // it was all there was
	large   bool   // the last read has brought more than aheadSize
	late    bool   // something is in the outbox
}

func newBatch() batch {
	return batch{inbox: make([]byte, boxSize), outbox: make([]byte, 0, boxSize)}
}

// readAhead reads what has come for a task that waited for it.
func (l *eventLoop) readAhead(c *Conn) {
	b := &l.batch
	if c.tls != nil || c.large || len(c.got) > 0 || c.err != nil || boxSize-b.taken < aheadSize || c.state.Load()&(bitReadable|bitHangup|bitClosed|bitFailed) != bitReadable {
		return
	}
	p := b.inbox[b.taken : b.taken+aheadSize]
	n, _, errno := syscall.RawSyscall6(unix.SYS_RECVFROM, uintptr(c.fd), uintptr(unsafe.Pointer(&p[0])), aheadSize, unix.MSG_DONTWAIT, 0, 0)
	switch errno {
	case 0:
		if n > 0 { // the end is still there for the next read
			c.got, c.drained = p[:n], n < aheadSize
			b.taken += (int(n) + 63) &^ 63
			b.aheads = append(b.aheads, c)
		}
	case unix.EAGAIN, unix.EINTR:
	default:
		c.err = c.opError("read", os.NewSyscallError("recvfrom", errno))
	}
}

// takeAhead is receive where something was read ahead.
func (c *Conn) takeAhead(p []byte) (int, error) {
	if err := c.err; err != nil {
		c.err = nil
		return 0, err
	}
	n := copy(p, c.got)
	c.skipAhead(n)
	return n, nil
}

// skipAhead takes n bytes of what was read ahead.
func (c *Conn) skipAhead(n int) {
	if c.got = c.got[n:]; len(c.got) == 0 {
		c.got = nil
		if c.drained {
			c.drained = false
			c.forget(bitReadable) // as if it had been read now: no event was taken in since
		}
	}
}

// keepAheads copies what nobody has taken yet, so that the inbox can be used again. Events may be taken in from here on.
func (l *eventLoop) keepAheads() {
	b := &l.batch
	for i, c := range b.aheads {
		if len(c.got) > 0 {
			c.got, c.drained = append([]byte(nil), c.got...), false
		}
		b.aheads[i] = nil
	}
	b.aheads, b.taken = b.aheads[:0], 0
}

// ahead is Task.Ahead.
func (c *Conn) aheadOnLoop() []byte { return c.got }

// writeLate is Task.WriteLate; it returns false where that has to be done at once.
func (t *Task) writeLateOnLoop(c *Conn, p []byte, s Sender) bool {
	l := t.loop.Load()
	if l == nil || c.home.Load() != l || c.tls != nil || len(p) > lateSize || len(l.outbox)+len(p) > boxSize || c.state.Load()&(bitClosed|bitFailed) != 0 {
		return false
	}
	l.outbox = append(l.outbox, p...)
	l.lates = append(l.lates, late{c, s, len(l.outbox)})
	c.late = true
	return true
}

// sendLates sends what was written late.
func (l *eventLoop) sendLates() {
	b := &l.batch
	from := 0
	for i := 0; i < len(b.lates); i++ {
		x := b.lates[i]
		b.lates[i] = late{}
		p := b.outbox[from:x.end]
		from = x.end
		x.conn.late = false
		if n, err := x.conn.send(p, x.conn.state.Load()); n < len(p) {
			x.from.Unsent(p[n:], err)
			if t := x.conn.waiter.Load(); t != nil && t.loop.Load() == l && t.state == parked {
				l.unpark(t, Ready)
			}
		}
	}
	b.lates, b.outbox = b.lates[:0], b.outbox[:0]
}

func (t *Task) flushOnLoop() {
	if l := t.loop.Load(); l != nil && len(l.lates) > 0 {
		l.sendLates()
	}
}

package engine

import (
	"encoding/binary"
	"errors"
	"time"

	"github.com/tidemarkdb/tidemark/internal/backend"
	"github.com/tidemarkdb/tidemark/internal/loop"
	"github.com/tidemarkdb/tidemark/internal/wire"
)

// Link is a server connection in use by one client: what is to be sent, and the replies that are owed, in order.
//
// The queue is the whole state of the conversation. Each request appends one Expect; each reply completes the first.
// An error in an extended request discards what is queued up to the next Sync, as the server does; if that Sync has
// not been sent yet, Skipping stays set until it is.
type Link struct {
	Conn  *backend.Conn
	Shard string

	// Paused holds back reading, for a link whose turn in a scatter has not come.
	Paused bool
	// Skipping is set after an error until the next Sync: the server ignores what comes, and the proxy should too.
	Skipping bool
	// Copying is set while the server waits for CopyData.
	Copying bool
	// Errors counts the errors that the server has reported.
	Errors int
	// Unparsed are the Parses of the unnamed statement that have failed or were skipped since the owner has looked.
	Unparsed []Unparsed
	// Stale is the id of a statement that the server refuses since a table changed under it; 0 for none.
	Stale uint64
	// MayRepeat lets a batch be sent again when the server refuses its statement. Again are then the replies that it owes: the
	// client has heard nothing, and the answer to its Sync is muted. Flushes counts what was sent, so that whoever wants to
	// send something again knows whether it is still whole in Out.
	MayRepeat bool
	Again     []Expect
	Flushes   int
	// Since is when the request under way began, by loop.Clock; 0: it was measured, and the next Expect sets it again.
	Since time.Duration
	// Until is when a link that is used beside others had answered its last request; 0: nobody has noted it.
	Until time.Duration
	// Code is the SQLSTATE of the last error that the client was told, until somebody clears it.
	Code string
	// Err is set when the connection broke. Torn says that a message had been forwarded in part, so that the client's
	// own stream cannot be continued.
	Err  *wire.Error
	Torn bool

	out    []byte   // for the server, not yet accepted: out[sent:]
	queue  []Expect // the replies that are owed: queue[head:]
	sent   int
	held   bool // the relay has bytes of the client that the socket did not take
	in     buffer
	bulk   bulk
	rest   int  // bytes of a row or copy message still to come
	mute   bool // ... and they are not forwarded
	head   int
	parses int // owed replies to requests that prepare a statement
	early  int // how often the client has ended a COPY that has not begun; what is queued before ended stands before that
	ended  int
	sole   int // the queue is one request's of Query or Batch while it has so many replies; 0: it is not known to be
}

// links are those that nothing uses, with their memory: a client that is idle should not hold it. The few that are in use at
// a time also stay in the processor's caches, whichever of many clients comes next.
var links = loop.NewPool(func() *Link { return new(Link) })

// maxKept bounds the bytes for output that are kept while nothing uses them.
const maxKept = 4 << 10

// NewLink begins to use a connection that t has just acquired.
func NewLink(t *loop.Task, c *backend.Conn, shard string) *Link {
	l := links.Get(t)
	l.Conn, l.Shard, l.in.task = c, shard, t
	return l
}

// Free ends the use of an idle link; the caller must not touch it afterwards. Its connection is the caller's.
func (l *Link) Free() {
	l.in.drop() // what was written late is on its way: else the answer would not be there, or the connection closed
	task, out, queue := l.in.task, l.out[:0], l.queue[:0]
	if cap(out) > maxKept {
		out = nil
	}
	*l = Link{out: out, queue: queue}
	links.Put(task, l)
}

// Idle says that no reply is owed and nothing waits to be sent.
func (l *Link) Idle() bool { return l.head == len(l.queue) && len(l.out) == 0 && l.rest == 0 }

// Owed is the number of replies still to come.
func (l *Link) Owed() int { return len(l.queue) - l.head }

// Expect queues a reply. A Synthetic one that is first in line is due at once: Deliver it.
func (l *Link) Expect(e Expect) {
	l.sole = 0
	if e.Kind == Sync || e.Kind == Query || e.Kind == Function {
		l.Conn.Outstanding++
	}
	if e.Kind == Query {
		l.Conn.Unnamed = 0 // a simple query takes the unnamed statement's place
	}
	if l.Since == 0 {
		l.Since = loop.Clock()
	}
	if len(l.queue) == cap(l.queue) && l.head > len(l.queue)/2 {
		l.compact() // the queue of a client that always has something under way never runs empty
	}
	if e.prepares() {
		l.parses++
	}
	l.queue = append(l.queue, e)
}

// prepares says whether the connection has the statement when the request has succeeded.
func (e *Expect) prepares() bool { return e.Statement != 0 && (e.Kind == Parse || e.Kind == Execute) }

// Unsure says whether the connection's having a statement depends on how an earlier batch goes: one that is not answered yet
// prepares it. An error there skips that, and nothing of this batch.
func (l *Link) Unsure(statement uint64) bool {
	if l.parses == 0 {
		return false
	}
	prepared := false
	for i := l.head; i < len(l.queue); i++ {
		switch e := &l.queue[i]; {
		case e.prepares() && e.Statement == statement:
			prepared = true
		case prepared && e.Kind == Sync:
			return true
		}
	}
	return false
}

// Preparing says whether some request that prepares a statement has not been answered yet.
func (l *Link) Preparing() bool { return l.parses > 0 }

// compact moves what is owed to the front of the queue.
func (l *Link) compact() {
	n := copy(l.queue, l.queue[l.head:])
	clear(l.queue[n:])
	l.queue = l.queue[:n]
	l.ended = max(0, l.ended-l.head)
	l.head = 0
}

// Forget is for the Undo of a request that prepares a statement by other means than a Parse.
func (l *Link) Forget(statement uint64) { l.forget(statement) }

// Unparsed are the Parses of the unnamed statement in one batch that had no effect, by the ids of the statements. PostgreSQL drops
// the statement that was there before for one that fails, and leaves it for one that is skipped.
type Unparsed struct {
	From, To uint64
	Failed   bool // the first of them has failed
}

// forget takes back that a statement is prepared: its Parse failed, or was not looked at.
func (l *Link) forget(statement uint64) {
	if l.Conn.Unnamed == statement {
		l.Conn.Unnamed = 0
	}
	l.Conn.Statements.Unparsed(statement)
}

// Send gives bytes to the server: as many as its socket takes now, the rest is kept (see Relay.Pass for large ones).
func (l *Link) Send(b []byte) {
	if l.Err != nil {
		return // the replies owed are answered by Fail; what comes after is of no interest
	}
	if len(l.out) == 0 {
		b = b[l.write(b):]
	}
	l.out = append(l.out, b...)
}

// Gather is Send for a request behind which the client's next one is at hand: both leave in one write, with the next Step at the
// latest. A write costs several times what the proxy does for a small request otherwise.
func (l *Link) Gather(b []byte) {
	if l.Err != nil {
		return
	}
	if l.out = append(l.out, b...); len(l.out)-l.sent >= gatherSize {
		l.flush()
	}
}

// gatherSize is how many bytes keep a server waiting at most: what it reads at once.
const gatherSize = 8 << 10

// Push sends what was gathered, for an owner that is about to do something else for long.
func (l *Link) Push() { l.flush() }

// write gives the socket what it takes now of b; all of it when the connection breaks.
func (l *Link) write(b []byte) int {
	n, err := l.Conn.IO.Write(b)
	if err != nil && !errors.Is(err, loop.ErrWouldBlock) {
		l.broke()
		return len(b)
	}
	return n
}

// Queue appends bytes without sending, so that several messages leave in one write.
func (l *Link) Queue(b []byte) { l.out = append(l.out, b...) }

// Out lends the bytes to be sent, to be appended to.
func (l *Link) Out() []byte     { return l.out }
func (l *Link) SetOut(b []byte) { l.out = b }

func (l *Link) flush() bool {
	if len(l.out) == 0 || l.Err != nil {
		return false
	}
	n, err := l.Conn.IO.Write(l.out[l.sent:])
	l.sent += n
	l.Flushes++
	if err != nil && !errors.Is(err, loop.ErrWouldBlock) {
		l.broke()
		return true
	}
	if l.sent == len(l.out) {
		l.sent = 0
		if cap(l.out) > 2*maxPending {
			l.out = nil
		} else {
			l.out = l.out[:0]
		}
	}
	return n > 0
}

// broke marks the connection as lost.
func (l *Link) broke() {
	if l.Err == nil {
		l.Err = wire.Errorf(wire.ConnectionFailure, "server connection to shard %s was lost", l.Shard).
			WithHint("The statement may or may not have taken effect; check before repeating it.")
	}
	l.Torn = l.rest > 0 && !l.mute
	l.out, l.sent = nil, 0
}

// pull reads once from the server and passes on what came. It reports whether anything did.
func (l *Link) pull(r *Relay) bool {
	n, err := l.Conn.IO.Read(l.in.space(l.bulk.on))
	if n > 0 {
		l.in.w += n
		l.bulk.read(l.Conn.IO, n)
		if b := l.in.bytes(); l.answered(r, b) {
			l.in.consume(len(b))
		} else {
			l.consume(r)
		}
		if l.Owed() == 0 {
			l.bulk.end(l.Conn.IO) // nobody may find the connection like that
		}
		return true
	}
	if err == nil || errors.Is(err, loop.ErrWouldBlock) {
		l.in.release()
		return false
	}
	l.in.drop()
	l.broke()
	return true
}

// stretch is what a link has read and goes through: b[from:pos] is to be forwarded. A nil one has nothing.
type stretch struct {
	b         []byte
	from, pos int
}

// cut gives the client what is to be forwarded so far, ahead of what the caller adds.
func (st *stretch) cut(r *Relay) {
	if st != nil {
		r.Reply(st.b[st.from:st.pos])
		st.from = st.pos
	}
}

// drop leaves the next n bytes out.
func (st *stretch) drop(r *Relay, n int) {
	st.cut(r)
	st.pos += n
	st.from = st.pos
}

// consume goes through what was read. Runs of messages that are forwarded leave as one piece, without a copy.
func (l *Link) consume(r *Relay) {
	st := stretch{b: l.in.bytes()}
	for st.pos < len(st.b) && l.Err == nil {
		have := st.b[st.pos:]
		if l.rest > 0 {
			n := min(l.rest, len(have))
			l.rest -= n
			if l.mute {
				st.drop(r, n)
			} else {
				st.pos += n
			}
			continue
		}
		if len(have) < wire.HeaderLen {
			break
		}
		typ, size := have[0], int(int32(binary.BigEndian.Uint32(have[1:])))
		if size < 4 {
			l.broke()
			break
		}
		if typ == 'D' || typ == 'd' {
			l.mute = l.head == len(l.queue) || l.queue[l.head].Mute&MuteRows != 0
			if l.mute {
				if e := l.first(); e != nil && e.Reply != nil && typ == 'D' && e.Reply.Row == nil && size < maxSteering {
					if len(have) < 1+size {
						break // the proxy's own rows are small: wait for all of it
					}
					e.Reply.Row = append([]byte{}, have[wire.HeaderLen:1+size]...)
				}
			}
			if l.mute || len(have) < 1+size {
				l.rest = 1 + size
			} else {
				st.pos += 1 + size
			}
			continue
		}
		if len(have) < 1+size {
			if size <= maxSteering || !l.large(r, typ, size, &st) {
				break
			}
			continue
		}
		if l.message(r, typ, have[wire.HeaderLen:1+size], &st) {
			st.pos += 1 + size
		} else {
			st.drop(r, 1+size)
		}
		e := l.first()
		if e == nil {
			continue
		}
		if typ == 'C' && e.Kind == Query && e.Reply != nil && e.Reply.Between != nil {
			st.cut(r)
			e.Reply.Between(e.Reply.Tags)
			e = l.first()
		}
		if e != nil && e.Kind == Synthetic {
			l.synthetic(r, &st)
		}
	}
	if st.from < st.pos {
		if len(r.out) == 0 {
			r.forward(st.b[st.from:st.pos])
		} else {
			r.Reply(st.b[st.from:st.pos])
		}
	}
	l.in.consume(st.pos)
	if l.in.full() { // a message that steers and is larger than a chunk: an error with a long text, a wide table's row description
		l.in.grow(min(1+int(binary.BigEndian.Uint32(l.in.bytes()[1:])), maxSteering))
	}
	r.flush()
}

func (l *Link) first() *Expect {
	if l.head == len(l.queue) {
		return nil
	}
	return &l.queue[l.head]
}

// done completes the first reply.
func (l *Link) done() {
	e := &l.queue[l.head]
	if e.Reply != nil {
		e.Reply.Done = true
	}
	l.pop(e)
	if l.head >= l.ended {
		l.early, l.ended = 0, 0
	}
	if l.head == len(l.queue) {
		l.queue, l.head = l.queue[:0], 0
	}
}

// pop takes e, the first reply, out of the queue.
func (l *Link) pop(e *Expect) {
	if e.prepares() {
		l.parses--
	}
	*e = Expect{}
	l.head++
}

// Deliver gives the client the synthetic replies that are due.
func (l *Link) Deliver(r *Relay) { l.synthetic(r, nil) }

func (l *Link) synthetic(r *Relay, st *stretch) {
	for e := l.first(); e != nil && e.Kind == Synthetic; e = l.first() {
		st.cut(r)
		if e.Late != nil {
			e.Bytes = e.Late()
		}
		r.Reply(e.Bytes)
		l.done()
	}
}

// message handles one complete message that steers; it says whether the client gets it. st is cut before it adds anything itself.
func (l *Link) message(r *Relay, typ byte, body []byte, st *stretch) (forward bool) {
	e := l.first()
	switch typ {
	case 'S': // ParameterStatus: the client's view of the session, passed on but where the proxy changes settings itself
		name, value, err := wire.DecodeParameterStatus(body)
		if err != nil {
			l.broke()
			return false
		}
		l.Conn.SetParam(name, value)
		return (e == nil || e.Mute&MuteStatus == 0) && !backend.OfServer(string(name))
	case 'A': // NotificationResponse
		return r.Overhears == nil || r.Overhears(l, body)
	case 'N':
		return e != nil && (e.Mute&MuteError == 0 || e.Reply != nil && e.Reply.PassNotices)
	case 'E':
		return l.failed(r, e, body, st)
	}
	if e == nil {
		l.broke()
		return false
	}
	switch typ {
	case '1', '2', '3':
		mute := e.Mute&MuteAck != 0
		l.done()
		return !mute
	case 't':
		return e.Mute&MuteDesc == 0
	case 'T', 'n':
		mute := e.Mute&MuteDesc != 0
		if e.Reply != nil && typ == 'T' {
			e.Reply.Desc = append([]byte{}, body...)
		}
		if e.Kind == Describe {
			l.done()
		}
		return !mute
	case 'C', 'I', 's':
		l.Copying = false
		mute := e.Mute&MuteTag != 0
		if e.Unseen != nil && e.next() {
			return false
		}
		if e.Reply != nil && typ == 'C' && len(body) > 0 {
			mute = mute && e.Reply.Tags >= int(e.Reply.PassTags)
			e.Reply.Tag = string(body[:len(body)-1])
			e.Reply.Tags++
		}
		if e.Kind == Execute {
			l.done()
		}
		return !mute
	case 'G', 'W':
		if l.early > 0 {
			l.early--
		} else {
			l.Copying = true
		}
		if e.Reply != nil {
			e.Reply.CopyIn, e.Reply.Desc = true, append([]byte{}, body...)
		}
		return e.Mute&MuteCopy == 0
	case 'H', 'c':
		return e.Mute&MuteRows == 0
	case 'V':
		return e.Mute&MuteRows == 0
	case 'Z':
		if len(body) != 1 || (e.Kind != Sync && e.Kind != Query && e.Kind != Function) {
			l.broke()
			return false
		}
		l.Conn.TxStatus = body[0]
		l.Conn.Outstanding--
		l.Skipping, l.Copying = false, false
		mute := e.Mute&MuteReady != 0
		l.done()
		return !mute
	}
	l.broke() // a message that no server sends here
	return false
}

// EndCopy notes that the client's CopyDone or CopyFail goes to the server. It may have come before the server said that it
// takes copy data at all.
func (l *Link) EndCopy() {
	if !l.Copying {
		l.early, l.ended = l.early+1, len(l.queue)
	}
	l.Copying = false
}

// failed handles an ErrorResponse.
func (l *Link) failed(r *Relay, e *Expect, body []byte, st *stretch) (forward bool) {
	l.Copying = false
	err, bad := wire.DecodeError(body)
	if bad != nil {
		l.broke()
		return false
	}
	if e == nil || err.EndsSession() {
		// FATAL and PANIC end the connection: the client hears of it through the replies that it is owed.
		err.Severity, err.SeverityLocalized = wire.SeverityError, ""
		l.Err = err
		return false
	}
	if l.repeats(e, err) {
		return false
	}
	l.Errors++
	l.Code = err.Code
	if e.Instead != nil {
		l.Code = e.Instead.Code
	}
	if err.Code == wire.FeatureNotSupported && err.Routine == "RevalidateCachedQuery" {
		l.Stale = e.Statement
	}
	forward = e.Mute&MuteError == 0
	at := 0
	if e.Reply != nil {
		at = e.Reply.Tags
	}
	if e.Names != nil && e.Names.tell(err, at) && forward {
		st.cut(r)
		r.SetOut(wire.AppendErrorResponse(r.Out(), err))
		forward = false
	}
	if e.Instead != nil {
		st.cut(r)
		r.SetOut(wire.AppendErrorResponse(r.Out(), e.Instead))
		forward = false
	}
	if e.Reply != nil && e.Reply.Err == nil {
		e.Reply.Err = err
	}
	if e.Kind == Query || e.Kind == Function || e.Kind == Sync {
		return forward
	}
	var unparsed Unparsed
	for failing := e; e != nil && e.Kind != Sync; e = l.first() {
		if e.Kind == Parse {
			l.forget(e.Statement)
			if e.Undo == nil && e.Mute&MuteAck == 0 {
				if unparsed.To = e.Statement; unparsed.From == 0 {
					unparsed.From, unparsed.Failed = e.Statement, e == failing
				}
			}
		}
		if e.Undo != nil {
			e.Undo()
		}
		if e.Reply != nil && e.Reply.Err == nil {
			e.Reply.Err = err
		}
		l.done()
	}
	l.Conn.Statements.Settled()
	if unparsed.From != 0 {
		l.Unparsed = append(l.Unparsed, unparsed)
	}
	l.Skipping = l.first() == nil
	return forward
}

// repeats says whether the batch whose first request has just failed will be sent again: the server refuses the statement,
// not its execution, and nothing is queued behind the batch.
func (l *Link) repeats(e *Expect, err *wire.Error) bool {
	if !l.MayRepeat || !e.Again || e.Statement == 0 {
		return false
	}
	stale := err.Code == wire.FeatureNotSupported && err.Routine == "RevalidateCachedQuery"
	lost := err.Code == wire.InvalidSQLStatementName
	last := &l.queue[len(l.queue)-1]
	if !stale && !lost || last.Kind != Sync || !last.Again {
		return false
	}
	for i := l.head; i < len(l.queue)-1; i++ {
		if l.queue[i].Kind == Sync {
			return false
		}
	}
	l.Again = append([]Expect(nil), l.queue[l.head:len(l.queue)-1]...)
	last.Mute |= MuteReady
	for l.first() != last {
		l.pop(l.first())
	}
	return true
}

// Syncs is how many Syncs have not been answered.
func (l *Link) Syncs() (n uint64) {
	for i := l.head; i < len(l.queue); i++ {
		if l.queue[i].Kind == Sync {
			n++
		}
	}
	return n
}

// Fail answers all that the client is owed by a broken link: the error for the request in progress and each one
// behind it, and ReadyForQuery with status for each Sync and Query. It says whether a Sync is still to come, whose
// reply the proxy then owes itself.
func (l *Link) Fail(r *Relay, status byte) (syncOwed bool) {
	told := false
	if e := l.first(); e != nil && len(l.Again) > 0 { // the Sync of a batch that would have been sent again
		e.Mute = 0
	}
	for e := l.first(); e != nil; e = l.first() {
		if e.Reply != nil && e.Reply.Err == nil {
			e.Reply.Err = l.Err
		}
		if e.Undo != nil && (told || e.Kind != Synthetic) {
			e.Undo()
		}
		if e.Kind == Synthetic {
			if !told {
				r.Reply(e.Bytes)
			}
			l.done()
			continue
		}
		if !told && e.Mute&MuteError == 0 {
			r.SetOut(wire.AppendErrorResponse(r.Out(), l.Err))
			told = true
		}
		syncOwed = true
		if e.Kind == Sync || e.Kind == Query || e.Kind == Function {
			if e.Mute&MuteReady == 0 {
				r.SetOut(wire.AppendReadyForQuery(r.Out(), status))
			}
			told, syncOwed = false, false
		}
		l.done()
	}
	return syncOwed
}

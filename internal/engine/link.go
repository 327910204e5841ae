package engine

import (
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
	// Synced is how many Syncs the server was sent while it took copy data. They mean nothing to it if the COPY succeeds; if it fails, those
	// count that it reads behind that: Counted are those that it has answered then, up to the answer to an empty query, see Reply.Counts.
	Synced, Counted int
	// OutOfStep is set when the server has been sent what cannot stand amid copy data: it closes the connection.
	OutOfStep bool
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
	// own stream cannot be continued. Cause is for the log: why, nil where Err is the server's own.
	Err   *wire.Error
	Torn  bool
	Cause error

	out     []byte   // for the server, not yet accepted: out[sent:]
	queue   []Expect // the replies that are owed: queue[head:]
	sent    int
	held    bool // the relay has bytes of the client that the socket did not take
	amid    bool // ... or waits for the client's, amid a message
	begun   begun
	lossy   bool // something that was to be sent was not, since Err was set
	unbegun bool // Err is that of BEGIN
	in      buffer
	bulk    bulk
	rest    int  // bytes of a row or copy message still to come
	mute    bool // ... and they are not forwarded
	head    int
	parses  int // owed replies to requests that prepare a statement
	early   int // how often the client has ended a COPY that has not begun; what is queued before ended stands before that
	ended   int
	sole    int // the queue is one request's of Query or SendBatch while it has so many replies; 0: it is not known to be
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

// Free ends the use of a link; the caller must not touch it afterwards. Its connection is the caller's. What it still owes nobody is to hear.
func (l *Link) Free() {
	clear(l.queue) // its memory is the next one's, see owe
	l.in.drop()    // what was written late is on its way: else the answer would not be there, or the connection closed
	task, out, queue := l.in.task, l.out[:0], l.queue[:0]
	if cap(out) > maxKept {
		out = nil
	}
	*l = Link{out: out, queue: queue}
	links.Put(task, l)
}

// Idle says that no reply is owed and nothing waits to be sent.
func (l *Link) Idle() bool { return l.head == len(l.queue) && len(l.out) == 0 && l.rest == 0 }

// What a server is sent leaves in one of these ways, in order with all that was kept before:
//
//	Out and SetOut, Queue    with the relay's next Step
//	Gather                   with the next Step, or when so much has come together that a server should begin with it
//	Send                     at once
//	Query, SendBatch         of an idle link: behind the round of the loop, with what other sessions send (fastpath.go)
//	Relay.Pass, PassCopy     at once, and the client's bytes stay where they were read until the socket takes them

// Send gives bytes to the server: as many as its socket takes now, the rest is kept (see Relay.Pass for large ones).
func (l *Link) Send(b []byte) {
	if l.Err != nil {
		l.lossy = true
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
		l.lossy = true
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
		l.broke(err)
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
		l.broke(err)
		return true
	}
	if l.out, l.sent = unsent(l.out, l.sent); len(l.out) == 0 && cap(l.out) > 2*maxPending {
		l.out = nil
	}
	return n > 0
}

// unsent drops what was sent of out once that is no less than the rest: to move the rest costs no more than to write the other was, and
// a socket that takes all of it bit by bit, but never everything, does not make it grow.
func unsent(out []byte, sent int) ([]byte, int) {
	if sent < len(out)-sent {
		return out, sent
	}
	return out[:copy(out, out[sent:])], 0
}

package engine

import (
	"sync"

	"github.com/tidemarkdb/tidemark/internal/loop"
)

// chunkSize is what one read takes from a socket, and so what a busy connection holds. Idle ones hold nothing.
const chunkSize = 32 << 10

// bulkSize is the same for a connection that delivers in bulk.
const bulkSize = 2 * bulkWater

type (
	chunk     [chunkSize]byte
	bulkChunk [bulkSize]byte
)

var (
	chunks     = loop.NewPool(func() *chunk { return new(chunk) })
	bulkChunks = sync.Pool{New: func() any { return new(bulkChunk) }}
)

// buffer holds bytes that were read and not yet consumed: b[r:w]. Its memory is a pooled chunk, given back whenever
// the buffer runs empty, or, for one frame that is larger, memory of its own that is dropped then.
type buffer struct {
	task *loop.Task // whose it is
	all  *Memory    // that chunks for bulk and memory of its own are taken from; nil: these are not counted
	own  int        // bytes of it
	b    []byte
	r, w int
	pool *chunk     // whose memory b is, or
	big  *bulkChunk // this one's
}

func (b *buffer) bytes() []byte { return b.b[b.r:b.w] }
func (b *buffer) len() int      { return b.w - b.r }

// space returns room to read into: at least one byte, unless the buffer is full with unread bytes. In bulk an empty buffer
// begins larger.
func (b *buffer) space(bulk bool) []byte {
	switch {
	case b.b != nil:
	case bulk && b.all.take(bulkSize):
		b.big = bulkChunks.Get().(*bulkChunk)
		b.b = b.big[:]
	default:
		b.pool = chunks.Get(b.task)
		b.b = b.pool[:]
		return b.b
	}
	if b.w == len(b.b) && b.r > 0 {
		b.w = copy(b.b, b.b[b.r:b.w])
		b.r = 0
	}
	return b.b[b.w:]
}

// full says that nothing can be read before something is consumed.
func (b *buffer) full() bool { return b.b != nil && b.w-b.r == len(b.b) }

// grow makes room for a frame of n bytes in all, or for a part of it; false where there is no memory for that.
func (b *buffer) grow(n int) bool {
	if b.r > 0 {
		b.w = copy(b.b, b.b[b.r:b.w])
		b.r = 0
	}
	if n <= len(b.b) {
		return true
	}
	// Doubling keeps a frame of a length that was only announced from taking memory before its bytes have come.
	size := min(n, max(2*len(b.b), 2*chunkSize))
	if !b.all.take(size) {
		return false
	}
	big := make([]byte, size)
	copy(big, b.b[:b.w])
	b.put()
	b.b, b.own = big, size
	return true
}

// replace puts p, which is of other memory, in the place of the first n unread bytes.
func (b *buffer) replace(n int, p []byte) {
	size := len(p) + b.len() - n
	to := b.b
	if size > len(to) {
		to = make([]byte, size)
	}
	copy(to[len(p):], b.b[b.r+n:b.w])
	copy(to, p)
	if size > len(b.b) {
		if b.put(); size > chunkSize {
			b.own = size
			b.all.add(size)
		}
	}
	b.b, b.r, b.w = to, 0, size
}

func (b *buffer) consume(n int) {
	if b.r += n; b.r == b.w {
		b.release()
	}
}

// shrink gives a chunk for bulk back where a small one will do: the rest of what is in it may be long in coming.
func (b *buffer) shrink() {
	if b.big == nil || b.len() > chunkSize {
		return
	}
	small := chunks.Get(b.task)
	n := copy(small[:], b.bytes())
	b.put()
	b.b, b.pool, b.r, b.w = small[:], small, 0, n
}

// release gives the memory back when nothing unread is in it.
func (b *buffer) release() {
	if b.b == nil || b.r != b.w {
		return
	}
	b.put()
	b.b, b.r, b.w = nil, 0, 0
}

// put gives pooled memory back.
func (b *buffer) put() {
	if b.pool != nil {
		chunks.Put(b.task, b.pool)
		b.pool = nil
	}
	if b.big != nil {
		bulkChunks.Put(b.big)
		b.all.give(bulkSize)
		b.big = nil
	}
	if b.own > 0 {
		b.all.give(b.own)
		b.task.Dropped(b.own)
		b.own = 0
	}
}

// drop forgets everything.
func (b *buffer) drop() {
	b.r, b.w = 0, 0
	b.release()
}

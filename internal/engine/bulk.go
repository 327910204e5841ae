package engine

import (
	"time"

	"github.com/tidemarkdb/tidemark/internal/loop"
)

// bulk notices that one connection delivers a large result or a COPY, and has the kernel collect more of it before it wakes
// the relay: PostgreSQL and libpq hand over 8 KiB at a time, and a wake-up, a read and a write for each cost several times
// as much as moving the bytes.
type bulk struct {
	full  int // reads in a row that brought at least pieceSize
	tired int // times in a row that the kernel did not collect enough in time
	on    bool
}

const (
	pieceSize = 8 << 10
	bulkAfter = 16        // so many full reads in a row; fewer for a stream that was in bulk before
	bulkWater = 128 << 10 // bytes that the kernel collects
	// bulkPatience is how long it may take. A stream that is slower is read as it comes again; the end of each one is
	// late by so much at most.
	bulkPatience = 2 * time.Millisecond
)

// read notes that n bytes have come.
func (b *bulk) read(io *loop.Conn, n int) {
	if n >= pieceSize || *b != (bulk{}) {
		b.noted(io, n)
	}
}

func (b *bulk) noted(io *loop.Conn, n int) {
	switch {
	case n < pieceSize:
		b.end(io)
	case b.on:
		if n >= bulkWater {
			b.tired = 0
		}
	default:
		if b.full++; b.full >= bulkAfter {
			b.full, b.on = 0, io.LowWater(bulkWater)
		}
	}
}

// end has the connection read as it comes.
func (b *bulk) end(io *loop.Conn) {
	if *b != (bulk{}) {
		b.off(io)
		*b = bulk{}
	}
}

// late has what the kernel collected in time read. A busy machine is no slow stream: the first few times collecting goes on
// soon.
func (b *bulk) late(io *loop.Conn) {
	if !b.on {
		return
	}
	b.tired++
	b.full = max(0, bulkAfter-1<<min(b.tired, 8))
	b.off(io)
}

func (b *bulk) off(io *loop.Conn) {
	if b.on {
		b.on = false
		io.LowWater(1)
	}
}

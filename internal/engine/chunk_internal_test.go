package engine

import (
	"bytes"
	"testing"

	"github.com/tidemarkdb/tidemark/internal/loop"
)

func TestBufferReplace(t *testing.T) {
	for _, n := range []int{0, 3, chunkSize - 10, 3 * chunkSize} {
		m := &Memory{Limit: func() int { return 0 }} // what replaces a message is never refused
		b := buffer{task: &loop.Task{}, all: m}
		copy(b.space(false), "xxoldnext")
		b.w = len("xxoldnext")
		b.consume(2)
		p := bytes.Repeat([]byte("n"), n)
		b.replace(len("old"), p)
		if want := append(p, "next"...); !bytes.Equal(b.bytes(), want) {
			t.Errorf("%d bytes in place of 3: %d are there, want %d", n, b.len(), len(want))
		}
		if size, counted := b.len(), m.Used(); size > chunkSize && size != counted || size <= chunkSize && counted != 0 {
			t.Errorf("%d bytes in place of 3: %d are counted", n, counted)
		}
		if b.consume(b.len()); b.b != nil || m.Used() != 0 {
			t.Errorf("%d bytes in place of 3: an empty buffer holds memory", n)
		}
	}
}

// A chunk for bulk is counted while it is in use, and there is none where there is no memory for it.
func TestBufferInBulk(t *testing.T) {
	m := &Memory{Limit: func() int { return 2*bulkSize - 1 }}
	a, b := buffer{task: &loop.Task{}, all: m}, buffer{task: &loop.Task{}, all: m}
	if n := len(a.space(true)); n != bulkSize || m.Used() != bulkSize {
		t.Errorf("the first has %d bytes, of which %d are counted", n, m.Used())
	}
	if n := len(b.space(true)); n != chunkSize || m.Used() != bulkSize {
		t.Errorf("the second has %d bytes; %d are counted", n, m.Used())
	}
	a.w = copy(a.space(true), bytes.Repeat([]byte("m"), chunkSize+5))
	if a.shrink(); m.Used() != bulkSize {
		t.Errorf("shrunk amid more than a small chunk takes")
	}
	a.consume(7)
	if a.shrink(); m.Used() != 0 || a.len() != chunkSize-2 || len(a.b) != chunkSize {
		t.Errorf("shrunk, %d bytes of %d are there, and %d are counted", a.len(), len(a.b), m.Used())
	}
	if b.space(true); !b.grow(2*chunkSize) || m.Used() != 2*chunkSize {
		t.Errorf("grown, %d bytes are counted", m.Used())
	}
	a.drop()
	if b.drop(); m.Used() != 0 {
		t.Errorf("dropped, %d bytes are counted", m.Used())
	}
}

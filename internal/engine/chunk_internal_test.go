package engine

import (
	"bytes"
	"testing"

	"github.com/tidemarkdb/tidemark/internal/loop"
)

func TestBufferReplace(t *testing.T) {
	for _, n := range []int{0, 3, chunkSize - 10, 3 * chunkSize} {
		b := buffer{task: &loop.Task{}}
		copy(b.space(false), "xxoldnext")
		b.w = len("xxoldnext")
		b.consume(2)
		p := bytes.Repeat([]byte("n"), n)
		b.replace(len("old"), p)
		if want := append(p, "next"...); !bytes.Equal(b.bytes(), want) {
			t.Errorf("%d bytes in place of 3: %d are there, want %d", n, b.len(), len(want))
		}
		if b.consume(b.len()); b.b != nil {
			t.Errorf("%d bytes in place of 3: an empty buffer holds memory", n)
		}
	}
}

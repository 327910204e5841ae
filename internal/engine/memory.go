package engine

import (
	"sync/atomic"
	"time"

	"github.com/tidemarkdb/tidemark/internal/wire"
)

// Memory is what messages that are read whole may take, of all clients together, where that is more than a connection in use has
// anyway. Its functions say what is allowed now.
type Memory struct {
	// Limit is in bytes.
	Limit func() int
	// Pause is how long a client that has taken some may pause in the middle of its message.
	Pause func() time.Duration

	used atomic.Int64
}

// Used is how many bytes are taken now.
func (m *Memory) Used() int { return int(m.used.Load()) }

// take reports whether n more bytes are allowed. A nil Memory allows all.
func (m *Memory) take(n int) bool {
	if m == nil {
		return true
	}
	if m.used.Add(int64(n)) <= int64(m.Limit()) {
		return true
	}
	m.give(n)
	return false
}

// add takes n bytes that nobody can do without any more.
func (m *Memory) add(n int) {
	if m != nil {
		m.used.Add(int64(n))
	}
}

func (m *Memory) give(n int) {
	if m != nil {
		m.used.Add(-int64(n))
	}
}

func (m *Memory) refusal(size int) *wire.Error {
	return wire.Errorf(wire.OutOfMemory, "no memory for a message of %d bytes", size).
		WithDetail("Large messages of all clients may take %d bytes together, and take %d.", m.Limit(), m.Used()).
		WithHint("Try again, raise clients.message_memory of the proxy, or send large values by COPY.")
}

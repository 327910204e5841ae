package loop

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"
)

// Engine runs tasks and owns the connections that they use. There are two: NewEpoll (coroutines on event loops, Linux)
// and NewGoroutines (a goroutine per task, over any net.Conn). Session code cannot tell them apart; one conformance
// suite runs on both.
type Engine interface {
	// Adopt takes nc over: on success nc itself must not be used again, and Conn.Close closes it; after an error nc is
	// unchanged and still the caller's. The epoll engine accepts *net.TCPConn, *net.UnixConn, what Wrap returned, and
	// *tls.Conn (handshake complete) over what Wrap returned; it therefore also accepts pgconn's HijackedConn.Conn
	// after SyncConn, when the DialFunc returned Wrap(conn). The goroutine engine accepts any net.Conn. Deadlines
	// that were set on nc no longer apply.
	Adopt(nc net.Conn) (*Conn, error)

	// Listen accepts connections from ln, which is the Listener's from then on; after an error it is still the caller's. The epoll engine
	// takes a *net.TCPListener or a *net.UnixListener.
	Listen(ln net.Listener) (*Listener, error)

	// Wrap prepares a fresh connection for a login in an ordinary goroutine: it returns a blocking net.Conn over nc,
	// to be used instead of nc, that Adopt (also of a *tls.Conn over it) can later turn non-blocking.
	Wrap(nc net.Conn) net.Conn

	// Go runs f as a task. The task ends when f returns; a panic in f ends that task only and is reported.
	// f must not hold a mutex across Wait or Await, and must not call runtime.LockOSThread.
	// On a closed engine f still runs, so that it can release what it holds, and its Waits return Closing.
	Go(f func(t *Task))

	// Close makes every Wait return Closing and waits until all tasks have ended (and connections that were closed
	// with unsent TLS data have sent it, within their linger time, or that peers of Finish have read to the end). When ctx ends first, tasks
	// that still wait are unwound (their deferred functions run) and Close returns an error that wraps ctx's; not where only such
	// connections are left. Adopt fails from then on.
	Close(ctx context.Context) error

	// Stats returns counters since the engine started. Safe from any goroutine.
	Stats() Stats
}

// ErrWouldBlock is what Conn.Read and Conn.Write return when nothing more is possible now. Wait for readiness, then call
// again. It is a Temporary net.Error, because crypto/tls resumes a read after such an error and after no other.
var ErrWouldBlock error = wouldBlock{}

type wouldBlock struct{}

func (wouldBlock) Error() string   { return "loop: operation would block" }
func (wouldBlock) Timeout() bool   { return false }
func (wouldBlock) Temporary() bool { return true }

// ErrEngineClosed is returned by Adopt after Close.
var ErrEngineClosed = errors.New("loop: engine is closed")

// Interest says which readiness of a connection a task waits for.
type Interest uint8

// What can be waited for. Readiness is a hint: after Ready a Read or Write may still return ErrWouldBlock.
const (
	Readable Interest = 1 << iota // a Read may return data, the end of the stream or an error
	Writable                      // a Write may take data or return an error
	Hangup                        // the peer has closed its sending side, or the connection is broken
)

// Source is one member of a wait set. A nil Conn is ignored, so that a set can have optional members.
type Source struct {
	Conn *Conn
	For  Interest
}

// Cause says why Wait returned.
type Cause uint8

// The causes of a return, in the order of precedence Closing, Woken, Ready, Timeout when several hold.
const (
	Ready   Cause = iota // at least one source is ready; ask the Conns which
	Woken                // Wake was called
	Timeout              // the deadline has passed
	Closing              // the engine is shutting down: release everything and return
)

// String returns the cause's name.
func (c Cause) String() string {
	switch c {
	case Ready:
		return "ready"
	case Woken:
		return "woken"
	case Timeout:
		return "timeout"
	case Closing:
		return "closing"
	}
	return fmt.Sprintf("cause(%d)", uint8(c))
}

// Stats counts what an engine did. Batches, Polls, Sleeps, Wakeups, Migrations, Stalls and Busy stay zero in the goroutine engine.
type Stats struct {
	Tasks      int64     // tasks alive now
	Started    uint64    // tasks started
	Panics     uint64    // tasks ended by a panic
	Resumes    uint64    // times a task was resumed
	Rests      uint64    // waits without a stack, see Task.Rest
	Batches    uint64    // times that several messages were sent by one system call
	Stalls     uint64    // rounds of tasks that held their loop longer than EpollConfig.StallAfter
	Polls      uint64    // non-blocking polls for events
	Sleeps     uint64    // times a loop blocked because it had nothing to do
	Wakeups    uint64    // times a sleeping loop was woken by another thread
	Migrations uint64    // tasks moved to another loop
	Busy       []float64 // of each loop: fraction of the last balancing window spent on a CPU, 0 to 1
}

// PanicFunc is told about a task that panicked: the value, and the stack of the panic.
type PanicFunc func(value any, stack []byte)

func logPanic(value any, stack []byte) {
	slog.Default().Error("a task panicked and was ended; other tasks go on", "panic", fmt.Sprint(value), "stack", string(stack))
}

// Limits and defaults that both engines share.
const (
	defaultTLSBuffer  = 64 << 10
	defaultLinger     = 5 * time.Second
	defaultStallAfter = 10 * time.Millisecond
)

// EpollConfig configures NewEpoll. The zero value is a good default.
type EpollConfig struct {
	// Loops is the number of event loops. Default: GOMAXPROCS at process start, at least 1. NewEpoll raises
	// GOMAXPROCS to at least one more than all loops of the process, because loops that never sleep would starve
	// every other goroutine.
	Loops int
	// NoUring keeps loops from sending several messages by one system call where the system has io_uring.
	NoUring bool
	// StallAfter is how long tasks may hold their loop, without events being taken in, before that counts as a stall. Default 10 ms.
	StallAfter time.Duration
	// TLSBuffer bounds, in bytes, the encrypted data that waits for a slow peer, per TLS connection. Default 64 KiB.
	TLSBuffer int
	// Linger is how long Conn.Close may keep a connection to send what is still in the TLS buffer. Default 5 s.
	Linger time.Duration
	// Panic is told about panics in tasks. Default: an error in slog.Default.
	Panic PanicFunc
}

// withDefaults fills in what is not set, and refuses what makes no sense.
func (c EpollConfig) withDefaults() (EpollConfig, error) {
	if c.Loops < 0 || c.StallAfter < 0 || c.TLSBuffer < 0 || c.Linger < 0 {
		return c, fmt.Errorf("loop: negative value in configuration: loops %d, stall after %s, TLS buffer %d, linger %s",
			c.Loops, c.StallAfter, c.TLSBuffer, c.Linger)
	}
	if c.Loops == 0 {
		c.Loops = max(1, procsAtStart)
	}
	if c.StallAfter == 0 {
		c.StallAfter = defaultStallAfter
	}
	if c.TLSBuffer == 0 {
		c.TLSBuffer = defaultTLSBuffer
	}
	if c.Linger == 0 {
		c.Linger = defaultLinger
	}
	if c.Panic == nil {
		c.Panic = logPanic
	}
	return c, nil
}

// Config chooses an engine and configures it.
type Config struct {
	// Engine is "epoll", "goroutines", or "auto" (also ""): epoll where the system has it.
	Engine string
	// Epoll configures the epoll engine; Linger and Panic also apply to the goroutine engine.
	Epoll EpollConfig
}

// New returns the engine that cfg names.
func New(cfg Config) (Engine, error) {
	switch cfg.Engine {
	case "", "auto":
		if epollSupported {
			return NewEpoll(cfg.Epoll)
		}
	case "epoll":
		return NewEpoll(cfg.Epoll)
	case "goroutines":
	default:
		return nil, fmt.Errorf(`loop: unknown engine %q: use "auto", "epoll" or "goroutines"`, cfg.Engine)
	}
	return NewGoroutinesWith(GoroutinesConfig{Linger: cfg.Epoll.Linger, Panic: cfg.Epoll.Panic}), nil
}

package notify

import (
	"sync"
	"sync/atomic"

	"github.com/tidemarkdb/tidemark/internal/backend"
	"github.com/tidemarkdb/tidemark/internal/loop"
	"github.com/tidemarkdb/tidemark/internal/wire"
)

// Subscriber is one session that listens. Its methods are the session's; its task is woken when a request is answered and
// when there is something to take.
type Subscriber struct {
	hub  *Hub
	id   *backend.Identity
	pid  uint32
	task *loop.Task

	// Guarded by the lock of its listener:
	channels map[string]struct{}
	closed   bool

	waiting atomic.Bool // inbox is not empty, or err is set
	mu      sync.Mutex  // guards what follows
	inbox   []*notification
	bytes   int
	err     *wire.Error // it hears nothing any more
}

// notification is one NotificationResponse, shared by all who hear it.
type notification struct {
	channel string
	frame   []byte
}

// overhead is what one notification takes beside its frame, in bytes.
const overhead = 64

// Request is what a subscriber waits for: channels, or a fence if there are none.
type Request struct {
	sub      *Subscriber
	channels []string

	err  *wire.Error // valid when done
	done atomic.Bool
}

// Done says whether the request has been answered. The subscriber's task is woken then.
func (r *Request) Done() bool { return r.done.Load() }

// Err is why it failed; valid when it is done. It is fatal where notifications may be lost for good.
func (r *Request) Err() *wire.Error { return r.err }

func (r *Request) answer(err *wire.Error) {
	r.err = err
	r.done.Store(true)
	r.sub.task.Wake()
}

// Listen asks to hear channels: all that is committed there after the request has been answered, and nothing that was
// committed before it was made.
func (s *Subscriber) Listen(channels []string) *Request {
	r := &Request{sub: s, channels: channels}
	s.hub.send(r)
	return r
}

// Fence asks for an answer behind everything that has been committed by now.
func (s *Subscriber) Fence() *Request { return s.Listen(nil) }

// Keep has the subscriber hear none but these channels, of those that it hears.
func (s *Subscriber) Keep(channels map[string]bool) {
	if l := s.hub.listenerOf(s); l != nil {
		l.keep(s, channels)
	}
}

// Close ends the subscription.
func (s *Subscriber) Close() {
	l := s.hub.listenerOf(s)
	if l == nil {
		return
	}
	l.mu.Lock()
	s.closed = true
	l.mu.Unlock()
	l.keep(s, nil)
}

// Sends says that what the server process sends from now on is this subscriber's. Sent ends that; notifications that may
// still be under way then carry the server's own process id.
func (s *Subscriber) Sends(server uint32) {
	if l := s.hub.listenerOf(s); l != nil {
		l.mu.Lock()
		l.senders[server] = s.pid
		l.mu.Unlock()
	}
}

// Sent ends Sends.
func (s *Subscriber) Sent(server uint32) {
	if l := s.hub.listenerOf(s); l != nil {
		l.mu.Lock()
		delete(l.senders, server)
		l.mu.Unlock()
	}
}

// Waiting says whether there is something to take, or an error to look at. It costs one load.
func (s *Subscriber) Waiting() bool { return s.waiting.Load() }

// Err is why the subscriber hears nothing any more, nil while it does. It ends the session.
func (s *Subscriber) Err() *wire.Error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Take appends what has been heard on the channels given, in order, to dst while that has less than most bytes. What was
// heard on others is forgotten.
func (s *Subscriber) Take(dst []byte, channels map[string]bool, most int) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, x := range s.inbox {
		if len(dst) >= most {
			break
		}
		if channels[x.channel] {
			dst = append(dst, x.frame...)
		}
		s.bytes -= len(x.frame) + overhead
		n++
	}
	if n == len(s.inbox) {
		s.inbox = nil // an idle session holds no memory for it
	} else {
		s.inbox = append(s.inbox[:0:0], s.inbox[n:]...)
	}
	s.waiting.Store(len(s.inbox) > 0 || s.err != nil)
	return dst
}

// hear takes a notification into the inbox. Who has no room for it hears nothing any more.
func (s *Subscriber) hear(x *notification, limit int) {
	s.mu.Lock()
	switch bytes := s.bytes + len(x.frame) + overhead; {
	case s.err != nil:
	case bytes > limit:
		s.inbox, s.bytes = nil, 0
		s.err = errCrowded(bytes, limit)
	default:
		s.inbox, s.bytes = append(s.inbox, x), bytes
	}
	s.waiting.Store(true)
	s.mu.Unlock()
	s.task.Wake()
}

// fail has the subscriber hear nothing any more.
func (s *Subscriber) fail(err *wire.Error) {
	s.mu.Lock()
	if s.err == nil {
		s.inbox, s.bytes, s.err = nil, 0, err
	}
	s.waiting.Store(true)
	s.mu.Unlock()
	s.task.Wake()
}

func errCrowded(bytes, limit int) *wire.Error {
	return wire.Errorf(wire.ConfigurationLimitExceeded, "terminating connection because too many notifications wait for it").
		WithDetail("They take %d bytes, of %d at most.", bytes, limit).
		WithHint("Read them sooner, keep transactions short in sessions that listen, or raise clients.max_notifications.").Fatal()
}

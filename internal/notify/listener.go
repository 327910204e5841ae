package notify

import (
	"strings"
	"sync"

	"github.com/tidemarkdb/tidemark/internal/backend"
	"github.com/tidemarkdb/tidemark/internal/loop"
	"github.com/tidemarkdb/tidemark/internal/wire"
)

// listener is one shared listening connection: who hears what, and what is asked of it. serve.go is its task.
//
//	request made -> requests -> (a round is sent) asked -> (ReadyForQuery) answered, its channels have a member
//
// It begins with the first request of its identity and ends when nobody hears anything and nothing is asked for, or when
// its connection is lost: then everybody who hears something is told.
type listener struct {
	hub *Hub
	id  *backend.Identity

	mu       sync.Mutex
	task     *loop.Task // nil until it runs
	pid      uint32     // of the server process; 0 until there is one
	members  map[string]map[*Subscriber]struct{}
	subs     map[*Subscriber]struct{} // who hears something
	idle     []string                 // channels that nobody hears any more, to be unlistened
	requests []*Request               // not sent yet
	asked    []*Request               // in the round under way
	senders  map[uint32]uint32        // server process -> the process id of the client that it works for
}

func newListener(h *Hub, id *backend.Identity) *listener {
	return &listener{
		hub: h, id: id, members: map[string]map[*Subscriber]struct{}{}, subs: map[*Subscriber]struct{}{}, senders: map[uint32]uint32{},
	}
}

func (l *listener) wake() {
	l.mu.Lock()
	t := l.task
	l.mu.Unlock()
	if t != nil {
		t.Wake()
	}
}

// keep is Subscriber.Keep.
func (l *listener) keep(s *Subscriber, channels map[string]bool) {
	l.mu.Lock()
	for name := range s.channels {
		if channels[name] {
			continue
		}
		delete(s.channels, name)
		delete(l.members[name], s)
		if len(l.members[name]) == 0 {
			l.idle = append(l.idle, name)
		}
	}
	if len(s.channels) == 0 {
		delete(l.subs, s)
	}
	todo := len(l.idle) > 0
	l.mu.Unlock()
	if todo {
		l.wake()
	}
}

// compose is the query of the next round, in which all requests that have come are asked; false when there is nothing to
// ask. A round that only fences is an empty query.
func (l *listener) compose() (sql string, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.requests) == 0 && len(l.idle) == 0 {
		return "", false
	}
	var b strings.Builder
	for _, name := range l.idle {
		if subs, is := l.members[name]; is && len(subs) == 0 {
			delete(l.members, name)
			b.WriteString("UNLISTEN " + quote(name) + ";")
		}
	}
	l.idle = l.idle[:0]
	l.asked, l.requests = append(l.asked, l.requests...), l.requests[:0]
	said := map[string]bool{}
	for _, r := range l.asked {
		for _, name := range r.channels {
			if len(l.members[name]) == 0 && !said[name] {
				said[name] = true
				b.WriteString("LISTEN " + quote(name) + ";")
			}
		}
	}
	return b.String(), true
}

func quote(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// answered ends a round.
func (l *listener) answered() {
	l.mu.Lock()
	asked := l.asked
	l.asked = nil
	for _, r := range asked {
		for _, name := range r.channels {
			subs := l.members[name]
			if subs == nil {
				subs = map[*Subscriber]struct{}{}
				l.members[name] = subs
			}
			if r.sub.closed {
				if len(subs) == 0 {
					l.idle = append(l.idle, name)
				}
				continue
			}
			subs[r.sub] = struct{}{}
			r.sub.channels[name] = struct{}{}
			l.subs[r.sub] = struct{}{}
		}
	}
	l.mu.Unlock()
	for _, r := range asked {
		r.answer(nil)
	}
}

// dispatch gives a notification to everybody who hears its channel.
func (l *listener) dispatch(n wire.Notification) {
	limit := l.hub.limit()
	l.mu.Lock()
	defer l.mu.Unlock()
	subs := l.members[string(n.Channel)]
	if len(subs) == 0 {
		return
	}
	pid := n.PID
	if told, ok := l.senders[pid]; ok {
		pid = told
	}
	x := &notification{channel: string(n.Channel), frame: wire.AppendNotification(nil, pid, n.Channel, n.Payload)}
	for s := range subs {
		s.hear(x, limit)
	}
}

// finished ends a listener that nobody needs any more; false when somebody does.
func (l *listener) finished() bool {
	h := l.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.subs) > 0 || len(l.requests) > 0 || len(l.asked) > 0 {
		return false
	}
	l.leave()
	return true
}

// fail ends a listener that can do no more: its requests are answered by cause, and who hears something by lost.
func (l *listener) fail(cause, lost *wire.Error) {
	h := l.hub
	h.mu.Lock()
	l.mu.Lock()
	l.leave()
	failed := append(l.asked, l.requests...)
	l.asked, l.requests = nil, nil
	for s := range l.subs {
		s.fail(lost)
	}
	l.mu.Unlock()
	h.mu.Unlock()
	plain := *cause
	plain.Severity, plain.SeverityLocalized = wire.SeverityError, ""
	for _, r := range failed {
		if err := r.sub.Err(); err != nil {
			r.answer(err)
		} else {
			r.answer(&plain) // it hears nothing yet, and has lost nothing
		}
	}
}

// leave takes the listener out of the hub. Callers hold both locks.
func (l *listener) leave() {
	if w := whoIs(l.id); l.hub.by[w] == l {
		delete(l.hub.by, w)
	}
}

package proxy

import (
	"errors"

	"github.com/tidemarkdb/tidemark/internal/backend"
	"github.com/tidemarkdb/tidemark/internal/engine"
	"github.com/tidemarkdb/tidemark/internal/loop"
	"github.com/tidemarkdb/tidemark/internal/wire"
	"github.com/tidemarkdb/tidemark/router"
)

// A session of the fast path that has to wait for a server connection takes its place in a pool's queue, and rests with its request read
// and not looked at any further: thousands may wait without a stack. When its turn comes it goes on from the beginning of the request, for
// the schema may be another by then.

// server finds a connection for in, a request with plan p, and begins there the transaction that the client has begun. Where l is nil the
// session has queued for one, and done is true, or the client was told why it gets none. The input may have moved.
func (s *session) server(p *router.Plan, in []byte) (l *engine.Link, input []byte, done bool, err error) {
	if l = s.link; l != nil { // it has queued for that
		if l.Shard != s.p.shard(p, 0) {
			return nil, nil, false, nil
		}
		return l, in, false, nil
	}
	sh := s.p.shards[p.Shards[0]]
	e, err := sh.Primary()
	simple := err == nil && !sh.Replicated() && !s.p.gate.any.Load()
	if simple {
		if l = s.atHand(sh, e); l != nil {
			l, err = s.preface(l, nil)
			return l, in, false, err
		}
	}
	s.KeepPeeked()
	if !simple {
		l, err = s.acquire(sh.Name(), s.access(p))
	} else if conn, w, none := e.Enqueue(s.Task, s.identity); w != nil {
		s.place, s.drawn = w, true
		return nil, nil, true, nil
	} else {
		l, err = s.got(sh.Name(), conn, none)
		l, err = s.preface(s.fit(l, backend.Write, err))
	}
	if err != nil {
		return nil, nil, false, s.unserved(err, len(in))
	}
	return l, s.Input(), false, nil
}

// atHand is a link on a connection of e that can be used as it is, at once; else nil.
func (s *session) atHand(sh *backend.Shard, e *backend.Endpoint) *engine.Link {
	conn := e.AtHand(s.Task, s.identity)
	if conn == nil {
		return nil
	}
	if conn.Settings != s.settings.print {
		conn.Release()
		return nil
	}
	l := engine.NewLink(s.Task, conn, sh.Name())
	l.Since = s.Task.Clock()
	s.meter(l.Shard).Wait.record(0)
	s.engage(l)
	s.tell(l)
	return l
}

// dequeue goes on with the request of a session that has queued, if it has its answer; else done is true, and it waits on.
func (s *session) dequeue(cause loop.Cause) (done bool, err error) {
	w := s.place
	shard := w.Shard()
	conn, err := w.Answer(cause, s.Client)
	if conn == nil && err == nil {
		return true, nil
	}
	s.place = nil
	n := len(s.Input())
	if errors.Is(err, backend.ErrClientGone) && s.Terminates() {
		_, err = s.acquire(shard, backend.Write)
	} else {
		var l *engine.Link
		l, err = s.got(shard, conn, err)
		_, err = s.preface(s.fit(l, backend.Write, err))
	}
	if err != nil {
		return false, s.unserved(err, n)
	}
	return s.request(s.Input())
}

// unserved tells the client why its request of n bytes gets no server.
func (s *session) unserved(err error, n int) error {
	if s.Input()[0] == wire.MsgParse {
		s.syncs++
	}
	s.Consume(n)
	s.drawn = false
	return s.failed(err)
}

package proxy

import (
	"errors"
	"time"

	"github.com/tidemarkdb/tidemark/internal/backend"
	"github.com/tidemarkdb/tidemark/internal/engine"
	"github.com/tidemarkdb/tidemark/internal/loop"
	"github.com/tidemarkdb/tidemark/internal/lsn"
	"github.com/tidemarkdb/tidemark/internal/wire"
)

// acquire begins to use a connection to a shard, brings it to the session's settings and, in a transaction, says the
// preamble. It becomes the session's link.
func (s *session) acquire(shard string, access backend.Access) (*engine.Link, error) {
	return s.preface(s.reach(shard, access))
}

// preface says the preamble to a link that was reached.
func (s *session) preface(l *engine.Link, err error) (*engine.Link, error) {
	if err == nil && s.tx.state == txBegun && s.strung != nil {
		err = s.prepareAhead(l)
	}
	if err == nil && s.tx.state == txBegun {
		begin, rest := s.tx.said()
		if l.Begin(begin); len(rest) > 0 {
			l.SetOut(wire.AppendQuery(l.Out(), rest))
			l.Expect(engine.Expect{Kind: engine.Query, Mute: engine.MuteAll &^ engine.MuteError})
		}
		s.tx.state = txOpen
	}
	return l, err
}

// reach is acquire outside of the session's transaction.
func (s *session) reach(shard string, access backend.Access) (*engine.Link, error) {
	l, err := s.connect(shard, access)
	return s.fit(l, access, err)
}

// fit makes l the session's link, and brings its connection to the session's settings. Where it cannot have them another one is
// reached.
func (s *session) fit(l *engine.Link, access backend.Access, err error) (*engine.Link, error) {
	if err != nil {
		return nil, err
	}
	s.engage(l)
	if l.Conn.Settings != s.settings.print {
		if err := s.synchronize(l); err != nil {
			again := s.usedTemporary(l, err)
			l.Conn.Spoilt = l.Conn.Spoilt || again
			shard, told := l.Shard, s.reported // release gives l back, of which the client has been told nothing
			s.release()
			if s.reported = told; again {
				return s.reach(shard, access)
			}
			return nil, err
		}
	}
	s.tell(l)
	if s.ear != nil && s.ear.prime {
		s.primeChannels(l)
	}
	return l, nil
}

// engage makes l the session's link.
func (s *session) engage(l *engine.Link) {
	s.link = l
	s.useUnlessPinned(l)
	s.client.hold(l.Conn)
	s.last.conn(l)
}

// connect takes a connection out of a pool.
func (s *session) connect(shard string, access backend.Access) (*engine.Link, error) {
	if s.traced == nil {
		return s.linkTo(shard, access)
	}
	from := loop.Clock()
	l, err := s.linkTo(shard, access)
	s.traced.acquired(shard, l, from, err)
	return l, err
}

// linkTo is connect without the trace.
func (s *session) linkTo(shard string, access backend.Access) (*engine.Link, error) {
	if len(s.pins) > 0 && s.pins[shard] != nil {
		return s.pins[shard], nil
	}
	if s.p.gate.any.Load() {
		if err := s.awaitResume(shard); err != nil {
			return nil, err
		}
	}
	sh := s.p.backend.Shard(shard)
	if access == backend.Read && (!sh.Replicated() || s.unsure[shard] || s.mode == backend.Session) {
		access = backend.Write
	}
	var least lsn.LSN
	if access == backend.Read && !s.own.eventual {
		least = s.token[shard].LSN
	}
	e, err := sh.Pick(access, least)
	if err != nil {
		return nil, err
	}
	conn, err := s.lease(e)
	if err != nil && access == backend.Read && !errors.Is(err, backend.ErrClientGone) && !errors.Is(err, backend.ErrRecalled) {
		// A replica that cannot be reached: the primary has everything it has.
		if primary, perr := sh.Pick(backend.Write, 0); perr == nil && primary != e {
			conn, err = s.lease(primary)
		}
	}
	l, err := s.got(shard, conn, err)
	if err == nil && s.mode == backend.Session {
		s.stay(l)
	}
	return l, err
}

// lease waits for a connection of an endpoint. A client that leaves meanwhile gives its request up, unless it has said goodbye behind that.
func (s *session) lease(e *backend.Endpoint) (*backend.Conn, error) {
	conn, err := e.Acquire(s.Task, s.identity, s.Client, time.Time{})
	if errors.Is(err, backend.ErrClientGone) && s.Terminates() {
		return e.Acquire(s.Task, s.identity, nil, time.Time{})
	}
	return conn, err
}

// got is a link on a connection that the session has asked a pool for, or why there is none.
func (s *session) got(shard string, conn *backend.Conn, err error) (*engine.Link, error) {
	if err != nil {
		if d := backend.WaitedFor(err); d > 0 {
			s.meter(shard).Wait.record(d)
		}
		s.doubtKeys(err)
		if s.Stopped() {
			err = engine.ErrStopped
		}
		return nil, err
	}
	l := engine.NewLink(s.Task, conn, shard)
	l.Since = loop.Clock()
	s.meter(shard).Wait.record(conn.Waited)
	return l, nil
}

// doubtKeys has auth.query asked again at the client's next login where the server refuses the keys of this one: its password has been set anew, perhaps
// to the same, so that no login fails for it.
func (s *session) doubtKeys(err error) {
	var e *wire.Error
	if s.identity != nil && s.identity.Keys != nil && errors.As(err, &e) && e.Code == wire.InvalidPassword {
		if d := s.p.live.Load().doorkeeper.directory; d != nil {
			d.failed(s.client.user)
		}
	}
}

// synchronize gives the link's connection the session's settings. It waits for the answer: a statement must not run under
// another session's settings or role because its own could not be made, by a role that was dropped, or a cancel request. The
// error is the server's, and leaves the connection with the settings that it had; or the session's end.
func (s *session) synchronize(l *engine.Link) error {
	sql := s.settings.syncSQL()
	if s.keepsForever(l) {
		sql = s.keptSQL(l) // nobody else has been there
	}
	had := l.Conn.Settings
	l.Conn.Settings = settingsUnknown // also where the client is found gone when the answer comes, which the connection may outlive
	reply, err := s.Ask(l, sql, engine.MuteAll|engine.MuteStatus)
	switch {
	case l.Err != nil:
		return nil // a connection that is lost tells itself to whoever uses it next
	case err == nil:
		l.Conn.Settings = s.settings.print
		s.noteHad(l) // also for a statement of several shards, which gives no link back
	case reply.Err != nil:
		l.Conn.Settings = had
	}
	return err
}

// useUnlessPinned has the relay serve a link, for as long as the session has it. One that is pinned is served at all times: a notification may come.
func (s *session) useUnlessPinned(l *engine.Link) {
	if !s.hasPinned(l) {
		s.Use(l)
	}
}

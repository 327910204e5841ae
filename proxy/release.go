package proxy

import (
	"github.com/tidemarkdb/tidemark/internal/backend"
	"github.com/tidemarkdb/tidemark/internal/loop"
)

// release gives the link's connection back, or keeps it if the session is pinned to it.
func (s *session) release() {
	l := s.link
	s.link, s.reported = nil, l.Conn.Reported
	if s.ear != nil {
		s.unlend(l.Conn)
	}
	s.client.letGo()
	if len(s.batch.held) == 0 { // all is answered
		s.replaced = nil
	}
	if cap(s.again) > maxAgain {
		s.again = nil
	}
	if s.hasPinned(l) {
		s.noteHad(l)
		return
	}
	s.takenBack()
	s.Relay.Drop(l)
	conn := l.Conn
	if s.settings.serializable && conn.Endpoint().Role() == backend.RoleReplica {
		conn.Spoilt = true // nothing of anybody runs there, not even what takes the setting back
	}
	l.Free()
	conn.Release()
}

// dropLink ends the link's connection, and the statement on it if there is one: it runs for nobody.
func (s *session) dropLink() {
	l := s.link
	if s.traced != nil {
		s.traced.served(l, loop.Clock())
	}
	s.Relay.Drop(l)
	s.link, s.began, s.reported = nil, 0, l.Conn.Reported
	if s.ear != nil {
		s.unlend(l.Conn)
		s.ear.said, s.ear.ahead = s.ear.said[:0], true
	}
	s.client.letGo()
	s.takenBack()
	s.askState = false
	if s.coded {
		s.uncode(false)
	}
	if s.hasPinned(l) {
		s.unpin(l)
	}
	s.p.abandon(l)
}

// end gives back all that the session holds when its client has left.
func (s *session) end() {
	for _, x := range s.after.aside {
		x.forget()
	}
	if s.link != nil {
		s.dropLink()
	}
	if s.ear != nil {
		s.stopListening()
	}
	for _, l := range s.pins {
		s.client.unpin(l.Conn)
		l.Conn.Dirty = true
		l.Conn.Release()
	}
	clear(s.pins)
	s.forgetAll() // other clients may go on with them, or nobody does
}

package proxy

import (
	"encoding/binary"
	"math"

	"github.com/tidemarkdb/tidemark/internal/backend"
	"github.com/tidemarkdb/tidemark/internal/engine"
	"github.com/tidemarkdb/tidemark/internal/wire"
	"github.com/tidemarkdb/tidemark/router"
)

// ready gives the client ReadyForQuery, behind the notifications that are due.
func (s *session) ready(status byte) error {
	if len(s.owns) > 0 {
		s.doLast()
	}
	if s.ear != nil && status == wire.TxIdle {
		if err := s.hearAll(); err != nil {
			return err
		}
	}
	s.SetOut(wire.AppendReadyForQuery(s.Out(), status))
	return nil
}

// hearAll gives the client all notifications that have been committed by now.
func (s *session) hearAll() error {
	e := s.ear
	if len(e.on) == 0 {
		return nil
	}
	if err := s.answered(e.sub.Fence()); err != nil {
		return err
	}
	if e.speaking != nil {
		e.speaking.Notifier = 0
	}
	s.SetOut(e.sub.Take(s.Out(), e.on, math.MaxInt))
	return nil
}

// pieceOfNews is how many bytes of notifications may wait for the socket of an idle client; what comes more waits in its
// bounded inbox.
const pieceOfNews = 16 << 10

// hear gives an idle client what has been heard. The error ends the session: it hears nothing any more.
func (s *session) hear() error {
	e := s.ear
	if s.link != nil || s.tx.state != txNone || s.batch.sent || s.batch.skip || len(s.batch.held) > 0 {
		return nil
	}
	if e.ahead {
		if s.keepChannels(); s.ear == nil {
			return nil
		}
	}
	if e.sub.Waiting() {
		if err := e.sub.Err(); err != nil {
			return err
		}
		if len(s.Out()) < pieceOfNews {
			s.SetOut(e.sub.Take(s.Out(), e.on, pieceOfNews))
		}
	}
	return nil
}

// keepChannels has the shared connection hear no more for the session than that listens to.
func (s *session) keepChannels() {
	e := s.ear
	e.ahead = false
	for name := range e.asked {
		if !e.on[name] {
			delete(e.asked, name)
		}
	}
	s.client.channels.Store(int32(len(e.on)))
	if len(e.on) == 0 {
		s.stopListening()
		return
	}
	e.sub.Keep(e.on)
}

func (s *session) stopListening() {
	s.ear.sub.Close()
	s.ear = nil
	s.client.channels.Store(0)
}

// overhears says whether a notification that a server connection of the session's brings is for the client: not what comes
// over the shared one too. What the connection itself has sent is the session's.
func (s *session) overhears(l *engine.Link, body []byte) bool {
	n, err := wire.DecodeNotification(body)
	if err != nil {
		return true // the client may judge
	}
	if s.ear != nil && s.ear.asked[string(n.Channel)] {
		return false
	}
	if n.PID == l.Conn.PID() {
		binary.BigEndian.PutUint32(body, s.client.pid)
	}
	return true
}

// speaks notes that the statement, which is about to be sent to the link, may notify.
func (s *session) speaks(l *engine.Link, p *router.Plan) error {
	c, e := l.Conn, s.ear
	if p.Access != router.Write || l.Shard != s.p.home || e != nil && e.speaking == c {
		return nil
	}
	if e != nil {
		if c.Notifier != 0 && c.Notifier != s.client.pid {
			if err := s.answered(e.sub.Fence()); err != nil {
				return err
			}
		}
		e.sub.Sends(c.PID())
		e.speaking = c
	}
	c.Notifier = s.client.pid
	return nil
}

// unlend is called before a connection is no longer in use by the session.
func (s *session) unlend(c *backend.Conn) {
	e := s.ear
	if e.speaking == c {
		e.sub.Sent(c.PID())
		e.speaking = nil
	}
	e.lent, e.primed = nil, nil
}

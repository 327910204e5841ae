package proxy

import (
	"context"
	"errors"
	"log/slog"

	"github.com/tidemarkdb/tidemark/internal/backend"
	"github.com/tidemarkdb/tidemark/internal/engine"
	"github.com/tidemarkdb/tidemark/internal/loop"
	"github.com/tidemarkdb/tidemark/internal/wire"
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

// lost answers for a server connection that broke, or whose BEGIN failed. The error ends the session: what it kept on that connection, such
// as a lock or a temporary table, is lost too.
func (s *session) lost(l *engine.Link) error {
	unbegun, syncs := l.Unbegun(), l.Syncs()
	level, what := slog.LevelWarn, "server connection lost"
	if unbegun {
		level, what = slog.LevelInfo, "a transaction has failed to begin"
	}
	s.log().Log(context.Background(), level, what, "user", s.client.user, "endpoint", l.Conn.Endpoint().String(), "server_pid", l.Conn.PID(), "error", l.Err.Message)
	if s.hasPinned(l) && !l.Torn && !unbegun {
		return l.Err
	}
	status := byte(wire.TxIdle)
	if s.tx.state == txOpen {
		status = wire.TxAborted
	}
	probing, again := s.after.mark, len(l.Again) > 0
	s.prepareAgain(l)
	syncOwed := l.Fail(s.Relay, status)
	if s.after.hold && !syncOwed && !again {
		s.SetOut(wire.AppendReadyForQuery(s.Out(), status))
	}
	for _, x := range s.after.aside {
		x.restore() // nobody knows: what is prepared once more does no harm
	}
	s.after, s.owns = after{}, nil
	if !unbegun && (s.tx.wrote || s.tx.probeLater || s.batch.wrote || probing) {
		s.doubt(l.Shard)
	}
	torn, cause := l.Torn, l.Err
	if unbegun {
		cause = nil // it was told, as if it were the statement's
		if err := s.Regain(l, syncs); err != nil {
			return err
		}
	}
	switch {
	case l.Err == nil:
		s.release()
	case unbegun && s.hasPinned(l):
		return l.Err
	default:
		s.dropLink()
	}
	if torn {
		return errTorn
	}
	if status == wire.TxAborted {
		// What follows until ROLLBACK must not run outside of the transaction that it was written for.
		s.tx.fail(cause)
		s.settings.end(false)
		if s.ear != nil {
			s.ear.end(false)
		}
		s.refreshView()
	}
	if s.batch.ending {
		s.endedBatch()
	} else if s.batch.sent {
		s.batch.sent, s.batch.skip = false, true
	}
	s.portals.clear()
	return nil
}

// doubt notes that the mark of a write is not known: reads of that shard go to the primary from now on.
func (s *session) doubt(shard string) {
	if s.unsure == nil {
		s.unsure = map[string]bool{}
	}
	s.unsure[shard] = true
}

// errTorn ends a session whose client has got half a message from a server that is gone.
var errTorn = errors.New("a server connection broke in the middle of a message to the client")

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

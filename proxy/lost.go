package proxy

import (
	"context"
	"errors"
	"log/slog"

	"github.com/tidemarkdb/tidemark/internal/engine"
	"github.com/tidemarkdb/tidemark/internal/wire"
)

// lost answers for a server connection that broke, or whose BEGIN failed. The error ends the session: what it kept on that connection, such
// as a lock or a temporary table, is lost too, or nobody knows what it has become.
func (s *session) lost(l *engine.Link) error {
	if l.Unbegun() {
		return s.unbegun(l)
	}
	s.logError(slog.LevelWarn, "server connection lost", l)
	if (s.hasPinned(l) || s.halfway()) && !l.Torn {
		return l.Err
	}
	wrote := s.tx.wrote || s.tx.probeLater || s.batch.wrote || s.after.mark
	s.answerFor(l)
	if wrote {
		s.doubt(l.Shard)
	}
	cause, torn := l.Err, l.Torn
	s.dropLink()
	if torn {
		return errTorn
	}
	s.withoutLink(cause)
	return nil
}

// halfway says whether the client has been told of a part of the request under way that has begun a transaction, outside of which nothing
// that follows may run, has ended one, with what that has made of the session, or has prepared a statement.
func (s *session) halfway() bool {
	a := &s.after
	switch {
	case a.outcome.Tags == 0:
		return false
	case a.replay != nil, a.prepared != nil:
		return true
	case a.tx == nil:
		return false
	}
	return len(a.changes) > 0 || a.tx.Ends() && (s.settings.touched() || s.ear != nil)
}

// unbegun answers for a BEGIN that failed. Its connection stays, and what the session keeps there. The client is told of the error as if it
// were its statement's.
func (s *session) unbegun(l *engine.Link) error {
	s.logError(slog.LevelInfo, "a transaction has failed to begin", l)
	syncs := l.Syncs()
	s.answerFor(l)
	if err := s.Regain(l, syncs); err != nil {
		return err
	}
	switch {
	case l.Err == nil:
		s.release()
	case s.hasPinned(l):
		return l.Err
	default:
		s.dropLink()
	}
	s.withoutLink(nil)
	return nil
}

func (s *session) logError(level slog.Level, what string, l *engine.Link) {
	log := s.log()
	if l.Cause != nil {
		log = log.With("cause", l.Cause)
	}
	log.Log(context.Background(), level, what, "user", s.client.user, "endpoint", l.Conn.Endpoint().String(), "server_pid", l.Conn.PID(), "error", l.Err.Message)
}

// answerFor tells the client the link's error for all that it is owed there, and forgets what was to be done behind.
func (s *session) answerFor(l *engine.Link) {
	again := len(l.Again) > 0
	s.prepareAgain(l)
	status := byte(wire.TxIdle)
	if s.tx.state == txOpen {
		status = wire.TxAborted
	}
	syncOwed := l.Fail(s.Relay, status)
	if s.after.hold && !syncOwed && !again {
		s.SetOut(wire.AppendReadyForQuery(s.Out(), status))
	}
	for _, x := range s.after.aside {
		x.restore() // nobody knows: what is prepared once more does no harm
	}
	s.after, s.owns = after{}, nil
}

// withoutLink has the session go on without its link, in a transaction that has failed with cause, or in none.
func (s *session) withoutLink(cause *wire.Error) {
	if s.tx.state == txOpen {
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

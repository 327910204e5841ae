package proxy

import (
	"cmp"
	"strings"

	"github.com/tidemarkdb/tidemark/internal/engine"
	"github.com/tidemarkdb/tidemark/internal/wire"
	"github.com/tidemarkdb/tidemark/router"
)

// The session's record of its settings follows what the servers have accepted, through transactions and savepoints; the
// router's view of the session follows the record.

// settingsEnded closes the log of settings that a transaction changed. The server has done the same to its own.
func (s *session) settingsEnded(committed bool, l *engine.Link) {
	touched, same := s.settings.touched(), l.Conn.Settings == s.settings.print
	if s.settings.end(committed) && same {
		l.Conn.Settings = s.settings.print
	}
	if touched {
		s.refreshView()
	}
}

// remember records a setting that the server has accepted.
func (s *session) remember(c *router.SettingChange, l *engine.Link) {
	inTx := l.Conn.TxStatus != wire.TxIdle
	same := l.Conn.Settings == s.settings.print
	s.settings.apply(c, inTx)
	if same && !inTx {
		l.Conn.Settings = s.settings.print
	}
	s.refreshView()
}

// rememberAll records the settings of a batch or query string. Outside of a transaction block that is a transaction.
func (s *session) rememberAll(changes []*router.SettingChange, l *engine.Link) {
	if len(changes) < 2 || l.Conn.TxStatus != wire.TxIdle || len(s.settings.log) > 0 {
		for _, c := range changes {
			s.remember(c, l)
		}
		return
	}
	same := l.Conn.Settings == s.settings.print
	for _, c := range changes {
		s.settings.apply(c, true)
	}
	s.settings.end(true)
	if same {
		l.Conn.Settings = s.settings.print
	}
	s.refreshView()
}

// replay follows settings through the transactions of a query string, as far as it came. Statements outside of a transaction
// block are a transaction, too.
func (s *session) replay(a *after, l *engine.Link) {
	same := l.Conn.Settings == s.settings.print
	for _, x := range a.replay.steps {
		if x.n >= a.outcome.Tags {
			break
		}
		if x.plan.Kind != router.Tx {
			for c := x.plan.Setting; c != nil; c = c.Next {
				s.settings.apply(c, true)
			}
			continue
		}
		switch x.plan.Tx.Op {
		case router.Commit, router.Rollback:
			s.settings.end(x.plan.Tx.Op == router.Commit && !a.aborted)
			a.aborted = false
		case router.Savepoint:
			s.settings.savepoint(x.plan.Tx.Name)
		case router.Release:
			s.settings.release(x.plan.Tx.Name)
		case router.RollbackTo:
			s.settings.rollbackTo(x.plan.Tx.Name)
			a.aborted = false
		}
	}
	if l.Conn.TxStatus == wire.TxIdle {
		s.settings.end(a.outcome.Err == nil)
	}
	if same {
		l.Conn.Settings = s.settings.print
	}
	s.refreshView()
}

// refreshView makes the router's view of the session anew. The settings were checked before they were sent.
func (s *session) refreshView() {
	if v, err := s.viewWith(nil); err == nil {
		s.view = v
	}
	s.blind = s.blind || s.coded
	if s.settings.recoded {
		s.settings.recoded, s.askState = false, true
	}
}

// conforming is the text of a Parse, or of a Query amid a batch, as the router and the servers are to read it, behind what has been executed
// in its batch: if that fails, nobody reads it.
func (s *session) conforming(text []byte) []byte { return s.viewAhead().Conforming(text) }

// viewAhead is the router's view of the session behind what has been executed in its batch.
func (s *session) viewAhead() *router.Session {
	if f := s.after.foreseen; f != nil {
		if v, err := s.viewOf(f.states[0]); err == nil { // what cannot be read is refused elsewhere
			return v
		}
	}
	return s.view
}

// foreseeOne has foreseen be one, where a COMMIT may have been that of a transaction that has failed: that is known when the link has
// answered. goesOn is false where an error of the batch has come first.
func (s *session) foreseeOne() (goesOn bool, err error) {
	f := s.after.foreseen
	if f == nil || len(f.states) == 1 || s.link == nil {
		return true, nil
	}
	if goesOn, err = s.caughtUp(); !goesOn || err != nil {
		return false, err
	}
	if s.link.Conn.TxStatus == wire.TxAborted {
		f.states = f.states[1:]
	} else {
		f.states = f.states[:1]
	}
	return true, nil
}

// viewWith is the router's view of the session with one setting changed; it fails when SQL could not be read safely then.
func (s *session) viewWith(c *router.SettingChange) (*router.Session, error) {
	if c == nil {
		return s.viewOf(&s.settings)
	}
	with := s.settings.ahead()
	with.apply(c, true)
	return s.viewOf(with)
}

// viewOf is the router's view of the session under these settings.
func (s *session) viewOf(x *settings) (*router.Session, error) {
	get := x.or
	user := get("role", "none")
	if user == "none" {
		user = get("session_authorization", s.serverUser())
	}
	return s.viewBy(x, user, get("search_path", s.p.router.Load().SearchPath(s.serverUser())))
}

// viewBy is that where names are looked up for that user, by that search_path.
func (s *session) viewBy(x *settings, user, searchPath string) (*router.Session, error) {
	get := x.or
	conforming := "on"
	if params, ok := s.p.backend.Shard(s.p.home).Params(); ok {
		conforming = params["standard_conforming_strings"]
	}
	return router.NewSession(user, cmp.Or(searchPath, `""`), get("client_encoding", "UTF8"), boolean(get("standard_conforming_strings", conforming)))
}

// boolean reads a boolean setting as PostgreSQL's parse_bool does; what that would refuse counts as on, and the server refuses it.
func boolean(v string) bool {
	v = strings.ToLower(v)
	switch {
	case v == "", v == "o":
		return true
	case v == "0":
		return false
	}
	return !strings.HasPrefix("false", v) && !strings.HasPrefix("no", v) && !strings.HasPrefix("off", v)
}

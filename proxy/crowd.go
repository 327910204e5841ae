package proxy

import (
	"time"

	"github.com/tidemarkdb/tidemark/internal/wire"
)

// Bounds of what one client can have the proxy keep. A client that asks and does not read is held up, as PostgreSQL holds
// it up when it cannot write; one that prepares or binds without end is refused.
const (
	maxStatements     = 10_000   // prepared statements
	maxStatementBytes = 16 << 20 // of their texts, if there are several
	maxPortals        = 10_000   // named portals of a transaction
	maxPortalBytes    = 16 << 20 // of their names, and of what is bound in those that the proxy runs
	maxHeld           = 64       // statements that were parsed and not sent to a server yet
	maxHeldBytes      = 1 << 20  // of their texts, if there are several
)

// thin waits until the relay has passed on most of what it holds. The server may hold back replies itself until it is
// asked for them.
func (s *session) thin() error {
	if l := s.link; l != nil && l.Err == nil && s.batch.sent {
		l.SetOut(wire.AppendFlush(l.Out()))
	}
	for !s.Thinned() {
		if s.Gone() {
			return nil // next says so when what it sent before has been handled
		}
		if s.ear != nil {
			if err := s.ear.sub.Err(); err != nil {
				return err
			}
		}
		if err := s.Step(time.Time{}); err != nil {
			return err
		}
	}
	return nil
}

// crowdedStatements is the error for one more prepared statement, or nil.
func (s *session) crowdedStatements(st *statement) *wire.Error {
	if len(s.stmts) >= maxStatements {
		return wire.Errorf(wire.ProgramLimitExceeded, "too many prepared statements: %d", len(s.stmts)).
			WithHint("Close those that are not used any more.")
	}
	if len(s.stmts)%64 != 63 && len(st.sql) < maxStatementBytes/64 {
		return nil // counting now and then is enough
	}
	bytes := 0
	for _, x := range s.stmts {
		bytes += len(x.sql)
	}
	if bytes > 0 && bytes+len(st.sql) > maxStatementBytes {
		return wire.Errorf(wire.ProgramLimitExceeded, "the texts of the prepared statements are too long: %d bytes", bytes).
			WithHint("Close those that are not used any more.")
	}
	return nil
}

// crowdedHeld says whether what was parsed and not bound should go to a server now.
func (s *session) crowdedHeld() bool {
	if len(s.batch.held) < 2 {
		return false
	}
	bytes := 0
	for _, st := range s.batch.held {
		bytes += len(st.sql)
	}
	return len(s.batch.held) >= maxHeld || bytes > maxHeldBytes
}

// crowded says whether there is no room for one more named portal.
func (p *portals) crowded() bool { return len(p.named) >= maxPortals || p.bytes > maxPortalBytes }

package proxy

import (
	"slices"

	"github.com/tidemarkdb/tidemark/internal/backend"
	"github.com/tidemarkdb/tidemark/internal/engine"
	"github.com/tidemarkdb/tidemark/internal/wire"
)

// A server can refuse a statement that it has prepared: a table has changed so that the rows would look otherwise ("cached
// plan must not change result type"), or something on the server has deallocated it. Where nobody could tell the difference
// the statement is prepared anew and the batch sent again: it is the first of a batch outside of a transaction, so nothing
// has run; and the client asks in the same batch what the rows look like, and asks for no formats column by column, so it
// does not read new rows by the old description; nor do types of parameters matter that only the old statement had. Or the
// client has prepared it in this very batch, and it was known because others have before. Everywhere else the client gets
// PostgreSQL's own error.

// maxAgain is how much of the last batch an idle session keeps, in bytes of memory that the next one uses again.
const maxAgain = 512

// repeatable says whether the Bind means the same for a statement that is prepared anew.
func repeatable(st *statement, m *wire.Bind) bool {
	if !m.Whole() || m.NumResultFormats() > 1 {
		return false
	}
	n := m.NumParams()
	if n == 0 || m.AllText() {
		return true
	}
	return len(st.oids) >= n && !slices.Contains(st.oids[:n], 0)
}

// fresh says whether the client has prepared the statement in this batch.
func (s *session) fresh(st *statement) bool { return st.name != "" && st.syncs == s.syncs }

// repeats says whether a batch waits to be sent again.
func (s *session) repeats() bool { return s.link != nil && len(s.link.Again) > 0 }

// repeat sends the batch again, behind a new Parse of its statement under the name that it has.
func (s *session) repeat(l *engine.Link) {
	again := l.Again
	l.Again = nil
	id := again[0].Statement
	var st *statement
	for _, x := range s.stmts {
		if x.id == id {
			st = x
		}
	}
	l.Conn.Statements.Remove(id)
	if st == nil { // it was closed meanwhile, and the server says that there is none
		s.closeUnseen(l, backend.StatementName(id))
	} else {
		s.define(l, st, engine.Expect{Mute: engine.MuteAck, Statement: id})
	}
	l.SetOut(append(l.Out(), s.again...))
	for _, e := range again {
		e.Again = false
		l.Expect(e)
	}
	e := engine.Expect{Kind: engine.Sync}
	if s.after.hold {
		e.Mute = engine.MuteReady
	}
	l.Expect(e)
}

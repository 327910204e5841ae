package proxy

import (
	"github.com/tidemarkdb/tidemark/internal/engine"
	"github.com/tidemarkdb/tidemark/internal/sql"
	"github.com/tidemarkdb/tidemark/router"
)

// A server must know two things about what came before in a batch, of which some may have been for another server, or for the proxy:
//
//	fact                     where PostgreSQL has it    what hangs on it
//	something was executed   XACT_FLAGS_PIPELINING      SET LOCAL, LOCK and the like are in a transaction; VACUUM and the like are too late
//	a snapshot was taken     FirstSnapshotSet           it is too late to choose what the transaction is like
//
// Where it does not know and a statement comes that runs otherwise for that, something of the kind is run ahead of it, unseen.

// looksAhead says whether a statement takes a snapshot when it is prepared (analyze_requires_snapshot).
func looksAhead(c sql.Command) bool {
	return analyzed(c) || c == sql.Declare || c == sql.Explain || c == sql.CreateTableAs || c == sql.Call
}

// looksAhead says that of a prepared statement; one without a template is the proxy's own, a SELECT.
func (st *statement) looksAhead() bool {
	return st.template == nil || looksAhead(st.template.Generic().Command)
}

// looks says whether one does when it runs (PlannedStmtRequiresSnapshot).
func looks(c sql.Command) bool {
	switch c {
	case sql.Empty, sql.Transaction, sql.Lock, sql.Set, sql.Show, sql.SetConstraints, sql.Fetch, sql.Listen, sql.Notify, sql.Unlisten:
		return false
	}
	return true
}

// looks says whether something has taken a snapshot in the transaction of the link, behind p.
func (s *session) looks(p *router.Plan) bool {
	switch q, c := s.strung, p.Tx; {
	case q != nil:
		return q.looks || s.tx.looked && !q.ends
	case p.Kind != router.Tx:
		return s.tx.looked || looks(p.Command)
	case c.Ends():
		return false
	case c.Op == router.Begin && s.tx.state != txOpen:
		return s.batch.snapped
	}
	return s.tx.looked
}

// bound notes that the link has got a Bind.
func (b *batch) bound(p *router.Plan) {
	if looksAhead(p.Command) {
		b.parsed, b.snapped = false, true
	}
}

// executed notes that the link has got an Execute of a portal; nil for one that is not the protocol's.
func (b *batch) executed(pt *portal) {
	switch {
	case pt == nil:
	case pt.plan.Kind == router.Nothing:
		return
	case pt.plan.Kind == router.Tx:
		b.over = false
		if c := pt.plan.Tx; c.Ends() { // what was, was in the transaction that ends here
			b.queried, b.parsed, b.ran, b.snapped = false, false, false, false
			b.over = !c.Chain
		}
		return
	case looks(pt.plan.Command):
		b.parsed, b.snapped = false, true
	}
	b.queried, b.ran, b.over = false, true, false
}

// goesOn is called where the batch leaves the link for another.
func (b *batch) goesOn() {
	b.queried, b.parsed = b.queried || b.ran, b.parsed || b.snapped
	b.wrote = b.wrote && !b.over
	b.sent, b.ran, b.snapped, b.over = false, false, false, false
}

// queriedAhead has the link's server know what came before in the batch, if it matters to the next statement. One that looks has it
// know by itself, and minds nothing.
func (s *session) queriedAhead(l *engine.Link, next *router.Plan) {
	b := &s.batch
	late := b.queried && !analyzed(next.Command)
	switch {
	case b.parsed && (late || setsTransaction(next)):
		s.lookUnseen(l)
	case late:
		s.runUnseen(l, "SHOW server_version_num", engine.Expect{Kind: engine.Parse, Mute: engine.MuteAll})
		b.queried, b.ran = false, true
	}
}

// lookUnseen takes a snapshot.
func (s *session) lookUnseen(l *engine.Link) {
	s.runUnseen(l, "SELECT 1", engine.Expect{Kind: engine.Parse, Mute: engine.MuteAll})
	b := &s.batch
	b.queried, b.parsed, b.ran, b.snapped, s.tx.looked = false, false, true, true, true
}

// lookedAhead is called at the end of a batch in which a snapshot was taken of which the link's server does not know: if the
// transaction goes on, it must.
func (s *session) lookedAhead() {
	s.tx.seal()
	if l := s.link; l != nil && l.Err == nil && s.inTransaction() && !s.tx.looked {
		s.lookUnseen(l)
	}
}

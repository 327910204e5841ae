package proxy

import (
	"github.com/tidemarkdb/tidemark/internal/backend"
	"github.com/tidemarkdb/tidemark/internal/engine"
	"github.com/tidemarkdb/tidemark/internal/loop"
	"github.com/tidemarkdb/tidemark/internal/wire"
	"github.com/tidemarkdb/tidemark/router"
)

// settle looks at a link that has nothing more to say: it closes the transaction's books, gives the connection back, and
// says ReadyForQuery where that was held. It does nothing while replies are owed.
func (s *session) settle() error {
	l := s.link
	if l == nil {
		return nil
	}
	if l.Err != nil {
		return s.lost(l)
	}
	if s.batch.sent && !s.batch.ending || !l.Idle() {
		return nil
	}
	if s.batch.ending {
		if s.batch.ending = false; l.Conn.TxStatus == wire.TxIdle {
			s.endedBatch()
		}
	}
	if s.repeats() {
		s.repeat(l)
		return nil
	}
	if l.Since != 0 {
		s.measure(l, loop.Clock())
	}
	if len(l.Unparsed) > 0 {
		s.unparsed(l)
	}
	if l.Stale != 0 {
		s.p.statements.retire(l.Stale)
		l.Stale = 0
	}
	if s.uneventful(l) {
		s.portals.clear()
	} else if s.endTransaction(l); !l.Idle() {
		return nil // settings that the client began with
	}
	if s.after.active {
		if err := s.finish(l); err != nil {
			return err
		}
		if !l.Idle() {
			return nil // a probe is on its way
		}
		l.Since = 0 // which is no request of the client's
	}
	if l.Conn.TxStatus == wire.TxIdle {
		if s.askState {
			s.askState = false
			s.after.active, s.after.state = true, true
			s.askForState(l)
			l.Since = 0 // which is no request of the client's
			return nil
		}
		if s.quietChannels(l) {
			return nil
		}
		if s.coded {
			s.uncode(false)
		}
		s.release()
	} else if s.mode == backend.Statement { // begun by what the router could not read
		return s.errStatementMode().Fatal()
	}
	return nil
}

// uneventful says that nothing has changed for endTransaction to follow: as behind a single SELECT.
func (s *session) uneventful(l *engine.Link) bool {
	a, tx := &s.after, &s.tx
	return l.Conn.TxStatus == wire.TxIdle && tx.state == txNone && !a.active && s.ear == nil && a.prepared == nil && len(a.aside) == 0 &&
		!tx.wrote && !tx.schema && !tx.unclear && !tx.probeLater
}

// endTransaction follows what the server says of the transaction.
func (s *session) endTransaction(l *engine.Link) {
	a := &s.after
	ok := a.active && a.outcome.Done && a.outcome.Err == nil
	failed := ok && uint32(l.Errors) != a.errors // something else of the batch has
	if s.ear != nil {
		s.heeded(l, ok && !failed, a.outcome.Tags)
	}
	// AND CHAIN has happened once it has its tag: what has failed came behind it.
	chained := a.tx != nil && a.tx.Chain && !a.unclear && a.outcome.Tags == 1
	if failed && (len(a.changes) > 0 || a.tx != nil && !chained) {
		ok, a.unclear = false, true
	}
	// It may be what has run before the error; and only the last of several tags is known.
	if a.tx != nil && (a.outcome.Err != nil && a.outcome.Tags > 0 || a.outcome.Tags > 1) {
		a.unclear = true
	}
	if ok && a.discard && len(a.changes) > 0 { // which came first is not known
		a.changes, s.askState = nil, true
	}
	if ok {
		if a.replay != nil {
			s.replay(a, l)
		} else {
			s.rememberAll(a.changes, l)
		}
	}
	if ok && a.discard {
		s.discardOn(l)
	}
	discard := a.discard
	a.discard = false
	for _, x := range a.aside {
		if !a.outcome.Done || a.outcome.Err != nil && a.outcome.Tags == 0 { // what skipped an Execute has restored it already
			x.restore()
		}
		x.forget()
	}
	if a.aside != nil {
		l.Conn.Statements.Settled()
		a.aside = nil
	}
	if a.prepared != nil {
		s.takeOver(l, a.prepared, a.outcome.Tags)
		a.prepared = nil
	}
	committed := ok && a.outcome.Tag == "COMMIT"
	tx := a.tx
	if a.replay != nil && a.outcome.Err != nil { // what was set in the string or before it may have been committed before the error
		s.replay(a, l)
	}
	// An error in a batch leaves open which commands have run before it; and of several only the last is known here.
	if a.unclear || discard && !ok {
		s.tx.unclear = true
		if l.Conn.TxStatus != wire.TxIdle { // what names mean in it now is not known either
			s.coded, s.blind = true, true
		}
		for _, c := range a.changes {
			s.mayHaveSet(c.Name)
		}
	}
	if tx != nil && !ok { // the preamble has it all the same: see follow
		s.tx.neutral = false
	}
	a.tx, a.changes, a.foreseen, a.replay, a.begun, a.unclear = nil, nil, nil, nil, false, false
	if l.Conn.TxStatus != wire.TxIdle {
		s.tx.state = txOpen // also when BEGIN came within a query of several statements
		if ok && tx != nil && tx.Ends() {
			s.portals.clear()
			s.settingsEnded(committed, l) // AND CHAIN
		}
		if ok && tx != nil {
			switch tx.Op {
			case router.Savepoint:
				s.settings.savepoint(tx.Name)
			case router.Release:
				s.settings.release(tx.Name)
			case router.RollbackTo:
				s.settings.rollbackTo(tx.Name)
				s.refreshView()
				if s.tx.schema {
					s.p.statements.schemaChanges()
				}
			}
		}
		return
	}
	s.portals.clear()
	if s.tx.state == txBegun { // it left this server for another, see leave
		return
	}
	if s.tx.state == txOpen {
		if tx == nil && s.settings.touched() { // it ended within a query of several statements: who knows how
			s.tx.unclear = true
		}
		s.asksUnclear()
		s.settingsEnded(committed, l)
	}
	s.asksUnclear()
	late := s.tx.wrote || s.tx.probeLater
	if s.tx.schema {
		a.active, a.schema = true, true
	}
	s.tx.reset()
	if late {
		a.active, s.tx.probeLater = true, true
	}
}

// asksUnclear has a server asked what a transaction that is over has done to the session's settings, where that is unclear.
func (s *session) asksUnclear() {
	if !s.tx.unclear {
		return
	}
	for i := range s.settings.log {
		s.mayHaveSet(s.settings.log[i].name)
	}
	s.tx.unclear, s.askState = false, true
}

// finish does what was put off until the link had answered, and gives ReadyForQuery if it was held.
func (s *session) finish(l *engine.Link) error {
	a := &s.after
	if a.state {
		a.state = false
		if err := s.judge(l); err != nil {
			return err
		}
	}
	if a.mark {
		s.marked(l.Shard, a.probe.Row)
		a.mark = false
	}
	if s.tx.probeLater && l.Conn.TxStatus == wire.TxIdle {
		s.tx.probeLater = false
		s.sendProbe(l)
		return nil
	}
	if a.schema {
		a.schema = false
		s.Task.Await(func() { s.p.ReloadCatalog() })
	}
	hold := a.hold
	if len(s.owns) > 0 && a.outcome.Err != nil {
		s.owns = nil
	}
	*a = after{}
	if hold {
		return s.ready(l.Conn.TxStatus)
	}
	return nil
}

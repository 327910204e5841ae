package proxy

import (
	"github.com/tidemarkdb/tidemark/internal/engine"
	"github.com/tidemarkdb/tidemark/internal/sql"
	"github.com/tidemarkdb/tidemark/internal/wire"
	"github.com/tidemarkdb/tidemark/router"
)

// effects notes what the statement will have changed. It says whether the session must look at its outcome.
func (s *session) effects(l *engine.Link, p *router.Plan) bool {
	matters := s.affects(l, p)
	if matters {
		s.after.looked += s.statementsSent()
	}
	return matters
}

// statementsSent is how many statements the request in hand has.
func (s *session) statementsSent() int {
	if s.strung != nil {
		return s.strung.n
	}
	return 1
}

// affects does the work of effects.
func (s *session) affects(l *engine.Link, p *router.Plan) bool {
	s.batch.heard = s.batch.heard || p.Has(router.Meets) || p.Command == sql.Notify || p.Command == sql.Listen || s.unlistens(p) || p.Command == sql.Declare && p.Has(router.Pin)
	if s.ear != nil || p.Has(router.Listens) {
		s.heed(l, p)
	}
	if s.tx.looked = s.looks(p); p.Flags == 0 && p.Kind != router.Tx && p.Setting == nil && s.strung == nil && s.ear == nil && len(s.owns) == 0 {
		s.tx.neutral = false
		return false
	}
	if !p.Has(router.Neutral) && p.Kind != router.Setting && p.Kind != router.Tx || s.strung != nil && transacts(s.strung.steps) {
		s.tx.neutral = false
	}
	if p.Has(router.Dirty) {
		l.Conn.Dirty = true
	}
	if p.Flags&(router.Dirty|router.Pin) != 0 && s.sizesTemporary() {
		l.Conn.Spoilt = true
	}
	switch {
	case p.Has(router.Keeps) && p.Command == sql.Load:
		s.pin(l, loaded)
	case p.Has(router.Keeps):
		s.pin(l, kept)
	case p.Has(router.Opaque):
		s.pin(l, opaque)
	case p.Has(router.Pin) && s.strung != nil && s.strung.pins != "":
		s.pin(l, s.strung.pins)
	case p.Has(router.Pin):
		s.pin(l, pinned(p))
	}
	if len(p.Settings) > 0 {
		s.mayHaveSet(p.Settings...)
	}
	s.asks(l, p)
	if p.Has(router.Executes) && (p.Has(router.Dirty) || s.lent != nil && s.lent.on == l.Conn && len(s.lent.now) > 0) {
		s.mayHaveSet()
		s.askState, s.question.prepared = true, true
	}
	if s.restatesUnseen(p, s.coded) || s.coded && s.strung != nil {
		s.coded, s.blind = true, true
	}
	a := &s.after
	if c := p.Setting; !a.counted && (s.ear != nil || c != nil && alters(c) || p.Kind == router.Tx || s.strung != nil) { // all these are active
		a.counted = true
		s.countErrors(l)
	}
	a.active = a.active || s.ear != nil || len(s.owns) > 0
	if p.Has(router.Discards) {
		a.active, a.aside = true, append(a.aside, s.setAside(l))
	}
	if p.Has(router.Discards | router.NoTx) {
		a.active, a.discard = true, true
	}
	if c := p.Setting; c != nil && alters(c) {
		if s.tx.state == txOpen && !c.Function {
			s.tx.neutral = false
		}
		a.unclear = a.unclear || a.tx != nil
		for ; c != nil; c = c.Next {
			a.changes = append(a.changes, c)
		}
		a.active = true
	}
	if p.Has(router.Schema) {
		s.tx.schema = true
		s.p.statements.schemaChanges()
	} else if p.Has(router.Writes) && p.Has(router.Pin) { // a temporary table may hide another
		s.p.statements.schemaChanges()
	}
	if p.Has(router.Writes) {
		s.batch.wrote = true
		s.tx.wrote = s.tx.wrote || s.marksMatter()
	}
	if s.strung == nil && (p.Setting != nil || p.Kind == router.Tx) {
		a.foreseen = s.foreseenBehind(a.foreseen, p)
	}
	if s.strung != nil {
		// Where a transaction ends within the string is not known before the server says so: see endTransaction.
		a.active, a.changes = true, append(a.changes, s.strung.changes...)
		if a.replay = nil; transacts(s.strung.steps) {
			a.replay, a.aborted = s.strung, l.Conn.TxStatus == wire.TxAborted
		}
		return true
	}
	if p.Tag == router.PrepareTransaction && s.settings.touched() { // a COMMIT on its heels would say that it has kept them
		a.active, a.unclear = true, true
	}
	ends := false
	if p.Kind == router.Tx {
		s.tx.follow(p.Tx)
		a.unclear = a.unclear || a.tx != nil || len(a.changes) > 0
		a.active, a.tx = true, p.Tx
		ends = p.Tx.Ends() && !p.Tx.Chain
		a.begun = !ends && (a.begun || p.Tx.Op == router.Begin || p.Tx.Chain)
		if p.Tx.Op == router.Begin && a.mark { // in the transaction that begins behind it the probe would take a snapshot
			a.mark, s.tx.probeLater = false, true
		}
		a.mended = a.mended || p.Tx.Ends() || p.Tx.Op == router.RollbackTo
	}
	if s.tx.state == txNone || ends {
		if s.tx.wrote {
			s.tx.wrote, a.active = false, true
			if p.Command == sql.CopyFrom { // the probe would be taken for a break in the copy data
				s.tx.probeLater = true
			} else {
				a.mark = true
			}
		}
		if s.tx.schema {
			s.tx.schema, a.active, a.schema = false, true, true
		}
	}
	return a.active
}

// alters says whether a statement about a setting changes it.
func alters(c *router.SettingChange) bool { return c.Op != router.ShowOp && c.Op != router.ShowAll }

// countErrors notes how many errors the server has reported before the request in hand. What it owes may fail yet.
func (s *session) countErrors(l *engine.Link) {
	if l.Owed() == 0 {
		s.after.errors = uint32(l.Errors)
		return
	}
	if s.counts == nil {
		s.counts = func() []byte {
			if s.link != nil {
				s.after.errors = uint32(s.link.Errors)
			}
			return nil
		}
	}
	l.Expect(engine.Expect{Kind: engine.Synthetic, Late: s.counts})
}

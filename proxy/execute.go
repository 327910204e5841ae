package proxy

import (
	"github.com/tidemarkdb/tidemark/internal/engine"
	"github.com/tidemarkdb/tidemark/internal/sql"
	"github.com/tidemarkdb/tidemark/internal/wire"
	"github.com/tidemarkdb/tidemark/router"
)

// execute handles Execute.
func (s *session) execute() error {
	frame, err := s.Frame(wire.SmallMessageLimit)
	if err != nil {
		return err
	}
	m, err := wire.DecodeExecute(frame[wire.HeaderLen:])
	if err != nil {
		return s.malformed(err)
	}
	n := len(frame)
	pt := s.portals.get(m.Portal)
	if pt == nil {
		if err := s.useHolder(); err != nil {
			return err
		}
	}
	if pt == nil && s.link == nil || pt != nil && pt.link != nil && pt.link != s.link {
		err := errNoPortal(string(m.Portal))
		s.Consume(n)
		return s.failBatch(err)
	}
	uncertain := len(m.Portal) == 0 && s.portals.uncertain() && !s.batch.unnamed
	if uncertain && s.link.Owed() > 0 {
		if goesOn, err := s.allAnswered(); !goesOn || err != nil {
			return err
		}
		return s.execute()
	}
	if pt != nil && pt.link != nil && s.goesOnElsewhere(pt.plan, n) {
		if r := pt.last; r != nil && !r.Done && r.Err == nil {
			if goesOn, err := s.allAnswered(); !goesOn || err != nil {
				return err
			}
			return s.execute()
		} else if r != nil && r.Err != nil { // its Bind has failed, or was skipped
			s.portals.remove(m.Portal)
			return s.execute()
		}
		own := *pt
		switch ended, goesOn, err := s.rollBack(); {
		case err != nil:
			return err
		case !goesOn:
			return s.Skip(n)
		case !ended:
			return s.execute()
		}
		s.Consume(n)
		own.plan, own.link = s.ended(own.plan), nil
		return s.executeOwn(&own)
	}
	if pt == nil || pt.link != nil {
		l := s.link
		if pt != nil {
			if s.trace(pt.st.sql, true); s.traced != nil && s.traced.plans == 0 { // of a portal that was bound in an earlier batch
				s.traced.describe(pt.plan)
			}
		}
		s.flushHeld(l)
		frame = s.Input()[:n]
		e := engine.Expect{Kind: engine.Execute}
		if uncertain && s.aborted() { // where the server has none it says something else
			e.Instead = s.errAborted()
		}
		if pt != nil {
			if e.Names = pt.st.names; pt.plan.Has(router.Executes) {
				e.Names = s.lent.names(e.Names)
			}
			again := pt.ran && pt.plan.Setting != nil // a SELECT of set_config() that has no more rows sets nothing
			pt.ran, s.after.unclear = true, s.after.unclear || again
			if s.effects(l, pt.plan) {
				e.Reply = &s.after.outcome
			} else if s.tx.state == txOpen && s.tx.neutral && len(m.Portal) > 0 {
				pt.last = &engine.Reply{}
				e.Reply = pt.last
			}
			if n := len(s.after.aside); pt.plan.Has(router.Discards) && n > 0 {
				e.Undo = s.after.aside[n-1].restore
			}
		}
		l.Queue(frame)
		l.Expect(e)
		s.batch.sent = true
		s.batch.executed(pt)
		s.batch.copying = s.batch.copying || pt != nil && pt.plan.Command == sql.CopyFrom
		s.Consume(n)
		if pt == nil {
			return nil
		}
		plan := pt.plan
		if s.batch.over { // which ends all portals
			s.portals.clear()
		}
		return s.beginAgain(l, plan)
	}
	s.Consume(n)
	if m.MaxRows > 0 && (pt.plan.Kind == router.Scatter || pt.plan.Kind == router.ViewScan) {
		return s.failBatch(wire.Errorf(wire.FeatureNotSupported, "a row limit cannot be used with a query of %s", s.p.whereOf(pt.plan)).
			WithHint("Fetch all rows (fetch size 0), or add a LIMIT."))
	}
	own := *pt // the portal is gone as soon as its transaction ends
	pt.ran = true
	if err := s.prepareHeld(); err != nil { // its reply comes first
		return s.failBatch(err)
	}
	if own.ran {
		return s.executeAgain(&own)
	}
	return s.executeOwn(&own)
}

// beginAgain gives settings that the plan, which has been sent, resets the values of the startup message, in the same batch.
func (s *session) beginAgain(l *engine.Link, p *router.Plan) error {
	from := &s.settings
	if c := p.Setting; c != nil && c.Op == router.ResetAll && len(s.settings.start) > 0 {
		from = s.settings.ahead()
		for _, before := range s.after.changes[:len(s.after.changes)-1] { // the last is c
			from.apply(before, true)
		}
	}
	for _, again := range from.again(p.Setting) {
		s.runUnseen(l, again, engine.Expect{Kind: engine.Parse, Mute: engine.MuteAll &^ engine.MuteError})
	}
	if !p.Has(router.Discards | router.NoTx) {
		return nil
	}
	// A DISCARD ALL commits at once, so that what comes behind it in the batch can take nothing back.
	if goesOn, err := s.caughtUp(); !goesOn || err != nil {
		return err
	}
	syncUnseen(l)
	s.portals.clear()
	s.batch.queried, s.batch.parsed, s.batch.ran, s.batch.snapped = false, false, false, false
	s.discardOn(l)
	s.after.discard = false
	return nil
}

// executeOwn runs a portal of the proxy's own. What the link still owes comes first.
func (s *session) executeOwn(pt *portal) error {
	if pt.plan.Kind == router.Tx {
		if err := s.checkMode(pt.plan); err != nil {
			return s.failBatch(err)
		}
		if answer, handled, err := s.control(nil, pt.plan, pt.st.sql); err != nil {
			return s.failBatch(err)
		} else if handled {
			s.replyInOrder(answer)
			return nil
		}
		return s.executeLate(pt)
	}
	if goesOn, err := s.caughtUp(); !goesOn || err != nil {
		return err
	}
	if wide(pt.plan) || pt.plan.Kind == router.ViewScan {
		if err := s.endOver(); err != nil {
			return s.failBatch(err)
		}
	}
	if s.batch.queried && pt.plan.Has(router.Discards|router.NoTx) {
		return s.failBatch(wire.Errorf(wire.ActiveSQLTransaction, "%s cannot run inside a transaction block", pt.plan.Tag))
	}
	if wide(pt.plan) && pt.plan.Has(router.NoTx) && s.tx.state == txNone && (s.batch.queried || s.batch.ran) {
		return s.failBatch(wire.Errorf(wire.ActiveSQLTransaction, "%s cannot be executed within a pipeline", called(pt.plan)))
	}
	if pt.plan.Kind == router.OfPrepared || wide(pt.plan) || pt.plan.Has(router.Discards) && !pt.plan.Has(router.NoTx) {
		s.batch.queried, s.batch.parsed = true, true
	}
	if pt.plan.Kind == router.OfPrepared {
		if err := s.executePrepared(pt); err != nil {
			return s.failBatch(err)
		}
		return nil
	}
	if wide(pt.plan) {
		if s.link != nil && s.tx.state != txOpen && !s.batchBound(s.link, pt.plan) {
			if err := s.leave(); err != nil {
				return s.failBatch(err)
			}
		}
		if err := s.alone(pt.plan); err != nil {
			return s.failBatch(err)
		}
		if err := s.wideBound(pt); err != nil {
			return s.failBatch(err)
		}
		return nil
	}
	m, err := wire.DecodeBind(pt.bind[wire.HeaderLen:])
	if err != nil {
		return err
	}
	if err := s.local(pt.plan, &m); err != nil {
		return s.failBatch(err)
	}
	if pt.plan.Has(router.NoTx) { // DISCARD ALL commits at once, and so ends all portals
		s.portals.clear()
	}
	return nil
}

// executeAgain executes a portal of the proxy's own that has run to its end: it has no more rows, and most commands run once.
func (s *session) executeAgain(pt *portal) error {
	if goesOn, err := s.caughtUp(); !goesOn || err != nil {
		return err
	}
	switch p := pt.plan; {
	case p.Kind == router.Nothing && !pt.gone:
		s.replyInOrder(wire.AppendEmptyQueryResponse(nil))
	case s.aborted() || s.tx.state == txFailed:
		return s.failBatch(s.errAborted())
	case pt.gone:
		return s.failBatch(errNoPortal(pt.name))
	case p.Kind == router.Scatter, p.Kind == router.ViewScan:
		s.replyInOrder(wire.AppendCommandComplete(nil, "SELECT 0"))
	case p.Kind == router.Setting && p.Setting.Op == router.ShowOp:
		s.replyInOrder(wire.AppendCommandComplete(nil, "SHOW"))
	default:
		return s.failBatch(wire.Errorf(wire.ObjectNotInPrerequisiteState, "portal \"%s\" cannot be run", pt.name))
	}
	return nil
}

// caughtUp waits, amid a batch, until the link has answered what it was asked: what the proxy does itself may depend on how
// that went. It says whether the batch goes on.
func (s *session) caughtUp() (bool, error) {
	if s.link == nil || s.link.Owed() == 0 {
		return true, nil
	}
	if s.batch.sent {
		s.link.SetOut(wire.AppendFlush(s.link.Out()))
	}
	for s.link.Owed() > 0 && s.link.Err == nil {
		if err := s.Serve(); err != nil {
			return false, err
		}
	}
	// After an error of this batch (those before have got their Sync) the client has heard of it, or settle will tell.
	return !s.link.Skipping && s.link.Err == nil, nil
}

// allAnswered is caughtUp that settles the link between batches.
func (s *session) allAnswered() (goesOn bool, err error) {
	if s.batch.sent {
		return s.caughtUp()
	}
	err = s.drain()
	return err == nil, err
}

// stillGoing is caughtUp for what then sends more: errAnswered where an error has ended the batch. A connection that is lost tells itself to
// whoever uses it next.
func (s *session) stillGoing() error {
	goesOn, err := s.caughtUp()
	if err == nil && !goesOn && s.link.Err == nil {
		return errAnswered
	}
	return err
}

// aborted says whether the transaction of the link has failed, as far as its answers have come. In a batch without an error so
// far, a command that ends the transaction or the part of it that failed has done so.
func (s *session) aborted() bool {
	return s.link != nil && s.link.Conn.TxStatus == wire.TxAborted && !s.after.mended
}

// executeLate runs a transaction command on a server after all: there was none yet when it was bound.
func (s *session) executeLate(pt *portal) error {
	err := s.listenAhead(pt.plan)
	var l *engine.Link
	if err == nil {
		l, err = s.linkFor(s.p.onDefault(pt.plan))
	}
	if err == nil {
		err = s.speaks(l, pt.plan)
	}
	if err != nil {
		return s.failBatch(err)
	}
	if s.skipping() {
		return nil
	}
	s.queriedAhead(l, pt.plan)
	name := s.ensure(l, pt.st, engine.MuteAck)
	out, err := wire.AppendRenamed(l.Out(), pt.bind, name)
	if err != nil {
		return err
	}
	l.Expect(engine.Expect{Kind: engine.Bind, Mute: engine.MuteAck})
	m, err := wire.DecodeBind(pt.bind[wire.HeaderLen:])
	if err != nil {
		return err
	}
	l.SetOut(wire.AppendExecute(out, string(m.Portal), 0))
	e := engine.Expect{Kind: engine.Execute}
	if s.effects(l, pt.plan) {
		e.Reply = &s.after.outcome
	}
	l.Expect(e)
	s.batch.sent = true
	if s.batch.executed(pt); s.batch.over {
		s.portals.clear()
	} else if bound := s.portals.get(m.Portal); bound != nil {
		bound.link = l
	}
	return nil
}

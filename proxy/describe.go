package proxy

import (
	"errors"
	"slices"

	"github.com/tidemarkdb/tidemark/internal/backend"
	"github.com/tidemarkdb/tidemark/internal/engine"
	"github.com/tidemarkdb/tidemark/internal/wire"
	"github.com/tidemarkdb/tidemark/router"
)

// describe handles Describe.
func (s *session) describe() error {
	frame, err := s.Frame(wire.SmallMessageLimit)
	if err != nil {
		return err
	}
	target, err := wire.DecodeDescribe(frame[wire.HeaderLen:])
	if err != nil {
		return s.malformed(err)
	}
	if target.Kind == wire.KindPortal {
		return s.describePortal(target.Name, len(frame))
	}
	name := string(target.Name)
	s.Consume(len(frame))
	st := s.statement([]byte(name))
	if s.pending(st) {
		if goesOn, err := s.caughtUp(); !goesOn || err != nil {
			return err
		}
		st = s.statement([]byte(name))
	}
	if st == nil {
		return s.failBatch(errNoStatement(name))
	}
	if goesOn, err := s.lookUp(st); err != nil {
		return s.failBatch(err)
	} else if !goesOn {
		return nil
	}
	g := st.template.Generic()
	if executes(g) {
		params := st.template.Params()
		if st, g, err = s.executed(st, st.template.Bind(nil, nil).Prepared); err != nil {
			return s.failBatch(err)
		}
		if st.needs == nil { // there is none, and so there are no rows: PostgreSQL says that in a transaction that has failed, too
			if err := s.prepareHeld(); err != nil {
				return s.failBatch(err)
			}
			if goesOn, err := s.caughtUp(); !goesOn || err != nil {
				return err
			}
			if s.tx.state == txFailed || s.aborted() {
				s.replyInOrder(wire.AppendNoData(wire.AppendParameterDescription(nil, params)))
				return nil
			}
		}
	}
	if s.proxyOwn(g) || g.Kind == router.Tx { // a server may lack it and, in a transaction that has failed, not get it any more
		if err := s.prepareHeld(); err != nil {
			return s.failBatch(err)
		}
		b := wire.AppendParameterDescription(nil, st.template.Params())
		s.replyInOrder(s.appendFields(b, g, nil))
		return nil
	}
	apart := s.describesApart(st)
	if l := s.link; apart && l != nil && s.tx.state == txOpen {
		if err := s.leave(); err != nil {
			return s.failBatch(err)
		}
	}
	if s.undecided(g) || apart && s.tx.state == txBegun {
		if err := s.prepareOutside(g, st); err != nil {
			return s.failBatch(err)
		}
		return nil
	}
	l, err := s.linkToAsk(g)
	if err != nil {
		return s.failBatch(err)
	}
	if apart && !s.knows(l, st) {
		if err := s.prepareApart(l, st); err != nil {
			return s.failBatch(err)
		}
		return nil
	}
	s.flushHeld(l)
	onServer := s.ensure(l, st, engine.MuteAck)
	l.SetOut(wire.AppendDescribe(l.Out(), wire.KindStatement, onServer))
	l.Expect(engine.Expect{Kind: engine.Describe, Statement: st.id, Names: st.names, Reply: st.describingTypes()})
	s.batch.sent = true
	return nil
}

// linkToAsk is a link on which a server says what a statement with plan p looks like: the one in use, if that can.
func (s *session) linkToAsk(p *router.Plan) (*engine.Link, error) {
	q := s.anywhere(p)
	if l := s.link; l != nil && l.Err == nil && q.Has(router.Neutral) {
		return l, nil
	}
	s.showAhead(p)
	return s.linkFor(q)
}

// describesApart says whether st is described before anything of its transaction has taken a snapshot. Describe takes none, and a Parse that
// has to go ahead of it does: behind that it would be too late to choose what the transaction is like.
func (s *session) describesApart(st *statement) bool {
	b, l := &s.batch, s.link
	if b.sent || b.parsed || len(b.held) > 0 || !st.looksAhead() || l != nil && s.knows(l, st) {
		return false
	}
	return s.tx.state != txOpen || l != nil && s.tx.neutral && !s.tx.looked && l.Conn.TxStatus != wire.TxAborted && !s.portals.open(l)
}

// undecided says whether the session is in a transaction that no server has heard of, and the plan does not say yet where that belongs.
func (s *session) undecided(p *router.Plan) bool {
	return s.tx.state == txBegun && s.link == nil && s.tx.flat == 0 && len(p.Shards) > 1
}

// prepareOutside prepares what is held, and describes a statement if there is one to describe, on a shard where the plan may run, but
// outside of the transaction: it would begin there, and its key may lead elsewhere. Nothing of it depends on what a transaction without
// statements has done. An error is the transaction's.
func (s *session) prepareOutside(p *router.Plan, st *statement) error {
	access := backend.Write
	if s.tx.readOnly {
		access = s.reading()
	}
	l, err := s.reach(s.p.shard(p, 0), access)
	if err != nil {
		s.dropHeld(true)
		return err
	}
	if slices.ContainsFunc(s.batch.held, (*statement).looksAhead) {
		s.tx.seal()
	}
	return s.prepareApart(l, st)
}

// prepareApart is that on a link, as a batch of its own.
func (s *session) prepareApart(l *engine.Link, st *statement) error {
	s.flushHeld(l)
	if st != nil {
		onServer := s.ensure(l, st, engine.MuteAck)
		l.SetOut(wire.AppendDescribe(l.Out(), wire.KindStatement, onServer))
		l.Expect(engine.Expect{Kind: engine.Describe, Statement: st.id, Names: st.names, Reply: st.describingTypes()})
	}
	parsed := s.batch.parsed // what is prepared here is no part of the batch
	s.portals.leaving = true
	defer func() { s.portals.leaving = false }()
	failed, err := s.endPart(l)
	if s.batch.parsed = parsed; err != nil {
		return err
	}
	if err := s.settle(); err != nil {
		return err
	}
	if failed {
		if s.tx.state == txBegun { // with its savepoints, see refuse
			s.beginToFail()
		}
		if l := s.link; l != nil && l.Err == nil {
			s.failThere(l, nil)
			s.batch.sent = true
		} else if s.tx.state == txBegun {
			s.tx.fail(nil)
		}
		s.batch.skip = true
		return errAnswered
	}
	return nil
}

func (s *session) describePortal(name []byte, n int) error {
	pt := s.portals.get(name)
	if pt == nil {
		if err := s.useHolder(); err != nil {
			return err
		}
	}
	if l := s.link; len(name) == 0 && s.portals.uncertain() && pt.link == l && !s.batch.unnamed && !s.batch.sent {
		if l.Owed() > 0 {
			if err := s.drain(); err != nil {
				return err
			}
			return s.describe()
		}
		if s.aborted() {
			return s.describeUncertain(l, n)
		}
	}
	frame := s.Input()[:n]
	switch {
	case pt == nil && s.link == nil:
		err := errNoPortal(string(name))
		s.Consume(n)
		return s.failBatch(err)
	case pt == nil || pt.link != nil: // a cursor made by DECLARE is a portal too
		l := s.link
		if l == nil {
			err := errNoPortal(string(name))
			s.Consume(n)
			return s.failBatch(err)
		}
		s.flushHeld(l)
		e := engine.Expect{Kind: engine.Describe}
		if pt != nil {
			e.Names, e.Reply = pt.st.names, pt.st.describing()
		}
		s.batch.described = true
		l.Queue(frame)
		l.Expect(e)
		s.batch.sent = true
		s.Consume(n)
		return nil
	}
	s.Consume(n)
	if pt.plan.Kind == router.Scatter {
		pt.told = true // the first shard tells when it runs
		return nil
	}
	if wide(pt.plan) {
		s.replyInOrder(wire.AppendNoData(nil))
		return nil
	}
	m, err := wire.DecodeBind(pt.bind[wire.HeaderLen:])
	if err != nil {
		return err
	}
	s.replyInOrder(s.appendFields(nil, pt.plan, &m))
	return nil
}

// describeUncertain describes the unnamed portal in a transaction that has failed, where the server may lack it, being one of the proxy's own:
// these have no rows.
func (s *session) describeUncertain(l *engine.Link, n int) error {
	var reply engine.Reply
	l.Queue(s.Input()[:n])
	s.Consume(n)
	l.Expect(engine.Expect{Kind: engine.Describe, Mute: engine.MuteAll, Reply: &reply})
	err := s.awaitUnseen(l, &reply)
	if e := (*wire.Error)(nil); err != nil && !(errors.As(err, &e) && e.Code == wire.InvalidCursorName) {
		return s.failBatch(err)
	}
	s.replyInOrder(wire.AppendNoData(nil))
	return nil
}

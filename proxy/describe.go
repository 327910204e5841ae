package proxy

import (
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
	st := s.statement(target.Name)
	if st == nil {
		err := errNoStatement(string(target.Name))
		s.Consume(len(frame))
		return s.failBatch(err)
	}
	s.Consume(len(frame))
	s.template(st)
	g := st.template.Generic()
	if executes(g) {
		if st, g, err = s.executed(st, st.template.Bind(nil, nil).Prepared); err != nil {
			return s.failBatch(err)
		}
	}
	if s.proxyOwn(g) {
		if err := s.prepareHeld(); err != nil {
			return s.failBatch(err)
		}
		b := wire.AppendParameterDescription(nil, st.template.Params())
		s.reply(s.appendFields(b, g, nil))
		return nil
	}
	l := s.link
	if l == nil || l.Err != nil {
		if l, err = s.linkFor(s.anywhere(g)); err != nil {
			return s.failBatch(err)
		}
	}
	s.flushHeld(l)
	onServer := s.ensure(l, st, engine.MuteAck)
	l.SetOut(wire.AppendDescribe(l.Out(), wire.KindStatement, onServer))
	l.Expect(engine.Expect{Kind: engine.Describe, Statement: st.id, Names: st.names})
	s.batch.sent = true
	return nil
}

func (s *session) describePortal(name []byte, n int) error {
	pt := s.portals.get(name)
	if pt == nil {
		if err := s.useHolder(); err != nil {
			return err
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
			e.Names = pt.st.names
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
		s.reply(wire.AppendNoData(nil))
		return nil
	}
	m, err := wire.DecodeBind(pt.bind[wire.HeaderLen:])
	if err != nil {
		return err
	}
	s.reply(s.appendFields(nil, pt.plan, &m))
	return nil
}

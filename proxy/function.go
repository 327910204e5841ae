package proxy

import (
	"github.com/tidemarkdb/tidemark/internal/engine"
	"github.com/tidemarkdb/tidemark/router"
)

// function handles FunctionCall, by which large objects are used: they live on the default shard.
func (s *session) function() error {
	frame, err := s.Frame(s.p.cfg().MaxMessage)
	if err != nil {
		return s.tooLarge(err)
	}
	n := len(frame)
	p := &router.Plan{Kind: router.Route, Access: router.Write, Flags: router.Writes | router.Dirty, Shards: s.p.defaultShard}
	if s.trace(nil, false); s.traced != nil {
		s.traced.describe(p)
	}
	if s.tx.state == txFailed {
		s.Consume(n)
		return s.failed(s.errAborted())
	}
	l, err := s.linkFor(p)
	if err != nil {
		s.Consume(n)
		return s.failed(err)
	}
	e := engine.Expect{Kind: engine.Function}
	if s.effects(l, p) {
		e.Reply, e.Mute, s.after.hold = &s.after.outcome, engine.MuteReady, true
	}
	l.Expect(e)
	l.Send(s.Input()[:n])
	s.Consume(n)
	if s.after.mark {
		s.sendProbe(l)
	}
	return nil
}

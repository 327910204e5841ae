package proxy

import (
	"github.com/tidemarkdb/tidemark/internal/engine"
	"github.com/tidemarkdb/tidemark/router"
)

// function handles FunctionCall, by which large objects are used: they live on the default shard.
// Nothing of it is read here, so that it may have any size.
func (s *session) function(size int) error {
	if size <= streamFrom {
		if _, err := s.Frame(size); err != nil {
			return err
		}
	}
	p := &router.Plan{Kind: router.Route, Access: router.Write, Flags: router.Writes | router.Dirty, Shards: s.p.defaultShard}
	if s.trace(nil, false); s.traced != nil {
		s.traced.describe(p)
	}
	if s.tx.state == txFailed {
		if err := s.Skip(size); err != nil {
			return err
		}
		return s.failed(s.errAborted())
	}
	err := s.listenAhead(p)
	var l *engine.Link
	if err == nil {
		l, err = s.linkFor(p)
	}
	if err == nil {
		err = s.speaks(l, p)
	}
	if err != nil {
		if err := s.Skip(size); err != nil {
			return err
		}
		return s.failed(err)
	}
	e := engine.Expect{Kind: engine.Function}
	if s.effects(l, p) {
		e.Reply, e.Mute, s.after.hold = &s.after.outcome, engine.MuteReady, true
	}
	if !s.batch.sent {
		s.batch.wrote = false
	}
	l.Expect(e)
	if err := s.Pass(l, size); err != nil {
		return err
	}
	if s.after.mark {
		s.sendProbe(l)
	}
	return nil
}

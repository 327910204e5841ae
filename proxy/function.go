package proxy

import (
	"encoding/binary"

	"github.com/tidemarkdb/tidemark/internal/engine"
	"github.com/tidemarkdb/tidemark/internal/wire"
	"github.com/tidemarkdb/tidemark/router"
)

// function handles FunctionCall, by which large objects are used: they live on the default shard.
// Nothing of it is read here but which function it is, so that it may have any size.
func (s *session) function(size int) error {
	oid, err := s.functionOID(size)
	if err != nil {
		return err
	}
	leaves, ref := s.p.router.Load().CallByOID(oid)
	p := &router.Plan{Kind: router.Route, Access: router.Write, Flags: router.Writes | router.Dirty | leaves, Shards: s.p.defaultShard}
	if s.trace(nil, false); s.traced != nil {
		s.traced.describe(p)
	}
	if s.tx.state == txFailed {
		return s.skipped(s.errAborted())
	}
	if ref != nil {
		err = refusal(ref)
	}
	var l *engine.Link
	if err == nil {
		err = s.listenAhead(p)
	}
	if err == nil {
		l, err = s.linkFor(p)
	}
	if err == nil {
		err = s.speaks(l, p)
	}
	if err == nil && p.Has(router.Executes) {
		err = s.lendPrepared(l)
	}
	if err != nil {
		return s.skipped(err)
	}
	e := engine.Expect{Kind: engine.Function}
	if s.effects(l, p) {
		e.Reply, e.Mute, s.after.hold = &s.after.outcome, engine.MuteReady, true
	}
	if s.batch.sent {
		s.batch.ending = true // as a Query does
	} else {
		s.batch.wrote = false
	}
	l.Expect(e)
	if err := s.Pass(l, size, s.p.cfg().MessageTimeout); err != nil {
		return err
	}
	if s.after.mark {
		s.sendProbe(l)
	}
	return nil
}

// functionOID is the function that a FunctionCall of that size asks for; 0 for one too short to say. A small message has come whole
// then.
func (s *session) functionOID(size int) (uint32, error) {
	const oidEnd = wire.HeaderLen + 4
	if size <= streamFrom {
		if _, err := s.Frame(size); err != nil {
			return 0, err
		}
	}
	if size < oidEnd {
		return 0, nil
	}
	for len(s.Input()) < oidEnd {
		if err := s.MoreOf(size); err != nil {
			return 0, err
		}
	}
	return binary.BigEndian.Uint32(s.Input()[wire.HeaderLen:]), nil
}

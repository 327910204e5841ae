package proxy

import (
	"errors"

	"github.com/tidemarkdb/tidemark/internal/engine"
	"github.com/tidemarkdb/tidemark/internal/wire"
)

// The extended protocol. A batch is what lies between two Syncs. A statement that is parsed names no shard yet, so a
// Parse is held until a Bind or Describe says where to go (ensure.go); on servers the statement has a name that stands for its text
// and parameter types (statements.go), so that clients share it and any connection of the pool can have it.

// batch is the state since the last Sync.
type batch struct {
	sent bool // the link has got requests that no Sync has followed yet
	skip bool // an error was answered: ignore messages until Sync
	// unasked: the last message was of it, and is answered when a Sync or Flush comes.
	unasked bool
	// ending: a Query or FunctionCall was sent amid it. PostgreSQL ends the batch with that, unless it leaves a transaction open: see queryEnded.
	ending bool
	wrote  bool // a statement may have changed data
	heard  bool // it has a LISTEN, NOTIFY or cursor WITH HOLD, which does nothing if something behind it fails, or a lock that lasts as long
	closes bool // a statement was closed, unless what comes before that fails
	// queried: something was executed in it of which the link's server does not know: the proxy has answered it, or another server.
	// parsed: ... prepared or executed that takes a snapshot. ran, snapped: the same of what the link's server has got.
	queried, parsed, ran, snapped bool
	// over: it has ended a transaction on the link, behind which nothing has run there.
	over bool
	// copying: a COPY FROM STDIN was executed, and the client has not ended its data yet.
	copying bool
	// again: it begins with a Bind of a statement that was prepared before, outside of a transaction, and asks
	// what its rows look like: see repeat. It begins at Out()[from:] of the link, if that has flushed no more than so often.
	again, described bool
	unnamed          bool // the unnamed portal was bound in it
	from, flushes    int32
	held             []*statement // parsed, not yet known to any server; ParseComplete is owed
}

func (s *session) skipping() bool { return s.batch.skip || s.link != nil && s.link.Skipping }

// whole waits, amid a batch, for the rest of a message of which a part has come: the error of an earlier request may come first,
// and then the server skips what is sent behind it. Only large Binds, which are passed on while they arrive, look for that themselves.
func (s *session) whole(typ byte, size int) error {
	limit := wire.SmallMessageLimit
	switch typ {
	case wire.MsgParse:
		limit = s.p.cfg().MaxMessage
	case wire.MsgBind:
		limit = streamFrom
	case wire.MsgDescribe, wire.MsgExecute, wire.MsgClose:
	default:
		return nil
	}
	if size > limit || s.batch.skip || s.link == nil || s.link.Skipping {
		return nil // is refused, passed on or skipped
	}
	_, err := s.Frame(limit)
	if e := (*wire.Error)(nil); errors.As(err, &e) && e.Code == wire.OutOfMemory {
		return nil // is refused, too
	}
	return err
}

// failBatch answers an error of the proxy's own within a batch. What is not for the client is returned.
func (s *session) failBatch(err error) error {
	if errors.Is(err, errAnswered) { // what was parsed since is skipped
		s.dropHeld(false)
		return nil
	}
	var e *wire.Error
	if !errors.As(err, &e) || e.EndsSession() {
		return err
	}
	if s.skipping() { // an error that was on its way came first
		s.dropHeld(false)
		return nil
	}
	switch err := s.prepareHeld(); { // what was parsed before the error is prepared
	case err == nil, errors.As(err, new(*wire.Error)):
	case errors.Is(err, errAnswered): // that error came first
		return nil
	default:
		return err
	}
	s.batch.skip = true
	if s.refuse(e) {
		s.batch.sent = true
	}
	return nil
}

// answerFlush handles Flush.
func (s *session) answerFlush() error {
	s.Consume(wire.HeaderLen)
	if err := s.prepareHeld(); err != nil {
		return s.failBatch(err)
	}
	if s.link != nil && s.batch.sent {
		s.link.SetOut(wire.AppendFlush(s.link.Out()))
	}
	return nil
}

// sync handles Sync: the end of the batch.
func (s *session) sync() error {
	if !s.batch.skip {
		if err := s.prepareHeld(); err != nil {
			if err := s.failBatch(err); err != nil {
				return err
			}
		}
	}
	s.Consume(wire.HeaderLen)
	if s.traced != nil {
		s.traced.batch = false
	}
	if s.batch.parsed && !s.skipping() {
		s.lookedAhead()
	}
	s.tx.looked = s.tx.looked || s.batch.snapped
	defer func() {
		s.closes = s.closes || s.batch.closes
		s.batch = batch{held: s.batch.held[:0]}
		s.drawn = false
		s.syncs++
	}()
	l := s.link
	if s.tx.state == txNone && !s.inTransaction() || s.batch.over { // it ends with this
		s.portals.clear()
	}
	if l == nil || l.Err == nil && !s.batch.sent && l.Owed() == 0 {
		return s.ready(s.status())
	}
	if l.Err != nil {
		s.batch.sent = false
		if err := s.lost(l); err != nil {
			return err
		}
		return s.ready(s.status())
	}
	e := engine.Expect{Kind: engine.Sync}
	again := !s.after.active || s.ear != nil && s.after.plain()
	if s.ear != nil {
		s.after.active = true
	}
	if s.held() {
		s.after.hold = true
		e.Mute = engine.MuteReady
	}
	l.SetOut(wire.AppendSync(l.Out()))
	if b := &s.batch; b.again && b.described && again && int32(l.Flushes) == b.flushes && len(l.Out())-int(b.from) <= streamFrom {
		s.again = append(s.again[:0], l.Out()[b.from:]...)
		e.Again = true
	}
	l.Expect(e)
	l.Skipping = false // what comes now is of the next batch
	if s.after.mark {
		s.sendProbe(l)
	}
	return nil
}

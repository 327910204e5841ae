package proxy

import (
	"errors"

	"github.com/tidemarkdb/tidemark/internal/engine"
	"github.com/tidemarkdb/tidemark/internal/wire"
	"github.com/tidemarkdb/tidemark/router"
)

// failed answers an error of the proxy's own to the request in progress. Errors that are not for the client are returned.
func (s *session) failed(err error) error {
	s.owns = nil
	if errors.Is(err, errAnswered) {
		return nil
	}
	var e *wire.Error
	if !errors.As(err, &e) || e.EndsSession() {
		return err
	}
	s.refuse(e)
	if l := s.link; l != nil && l.Owed() > 0 && l.Err == nil {
		e := engine.Expect{Kind: engine.Sync}
		if s.ear != nil {
			e.Mute, s.after.active, s.after.hold = engine.MuteReady, true, true
		}
		l.SetOut(wire.AppendSync(l.Out()))
		l.Expect(e)
		if s.batch.sent {
			s.endedBatch()
		}
		return nil
	}
	return s.ready(s.status())
}

// refuse gives the client an error and aborts the transaction it is in: on the server too, by a request that is sure to
// fail there and whose error is replaced by this one.
//
// A transaction that no server has heard of yet begins for it: ROLLBACK TO must find its savepoints. It says whether the
// error comes by way of the link.
func (s *session) refuse(e *wire.Error) (byLink bool) {
	s.p.stats.errors.Add(1)
	if s.traced != nil {
		s.traced.fail(e.Code)
	}
	if s.tx.state == txBegun && s.link == nil && !unreachable(e) {
		s.beginToFail()
	}
	if l := s.link; l != nil && l.Err == nil && (s.batch.sent || s.tx.state == txOpen || l.Owed() > 0) {
		if s.batch.parsed && !s.aborted() {
			s.lookedAhead()
		}
		s.failThere(l, e)
		return true
	}
	if s.tx.state == txBegun {
		s.tx.fail(nil)
	}
	s.SetOut(wire.AppendErrorResponse(s.Out(), e))
	return false
}

// beginToFail begins the transaction that no server has heard of on one, where it is about to fail. If that fails as well the
// transaction just does.
func (s *session) beginToFail() {
	_, _ = s.linkFor(&router.Plan{Kind: router.AnyShard, Flags: router.Neutral, Shards: s.p.defaultShard})
}

// failThere sends l a request that is sure to fail, of which the client gets e; nil: it has been told.
func (s *session) failThere(l *engine.Link, e *wire.Error) {
	l.SetOut(wire.AppendExecute(l.Out(), noPortal, 0))
	l.Expect(engine.Expect{Kind: engine.Execute, Instead: e, Mute: engine.MuteError})
}

// unreachable says whether an error is about servers that cannot be had, by its class. The client's own violation of the protocol is in
// that of connections.
func unreachable(e *wire.Error) bool {
	switch e.Code[:2] {
	case "08", "53", "57", "58":
		return e.Code != wire.ProtocolViolation
	}
	return false
}

// noPortal is a name that no client's portal has.
const noPortal = "tidemark: no such portal"

// malformed answers a message whose body is not what its type asks for, and skips it: its end is known, so the session
// goes on, as PostgreSQL's does. Errors that are not of a decoder are returned.
func (s *session) malformed(err error) error {
	var e *wire.Error
	if !errors.As(err, &e) || e.EndsSession() {
		return err
	}
	return s.skipped(e)
}

// tooLarge answers a message over the limit, or for which there is no memory, and skips it: the session goes on.
func (s *session) tooLarge(err error) error {
	var e *wire.Error
	if !errors.As(err, &e) || e.Code != wire.ProgramLimitExceeded && e.Code != wire.OutOfMemory {
		return err
	}
	return s.skipped(e)
}

// skipped answers the message at hand with err, and skips it. What is not for the client is returned.
func (s *session) skipped(err error) error {
	typ, size, herr := s.Header()
	if herr != nil {
		return herr
	}
	if serr := s.Skip(size); serr != nil {
		return serr
	}
	if typ == wire.MsgSync { // it ends its batch all the same
		s.Replace(0, wire.AppendSync(nil))
	}
	if typ == wire.MsgQuery || typ == wire.MsgFunctionCall {
		return s.failed(err)
	}
	return s.failBatch(err)
}

// refusal is a plan's refusal as an error.
func refusal(r *router.Refusal) *wire.Error {
	e := wire.Errorf(r.Code, "%s", r.Message)
	e.Detail, e.Hint, e.Position = r.Detail, r.Hint, r.Position
	return e
}

package proxy

import (
	"github.com/tidemarkdb/tidemark/internal/engine"
	"github.com/tidemarkdb/tidemark/internal/wire"
)

// A server that has been sent a COPY FROM STDIN reads copy data, and nothing else, until the client ends it. Whether a COPY has
// begun is for the server to say: so what comes behind one that was sent waits until the server has answered.
//
//	the client sends           while the server takes data    otherwise
//	CopyData, Done, Fail       passed on                      passed on or dropped: the server drops them
//	Flush                      dropped, as the server does    as ever
//	Sync                       passed on, owed nothing        as ever
//	Terminate                  the session ends               as ever
//	anything else              the session ends               as ever
//
// The server drops a Sync, too, which libpq relies on: it sends one right behind Execute. But it may have found wrong data before, of
// which the proxy has not heard yet, and then it counts: see recount. So the server is asked for the last line as well.

// copying passes on what belongs to a COPY.
func (s *session) copying(typ byte, size int) error {
	l := s.link
	if l == nil || l.Owed() == 0 {
		return s.Skip(size)
	}
	if typ == wire.MsgCopyData {
		return s.PassCopy(l, size, s.p.cfg().MessageTimeout)
	}
	l.EndCopy() // the server reads Sync again
	s.batch.copying = false
	errors := l.Errors
	if err := s.Pass(l, size, s.p.cfg().MessageTimeout); err != nil || l.Synced == 0 {
		return err
	}
	l.SetOut(wire.AppendFlush(l.Out()))
	for l.Err == nil && l.Synced > 0 && l.Errors == errors { // before anything else is sent
		if err := s.Serve(); err != nil {
			return err
		}
	}
	return nil
}

// recount finds out how many of the Syncs that it was sent amid a COPY the server has counted, when that has failed. They are put before
// what the client has sent since, as if it came now: to answer them again changes nothing. begun is the type of a message
// whose body the server waits for, see endBegun.
func (s *session) recount(l *engine.Link, begun byte) error {
	if l.Skipping { // as it does where it has counted none
		l.Skipping, s.batch.skip = false, true
	}
	s.batch.copying = false
	errors := l.Errors
	l.SetOut(wire.AppendQuery(wire.AppendSync(l.Out()), ""))
	l.Expect(engine.Expect{Kind: engine.Query, Mute: engine.MuteAll, Reply: &engine.Reply{Counts: true}})
	if err := s.Await(l); err != nil || l.Err != nil {
		return err
	}
	n := l.Counted - 1 // for the Sync here
	l.Counted = 0
	if begun == wire.MsgQuery || begun == wire.MsgFunctionCall {
		n -= l.Errors - errors // which it was not skipped, but failed
	}
	var syncs []byte
	for range n {
		syncs = wire.AppendSync(syncs)
	}
	s.Replace(0, syncs)
	return nil
}

// amidCopy takes a message that comes while a server reads, or may be about to read, copy data. It says whether that was all
// there is to do.
func (s *session) amidCopy(typ byte, size int) (handled bool, err error) {
	if typ == wire.MsgCopyData || typ == wire.MsgCopyDone || typ == wire.MsgCopyFail {
		return false, nil
	}
	l := s.link
	if l != nil && s.batch.copying && !l.Copying {
		l.SetOut(wire.AppendFlush(l.Out()))
		for l.Err == nil && l.Owed() > 0 && !l.Copying && !l.Skipping {
			if err := s.Serve(); err != nil {
				return true, err
			}
		}
	}
	if l == nil || l.Err != nil || !l.Copying {
		s.batch.copying = false
		return l != nil && l.Err == nil, nil // an error may have ended the batch: the message is looked at anew
	}
	if typ == wire.MsgSync {
		l.SetOut(wire.AppendSync(l.Out()))
		l.Synced++
	}
	if typ == wire.MsgSync || typ == wire.MsgFlush {
		return true, s.Skip(size)
	}
	// PostgreSQL gives the message up half read, and so the connection too. It says where in the data that was.
	before := l.Errors
	for l.Send(s.Input()[:1]); l.Err == nil && l.Errors == before; {
		if err := s.Serve(); err != nil {
			return true, err
		}
	}
	if l.Err != nil || l.OutOfStep {
		return true, errOutOfStep
	}
	return true, s.endBegun(l, typ)
}

// endBegun ends, unseen, a message that the server has the type of, and waits for behind a COPY that has failed: as one without a body,
// which changes nothing.
func (s *session) endBegun(l *engine.Link, typ byte) error {
	end := []byte{0, 0, 0, 4} // its length
	code := l.Code
	defer func() { l.Code = code }()
	switch {
	case l.Synced > 0:
		l.Send(end)
		return s.recount(l, typ)
	case l.Skipping:
		l.Send(end)
		return nil
	case typ == wire.MsgQuery:
		l.Expect(engine.Expect{Kind: engine.Query, Mute: engine.MuteAll})
	case typ == wire.MsgFunctionCall:
		l.Expect(engine.Expect{Kind: engine.Function, Mute: engine.MuteAll})
	default:
		l.Expect(engine.Expect{Kind: engine.Close, Mute: engine.MuteAll})
		l.Expect(engine.Expect{Kind: engine.Sync, Mute: engine.MuteAll})
		end = wire.AppendSync(end)
	}
	l.Send(end)
	for l.Err == nil && l.Owed() > 0 {
		if err := s.Serve(); err != nil {
			return err
		}
	}
	return nil
}

// errOutOfStep ends the session of a client that sends what cannot be copy data in its place.
var errOutOfStep = wire.Errorf(wire.ProtocolViolation, "terminating connection because protocol synchronization was lost").Fatal()

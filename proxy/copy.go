package proxy

import (
	"github.com/tidemarkdb/tidemark/internal/wire"
)

// A server that has been sent a COPY FROM STDIN reads copy data, and nothing else, until the client ends it. Whether a COPY has
// begun is for the server to say: so what comes behind one that was sent waits until the server has answered.
//
//	the client sends           while the server takes data    otherwise
//	CopyData, Done, Fail       passed on                      passed on or dropped: the server drops them
//	Flush, Sync                dropped, as the server does    as ever
//	Terminate                  the session ends               as ever
//	anything else              the session ends               as ever
//
// libpq relies on the second line: it sends Sync right behind Execute.

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
	return s.Pass(l, size, s.p.cfg().MessageTimeout)
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
		return false, nil
	}
	if typ == wire.MsgSync || typ == wire.MsgFlush {
		return true, s.Skip(size)
	}
	// PostgreSQL gives the message up half read, and so the connection too. It says where in the data that was.
	before := l.Errors
	for l.Send(s.Input()[:wire.HeaderLen]); l.Err == nil && l.Errors == before; {
		if err := s.Serve(); err != nil {
			return true, err
		}
	}
	return true, errOutOfStep
}

// errOutOfStep ends the session of a client that sends what cannot be copy data in its place.
var errOutOfStep = wire.Errorf(wire.ProtocolViolation, "terminating connection because protocol synchronization was lost").Fatal()

package proxy

import (
	"errors"

	"github.com/tidemarkdb/tidemark/internal/backend"
	"github.com/tidemarkdb/tidemark/internal/engine"
	"github.com/tidemarkdb/tidemark/internal/wire"
	"github.com/tidemarkdb/tidemark/router"
)

// drain waits until the link has answered what it was asked, and settles it. Not for a batch that is still open.
func (s *session) drain() error {
	for {
		if err := s.settle(); err != nil {
			return err
		}
		if s.link == nil || s.batch.sent || s.link.Idle() && !s.after.active {
			return nil
		}
		if err := s.Serve(); err != nil {
			return err
		}
	}
}

// endOver has the books of a transaction closed that the batch has ended: what comes behind it is for any shard. Between batches it waits
// for that, too.
func (s *session) endOver() error {
	if s.batch.sent && s.batch.over && s.link != nil && !s.portals.open(s.link) {
		return s.leave()
	}
	if !s.batch.sent {
		return s.drain()
	}
	return nil
}

// endOverBefore is that where p begins the next transaction, unless it may just as well go on there.
func (s *session) endOverBefore(p *router.Plan) error {
	if p.Kind == router.Tx && p.Tx.Op == router.Begin && s.batch.over && (len(s.p.shards) > 1 || s.link != nil && s.link.Conn.Endpoint().Role() == backend.RoleReplica) {
		return s.endOver()
	}
	return nil
}

// leave ends the link's part in a batch or transaction that may go on elsewhere: only reads, or nothing that matters,
// have run there. After an error the transaction stays where it failed.
func (s *session) leave() error {
	s.portals.leaving = true
	defer func() { s.portals.leaving = false }()
	l := s.link
	failed := false
	if s.batch.sent {
		var err error
		if failed, err = s.endPart(l); err != nil {
			return err
		}
	}
	failed = failed || l.Err != nil
	if !failed && s.aborted() { // by a batch before, whose error has come only now
		return s.errAborted()
	}
	if !failed && s.tx.state == txOpen && l.Conn.TxStatus != wire.TxIdle {
		s.queryUnseen(l, "ROLLBACK", nil)
		if err := s.Await(l); err != nil {
			return err
		}
		if l.Err == nil {
			if s.tx.state = txBegun; s.tx.looked {
				s.tx.seal()
			}
		}
	}
	if err := s.drain(); err != nil { // it may have to be asked what is left there
		return err
	}
	if failed {
		s.batch.skip = true
		return errAnswered
	}
	return nil
}

// endPart ends what of the batch has been sent to a link, and waits for it. It says whether that has failed.
func (s *session) endPart(l *engine.Link) (failed bool, err error) {
	var end engine.Reply // of a Close of nothing, which is skipped only behind an error of this batch: those before may have some yet to come
	l.SetOut(wire.AppendClose(l.Out(), wire.KindStatement, noPortal))
	l.Expect(engine.Expect{Kind: engine.Close, Mute: engine.MuteAll, Reply: &end})
	syncUnseen(l)
	if s.batch.goesOn(); s.after.mark {
		s.sendProbe(l)
	}
	err = s.Await(l)
	return end.Err != nil || l.Err != nil, err
}

// errAnswered says that the client has been given an error already.
var errAnswered = errors.New("answered")

// queryUnseen sends a query of the proxy's own; nothing of its answer reaches the client.
func (s *session) queryUnseen(l *engine.Link, sql string, reply *engine.Reply) {
	l.SetOut(wire.AppendQuery(l.Out(), sql))
	l.Expect(engine.Expect{Kind: engine.Query, Mute: engine.MuteAll, Reply: reply})
}

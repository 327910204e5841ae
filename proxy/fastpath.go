package proxy

import (
	"bytes"
	"encoding/binary"

	"github.com/tidemarkdb/tidemark/internal/backend"
	"github.com/tidemarkdb/tidemark/internal/engine"
	"github.com/tidemarkdb/tidemark/internal/loop"
	"github.com/tidemarkdb/tidemark/internal/sql"
	"github.com/tidemarkdb/tidemark/internal/wire"
	"github.com/tidemarkdb/tidemark/router"
)

// The fast path is for what most statements are: a client that has nothing under way sends one request, whole and alone, of one
// statement that leaves nothing behind but rows, and one server answers it; in a transaction or not. Its two halves, request and response,
// do what the ordinary way does (next to forward, or to sync; settle and release), and leave the session as that would; wherever
// something else is found the ordinary way goes on. It has half of the ordinary way's code, which is what the time goes by: see
// docs/decisions.

// hurry serves a session at rest on the fast path for as long as that will do. Else the ordinary way goes on, with the cause returned.
func (s *session) hurry(cause loop.Cause) (_ loop.Cause, err error) {
	for s.place != nil || cause == loop.Ready && (s.steady || s.calm()) {
		done := false
		switch l := s.link; {
		case s.place != nil:
			if done, err = s.dequeue(cause); cause == loop.Timeout { // of that wait
				cause = loop.Ready
			}
		case l == nil || l.Idle():
			done, err = s.request(s.Peek())
		default:
			done = s.response(l)
		}
		if !done || err != nil {
			break
		}
		over := false
		if w := s.place; w != nil {
			cause, over = s.Queue(w.Deadline(), s.resume)
		} else {
			cause, over = s.Pause(s.resume)
		}
		if !over {
			s.rests, s.steady = true, true
			return cause, nil
		}
	}
	s.steady = false
	s.Task.FlushLate() // what follows may take long
	return cause, err
}

// calm says that the session has no state of which anything but the two halves would have to know.
func (s *session) calm() bool {
	b, tx, a := &s.batch, &s.tx, &s.after
	if tx.state == txFailed || tx.state == txOpen && s.link == nil || tx.state == txNone && tx.wrote {
		return false
	}
	return !tx.schema && !tx.unclear && !tx.probeLater &&
		!b.unasked && !b.sent && !b.skip && !b.ending && !b.queried && !b.parsed && !b.copying && len(b.held) == 0 &&
		!a.active && a.prepared == nil && len(a.aside) == 0 && !s.askState && !s.coded && !s.blind &&
		s.mode == backend.Transaction && s.ear == nil && s.traced == nil && len(s.pins) == 0 && len(s.owns) == 0 && !s.own.notice
}

// request looks at what the client has sent. Where that is for the fast path it is sent to a server, or the session has queued for one,
// and done is true.
func (s *session) request(in []byte) (done bool, err error) {
	live := s.p.live.Load()
	if len(in) <= wire.HeaderLen || len(in) > min(live.MaxMessage, streamFrom) || s.p.draining.Load() {
		return false, nil
	}
	switch in[0] {
	case wire.MsgQuery:
		return s.lone(in)
	case wire.MsgParse, wire.MsgBind:
		return s.loneBatch(in)
	}
	return false, nil
}

// lone is request for a Query. One that is whole and alone goes on from here on the ordinary way, if its plan is not for this one.
func (s *session) lone(in []byte) (done bool, err error) {
	n := len(in)
	text := in[wire.HeaderLen : n-1]
	if int(binary.BigEndian.Uint32(in[1:])) != n-1 || bytes.IndexByte(in[wire.HeaderLen:], 0) != len(text) || len(s.view.Conforming(text)) != len(text) {
		return false, nil
	}
	scratch := scratches.Get(s.Task)
	statements, ok := s.p.router.Load().Cached(scratch, s.view, text)
	if !ok {
		s.putScratch(scratch)
		return false, nil
	}
	s.trace(text, false)
	s.dropUnnamed()
	p := statements[0].Plan
	if len(statements) > 1 || s.traced != nil || !s.fast(p) {
		s.KeepPeeked()
		return false, s.runStatements(scratch, statements, s.Input()[wire.HeaderLen:n-1], n)
	}
	s.putScratch(scratch)
	if s.link == nil && p.Kind == router.Tx {
		return true, s.beginsHere(p, in)
	}
	l := s.link
	if s.tx.state != txOpen {
		if l, in, done, err = s.server(p, in); l == nil || err != nil {
			return done, err
		}
	}
	if err := s.takesPart(l, p); err != nil {
		return false, err
	}
	s.portals.queried()
	s.drawn = false
	if len(in) != n || !s.Clear() || !l.Idle() { // it had to wait, or something is said first
		s.KeepPeeked()
		err := s.forward(l, p, s.Input()[:n], engine.Expect{Kind: engine.Query}, n)
		l.Push()
		return s.Clear() && l.Err == nil && len(l.Out()) == 0, err
	}
	l.Query(in)
	s.ConsumePeeked(n)
	return l.Err == nil, nil
}

// fast says whether a plan is for the fast path, in the transaction in which the session is, if it is in one.
func (s *session) fast(p *router.Plan) bool {
	switch s.tx.state {
	case txNone:
		if c := p.Tx; p.Kind == router.Tx {
			return c.Op == router.Begin && s.link == nil && c.Isolation == "" && c.ReadOnly == router.Unset && c.Deferrable == router.Unset
		}
		return single(p) && (p.Flags == 0 || !s.marksMatter())
	case txBegun:
		return single(p) && len(s.portals.named) == 0
	}
	l := s.link
	if !l.Idle() || l.Conn.TxStatus != wire.TxOpen || len(s.portals.named) > 0 {
		return false
	}
	if c := p.Tx; p.Kind == router.Tx {
		return c.Ends() && !c.Chain && s.endsPlainly()
	}
	return single(p) && s.suits(l, p)
}

// single says whether a plan is one statement on one shard that leaves nothing behind but rows, read or written.
func single(p *router.Plan) bool {
	return (p.Kind == router.Route || p.Kind == router.AnyShard) && len(p.Shards) == 1 && p.Flags&^router.Writes == 0 &&
		p.Setting == nil && len(p.Bare) == 0 && p.Command != sql.CopyFrom
}

// endsPlainly says whether nothing of the transaction has to be followed behind its end.
func (s *session) endsPlainly() bool { return !s.tx.wrote && !s.settings.touched() }

// beginsHere answers BEGIN, see transaction.go.
func (s *session) beginsHere(p *router.Plan, in []byte) error {
	s.note(p)
	answer, _, err := s.control(s.Out(), p, in[wire.HeaderLen:len(in)-1])
	if err != nil {
		return err
	}
	answer = wire.AppendReadyForQuery(answer, s.status())
	s.SetOut(answer[:0])
	s.ReplyLate(answer)
	s.ConsumePeeked(len(in))
	return nil
}

// takesPart notes that the statement runs on l, in the session's transaction if there is one.
func (s *session) takesPart(l *engine.Link, p *router.Plan) error {
	s.note(p)
	s.tx.looked, s.tx.neutral, s.batch.wrote = s.looks(p), false, false
	s.tx.wrote = s.tx.wrote || p.Has(router.Writes) && s.marksMatter()
	return s.speaks(l, p)
}

// response passes on what the server has said. When that was the whole answer, and has ended the transaction or not begun any, the
// connection is given back; then, and within a transaction, done is true.
func (s *session) response(l *engine.Link) (done bool) {
	l.MayRepeat = true
	taken := s.Take(l)
	l.MayRepeat = false
	if !taken || !l.Idle() || l.Stale != 0 || len(l.Unparsed) > 0 || len(l.Again) > 0 {
		return false
	}
	s.measure(l, s.Task.Clock())
	switch status := l.Conn.TxStatus; {
	case status == wire.TxOpen && s.tx.state == txOpen:
		return true
	case status == wire.TxIdle && s.tx.state == txOpen && s.endsPlainly():
		s.settings.end(false)
		s.tx.reset()
	case status != wire.TxIdle || s.tx.state != txNone:
		return false
	}
	s.portals.clear()
	s.release()
	return !s.p.draining.Load()
}

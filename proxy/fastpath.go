package proxy

import (
	"bytes"
	"encoding/binary"

	"github.com/tidemarkdb/tidemark/internal/backend"
	"github.com/tidemarkdb/tidemark/internal/engine"
	"github.com/tidemarkdb/tidemark/internal/loop"
	"github.com/tidemarkdb/tidemark/internal/wire"
	"github.com/tidemarkdb/tidemark/router"
)

// The fast path is for what most transactions are: a client that has nothing under way sends one request, whole and alone, of one
// statement that only reads, and a server answers it. Its two halves, request and response, do what the ordinary way does (next to
// forward, or to sync; settle and release), and leave the session as that would; wherever something else is found the ordinary way
// goes on. It has half of the ordinary way's code, which is what the time goes by: see docs/decisions.

// hurry serves a session at rest on the fast path for as long as that will do. Else the ordinary way goes on, with the cause returned.
func (s *session) hurry(cause loop.Cause) (_ loop.Cause, err error) {
	for s.place != nil || cause == loop.Ready && (s.steady || s.calm()) {
		done := false
		switch l := s.link; {
		case s.place != nil:
			done, err = s.dequeue(cause)
		case l == nil:
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
	return tx.state == txNone && !tx.wrote && !tx.schema && !tx.unclear && !tx.probeLater &&
		!b.sent && !b.skip && !b.ending && !b.queried && !b.parsed && !b.copying && len(b.held) == 0 &&
		!a.active && a.prepared == nil && len(a.aside) == 0 && !s.askState && !s.coded && !s.blind &&
		s.mode == backend.Transaction && s.ear == nil && s.traced == nil && len(s.pins) == 0 && len(s.owns) == 0 && !s.own.notice
}

// request looks at what the client has sent. Where that is for the fast path it is sent to a server, or the session has queued for one,
// and done is true.
func (s *session) request(in []byte) (done bool, err error) {
	live := s.p.live.Load()
	if len(in) <= wire.HeaderLen || len(in) > min(live.MaxMessage, streamFrom) || live.Tracing != nil || s.p.draining.Load() {
		return false, nil
	}
	switch in[0] {
	case wire.MsgQuery:
		return s.lone(in)
	case wire.MsgParse:
		return s.sameBatch(in)
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
	if len(s.stmts) > 0 {
		delete(s.stmts, "")
	}
	p := statements[0].Plan
	if len(statements) > 1 || !reads(p) {
		s.KeepPeeked()
		return false, s.runStatements(scratch, statements, s.Input()[wire.HeaderLen:n-1], n)
	}
	s.putScratch(scratch)
	l, in, done, err := s.server(p, in)
	if l == nil || err != nil {
		return done, err
	}
	s.note(p)
	s.tx.neutral = false
	if len(in) != n || !s.Clear() || !l.Idle() { // it had to wait, or says something first
		s.KeepPeeked()
		return false, s.forward(l, p, s.Input()[:n], engine.Expect{Kind: engine.Query}, n)
	}
	s.batch.wrote = false
	l.Query(in)
	s.ConsumePeeked(n)
	return l.Err == nil, nil
}

// reads says whether a plan is for the fast path: one statement that only reads, on one shard.
func reads(p *router.Plan) bool {
	return p.Plain() && p.Access == router.Read && len(p.Shards) == 1
}

// sameBatch is request for a batch that begins with a Parse: of the unnamed statement, and in the same words as the last time. Drivers
// that prepare nothing send such batches. It has done nothing where it is not done.
func (s *session) sameBatch(in []byte) (done bool, err error) {
	st := s.stmts[""]
	if st == nil || st.needs != nil || st.view != s.view || st.rt != s.p.router.Load() || s.portals.any() || len(s.replaced) > 0 {
		return false, nil
	}
	bind := sameParse(in, st)
	if bind == 0 {
		return false, nil
	}
	describes, ok := plainBatch(in[bind:])
	if !ok {
		return false, nil
	}
	p := s.bound(st.template, in[bind:])
	if p == nil || !reads(p) {
		return false, nil
	}
	n := len(in)
	l, in, done, err := s.server(p, in)
	if l == nil || err != nil {
		return done, err
	}
	if len(in) != n || !s.Clear() || !l.Idle() { // it had to wait, or says something first
		return false, nil
	}
	s.note(p)
	*st = statement{sql: st.sql, oids: st.oids, template: st.template, rt: st.rt, view: st.view, id: s.p.statements.fresh(), syncs: s.syncs}
	s.syncs++
	s.drawn, s.tx.neutral = false, false
	l.Batch(in, st.id, describes)
	s.ConsumePeeked(n)
	return l.Err == nil, nil
}

// sameParse says whether in begins with the Parse that made st, the unnamed statement: where the message behind that begins, or 0.
func sameParse(in []byte, st *statement) (next int) {
	text, oids := wire.HeaderLen+1, wire.HeaderLen+1+len(st.sql)+1
	next = oids + 2 + 4*len(st.oids)
	if len(in) <= next || int(binary.BigEndian.Uint32(in[1:])) != next-1 || in[wire.HeaderLen] != 0 || in[oids-1] != 0 ||
		int(binary.BigEndian.Uint16(in[oids:])) != len(st.oids) || !bytes.Equal(in[text:oids-1], st.sql) {
		return 0
	}
	for i, o := range st.oids {
		if binary.BigEndian.Uint32(in[oids+2+4*i:]) != o {
			return 0
		}
	}
	return next
}

// plainBatch says whether in is, and is no more than, a Bind of the unnamed statement, perhaps a Describe, an Execute for all rows, and
// a Sync, the portal being the unnamed one. What else the Bind says is for the server to judge.
func plainBatch(in []byte) (describes, ok bool) {
	const describe, end = "D\x00\x00\x00\x06P\x00", "E\x00\x00\x00\x09\x00\x00\x00\x00\x00S\x00\x00\x00\x04"
	if len(in) < wire.HeaderLen+2 || in[0] != wire.MsgBind || in[wire.HeaderLen] != 0 || in[wire.HeaderLen+1] != 0 {
		return false, false
	}
	size := int(binary.BigEndian.Uint32(in[1:]))
	if size < wire.HeaderLen+1 || size >= len(in) {
		return false, false
	}
	in = in[1+size:]
	if len(in) == len(describe)+len(end) && string(in[:len(describe)]) == describe {
		return true, string(in[len(describe):]) == end
	}
	return false, string(in) == end
}

// bound is the plan of t for the values of the Bind that in begins with; nil where the ordinary way has to say what is wrong with them.
func (s *session) bound(t *router.Template, in []byte) *router.Plan {
	want := t.NumParams()
	switch {
	case want < 0 && t.Fixed():
		return t.Generic()
	case want < 0:
		return nil
	}
	m, err := wire.DecodeBind(in[wire.HeaderLen : 1+binary.BigEndian.Uint32(in[1:])])
	if err != nil || m.Check() != nil || m.NumParams() != want {
		return nil
	}
	return t.Bind(s.params(&m))
}

// response passes on what the server has said. When that was the whole answer the connection is given back, and done is true.
func (s *session) response(l *engine.Link) (done bool) {
	if !s.Take(l) || !l.Idle() || l.Conn.TxStatus != wire.TxIdle || l.Stale != 0 || len(l.Unparsed) > 0 || len(l.Again) > 0 {
		return false
	}
	s.measure(l, s.Task.Clock())
	s.portals.clear()
	s.release()
	return !s.p.draining.Load()
}

package proxy

import (
	"bytes"
	"encoding/binary"

	"github.com/tidemarkdb/tidemark/internal/engine"
	"github.com/tidemarkdb/tidemark/internal/wire"
	"github.com/tidemarkdb/tidemark/router"
)

// The batches of the fast path are those of drivers: one statement, perhaps parsed without a name, else prepared before.

// loneBatch is request for a batch. It has done nothing where it is not done, but perhaps found a server.
func (s *session) loneBatch(in []byte) (done bool, err error) {
	x, ok := readLoneBatch(in)
	if !ok {
		return false, nil
	}
	st, t := s.templateOf(&x)
	if t == nil {
		return false, nil
	}
	text := x.parse.SQL
	if !x.parses {
		text = st.sql
	}
	if s.trace(text, true); s.traced != nil {
		return false, nil
	}
	p := s.bound(t, &x.bind)
	if p == nil || !s.fast(p) {
		return false, nil
	}
	switch tx := p.Kind == router.Tx; {
	case tx && (x.bind.NumParams() > 0 || x.parse.NumOIDs() > 0):
		return false, nil
	case tx && s.link == nil:
		return true, s.beginsByBatch(&x, st, t, p, len(in))
	case !tx && x.describes && !x.parses && st.name != "" && st.told() == 0: // what its rows look like is kept
		return false, nil
	}
	l, was := s.link, in
	if s.tx.state != txOpen {
		if l, in, done, err = s.server(p, in); l == nil || err != nil {
			return done, err
		}
		if len(in) != len(was) || !s.Clear() || !l.Idle() && s.tx.state != txOpen { // it had to wait, or says something first
			return false, nil
		}
		if &in[0] != &was[0] {
			x, _ = readLoneBatch(in)
		}
	}
	if !x.parses && !s.knows(l, st) {
		return false, nil
	}
	if err := s.takesPart(l, p); err != nil {
		return false, err
	}
	s.tx.looked = s.tx.looked || looksAhead(p.Command)
	if x.parses {
		st = s.unnamedOf(&x.parse, t)
	}
	return s.sendBatch(l, &x, st, p, in)
}

// sendBatch sends the batch, which binds st, to l.
func (s *session) sendBatch(l *engine.Link, x *loneBatch, st *statement, p *router.Plan, in []byte) (done bool, err error) {
	b := engine.Batch{Statement: st.id, Names: st.names, Parses: x.parses, Describes: x.describes}
	if st.name != "" {
		b.Name, _ = l.Conn.Statements.Name(st.id)
		b.Again = x.describes && s.tx.state == txNone && p.Flags == 0 && repeatable(st, &x.bind)
	}
	sent, err := l.SendBatch(in, &b)
	if err != nil {
		return false, err
	}
	if b.Again {
		s.again = append(s.again[:0], sent...)
	}
	if s.tx.state == txOpen {
		s.portals.put(nil, portal{st: st, plan: p, link: l})
	}
	s.batchEnded(len(in))
	return l.Err == nil && len(l.Out()) == 0, nil
}

// batchEnded takes what the client has sent, a batch of n bytes.
func (s *session) batchEnded(n int) {
	s.syncs++
	s.drawn = false
	s.ConsumePeeked(n)
}

// loneBatch is what a client has sent, where that is a batch of one statement and no more, the portal being the unnamed one.
type loneBatch struct {
	parse     wire.Parse // of the unnamed statement, if it parses
	bind      wire.Bind
	parses    bool
	describes bool
}

// readLoneBatch reads perhaps a Parse of the unnamed statement, a Bind, of that or of any if there is none, perhaps a Describe of the
// portal, an Execute, for however many rows, and a Sync.
func readLoneBatch(in []byte) (x loneBatch, ok bool) {
	const describe, execute, sync = "D\x00\x00\x00\x06P\x00", "E\x00\x00\x00\x09\x00", "S\x00\x00\x00\x04"
	const end = len(execute) + 4 + len(sync)
	var err error
	body, rest := firstMessage(in)
	if body == nil {
		return x, false
	}
	if in[0] == wire.MsgParse {
		if x.parse, err = wire.DecodeParse(body); err != nil || len(x.parse.Name) > 0 {
			return x, false
		}
		x.parses, in = true, rest
		if body, rest = firstMessage(in); body == nil || in[0] != wire.MsgBind {
			return x, false
		}
	}
	if x.bind, err = wire.DecodeBind(body); err != nil || len(x.bind.Portal) > 0 || x.parses && len(x.bind.Statement) > 0 || x.bind.Check() != nil {
		return x, false
	}
	if len(rest) == len(describe)+end && string(rest[:len(describe)]) == describe {
		x.describes, rest = true, rest[len(describe):]
	}
	return x, len(rest) == end && string(rest[:len(execute)]) == execute && string(rest[end-len(sync):]) == sync
}

// firstMessage is the body of the first of the messages in b, and what comes behind it; nil where it has not come whole.
func firstMessage(b []byte) (body, rest []byte) {
	if len(b) <= wire.HeaderLen {
		return nil, nil
	}
	end := 1 + int(binary.BigEndian.Uint32(b[1:]))
	if end < wire.HeaderLen || end > len(b) {
		return nil, nil
	}
	return b[wire.HeaderLen:end], b[end:]
}

// templateOf is the template of the batch's statement, and the statement that is there under its name; nil where the template is not at hand.
func (s *session) templateOf(x *loneBatch) (*statement, *router.Template) {
	rt := s.p.router.Load()
	st := s.stmts[string(x.bind.Statement)]
	current := st != nil && st.rt == rt && st.view == s.view
	text := x.parse.SQL
	switch {
	case st != nil && st.needs != nil, !x.parses && (!current || s.fresh(st)):
		return nil, nil
	case !x.parses, current && bytes.Equal(st.sql, text) && x.parse.HasOIDs(st.oids):
		return st, st.template
	case len(text) > maxRecycled || len(s.view.Conforming(text)) != len(text):
		return nil, nil
	}
	var short [16]uint32
	scratch := scratches.Get(s.Task)
	t, _ := rt.CachedTemplate(scratch, s.view, text, x.parse.AppendOIDs(short[:0]))
	s.putScratch(scratch)
	return st, t
}

// bound is the plan of t for the values of m; nil where the ordinary way has to say what is wrong with them.
func (s *session) bound(t *router.Template, m *wire.Bind) *router.Plan {
	want := t.NumParams()
	switch {
	case want >= 0 && m.NumParams() != want:
		return nil
	case t.Fixed():
		return t.Generic()
	case want < 0:
		return nil
	}
	return t.Bind(s.params(m))
}

// beginsByBatch answers a batch of n bytes that begins a transaction, see transaction.go.
func (s *session) beginsByBatch(x *loneBatch, st *statement, t *router.Template, p *router.Plan, n int) error {
	answer := s.Out()
	if x.parses {
		st = s.unnamedOf(&x.parse, t)
		answer = wire.AppendParseComplete(answer)
	}
	answer = wire.AppendBindComplete(answer)
	if x.describes {
		answer = wire.AppendNoData(answer)
	}
	s.note(p)
	answer, _, err := s.control(answer, p, st.sql)
	if err != nil {
		return err
	}
	s.portals.put(nil, portal{st: st, plan: p, bind: plainBind, ran: true})
	answer = wire.AppendReadyForQuery(answer, s.status())
	s.SetOut(answer[:0])
	s.ReplyLate(answer)
	s.batchEnded(n)
	return nil
}

// plainBind is a Bind without values.
var plainBind = wire.AppendBind(nil, "", "", nil, nil, nil)

package proxy

import (
	"errors"
	"slices"

	"github.com/tidemarkdb/tidemark/internal/engine"
	"github.com/tidemarkdb/tidemark/internal/wire"
	"github.com/tidemarkdb/tidemark/router"
)

// ensure makes the statement known to the link's connection and returns its name there. mute says whether the client
// hears ParseComplete.
func (s *session) ensure(l *engine.Link, st *statement, mute engine.Mute) (name string) {
	if st.needs != nil {
		s.ensure(l, st.needs, engine.MuteAck)
	}
	known := false
	if st.name == "" {
		known = l.Conn.Unnamed == st.id
	} else {
		name, known = l.Conn.Statements.Name(st.id)
	}
	var undo func()
	if mute == 0 && st.name != "" {
		undo = func() { s.undo(st) }
	}
	if known {
		if mute != 0 {
			return name
		}
		// The transaction has failed, or may have, which only the server knows, or may not have a snapshot yet, which a Parse takes.
		if (s.tx.state == txOpen && (l.Conn.Outstanding > 0 || !s.tx.looked || s.aborted()) || l.Unsure(st.id)) && st.types == "" {
			l.Conn.Unnamed, st.asked = 0, true
			l.SetOut(wire.AppendParse(l.Out(), "", st.sql, st.oids))
			l.Expect(engine.Expect{Kind: engine.Parse, Undo: undo, Names: st.names})
			s.batch.sent = true
			s.batch.snapped = s.batch.snapped || st.looksAhead()
			return name
		}
		s.batch.parsed = s.batch.parsed || st.looksAhead()
		if done := wire.AppendParseComplete(nil); l.Owed() > 0 {
			l.Expect(engine.Expect{Kind: engine.Synthetic, Bytes: done, Undo: undo})
		} else {
			s.Reply(done)
		}
		return name
	}
	s.batch.sent = true
	s.batch.snapped = s.batch.snapped || st.looksAhead()
	e := engine.Expect{Kind: engine.Parse, Mute: mute, Statement: st.id, Undo: undo, Names: st.names}
	if st.name != "" {
		return s.define(l, st, e)
	}
	e.Replaces, l.Conn.Unnamed = l.Conn.Unnamed, st.id
	l.SetOut(wire.AppendParse(l.Out(), "", st.sql, s.typesOf(st)))
	l.Expect(e)
	return ""
}

// knows says whether the link's connection has the statement, so that ensure has nothing to do.
func (s *session) knows(l *engine.Link, st *statement) bool {
	if st.needs != nil && !s.knows(l, st.needs) {
		return false
	}
	if st.name == "" {
		return l.Conn.Unnamed == st.id
	}
	_, known := l.Conn.Statements.Name(st.id)
	return known
}

// flushHeld prepares on the link what was parsed and not sent, in order.
func (s *session) flushHeld(l *engine.Link) {
	for _, st := range s.batch.held {
		s.ensure(l, st, 0)
	}
	s.batch.held = s.batch.held[:0]
}

// prepareHeld finds links for what is held when nothing else will.
func (s *session) prepareHeld() error {
	if len(s.batch.held) == 0 {
		return nil
	}
	if s.skipping() { // the error of an earlier request has come since they were parsed
		s.dropHeld(false)
		return nil
	}
	g := s.batch.held[0].template.Generic()
	if s.undecided(g) {
		return s.prepareOutside(g, nil)
	}
	for _, st := range s.batch.held {
		s.showAhead(st.template.Generic())
	}
	for len(s.batch.held) > 0 {
		st := s.batch.held[0]
		l, err := s.linkFor(s.anywhere(st.template.Generic()))
		if err != nil {
			s.dropHeld(!errors.Is(err, errAnswered))
			return err
		}
		s.batch.held = slices.Delete(s.batch.held, 0, 1)
		s.ensure(l, st, 0)
	}
	return nil
}

// dropHeld takes back what is held: all of it is skipped, or the first has failed.
func (s *session) dropHeld(failed bool) {
	var unparsed engine.Unparsed
	for i, st := range s.batch.held {
		if st.name != "" {
			s.undo(st)
		} else if unparsed.To = st.id; unparsed.From == 0 {
			unparsed.From, unparsed.Failed = st.id, failed && i == 0
		}
	}
	if unparsed.From != 0 {
		s.takeBack(unparsed)
	}
	s.batch.held = s.batch.held[:0]
}

// undo takes back a Parse that failed or was skipped.
func (s *session) undo(st *statement) {
	st.undone = true
	if s.stmts[st.name] == st {
		s.forget(st.name)
	}
	for _, x := range s.after.aside {
		if x.stmts[st.name] == st {
			x.drop(st)
		}
	}
}

// prepareAgain notes which statements come from batches that had not been answered to the end when their connection was lost. A
// client that hears of an error behind its Parse takes the statement for one that does not exist, so it may prepare it again; on
// PostgreSQL itself the client would have lost its connection, too.
func (s *session) prepareAgain(l *engine.Link) {
	owed := l.Syncs()
	for _, st := range s.stmts {
		st.again = st.again || st.name != "" && st.syncs+owed >= s.syncs
	}
}

// anywhere is a plan for asking any of p's shards what a statement looks like: any at all, unless only one has what it names.
func (s *session) anywhere(p *router.Plan) *router.Plan {
	q := *p
	q.Kind, q.Access, q.Flags = router.AnyShard, router.Read, router.Neutral
	switch {
	case len(q.Shards) == 0:
		q.Shards = s.p.defaultShard
	case p.Kind == router.Route && len(p.Shards) == 1 && len(s.p.shards) > 1:
		q.Flags = 0
	}
	return &q
}

package proxy

import (
	"slices"

	"github.com/tidemarkdb/tidemark/internal/backend"
	"github.com/tidemarkdb/tidemark/internal/engine"
	"github.com/tidemarkdb/tidemark/internal/wire"
	"github.com/tidemarkdb/tidemark/router"
)

// In a query string of several statements, a PREPARE is left to the server under a name that nobody else has, because only
// the server knows whether the string comes that far; so is a DEALLOCATE, of a statement made for the purpose. What they did
// is taken over when the string has ended, as far as it came.

// speaksOfPrepared says whether any of the statements is about a prepared statement.
func speaksOfPrepared(statements []router.Statement) bool {
	return slices.ContainsFunc(statements, func(s router.Statement) bool {
		return s.Plan.Kind == router.OfPrepared || s.Plan.Has(router.Discards)
	})
}

// queryRewritten runs a Query that speaks of prepared statements, or resets settings of the startup message.
func (s *session) queryRewritten(statements []router.Statement, text []byte) error {
	n := wire.HeaderLen + len(text) + 1
	text = slices.Clone(text) // Input moves while the session waits
	statements = slices.Clone(statements)
	s.Consume(n)
	if l := s.link; l != nil && l.Preparing() {
		if err := s.drain(); err != nil {
			return err
		}
	}
	if s.blind && s.p.names() {
		if goesOn, err := s.see(); err != nil {
			return err
		} else if !goesOn {
			return errAnswered
		}
	}
	if len(statements) == 1 {
		switch x := statements[0].Plan.Prepared; {
		case x == nil:
		case x.Op == router.PrepareOp:
			return s.prepareAlone(statements[0].Plan, text, statements[0].Start)
		case x.Op == router.DeallocateOp && s.stmts[x.Name] != nil:
			return s.deallocateAlone(x.Name)
		}
	}
	q := &rewritten{s: s, seen: map[string]*statement{}, speaks: speaksOfPrepared(statements)}
	q.names.Of = map[string]string{}
	ahead := s.settings.ahead()
	code := s.follows()
	var f *foreseen
	if s.batch.sent {
		f = s.after.foreseen.copy()
	}
	for i, st := range statements {
		if st.Plan.Kind != router.Nothing {
			q.ran++
		}
		if st.Plan.Kind != router.OfPrepared {
			if err := code.next(st.Plan); err != nil {
				return err
			}
		}
		for _, again := range ahead.again(st.Plan.Setting) {
			q.insert(text, st.End, again)
		}
		ahead.expect(st.Plan)
		f = s.foreseenBehind(f, st.Plan)
		if st.Plan.Has(router.Discards) {
			statements[i].Plan = q.discard(i, st.Plan)
		}
		if st.Plan.Kind != router.OfPrepared {
			continue
		}
		p, err := q.take(i, st, text, f)
		if err != nil {
			return err
		}
		if err := code.next(p); err != nil {
			return err
		}
		statements[i].Plan = p
	}
	q.text = append(q.text, text[q.from:]...)
	p := statements[0].Plan
	if len(statements) > 1 {
		p = s.together(statements)
		defer func() { s.strung = nil }()
		if slices.ContainsFunc(statements, func(st router.Statement) bool { return setsTransaction(st.Plan) }) {
			q.first, s.strung.ahead = true, q.needs
		}
	}
	return s.simpleRewritten(p, q)
}

// resets says whether any of the statements resets a setting of the startup message.
func (s *session) resets(statements []router.Statement) bool {
	if len(s.settings.start) == 0 {
		return false
	}
	if c := statements[0].Plan.Setting; len(statements) == 1 && c.Local && s.tx.state == txNone {
		return false // the server warns that it does nothing
	}
	return slices.ContainsFunc(statements, func(st router.Statement) bool { return s.settings.again(st.Plan.Setting) != nil })
}

// simpleRewritten is simple for a string that was put together.
func (s *session) simpleRewritten(p *router.Plan, q *rewritten) error {
	s.note(p)
	switch {
	case p.Kind == router.Refuse:
		return refusal(p.Refusal)
	case s.tx.state == txFailed && !endsTransaction(p):
		return s.errAborted()
	case p.Kind == router.ViewScan:
		if err := s.quiet(); err != nil {
			return err
		}
		if err := s.local(p, nil); err != nil {
			return err
		}
		return s.ready(s.status())
	case wide(p):
		if err := s.alone(p); err != nil {
			return err
		}
		if err := s.wide(p, string(q.text), q.needs...); err != nil {
			return err
		}
		return s.ready(s.status())
	}
	if q.speaks && p.Has(router.ShowsPrepared) {
		if err := s.quiet(); err != nil {
			return err
		}
		return errShowsPrepared()
	}
	if err := s.checkSetting(p); err != nil {
		return err
	}
	if err := s.checkLastValue(p); err != nil {
		return err
	}
	if err := s.listenAhead(p); err != nil {
		return err
	}
	l, err := s.linkFor(s.p.onDefault(p))
	if err != nil {
		return err
	}
	if err := s.speaks(l, p); err != nil {
		return err
	}
	if p.Flags&(router.ShowsPrepared|router.Executes) != 0 {
		if err := s.preparedByName(l, p); err != nil {
			return err
		}
	}
	if q.first && l.Conn.TxStatus == wire.TxOpen && !s.prepared(l, q.needs) {
		return errPreparesFirst()
	}
	if err := s.prepareAll(l, q.needs); err != nil {
		return err
	}
	e := engine.Expect{Kind: engine.Query, Names: &q.names, Unseen: q.unseen}
	if p.Has(router.Executes) {
		e.Names = s.lent.names(e.Names)
	}
	if len(q.needs) > 0 {
		e.Statement = q.needs[0].id
	}
	s.after.prepared = q.steps
	s.notice()
	return s.forward(l, p, wire.AppendQuery(nil, string(q.text)), e, 0)
}

// errPreparesFirst refuses to set how a transaction runs behind what must be prepared in it.
func errPreparesFirst() *wire.Error {
	return wire.Errorf(wire.FeatureNotSupported, "a query string that sets how its transaction runs cannot also speak of prepared statements in a transaction that has begun on its server").
		WithDetail("They are prepared there ahead of the string, behind which it is too late for that.").
		WithHint("Send them one by one.")
}

// takeOver records what a query string did to prepared statements, as far as it came.
func (s *session) takeOver(l *engine.Link, list []preparedStep, completed int) {
	for _, x := range list {
		switch {
		case x.n >= completed: // a statement made to be deallocated stays, as one of those that nobody uses
		case x.all:
			s.forgetAll()
			l.Conn.Statements.Reset()
		case !x.drop:
			// The server's counts positions in the whole string. It is prepared anew, as everywhere else.
			s.closeUnseen(l, backend.StatementName(x.st.id))
			syncUnseen(l)
			s.keep(x.st)
		default:
			l.Conn.Statements.Remove(x.st.id)
			s.forget(x.st.name)
		}
	}
}

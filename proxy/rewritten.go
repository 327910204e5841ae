package proxy

import (
	"slices"

	"github.com/tidemarkdb/tidemark/internal/backend"
	"github.com/tidemarkdb/tidemark/internal/engine"
	"github.com/tidemarkdb/tidemark/internal/sql"
	"github.com/tidemarkdb/tidemark/internal/wire"
	"github.com/tidemarkdb/tidemark/router"
)

// In a query string of several statements, a PREPARE is left to the server under a name that nobody else has, because only
// the server knows whether the string comes that far; so is a DEALLOCATE, of a statement made for the purpose. What they did
// is taken over when the string has ended, as far as it came.

// preparedStep is one effect on the session's statements of a query string, once its statement number n has completed.
type preparedStep struct {
	n    int        // counted from 0
	st   *statement // PREPARE: to be kept; DEALLOCATE: what the server was given to deallocate
	drop bool       // DEALLOCATE: the session's statement of st's name is to be forgotten
	all  bool       // DEALLOCATE ALL: all are
}

// rewritten is a query string that speaks of prepared statements, or resets settings of the startup message, in the making.
type rewritten struct {
	s     *session
	text  []byte // what the server is sent
	from  int    // how much of the client's text is in it
	names engine.Names
	needs []*statement          // to be prepared before
	seen  map[string]*statement // what names mean by now, where the string has changed that; nil for none
	none  bool                  // ... and others mean nothing: DEALLOCATE ALL
	steps []preparedStep
	// speaks: it is about prepared statements. first: it sets how its transaction runs, for which it is too late behind any query.
	speaks, first bool

	ran    int   // statements in text so far
	unseen []int // ... that are the proxy's own
}

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
	if s.blind {
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

// take reads one statement of the string, before which the settings are those of f, and puts the server's name into its text.
func (q *rewritten) take(i int, st router.Statement, text []byte, f *foreseen) (*router.Plan, error) {
	s, x := q.s, st.Plan.Prepared
	from, to, err := nameIn(text[st.Start:st.End], x)
	if err != nil {
		return nil, err
	}
	at := st.Start + from
	known, changed := q.seen[x.Name]
	if !changed && !q.none {
		known = s.stmts[x.Name]
	}
	here := s.hereOnly(st.Plan.Command)
	switch x.Op {
	case router.PrepareOp:
		if known != nil { // the server says so, when it comes to it
			taken := &statement{name: x.Name, sql: []byte("SELECT"), id: s.p.statements.fresh()}
			q.needs = append(q.needs, taken)
			q.name(text, at, st.Start+to, taken.id, x.Name)
			return here, nil
		}
		made, err := s.prepareText(text[st.Start:st.End], 0, st.End-st.Start, to, x)
		if err != nil {
			return nil, err
		}
		s.template(made)
		g := made.template.Generic()
		if g.Kind == router.Refuse {
			return nil, refusal(g.Refusal)
		}
		if err := s.sameAhead(f, g, "query string", func(rt *router.Router, v *router.Session) *router.Plan {
			return rt.Template(&router.Scratch{}, v, made.sql, made.oids).Generic()
		}); err != nil {
			return nil, err
		}
		made.id = s.p.statements.fresh() // the server prepares it, under a name of its own
		made.ahead = engine.Characters(string(text[:st.Start]))
		q.seen[x.Name] = made
		q.steps = append(q.steps, preparedStep{n: i, st: made})
		q.name(text, at, st.Start+to, made.id, x.Name)
		if len(g.Shards) > 0 && g.Kind != router.Scatter {
			here.Shards, here.Kind = g.Shards, router.AnyShard
		}
		here.ByPath = g.ByPath
		return here, nil
	case router.DeallocateOp:
		if known == nil {
			q.missing(text, at, st.Start+to, x.Name)
			return here, nil
		}
		drop := &statement{sql: []byte("SELECT"), id: s.p.statements.fresh()}
		drop.name = x.Name
		q.seen[x.Name] = nil
		q.needs = append(q.needs, drop)
		q.steps = append(q.steps, preparedStep{n: i, st: drop, drop: true})
		q.name(text, at, st.Start+to, drop.id, x.Name)
		return here, nil
	}
	if known == nil {
		q.missing(text, at, st.Start+to, x.Name)
		return here, nil
	}
	s.template(known)
	p := known.template.Execute(x)
	if err := s.sameAhead(f, p, "query string", func(rt *router.Router, v *router.Session) *router.Plan {
		return rt.Template(&router.Scratch{}, v, known.sql, known.oids).Execute(x)
	}); err != nil || p.Kind == router.Refuse {
		return p, err
	}
	if !changed {
		q.needs = append(q.needs, known)
		q.names.Executed = append(q.names.Executed, executedBy(i, known))
	}
	q.name(text, at, st.Start+to, known.id, x.Name)
	return p, nil
}

// executedBy is how errors of what statement number n of a text executes are told. PostgreSQL does not look at the values given for a
// statement without parameters.
func executedBy(n int, target *statement) engine.Executed {
	return engine.Executed{Statement: n, Names: namesOf(target), Args: target.template.HasParams()}
}

// discard takes a DEALLOCATE ALL, or a DISCARD ALL, which fails in a string of several.
func (q *rewritten) discard(i int, p *router.Plan) *router.Plan {
	clear(q.seen)
	q.none = true
	q.steps = append(q.steps, preparedStep{n: i, all: true})
	here := *p
	here.Flags &^= router.Discards
	return &here
}

// hereOnly is the plan of what only speaks of the session's statements: wherever it is now.
func (s *session) hereOnly(c sql.Command) *router.Plan {
	return &router.Plan{Kind: router.AnyShard, Command: c, Flags: router.Here, Shards: s.p.defaultShard, Reason: "prepared statements of the session"}
}

// name copies the client's text up to a name at text[from:to] and puts the server's for it.
func (q *rewritten) name(text []byte, from, to int, id uint64, client string) {
	q.text = append(q.text, text[q.from:from]...)
	name := backend.StatementName(id)
	q.text = append(q.text, name...)
	q.from = to
	q.names.Of[name] = client
	q.names.Shifts = append(q.names.Shifts, engine.Shift{
		At: engine.Characters(string(q.text)) + 1,
		By: engine.Characters(string(text[:to])) - engine.Characters(string(q.text)),
	})
}

// insert puts a statement of the proxy's own behind text[:at].
func (q *rewritten) insert(text []byte, at int, own string) {
	q.text = append(q.text, text[q.from:at]...)
	q.text = append(append(q.text, "\n;"...), own...)
	q.from = at
	q.unseen = append(q.unseen, q.ran)
	q.ran++
	q.names.Shifts = append(q.names.Shifts, engine.Shift{
		At: engine.Characters(string(q.text)) + 1,
		By: engine.Characters(string(text[:at])) - engine.Characters(string(q.text)),
	})
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

// missing puts a name that no statement has: the server says so, when it comes to it. The client's name may be one that
// showPrepared has left there.
func (q *rewritten) missing(text []byte, from, to int, client string) {
	q.name(text, from, to, q.s.p.statements.fresh(), client)
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

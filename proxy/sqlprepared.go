package proxy

import (
	"fmt"
	"slices"

	"github.com/tidemarkdb/tidemark/internal/backend"
	"github.com/tidemarkdb/tidemark/internal/engine"
	"github.com/tidemarkdb/tidemark/internal/sql"
	"github.com/tidemarkdb/tidemark/internal/wire"
	"github.com/tidemarkdb/tidemark/router"
)

// SQL's PREPARE, EXECUTE and DEALLOCATE. PostgreSQL has one namespace for these and for the protocol's statements, and so has
// the session: s.stmts. On servers a statement goes by the name of its text (statements.go), so an EXECUTE is sent with that
// name in the place of the client's, to a connection that has it prepared, or is made to have it first.
//
// In a query string of several statements, a PREPARE is left to the server under a name that nobody else has, because only
// the server knows whether the string comes that far; so is a DEALLOCATE, of a statement made for the purpose. What they did
// is taken over when the string has ended, as far as it came.

// told is one effect on the session's statements of a query string, once its statement number n has completed.
type told struct {
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
	told  []told
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
	for i, st := range statements {
		if st.Plan.Kind != router.Nothing {
			q.ran++
		}
		for _, again := range ahead.again(st.Plan.Setting) {
			q.insert(text, st.End, again)
		}
		ahead.expect(st.Plan)
		if st.Plan.Has(router.Discards) {
			statements[i].Plan = q.discard(i, st.Plan)
		}
		if st.Plan.Kind != router.OfPrepared {
			continue
		}
		p, err := q.take(i, st, text)
		if err != nil {
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

// take reads one statement of the string and puts the server's name into its text.
func (q *rewritten) take(i int, st router.Statement, text []byte) (*router.Plan, error) {
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
		made, err := s.prepareText(text[st.Start:st.End], to, x)
		if err != nil {
			return nil, err
		}
		s.template(made)
		g := made.template.Generic()
		if g.Kind == router.Refuse {
			return nil, refusal(g.Refusal)
		}
		made.id = s.p.statements.fresh() // the server prepares it, under a name of its own
		made.ahead = engine.Characters(string(text[:st.Start]))
		q.seen[x.Name] = made
		q.told = append(q.told, told{n: i, st: made})
		q.name(text, at, st.Start+to, made.id, x.Name)
		if len(g.Shards) > 0 && g.Kind != router.Scatter {
			here.Shards, here.Kind = g.Shards, router.AnyShard
		}
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
		q.told = append(q.told, told{n: i, st: drop, drop: true})
		q.name(text, at, st.Start+to, drop.id, x.Name)
		return here, nil
	}
	if known == nil {
		q.missing(text, at, st.Start+to, x.Name)
		return here, nil
	}
	s.template(known)
	p := known.template.Execute(x)
	if p.Kind == router.Refuse {
		return p, nil
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
	q.told = append(q.told, told{n: i, all: true})
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

// nameIn finds the statement's name in a PREPARE, EXECUTE or DEALLOCATE.
func nameIn(text []byte, x *router.Prepared) (from, to int, err error) {
	keywords := []string{"execute"}
	switch x.Op {
	case router.PrepareOp:
		keywords = []string{"prepare"}
	case router.DeallocateOp:
		keywords = []string{"deallocate", "prepare"}
	}
	for _, k := range keywords {
		if from, to, ok := sql.StatementName(text, k, x.Name); ok {
			return from, to, nil
		}
	}
	return 0, 0, wire.Errorf(wire.FeatureNotSupported, "the name of this prepared statement cannot be read").
		WithHint(`Write it as a plain identifier or in double quotes, without U&.`)
}

// prepareText is the statement that a PREPARE makes; its name ends at nameEnd.
func (s *session) prepareText(text []byte, nameEnd int, x *router.Prepared) (*statement, error) {
	parts, ok := sql.SplitPrepare(text, nameEnd)
	if !ok {
		return nil, wire.Errorf(wire.FeatureNotSupported, "this form of PREPARE is not supported")
	}
	st := &statement{
		name: x.Name, sql: slices.Clone(text[parts.Query:]), oids: x.Types, types: parts.Types, fromSQL: string(text), typesAt: parts.TypesAt, offset: parts.Query,
	}
	if err := s.crowdedStatements(st); err != nil {
		return nil, err
	}
	return st, nil
}

func errDuplicate(name string) *wire.Error {
	return wire.Errorf(wire.DuplicatePreparedStatement, "prepared statement \"%s\" already exists", name)
}

func errNoStatement(name string) *wire.Error {
	if name == "" {
		return wire.Errorf(wire.InvalidSQLStatementName, "unnamed prepared statement does not exist")
	}
	return wire.Errorf(wire.InvalidSQLStatementName, "prepared statement \"%s\" does not exist", name)
}

// prepareAlone runs a Query that is one PREPARE. It begins at start of the text.
func (s *session) prepareAlone(p *router.Plan, text []byte, start int) error {
	s.note(p)
	if err := s.quiet(); err != nil {
		return err
	}
	_, to, err := nameIn(text[start:], p.Prepared)
	if err != nil {
		return err
	}
	st, err := s.prepareText(trimStatement(text[start:]), to, p.Prepared)
	if err != nil {
		return err
	}
	st.ahead = engine.Characters(string(text[:start]))
	s.template(st)
	g := st.template.Generic()
	if g.Kind == router.Refuse {
		e := refusal(g.Refusal)
		if e.Position > 0 {
			e.Position += engine.Characters(string(text[:start+st.offset]))
		}
		return e
	}
	taken := s.stmts[st.name] != nil
	if taken { // which PostgreSQL says of a statement that is right
		st.id = s.p.statements.fresh()
		st.names = namesOf(st)
	} else {
		s.keep(st)
	}
	if !s.proxyOwn(g) {
		if err := s.validate(st, g); err != nil {
			s.undo(st)
			return err
		}
	}
	if taken {
		return errDuplicate(st.name)
	}
	s.SetOut(wire.AppendCommandComplete(s.Out(), p.Tag))
	return s.ready(s.status())
}

// trimStatement takes the semicolon and what follows off a text of one statement.
func trimStatement(text []byte) []byte {
	var sc sql.Scanner
	if sc.Scan(text) && len(sc.Statements) == 1 {
		return text[:sc.Statements[0].End]
	}
	return text
}

// validate has a server look at a new statement.
func (s *session) validate(st *statement, g *router.Plan) error {
	l, err := s.linkFor(s.anywhere(g))
	if err != nil {
		return err
	}
	return s.prepareNow(l, st)
}

// deallocateAlone runs a Query that is one DEALLOCATE.
func (s *session) deallocateAlone(name string) error {
	if err := s.quiet(); err != nil {
		return err
	}
	s.forget(name)
	s.SetOut(wire.AppendCommandComplete(s.Out(), "DEALLOCATE"))
	return s.ready(s.status())
}

// quiet waits until nothing is owed, and fails in a transaction that has failed.
func (s *session) quiet() error {
	if err := s.drain(); err != nil {
		return err
	}
	if s.tx.state == txFailed || s.link != nil && s.link.Conn.TxStatus == wire.TxAborted {
		return s.errAborted()
	}
	return nil
}

// prepareNow makes a statement known to the link's connection before anything else is sent there, in a round trip of its own
// if it is not: what follows in the simple protocol would run after an error all the same. The error is the server's.
func (s *session) prepareNow(l *engine.Link, st *statement) error {
	if _, known := l.Conn.Statements.Name(st.id); known {
		return nil
	}
	var reply engine.Reply
	s.define(l, st, engine.Expect{Mute: engine.MuteAll, Statement: st.id, Reply: &reply})
	l.SetOut(wire.AppendSync(l.Out()))
	l.Expect(engine.Expect{Kind: engine.Sync, Mute: engine.MuteReady})
	l.Skipping = false
	if err := s.Await(l); err != nil {
		return err
	}
	if reply.Err != nil {
		return reply.Err
	}
	return nil // a connection that is lost tells itself to whoever uses it next
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
	if p.Has(router.ShowsPrepared) {
		if err := s.showPreparedAlone(l); err != nil {
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
	if len(q.needs) > 0 {
		e.Statement = q.needs[0].id
	}
	s.after.told = q.told
	s.notice()
	s.forward(l, p, wire.AppendQuery(nil, string(q.text)), e, false)
	return nil
}

// prepareAll makes statements known to a link's connection, all at once.
func (s *session) prepareAll(l *engine.Link, list []*statement) error {
	for _, st := range list {
		if err := s.prepareNow(l, st); err != nil {
			return err
		}
	}
	for _, st := range list {
		if _, known := l.Conn.Statements.Name(st.id); !known && l.Err == nil {
			return wire.Errorf(wire.ProgramLimitExceeded, "the prepared statements of this query string do not fit into one server connection").
				WithHint("Raise the bound on statements of server connections, or send fewer statements together.")
		}
	}
	return nil
}

// prepared says whether a link's connection has all of the statements.
func (s *session) prepared(l *engine.Link, list []*statement) bool {
	return !slices.ContainsFunc(list, func(st *statement) bool {
		_, known := l.Conn.Statements.Name(st.id)
		return !known
	})
}

// prepareAhead prepares what the query string in hand asks for before its transaction begins on the link. That has not done
// anything yet which could make a difference.
func (s *session) prepareAhead(l *engine.Link) error {
	list := s.strung.ahead
	s.strung.ahead = nil
	if s.prepared(l, list) {
		return nil
	}
	err := s.prepareAll(l, list)
	if err != nil {
		s.release()
	}
	return err
}

// errPreparesFirst refuses to set how a transaction runs behind what must be prepared in it.
func errPreparesFirst() *wire.Error {
	return wire.Errorf(wire.FeatureNotSupported, "a query string that sets how its transaction runs cannot also speak of prepared statements in a transaction that has begun on its server").
		WithDetail("They are prepared there ahead of the string, behind which it is too late for that.").
		WithHint("Send them one by one.")
}

// takeOver records what a query string did to prepared statements, as far as it came.
func (s *session) takeOver(l *engine.Link, list []told, completed int) {
	for _, x := range list {
		switch {
		case x.n >= completed: // a statement made to be deallocated stays, as one of those that nobody uses
		case x.all:
			s.forgetAll()
			l.Conn.Statements.Reset()
		case !x.drop:
			// The server's counts positions in the whole string. It is prepared anew, as everywhere else.
			s.closeUnseen(l, backend.StatementName(x.st.id))
			l.SetOut(wire.AppendSync(l.Out()))
			l.Expect(engine.Expect{Kind: engine.Sync, Mute: engine.MuteReady})
			s.keep(x.st)
		default:
			l.Conn.Statements.Remove(x.st.id)
			s.forget(x.st.name)
		}
	}
}

// executes says whether the plan is of an EXECUTE, alone or in a statement around it.
func executes(p *router.Plan) bool {
	return p.Kind == router.OfPrepared && p.Prepared.Op != router.PrepareOp && p.Prepared.Op != router.DeallocateOp
}

// executed is the statement that stands for an EXECUTE in the extended protocol: unnamed, with the server's name of what it
// executes in its text. plan is where it goes.
func (s *session) executed(st *statement, x *router.Prepared) (*statement, *router.Plan, error) {
	from, to, err := nameIn(st.sql, x)
	if err != nil {
		return nil, nil, err
	}
	target, p := s.stmts[x.Name], s.hereOnly(sql.Execute)
	out := &statement{id: s.p.statements.fresh(), needs: target}
	name := backend.StatementName(out.id) // of none, if there is no target: PostgreSQL finds out when it is executed, and the server will
	if target != nil {
		s.template(target)
		if p = target.template.Execute(x); p.Kind == router.Refuse {
			return nil, nil, refusal(p.Refusal)
		}
		name, out.template, out.rt = backend.StatementName(target.id), target.template, target.rt
	}
	out.sql = slices.Concat(st.sql[:from], []byte(name), st.sql[to:])
	at := engine.Characters(string(st.sql[:from])) + len(name) + 1
	out.names = &engine.Names{Client: x.Name, Shifts: []engine.Shift{{At: at, By: engine.Characters(string(st.sql[from:to])) - len(name)}}}
	if target != nil {
		out.names.Executed = []engine.Executed{executedBy(0, target)}
	}
	return out, p, nil
}

// bindsBefore says whether the client hears of a Bind of st before the server does. That PostgreSQL cannot prepare any more what
// an EXECUTE executes is an error of the Execute; here it is one of a Parse that goes ahead of the Bind.
func (s *session) bindsBefore(l *engine.Link, st *statement) bool {
	if st.needs == nil || s.aborted() {
		return false
	}
	_, known := l.Conn.Statements.Name(st.needs.id)
	return !known
}

// executePrepared runs a bound PREPARE or DEALLOCATE.
func (s *session) executePrepared(pt *portal) error {
	x := pt.plan.Prepared
	if x.Op == router.DeallocateOp {
		if s.stmts[x.Name] == nil {
			return errNoStatement(x.Name)
		}
		s.forget(x.Name)
		s.reply(wire.AppendCommandComplete(nil, pt.plan.Tag))
		return nil
	}
	_, to, err := nameIn(pt.st.sql, x)
	if err != nil {
		return err
	}
	st, err := s.prepareText(trimStatement(pt.st.sql), to, x)
	if err != nil {
		return err
	}
	s.template(st)
	g := st.template.Generic()
	if g.Kind == router.Refuse {
		return refusal(g.Refusal)
	}
	taken := s.stmts[x.Name] != nil
	if s.proxyOwn(g) {
		if taken {
			return errDuplicate(x.Name)
		}
		s.keep(st)
		s.reply(wire.AppendCommandComplete(nil, pt.plan.Tag))
		return nil
	}
	l, err := s.linkFor(s.anywhere(g))
	if err != nil {
		return err
	}
	if taken { // which PostgreSQL says of a statement that is right
		st.id = s.p.statements.fresh()
		st.names = namesOf(st)
		s.define(l, st, engine.Expect{Mute: engine.MuteAck, Statement: st.id})
		s.batch.sent = true
		return errDuplicate(x.Name)
	}
	s.keep(st)
	if _, known := l.Conn.Statements.Name(st.id); !known {
		s.define(l, st, engine.Expect{Mute: engine.MuteAck, Statement: st.id, Undo: func() { s.undo(st) }})
		s.batch.sent = true
	}
	s.reply(wire.AppendCommandComplete(nil, pt.plan.Tag))
	return nil
}

// define has a statement prepared on the link's connection, where it is not known yet. e is what is expected of that; its kind
// is filled in. It is closed first: a batch that has not been answered may close it there, or may come to nothing and leave it.
//
// A PREPARE with types is prepared by a PREPARE, for types are known to the server by their names; it goes by way of the
// extended protocol so that an error skips what comes behind, too.
func (s *session) define(l *engine.Link, st *statement, e engine.Expect) (name string) {
	name, evicted := l.Conn.Statements.Add(st.id, len(st.sql), nil)
	for _, old := range evicted {
		l.SetOut(wire.AppendClose(l.Out(), wire.KindStatement, old.Name))
		l.Expect(engine.Expect{Kind: engine.Close, Mute: engine.MuteAck, Undo: func() { l.Conn.Statements.Restore(old) }})
	}
	s.closeUnseen(l, name)
	e.Kind = engine.Parse
	if e.Names == nil {
		e.Names = st.names
	}
	if st.types == "" {
		l.SetOut(wire.AppendParse(l.Out(), name, st.sql, st.oids))
		l.Expect(e)
		return name
	}
	s.runUnseen(l, fmt.Sprintf(prepareTyped, name, st.types, st.sql), e)
	return name
}

// prepareTyped is the PREPARE of a statement with types: its name, the types, and its text.
const prepareTyped = "PREPARE %s (%s) AS %s"

// runUnseen runs a statement in the extended protocol without a Sync, by names that no client uses. e is what is expected of
// its parts: the Parse, and Execute if it has a reply to keep.
func (s *session) runUnseen(l *engine.Link, text string, e engine.Expect) {
	l.Conn.Unnamed = 0
	out := wire.AppendParse(l.Out(), "", []byte(text), nil)
	out = wire.AppendBind(out, noPortal, "", nil, nil, nil)
	out = wire.AppendExecute(out, noPortal, 0)
	l.SetOut(wire.AppendClose(out, wire.KindPortal, noPortal))
	l.Expect(e)
	part := engine.Expect{Mute: engine.MuteAll, Statement: e.Statement, Reply: e.Reply, Names: e.Names}
	part.Mute &^= engine.MuteError &^ e.Mute
	for _, k := range []engine.Kind{engine.Bind, engine.Execute, engine.Close} {
		part.Kind = k
		part.Undo = nil
		if k == engine.Execute || k == engine.Bind {
			part.Undo = func() { l.Forget(e.Statement) }
			if e.Undo != nil {
				part.Undo = func() { l.Forget(e.Statement); e.Undo() }
			}
		}
		l.Expect(part)
	}
}

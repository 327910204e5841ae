package proxy

import (
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

// prepareText is the statement that the PREPARE at shown[start:end] makes; its name ends at nameEnd of that. pg_prepared_statements has all that is shown.
func (s *session) prepareText(shown []byte, start, end, nameEnd int, x *router.Prepared) (*statement, error) {
	text := shown[start:end]
	parts, ok := sql.SplitPrepare(text, nameEnd)
	if !ok {
		return nil, wire.Errorf(wire.FeatureNotSupported, "this form of PREPARE is not supported")
	}
	st := &statement{
		name: x.Name, sql: slices.Clone(text[parts.Query:]), oids: x.Types, types: parts.Types,
		fromSQL: string(shown), typesAt: start + parts.TypesAt, offset: start + parts.Query,
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

// madeBy is the statement that the PREPARE at start of the text makes, if it can be planned. Positions in the refusal are those in the text.
func (s *session) madeBy(text []byte, start int, x *router.Prepared) (*statement, error) {
	_, to, err := nameIn(text[start:], x)
	if err != nil {
		return nil, err
	}
	st, err := s.prepareText(text, start, start+len(trimStatement(text[start:])), to, x)
	if err != nil {
		return nil, err
	}
	if goesOn, err := s.lookUp(st); err != nil {
		return nil, err
	} else if !goesOn {
		return nil, errAnswered
	}
	if g := st.template.Generic(); g.Kind == router.Refuse {
		e := refusal(g.Refusal)
		if e.Position > 0 {
			e.Position += engine.Characters(string(text[:st.offset]))
		}
		return nil, e
	}
	return st, nil
}

// prepareAlone runs a Query that is one PREPARE. It begins at start of the text.
func (s *session) prepareAlone(p *router.Plan, text []byte, start int) error {
	s.note(p)
	if err := s.quiet(); err != nil {
		return err
	}
	st, err := s.madeBy(text, start, p.Prepared)
	if err != nil {
		return err
	}
	g := st.template.Generic()
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
	if err := s.queriedHere(); err != nil {
		return err
	}
	return s.completed(p.Tag)
}

// queriedHere has the server of the transaction under way know that there has been a query that takes a snapshot, of which it has not heard.
func (s *session) queriedHere() error {
	s.tx.seal()
	if l := s.link; l != nil && s.tx.state == txOpen && !s.tx.looked && l.Err == nil {
		s.tx.looked = true
		s.queryUnseen(l, "SELECT 1", nil)
		return s.Await(l)
	}
	return nil
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
	if err := s.queriedHere(); err != nil {
		return err
	}
	return s.completed("DEALLOCATE")
}

// completed ends a Query that the session has answered itself, and with it the batch that it stands in.
func (s *session) completed(tag string) error {
	if err := s.endBatch(); err != nil {
		return err
	}
	s.SetOut(wire.AppendCommandComplete(s.Out(), tag))
	return s.ready(s.status())
}

// quiet waits until nothing is owed, and fails in a transaction that has failed.
func (s *session) quiet() error {
	if err := s.drain(); err != nil {
		return err
	}
	if s.batch.sent {
		if goesOn, err := s.caughtUp(); err != nil {
			return err
		} else if !goesOn { // an error of the batch skips the query
			return errAnswered
		}
	}
	if s.tx.state == txFailed || s.link != nil && s.link.Conn.TxStatus == wire.TxAborted {
		return s.errAborted()
	}
	return nil
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
	if x.Op == router.CreateOp {
		p.Flags |= router.Writes // a replica would say first that it cannot
	}
	out := &statement{id: s.p.statements.fresh(), oids: st.oids, needs: target}
	name := backend.StatementName(out.id) // of none, if there is no target: PostgreSQL finds out when it is executed, and the server will
	if target != nil {
		if goesOn, err := s.lookUp(target); err != nil {
			return nil, nil, err
		} else if !goesOn {
			return nil, nil, errAnswered
		}
		if p = target.template.Execute(x); p.Kind == router.Refuse {
			return nil, nil, refusal(p.Refusal)
		}
		if p.Kind == router.Nothing { // the EXECUTE itself is no empty query
			p = s.hereOnly(sql.Execute)
		}
		name, out.template, out.rt = backend.StatementName(target.id), target.template, target.rt
	}
	out.sql = slices.Concat(st.sql[:from], []byte(name), st.sql[to:])
	at := engine.Characters(string(st.sql[:from])) + len(name) + 1
	out.names = &engine.Names{Client: x.Name, Shifts: []engine.Shift{{At: at, By: engine.Characters(string(st.sql[from:to])) - len(name)}}}
	if target != nil {
		out.names.Executed = []engine.Executed{executedBy(0, target, x.Args)}
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
		s.replyInOrder(wire.AppendCommandComplete(nil, pt.plan.Tag))
		return nil
	}
	st, err := s.madeBy(pt.st.sql, 0, x)
	if err != nil {
		return err
	}
	g := st.template.Generic()
	taken := s.stmts[x.Name] != nil
	if s.proxyOwn(g) {
		if taken {
			return errDuplicate(x.Name)
		}
		s.keep(st)
		s.replyInOrder(wire.AppendCommandComplete(nil, pt.plan.Tag))
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
	s.replyInOrder(wire.AppendCommandComplete(nil, pt.plan.Tag))
	return nil
}

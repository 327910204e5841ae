package proxy

import (
	"github.com/tidemarkdb/tidemark/internal/engine"
	"github.com/tidemarkdb/tidemark/internal/wire"
	"github.com/tidemarkdb/tidemark/router"
)

// statement is a prepared statement of the client.
type statement struct {
	name     string
	sql      []byte
	oids     []uint32
	id       uint64  // see statements.go
	shared   *shared // in the registry; nil for the unnamed statement
	names    *engine.Names
	needs    *statement // what this statement, an EXECUTE, executes
	types    string     // the types of a PREPARE as they are written; oids are for routing only then
	fromSQL  string     // the text of the PREPARE; empty for the protocol's statements
	typesAt  int        // where types begin in it
	offset   int        // where sql does
	ahead    int        // characters of the query string before fromSQL
	undone   bool       // its Parse has failed or was skipped
	template *router.Template
	rt       *router.Router  // that made the template
	view     *router.Session // for which it did
	syncs    uint64          // session.syncs when it was parsed
	order    uint64          // in which the client has prepared those with names
	again    bool            // see prepareAgain
	asked    bool            // its Parse has asked a server that had it whether it may be prepared

	// literals: it has some. reading is how they were read when it was prepared first, nil for the servers' defaults: see reading.go.
	literals bool
	reading  *reading

	// shape is what the client takes the rows for, described the answer by which it learns that: see shape.go.
	shape     shape
	described *engine.Reply
}

// parse handles Parse.
func (s *session) parse() error {
	if goesOn, err := s.foreseeOne(); !goesOn || err != nil {
		return err
	}
	if goesOn, err := s.closed(); !goesOn || err != nil {
		return err
	}
	frame, err := s.Frame(s.p.cfg().MaxMessage)
	if err != nil {
		return s.tooLarge(err)
	}
	m, err := wire.DecodeParse(frame[wire.HeaderLen:])
	if err != nil {
		return s.malformed(err)
	}
	m.SQL = s.conforming(m.SQL)
	st := s.recycled(&m)
	if st == nil {
		st = &statement{name: string(shortened(m.Name)), sql: append([]byte(nil), m.SQL...), oids: m.AppendOIDs(nil)}
	}
	st.syncs, st.asked = s.syncs, false
	var taken error
	if old, dup := s.stmts[st.name]; st.name == "" || !dup {
		// the unnamed one is replaced
	} else if old.again {
		s.forget(st.name)
	} else {
		taken = errDuplicate(string(m.Name))
	}
	s.Consume(len(frame))
	s.trace(st.sql, true)
	if st.name != "" && taken == nil {
		if err := s.crowdedStatements(st); err != nil {
			return s.failBatch(err)
		}
	}
	if goesOn, err := s.lookUp(st); err != nil {
		return s.failBatch(err)
	} else if !goesOn {
		return nil
	}
	switch g := st.template.Generic(); {
	case g.Refusal != nil && g.Refusal.Unread && (g.Kind == router.Refuse || s.tx.state == txFailed):
		return s.unparsable(st, refusal(g.Refusal))
	case s.tx.state == txFailed && !endsTransaction(g), s.link != nil && s.link.Owed() == 0 && s.aborted() && !runsAborted(g):
		return s.unparsable(st, s.errAborted())
	case g.Kind == router.Refuse:
		return s.unparsable(st, refusal(g.Refusal))
	}
	if err := s.endOverBefore(st.template.Generic()); err != nil {
		return s.failBatch(err)
	}
	if taken != nil {
		if goesOn, err := s.caughtUp(); !goesOn || err != nil { // what took the name may fail yet
			return err
		}
		if s.aborted() && !runsAborted(st.template.Generic()) {
			return s.failBatch(s.errAborted())
		}
		if s.stmts[st.name] != nil {
			return s.failBatch(s.errTaken(st, taken))
		}
	}
	own := s.proxyOwn(st.template.Generic())
	if own {
		if err := s.prepareHeld(); err != nil { // its reply comes first
			return s.failBatch(err)
		}
		if goesOn, err := s.caughtUp(); !goesOn || err != nil {
			return err
		}
		if s.aborted() && !runsAborted(st.template.Generic()) {
			return s.unparsable(st, s.errAborted())
		}
		if e := st.undetermined(); e != nil {
			return s.unparsable(st, e)
		}
	}
	if st.name == "" {
		st.id = s.p.statements.fresh()
		s.noteReplaced(st.id)
	}
	s.keep(st)
	if own {
		s.replyInOrder(wire.AppendParseComplete(nil))
		return nil
	}
	s.batch.held = append(s.batch.held, st)
	if s.crowdedHeld() {
		if err := s.prepareHeld(); err != nil {
			return s.failBatch(err)
		}
	}
	return nil
}

// undetermined is PostgreSQL's error for a parameter whose type the client leaves open, in a statement of the proxy's own that uses none: all
// but a ViewScan. Of an empty query it does not look at them.
func (st *statement) undetermined() *wire.Error {
	if kind := st.template.Generic().Kind; kind == router.ViewScan || kind == router.Nothing {
		return nil
	}
	for i, oid := range st.template.Params() {
		if oid == 0 || oid == unknownOID {
			return wire.Errorf(wire.IndeterminateDatatype, "could not determine data type of parameter $%d", i+1)
		}
	}
	return nil
}

// unknownOID is PostgreSQL's UNKNOWNOID, the type of literals.
const unknownOID = 705

// unparsable answers a Parse with an error of the proxy's own.
func (s *session) unparsable(st *statement, e *wire.Error) error {
	if st.name == "" {
		if goesOn, err := s.caughtUp(); !goesOn || err != nil { // it may be skipped, for an error before it
			return err
		}
		delete(s.stmts, "")
	}
	return s.failBatch(e)
}

// errTaken is the error for a statement under a name that is taken. A server says whether something else is wrong with it too,
// which PostgreSQL finds first.
func (s *session) errTaken(st *statement, taken error) error {
	g := st.template.Generic()
	if s.proxyOwn(g) {
		if e := st.undetermined(); e != nil {
			return e
		}
		return taken
	}
	if err := s.prepareHeld(); err != nil {
		return err
	}
	l, err := s.linkFor(s.anywhere(g))
	if err != nil {
		return err
	}
	st.id = s.p.statements.fresh()
	s.define(l, st, engine.Expect{Mute: engine.MuteAck, Statement: st.id})
	s.batch.sent = true
	return taken
}

// statement is the prepared statement of that name, or nil. A Parse of the unnamed one may have failed meanwhile.
func (s *session) statement(name []byte) *statement {
	if l := s.link; len(name) == 0 && l != nil && len(l.Unparsed) > 0 {
		s.unparsed(l)
	}
	return s.stmts[string(shortened(name))]
}

// pending says whether it depends on an earlier batch, which is not answered yet, that the link's connection has the statement, or
// what it executes, or all that it shows: an error there skips a Parse. Or that there is none: it skips a Close.
func (s *session) pending(st *statement) bool {
	l := s.link
	if st == nil {
		return l != nil && s.closes
	}
	if l != nil && st.asked && st.syncs != s.syncs && l.Owed() > 0 {
		return true
	}
	if l == nil || !l.Preparing() {
		return false
	}
	unsure := l.Unsure(st.id)
	s.template(st)
	g := st.template.Generic()
	return g.Kind == router.OfPrepared || g.Has(router.ShowsPrepared) || unsure
}

// template plans a statement, anew when the schema has changed since, or what names mean in the session: PostgreSQL looks them up anew.
func (s *session) template(st *statement) {
	if st.view != s.view || s.after.foreseen != nil || s.coded {
		s.apart(st)
	}
	rt := s.p.router.Load()
	if st.rt == rt && (st.view == s.view || st.view.Key() == s.view.Key()) {
		st.view = s.view // by which the fast path knows it
		return
	}
	scratch := scratches.Get(s.Task)
	t, ok := rt.CachedTemplate(scratch, s.view, st.sql, st.oids)
	switch {
	case ok:
	case router.Costly(len(st.sql)):
		s.Task.Await(func() { t = rt.Template(scratch, s.view, st.sql, st.oids) })
	default:
		t = rt.Template(scratch, s.view, st.sql, st.oids)
	}
	s.putScratch(scratch)
	st.template, st.rt, st.view = t, rt, s.view
}

// proxyOwn says whether the proxy answers the statement without any server, Describe included.
func (s *session) proxyOwn(p *router.Plan) bool {
	switch p = s.ended(p); p.Kind {
	case router.ViewScan, router.OfPrepared:
		return true
	case router.Setting:
		return p.Setting.Own
	case router.Tx:
		return s.tx.state != txOpen
	case router.Nothing:
		return !s.hasServer()
	}
	return discardsHere(s, p)
}

// close handles Close. A statement stays on the servers, where others use it.
func (s *session) close() error {
	if goesOn, err := s.closed(); !goesOn || err != nil {
		return err
	}
	frame, err := s.Frame(wire.SmallMessageLimit)
	if err != nil {
		return err
	}
	target, err := wire.DecodeClose(frame[wire.HeaderLen:])
	if err != nil {
		return s.malformed(err)
	}
	n := len(frame)
	name := string(shortened(target.Name))
	if target.Kind == wire.KindPortal {
		var of *engine.Link
		pt := s.portals.get(target.Name)
		if pt != nil {
			of = pt.link
		}
		s.portals.remove(target.Name)
		if l := s.link; l != nil && (of == nil || of == l) { // also where one of the proxy's own has taken the name of one there
			s.flushHeld(l)
			l.Queue(frame)
			l.Expect(engine.Expect{Kind: engine.Close})
			s.batch.sent = true
			s.Consume(n)
			return nil
		}
	}
	statement := target.Kind == wire.KindStatement
	s.Consume(n)
	if err := s.prepareHeld(); err != nil {
		return s.failBatch(err)
	}
	if !statement {
		s.replyInOrder(wire.AppendCloseComplete(nil))
		return nil
	}
	st := s.stmts[name]
	s.forget(name)
	if l := s.link; l != nil && l.Owed() > 0 {
		s.batch.closes = true
		l.Expect(engine.Expect{Kind: engine.Synthetic, Bytes: wire.AppendCloseComplete(nil), Undo: func() { s.reopen(st) }})
		return nil
	}
	s.Reply(wire.AppendCloseComplete(nil))
	return nil
}

// closed waits until what earlier batches close is closed: an error may open the name again, and only what comes behind that may take it.
func (s *session) closed() (goesOn bool, err error) {
	if !s.closes {
		return true, nil
	}
	s.closes = false
	return s.caughtUp()
}

// reopen takes back a Close that was skipped, and with it what came behind that.
func (s *session) reopen(st *statement) {
	if st == nil || st.undone {
		return
	}
	s.forget(st.name)
	if st.shared != nil {
		s.keep(st)
	} else {
		s.stmts[st.name] = st
	}
}

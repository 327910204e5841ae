package proxy

import (
	"errors"

	"github.com/tidemarkdb/tidemark/internal/engine"
	"github.com/tidemarkdb/tidemark/internal/wire"
	"github.com/tidemarkdb/tidemark/router"
)

// The extended protocol. A batch is what lies between two Syncs. A statement that is parsed names no shard yet, so a
// Parse is held until a Bind or Describe says where to go; on the server the statement gets a name made of its text and
// parameter types, so that clients share it and any connection of the pool can have it.

// batch is the state since the last Sync.
type batch struct {
	sent  bool         // the link has got requests that no Sync has followed yet
	skip  bool         // an error was answered: ignore messages until Sync
	wrote bool         // a statement may have changed data
	held  []*statement // parsed, not yet known to any server; ParseComplete is owed
}

// statement is a prepared statement of the client.
type statement struct {
	name     string
	sql      []byte
	oids     []uint32
	id       uint64 // see statements.go
	key      string // in the registry
	template *router.Template
	rt       *router.Router // that made the template
}

// portal is a bound statement.
type portal struct {
	st   *statement
	plan *router.Plan
	link *engine.Link // where it was bound; nil: the proxy runs it
	bind []byte       // the Bind message, for those the proxy runs
	told bool         // Describe was asked and is to be answered when it runs
}

func (s *session) skipping() bool { return s.batch.skip || s.link != nil && s.link.Skipping }

// failBatch answers an error of the proxy's own within a batch. What is not for the client is returned.
func (s *session) failBatch(err error) error {
	if errors.Is(err, errAnswered) {
		return nil
	}
	var e *wire.Error
	if !errors.As(err, &e) || e.EndsSession() {
		return err
	}
	s.batch.held = s.batch.held[:0]
	s.batch.skip = true
	before := s.link != nil && s.link.Err == nil && (s.batch.sent || s.tx.state == txOpen || s.link.Owed() > 0)
	s.refuse(e)
	if before {
		s.batch.sent = true
	}
	return nil
}

// parse handles Parse.
func (s *session) parse() error {
	frame, err := s.Frame(s.p.cfg.MaxMessage)
	if err != nil {
		return s.tooLarge(err)
	}
	m, err := wire.DecodeParse(frame[wire.HeaderLen:])
	if err != nil {
		return err
	}
	st := &statement{name: string(m.Name), sql: append([]byte(nil), m.SQL...), oids: m.AppendOIDs(nil)}
	s.Consume(len(frame))
	if st.name != "" {
		if _, dup := s.stmts[st.name]; dup {
			return s.failBatch(wire.Errorf(wire.DuplicatePreparedStatement, "prepared statement %q already exists", st.name))
		}
		if len(s.stmts) >= maxStatements {
			return s.failBatch(wire.Errorf(wire.ProgramLimitExceeded, "too many prepared statements: %d", len(s.stmts)).
				WithHint("Close those that are not used any more."))
		}
	}
	s.template(st)
	if g := st.template.Generic(); g.Kind == router.Refuse {
		return s.failBatch(refusal(g.Refusal))
	} else if s.tx.state == txFailed && !endsTransaction(g) {
		return s.failBatch(s.errAborted())
	}
	s.keep(st)
	if s.proxyOwn(st.template.Generic()) {
		s.reply(wire.AppendParseComplete(nil))
		return nil
	}
	s.batch.held = append(s.batch.held, st)
	return nil
}

// maxStatements bounds the prepared statements of one client.
const maxStatements = 10_000

// template plans a statement, anew when the schema has changed since.
func (s *session) template(st *statement) {
	rt := s.p.router.Load()
	if st.rt == rt {
		return
	}
	t, ok := rt.CachedTemplate(&s.scratch, s.view, st.sql, st.oids)
	switch {
	case ok:
	case router.Costly(len(st.sql)):
		s.Task.Await(func() { t = rt.Template(&s.scratch, s.view, st.sql, st.oids) })
	default:
		t = rt.Template(&s.scratch, s.view, st.sql, st.oids)
	}
	st.template, st.rt = t, rt
}

// proxyOwn says whether the proxy answers the statement without any server, Describe included.
func (s *session) proxyOwn(p *router.Plan) bool {
	switch p.Kind {
	case router.Nothing, router.ViewScan:
		return true
	case router.Setting:
		return p.Setting.Own
	case router.Tx:
		return s.tx.state != txOpen
	}
	return discardsHere(s, p)
}

// bind handles Bind: the values choose the shard.
func (s *session) bind(size int) error {
	m, err := s.bindHead(size)
	if err != nil {
		return err
	}
	name := string(m.Statement)
	st := s.stmts[name]
	if st == nil {
		if err := s.Skip(size); err != nil {
			return err
		}
		if name == "" {
			return s.failBatch(wire.Errorf(wire.InvalidSQLStatementName, "unnamed prepared statement does not exist"))
		}
		return s.failBatch(wire.Errorf(wire.InvalidSQLStatementName, "prepared statement %q does not exist", name))
	}
	s.template(st)
	plan := st.template.Generic()
	if !st.template.Fixed() || s.proxyOwn(plan) || wide(plan) {
		if !m.Whole() {
			frame, err := s.Frame(s.p.cfg.MaxMessage)
			if err != nil {
				return s.tooLarge(err)
			}
			if m, err = wire.DecodeBind(frame[wire.HeaderLen:]); err != nil {
				return err
			}
		}
		if !st.template.Fixed() {
			s.values, s.formats = m.Params(s.values[:0]), s.formats[:0]
			for i := range m.NumParams() {
				s.formats = append(s.formats, m.ParamFormat(i))
			}
			plan = st.template.Bind(s.values, s.formats)
		}
	}
	s.note(plan)
	pt := &portal{st: st, plan: plan}
	name = string(m.Portal)
	if plan.Kind == router.Refuse {
		if err := s.Skip(size); err != nil {
			return err
		}
		return s.failBatch(refusal(plan.Refusal))
	}
	if s.tx.state == txFailed && !endsTransaction(plan) {
		if err := s.Skip(size); err != nil {
			return err
		}
		return s.failBatch(s.errAborted())
	}
	if s.proxyOwn(plan) || wide(plan) {
		pt.bind = append([]byte(nil), s.Input()[:size]...)
		s.Consume(size)
		if err := s.heldFor(st); err != nil {
			return s.failBatch(err)
		}
		s.portals[name] = pt
		s.reply(wire.AppendBindComplete(nil))
		return nil
	}
	err = s.checkSetting(plan)
	var l *engine.Link
	if err == nil {
		l, err = s.linkFor(s.p.onDefault(plan))
	}
	if err != nil {
		if serr := s.Skip(size); serr != nil {
			return serr
		}
		return s.failBatch(err)
	}
	s.flushHeld(l)
	onServer := s.ensure(l, st, engine.MuteAck)
	out, used, err := wire.Rename(l.Out(), s.Input(), size, onServer)
	if err != nil {
		return err
	}
	l.SetOut(out)
	l.Expect(engine.Expect{Kind: engine.Bind})
	s.batch.sent = true
	s.Consume(used)
	if len(s.Input()) >= size-used {
		l.Queue(s.Input()[:size-used])
		s.Consume(size - used)
	} else if err := s.Pass(l, size-used); err != nil {
		return err
	}
	pt.link = l
	s.portals[name] = pt
	return nil
}

// bindHead decodes as much of a Bind as has come, at least its names. A small one is read whole.
func (s *session) bindHead(size int) (wire.Bind, error) {
	if size <= streamFrom {
		frame, err := s.Frame(size)
		if err != nil {
			return wire.Bind{}, err
		}
		return wire.DecodeBind(frame[wire.HeaderLen:])
	}
	for {
		part := s.Input()
		if len(part) >= size {
			return wire.DecodeBind(part[wire.HeaderLen:size])
		}
		m, err := wire.DecodeBindPart(part[wire.HeaderLen:])
		if !errors.Is(err, wire.ErrIncomplete) {
			return m, err
		}
		if len(part) >= streamFrom {
			return m, wire.Errorf(wire.ProtocolViolation, "names and formats in bind message are too long").Fatal()
		}
		if err := s.More(); err != nil {
			return m, err
		}
	}
}

// streamFrom is the size from which a Bind is passed on while it arrives, if no value of it is needed.
const streamFrom = 16 << 10

// ensure makes the statement known to the link's connection and returns its name there. mute says whether the client
// hears ParseComplete.
func (s *session) ensure(l *engine.Link, st *statement, mute engine.Mute) (name string) {
	known := false
	if st.name == "" {
		known = l.Conn.Unnamed == st.id
	} else {
		name, known = l.Conn.Statements.Name(st.id)
	}
	if known {
		if mute == 0 {
			s.reply(wire.AppendParseComplete(nil))
		}
		return name
	}
	if st.name == "" {
		l.Conn.Unnamed = st.id
	} else {
		var evicted []string
		name, evicted = l.Conn.Statements.Add(st.id, len(st.sql), nil)
		for _, old := range evicted {
			l.SetOut(wire.AppendClose(l.Out(), wire.KindStatement, old))
			l.Expect(engine.Expect{Kind: engine.Close, Mute: engine.MuteAck})
		}
	}
	l.SetOut(wire.AppendParse(l.Out(), name, st.sql, st.oids))
	l.Expect(engine.Expect{Kind: engine.Parse, Mute: mute, Statement: st.id})
	s.batch.sent = true
	return name
}

// flushHeld prepares on the link what was parsed and not sent, in order.
func (s *session) flushHeld(l *engine.Link) {
	for _, st := range s.batch.held {
		s.ensure(l, st, 0)
	}
	s.batch.held = s.batch.held[:0]
}

// prepareHeld finds a link for what is held when nothing else will: any shard knows the statement.
func (s *session) prepareHeld() error {
	if len(s.batch.held) == 0 {
		return nil
	}
	l, err := s.linkFor(s.anywhere(s.batch.held[0].template.Generic()))
	if err != nil {
		s.batch.held = s.batch.held[:0]
		return err
	}
	s.flushHeld(l)
	return nil
}

// heldFor validates a held statement that the proxy itself is about to run.
func (s *session) heldFor(st *statement) error {
	for _, h := range s.batch.held {
		if h == st {
			return s.prepareHeld()
		}
	}
	return nil
}

// anywhere is a plan for asking any of p's shards what a statement looks like.
func (s *session) anywhere(p *router.Plan) *router.Plan {
	q := *p
	q.Kind, q.Access, q.Flags = router.AnyShard, router.Read, router.Neutral
	if len(q.Shards) == 0 {
		q.Shards = s.p.defaultShard
	}
	return &q
}

// describe handles Describe.
func (s *session) describe() error {
	frame, err := s.Frame(wire.SmallMessageLimit)
	if err != nil {
		return err
	}
	target, err := wire.DecodeDescribe(frame[wire.HeaderLen:])
	if err != nil {
		return err
	}
	name := string(target.Name)
	if target.Kind == wire.KindPortal {
		return s.describePortal(name, len(frame))
	}
	s.Consume(len(frame))
	st := s.stmts[name]
	if st == nil {
		return s.failBatch(wire.Errorf(wire.InvalidSQLStatementName, "prepared statement %q does not exist", name))
	}
	s.template(st)
	g := st.template.Generic()
	if s.proxyOwn(g) {
		b := wire.AppendParameterDescription(nil, st.template.Params())
		s.reply(s.appendFields(b, g, nil))
		return nil
	}
	l := s.link
	if l == nil || l.Err != nil {
		if l, err = s.linkFor(s.anywhere(g)); err != nil {
			return s.failBatch(err)
		}
	}
	s.flushHeld(l)
	onServer := s.ensure(l, st, engine.MuteAck)
	l.SetOut(wire.AppendDescribe(l.Out(), wire.KindStatement, onServer))
	l.Expect(engine.Expect{Kind: engine.Describe})
	s.batch.sent = true
	return nil
}

func (s *session) describePortal(name string, n int) error {
	frame := s.Input()[:n]
	pt := s.portals[name]
	switch {
	case pt == nil && s.link == nil:
		s.Consume(n)
		return s.failBatch(wire.Errorf(wire.InvalidCursorName, "portal %q does not exist", name))
	case pt == nil || pt.link != nil: // a cursor made by DECLARE is a portal too
		l := s.link
		if l == nil {
			s.Consume(n)
			return s.failBatch(wire.Errorf(wire.InvalidCursorName, "portal %q does not exist", name))
		}
		l.Queue(frame)
		l.Expect(engine.Expect{Kind: engine.Describe})
		s.batch.sent = true
		s.Consume(n)
		return nil
	}
	s.Consume(n)
	if pt.plan.Kind == router.Scatter {
		pt.told = true // the first shard tells when it runs
		return nil
	}
	if wide(pt.plan) {
		s.reply(wire.AppendNoData(nil))
		return nil
	}
	m, err := wire.DecodeBind(pt.bind[wire.HeaderLen:])
	if err != nil {
		return err
	}
	s.reply(s.appendFields(nil, pt.plan, &m))
	return nil
}

// execute handles Execute.
func (s *session) execute() error {
	frame, err := s.Frame(wire.SmallMessageLimit)
	if err != nil {
		return err
	}
	m, err := wire.DecodeExecute(frame[wire.HeaderLen:])
	if err != nil {
		return err
	}
	n := len(frame)
	pt := s.portals[string(m.Portal)]
	if pt == nil && s.link == nil || pt != nil && pt.link != nil && pt.link != s.link {
		name := string(m.Portal)
		s.Consume(n)
		return s.failBatch(wire.Errorf(wire.InvalidCursorName, "portal %q does not exist", name))
	}
	if pt == nil || pt.link != nil {
		l := s.link
		e := engine.Expect{Kind: engine.Execute}
		if pt != nil && s.effects(l, pt.plan) {
			e.Reply = &s.after.outcome
		}
		l.Queue(frame)
		l.Expect(e)
		s.batch.sent = true
		s.Consume(n)
		return nil
	}
	s.Consume(n)
	if m.MaxRows > 0 && (pt.plan.Kind == router.Scatter || pt.plan.Kind == router.ViewScan) {
		return s.failBatch(wire.Errorf(wire.FeatureNotSupported, "a row limit cannot be used with a query of %s", s.p.whereOf(pt.plan)).
			WithHint("Fetch all rows (fetch size 0), or add a LIMIT."))
	}
	return s.executeOwn(pt)
}

// executeOwn runs a portal of the proxy's own. What the link still owes comes first.
func (s *session) executeOwn(pt *portal) error {
	if pt.plan.Kind == router.Tx {
		if answer, handled := s.control(pt.plan, pt.st.sql); handled {
			s.reply(answer)
			return nil
		}
		return s.executeLate(pt)
	}
	if s.link != nil && s.link.Owed() > 0 {
		before := s.link.Errors
		if s.batch.sent {
			s.link.SetOut(wire.AppendFlush(s.link.Out()))
		}
		for s.link.Owed() > 0 && s.link.Err == nil {
			if err := s.Serve(); err != nil {
				return err
			}
		}
		if s.link.Errors > before || s.link.Err != nil {
			return nil // the client has heard of it, or settle will tell
		}
	}
	if wide(pt.plan) {
		if s.link != nil && s.tx.state != txOpen && !s.batch.wrote {
			if err := s.leave(); err != nil {
				return s.failBatch(err)
			}
		}
		if err := s.alone(pt.plan); err != nil {
			return s.failBatch(err)
		}
		if err := s.wideBound(pt); err != nil {
			return s.failBatch(err)
		}
		return nil
	}
	m, err := wire.DecodeBind(pt.bind[wire.HeaderLen:])
	if err != nil {
		return err
	}
	if err := s.local(pt.plan, &m); err != nil {
		return s.failBatch(err)
	}
	return nil
}

// executeLate runs a transaction command on a server after all: there was none yet when it was bound.
func (s *session) executeLate(pt *portal) error {
	l, err := s.linkFor(s.p.onDefault(pt.plan))
	if err != nil {
		return s.failBatch(err)
	}
	name := s.ensure(l, pt.st, engine.MuteAck)
	out, err := wire.AppendRenamed(l.Out(), pt.bind, name)
	if err != nil {
		return err
	}
	l.Expect(engine.Expect{Kind: engine.Bind, Mute: engine.MuteAck})
	m, err := wire.DecodeBind(pt.bind[wire.HeaderLen:])
	if err != nil {
		return err
	}
	l.SetOut(wire.AppendExecute(out, string(m.Portal), 0))
	e := engine.Expect{Kind: engine.Execute}
	if s.effects(l, pt.plan) {
		e.Reply = &s.after.outcome
	}
	l.Expect(e)
	s.batch.sent = true
	return nil
}

// close handles Close. A statement stays on the servers, where others use it.
func (s *session) close() error {
	frame, err := s.Frame(wire.SmallMessageLimit)
	if err != nil {
		return err
	}
	target, err := wire.DecodeClose(frame[wire.HeaderLen:])
	if err != nil {
		return err
	}
	n := len(frame)
	name := string(target.Name)
	if target.Kind == wire.KindPortal {
		pt := s.portals[name]
		delete(s.portals, name)
		if l := s.link; l != nil && (pt == nil || pt.link == l) {
			l.Queue(frame)
			l.Expect(engine.Expect{Kind: engine.Close})
			s.batch.sent = true
			s.Consume(n)
			return nil
		}
	} else if st := s.stmts[name]; st != nil {
		s.forget(name)
		for _, h := range s.batch.held {
			if h == st {
				if err := s.prepareHeld(); err != nil {
					s.Consume(n)
					return s.failBatch(err)
				}
				break
			}
		}
	}
	s.Consume(n)
	s.reply(wire.AppendCloseComplete(nil))
	return nil
}

// flush handles Flush.
func (s *session) flush() error {
	s.Consume(wire.HeaderLen)
	if err := s.prepareHeld(); err != nil {
		return s.failBatch(err)
	}
	if s.link != nil && s.batch.sent {
		s.link.SetOut(wire.AppendFlush(s.link.Out()))
	}
	return nil
}

// sync handles Sync: the end of the batch.
func (s *session) sync() error {
	if !s.batch.skip {
		if err := s.prepareHeld(); err != nil {
			if err := s.failBatch(err); err != nil {
				return err
			}
		}
	}
	s.Consume(wire.HeaderLen)
	defer func() { s.batch = batch{held: s.batch.held[:0]} }()
	l := s.link
	if l == nil || l.Err == nil && !s.batch.sent && l.Owed() == 0 {
		s.SetOut(wire.AppendReadyForQuery(s.Out(), s.status()))
		return nil
	}
	if l.Err != nil {
		s.batch.sent = false
		if err := s.lost(l); err != nil {
			return err
		}
		s.SetOut(wire.AppendReadyForQuery(s.Out(), s.status()))
		return nil
	}
	e := engine.Expect{Kind: engine.Sync}
	if s.held() {
		s.after.hold = true
		e.Mute = engine.MuteReady
	}
	l.SetOut(wire.AppendSync(l.Out()))
	l.Expect(e)
	if s.after.mark {
		s.sendProbe(l)
	}
	return nil
}

// function handles FunctionCall, by which large objects are used: they live on the default shard.
func (s *session) function() error {
	frame, err := s.Frame(s.p.cfg.MaxMessage)
	if err != nil {
		return s.tooLarge(err)
	}
	n := len(frame)
	p := &router.Plan{Kind: router.Route, Access: router.Write, Flags: router.Writes | router.Dirty, Shards: s.p.defaultShard}
	if s.tx.state == txFailed {
		s.Consume(n)
		return s.failed(s.errAborted())
	}
	l, err := s.linkFor(p)
	if err != nil {
		s.Consume(n)
		return s.failed(err)
	}
	e := engine.Expect{Kind: engine.Function}
	if s.effects(l, p) {
		e.Reply, e.Mute, s.after.hold = &s.after.outcome, engine.MuteReady, true
	}
	l.Expect(e)
	l.Send(s.Input()[:n])
	s.Consume(n)
	if s.after.mark {
		s.sendProbe(l)
	}
	return nil
}

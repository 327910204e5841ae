package proxy

import (
	"errors"
	"math"
	"slices"

	"github.com/tidemarkdb/tidemark/internal/engine"
	"github.com/tidemarkdb/tidemark/internal/sql"
	"github.com/tidemarkdb/tidemark/internal/wire"
	"github.com/tidemarkdb/tidemark/router"
)

// query handles a Query message.
func (s *session) query() error {
	frame, err := s.Frame(s.p.cfg().MaxMessage)
	if err != nil {
		return s.tooLarge(err)
	}
	text, err := wire.DecodeQuery(frame[wire.HeaderLen:])
	if err != nil {
		return s.malformed(err)
	}
	if plain := s.view.Conforming(text); len(plain) != len(text) {
		s.Replace(len(frame), wire.AppendQuery(nil, string(plain)))
		if frame, err = s.Frame(math.MaxInt); err != nil {
			return err
		}
		text = frame[wire.HeaderLen : len(frame)-1]
	}
	s.trace(text, false)
	if len(s.stmts) > 0 {
		delete(s.stmts, "") // a simple query drops the unnamed statement, whatever becomes of it
	}
	scratch := scratches.Get(s.Task)
	return s.runs(scratch, s.plan(scratch, text), text, len(frame))
}

// runs runs the statements, which live in scratch, of the Query message of n bytes at the start of Input, and gives scratch back.
func (s *session) runs(scratch *router.Scratch, statements []router.Statement, text []byte, n int) error {
	err := s.planned(statements, text, n)
	s.putScratch(scratch)
	if err != nil {
		err = s.failed(err)
	}
	s.strung = nil // what comes in the extended protocol is not of this string
	return err
}

// planned runs the statements of the Query message of n bytes at the start of Input. Its errors are for the client, or the session's end.
func (s *session) planned(statements []router.Statement, text []byte, n int) (err error) {
	p := statements[0].Plan
	if s.after.foreseen != nil && s.batch.sent {
		if err := s.restated(statements, text); err != nil {
			s.Consume(n)
			return err
		}
	}
	if len(statements) == 1 {
		if p.Kind == router.OfPrepared || p.Setting != nil && s.resets(statements) {
			return s.queryRewritten(statements, text)
		}
		if p.Kind == router.Refuse {
			p = s.refusedIn(statements, p.Refusal)
		}
		if err := s.checkLastValue(p); err != nil {
			s.Consume(n)
			return err
		}
		return s.simple(p, text, n)
	}
	if slices.ContainsFunc(statements, func(st router.Statement) bool { return isOwnSetting(st.Plan) }) {
		if statements, err = s.withoutOwn(statements, n); err != nil {
			s.Consume(n)
			return err
		}
		text = s.Input()[wire.HeaderLen : n-1]
		if len(statements) == 0 {
			s.Consume(n)
			return s.ready(s.status())
		}
		return s.planned(statements, text, n)
	}
	if s.link != nil && s.link.Owed() > 0 && slices.ContainsFunc(statements, func(st router.Statement) bool { return st.Plan.Kind == router.Tx }) {
		if err := s.drain(); err != nil { // whether its transaction has failed decides what they do
			s.Consume(n)
			return err
		}
		text = s.Input()[wire.HeaderLen : n-1]
	}
	if err := s.restated(statements, text); err != nil {
		s.Consume(n)
		return err
	}
	if speaksOfPrepared(statements) || s.resets(statements) {
		return s.queryRewritten(statements, text)
	}
	return s.simple(s.together(statements), text, n)
}

// plan asks the router, off the loop when that takes long.
func (s *session) plan(scratch *router.Scratch, text []byte) []router.Statement {
	rt := s.p.router.Load()
	statements, ok := rt.Cached(scratch, s.view, text)
	if ok {
		return statements
	}
	if router.Costly(len(text)) {
		return s.planAside(rt, scratch, text)
	}
	return rt.Plan(scratch, s.view, text)
}

// planAside asks in an ordinary goroutine.
func (s *session) planAside(rt *router.Router, scratch *router.Scratch, text []byte) (statements []router.Statement) {
	if s.link != nil {
		s.link.Push()
	}
	s.Task.Await(func() { statements = rt.Plan(scratch, s.view, text) })
	return statements
}

// simple runs one plan for the Query message of n bytes at the start of Input.
func (s *session) simple(p *router.Plan, text []byte, n int) error {
	s.note(p)
	if p.Kind == router.Refuse {
		s.Consume(n)
		return refusal(p.Refusal)
	}
	if s.tx.state == txFailed {
		if s.strung == nil {
			p = s.ended(p)
		}
		if !endsTransaction(p) {
			s.Consume(n)
			return s.errAborted()
		}
	}
	if s.ear != nil || s.strung != nil || !p.Plain() {
		var done bool
		var err error
		if p, done, err = s.ahead(p, text, n); done || err != nil {
			return err
		}
	}
	l, err := s.linkFor(p)
	if err == nil {
		err = s.speaks(l, p)
	}
	if err == nil && p.Flags&(router.ShowsPrepared|router.Executes) != 0 {
		err = s.preparedByName(l, p)
	}
	if err != nil {
		s.Consume(n)
		return err
	}
	s.notice()
	return s.forward(l, p, s.Input()[:n], engine.Expect{Kind: engine.Query}, n)
}

// ahead does what comes before a plan that is more than one statement to be forwarded to one shard. It returns the plan to forward,
// unless the proxy has answered itself: done.
func (s *session) ahead(p *router.Plan, text []byte, n int) (forward *router.Plan, done bool, err error) {
	if s.maybeTemporary(p) {
		if err = s.drain(); err == nil {
			p, err = s.asTemporary(p)
		}
		if err != nil {
			s.Consume(n)
			return nil, true, err
		}
		text = s.Input()[wire.HeaderLen : n-1]
	}
	switch {
	case p.Kind == router.Nothing, p.Kind == router.Setting && p.Setting.Own, p.Kind == router.ViewScan, discardsHere(s, p):
		if err := s.endBatch(); err != nil {
			return nil, true, err
		}
		s.Consume(n)
		if s.aborted() && !endsTransaction(p) {
			return nil, true, s.errAborted()
		}
		if s.ear != nil && p.Has(router.Discards) {
			if err := s.listenAhead(p); err != nil {
				return nil, true, err
			}
		}
		if err := s.local(p, nil); err != nil {
			return nil, true, err
		}
		return nil, true, s.ready(s.status())
	case p.Kind == router.Tx:
		if err := s.checkMode(p); err != nil {
			s.Consume(n)
			return nil, true, err
		}
		if s.link != nil && s.tx.state != txOpen {
			if err := s.endBatch(); err != nil {
				return nil, true, err
			}
			text = s.Input()[wire.HeaderLen : n-1]
		}
		if answer, handled, err := s.control(p, text); err != nil {
			s.Consume(n)
			return nil, true, err
		} else if handled {
			s.Consume(n)
			s.Reply(answer)
			return nil, true, s.ready(s.status())
		}
		p = s.p.onDefault(p)
	case wide(p):
		whole := string(text)
		s.Consume(n)
		if err := s.alone(p); err != nil {
			return nil, true, err
		}
		if err := s.wide(p, whole); err != nil {
			return nil, true, err
		}
		return nil, true, s.ready(s.status())
	}
	err = s.checkSetting(p)
	if err == nil {
		err = s.listenAhead(p)
	}
	if err != nil {
		s.Consume(n)
	}
	return p, false, err
}

// forward sends a whole Query to the link, of which e is expected, and consumes it: it is the next n bytes of the client, or,
// with 0, of the proxy's own making.
func (s *session) forward(l *engine.Link, p *router.Plan, frame []byte, e engine.Expect, n int) error {
	if s.effects(l, p) {
		e.Reply = &s.after.outcome
		s.between(e.Reply)
		if s.held() {
			s.after.hold = true
			e.Mute = engine.MuteReady
		}
	}
	s.batch.copying = p.Command == sql.CopyFrom
	if s.batch.sent {
		// A Query amid an extended batch can leave PostgreSQL in a state in which the next query fails (seen with 18.6):
		// have the connection proven before anybody else gets it.
		l.Conn.Dirty, s.batch.ending = true, true
	} else {
		s.batch.wrote = false // it is no part of a batch
	}
	l.Expect(e)
	var err error
	switch {
	case n > streamFrom: // what the socket does not take stays where it is
		err = s.Pass(l, n)
	case n > 0 && s.Behind(n):
		l.Gather(frame)
		s.Consume(n)
	default:
		l.Send(frame)
		s.Consume(n)
	}
	if s.after.mark {
		s.sendProbe(l)
	}
	return err
}

// endBatch ends the batch that a Query stands in which the proxy answers itself, and waits until the link is settled.
func (s *session) endBatch() error {
	if l := s.link; s.batch.sent && l != nil && l.Err == nil {
		syncUnseen(l)
		s.endedBatch()
		if s.after.mark {
			s.sendProbe(l)
		}
	}
	return s.drain()
}

// queryEnded waits for the end of a Query amid a batch, the session's own work behind it included: then it is known whether what comes now
// is of that batch, and the client has its ReadyForQuery.
func (s *session) queryEnded() error {
	for {
		if err := s.settle(); err != nil || s.link == nil || !s.batch.ending && (s.batch.sent || !s.after.active) {
			return err
		}
		if err := s.Serve(); err != nil {
			return err
		}
	}
}

// endedBatch begins the next batch.
func (s *session) endedBatch() {
	s.batch = batch{held: s.batch.held}
	s.drawn = false
	s.syncs++
}

// held says whether ReadyForQuery must wait for something of the session's own.
func (s *session) held() bool {
	return s.after.active && (s.ear != nil || len(s.owns) > 0 || s.after.schema || s.after.mark || s.tx.probeLater || s.strung != nil && s.tx.wrote || s.after.discard && len(s.settings.start) > 0)
}

// effects notes what the statement will have changed. It says whether the session must look at its outcome.
func (s *session) effects(l *engine.Link, p *router.Plan) bool {
	if s.ear != nil || p.Has(router.Listens) {
		s.heed(l, p)
	}
	if p.Flags == 0 && p.Kind != router.Tx && p.Setting == nil && s.strung == nil && s.ear == nil && len(s.owns) == 0 {
		s.tx.neutral = false
		return false
	}
	if !p.Has(router.Neutral) && p.Kind != router.Setting && p.Kind != router.Tx {
		s.tx.neutral = false
	}
	s.tx.looked = s.tx.looked || analyzed[p.Command] || s.strung != nil
	if p.Has(router.Dirty) {
		l.Conn.Dirty = true
	}
	if p.Flags&(router.Dirty|router.Pin) != 0 && s.sizesTemporary() {
		l.Conn.Spoilt = true
	}
	switch {
	case p.Has(router.Keeps) && p.Command == sql.Load:
		s.pin(l, loaded)
	case p.Has(router.Keeps):
		s.pin(l, kept)
	case p.Has(router.Opaque):
		s.pin(l, opaque)
	case p.Has(router.Pin):
		s.pin(l, pinned(p))
	}
	if len(p.Settings) > 0 {
		s.mayHaveSet(p.Settings...)
	}
	s.askState = s.askState || s.mayChangeState(l, p)
	if p.Has(router.Executes) && (p.Has(router.Dirty) || s.lent != nil && s.lent.on == l.Conn && len(s.lent.now) > 0) {
		s.mayHaveSet()
		s.askState, s.question.prepared = true, true
	}
	a := &s.after
	if c := p.Setting; !a.counted && (s.ear != nil || c != nil && alters(c) || p.Kind == router.Tx || s.strung != nil) { // all these are active
		a.counted = true
		s.countErrors(l)
	}
	a.active = a.active || s.ear != nil || len(s.owns) > 0
	if p.Has(router.Discards) {
		a.active, a.aside = true, append(a.aside, s.setAside(l))
	}
	if p.Has(router.Discards | router.NoTx) {
		a.active, a.discard = true, true
	}
	if c := p.Setting; c != nil && alters(c) {
		if s.tx.state == txOpen && !c.Function {
			s.tx.neutral = false
		}
		a.unclear = a.unclear || a.tx != nil
		for ; c != nil; c = c.Next {
			a.changes = append(a.changes, c)
		}
		a.active = true
	}
	if p.Has(router.Schema) {
		s.tx.schema = true
		s.p.statements.schemaChanges()
	} else if p.Has(router.Writes) && p.Has(router.Pin) { // a temporary table may hide another
		s.p.statements.schemaChanges()
	}
	if p.Has(router.Writes) {
		s.batch.wrote = true
		s.tx.wrote = s.tx.wrote || s.marksMatter()
	}
	if s.strung == nil && (p.Setting != nil || p.Kind == router.Tx) {
		a.foreseen = s.foreseenBehind(a.foreseen, p)
	}
	if s.strung != nil {
		// Where a transaction ends within the string is not known before the server says so: see endTransaction.
		a.active, a.changes = true, append(a.changes, s.strung.changes...)
		if a.replay = nil; transacts(s.strung.steps) {
			a.replay, a.aborted = s.strung, l.Conn.TxStatus == wire.TxAborted
		}
		return true
	}
	ends := false
	if p.Kind == router.Tx {
		s.tx.follow(p.Tx)
		a.unclear = a.unclear || a.tx != nil || len(a.changes) > 0
		a.active, a.tx = true, p.Tx
		ends = (p.Tx.Op == router.Commit || p.Tx.Op == router.Rollback) && !p.Tx.Chain
		a.mended = a.mended || p.Tx.Op == router.Commit || p.Tx.Op == router.Rollback || p.Tx.Op == router.RollbackTo
	}
	if s.tx.state == txNone || ends {
		if s.tx.wrote {
			s.tx.wrote, a.active = false, true
			if p.Command == sql.CopyFrom { // the probe would be taken for a break in the copy data
				s.tx.probeLater = true
			} else {
				a.mark = true
			}
		}
		if s.tx.schema {
			s.tx.schema, a.active, a.schema = false, true, true
		}
	}
	return a.active
}

// alters says whether a statement about a setting changes it.
func alters(c *router.SettingChange) bool { return c.Op != router.ShowOp && c.Op != router.ShowAll }

// countErrors notes how many errors the server has reported before the request in hand. What it owes may fail yet.
func (s *session) countErrors(l *engine.Link) {
	if l.Owed() == 0 {
		s.after.errors = uint32(l.Errors)
		return
	}
	if s.counts == nil {
		s.counts = func() []byte {
			if s.link != nil {
				s.after.errors = uint32(s.link.Errors)
			}
			return nil
		}
	}
	l.Expect(engine.Expect{Kind: engine.Synthetic, Late: s.counts})
}

// failed answers an error of the proxy's own to the request in progress. Errors that are not for the client are returned.
func (s *session) failed(err error) error {
	s.owns = nil
	if errors.Is(err, errAnswered) {
		return nil
	}
	var e *wire.Error
	if !errors.As(err, &e) || e.EndsSession() {
		return err
	}
	s.refuse(e)
	if l := s.link; l != nil && l.Owed() > 0 && l.Err == nil {
		e := engine.Expect{Kind: engine.Sync}
		if s.ear != nil {
			e.Mute, s.after.active, s.after.hold = engine.MuteReady, true, true
		}
		l.SetOut(wire.AppendSync(l.Out()))
		l.Expect(e)
		if s.batch.sent {
			s.endedBatch()
		}
		return nil
	}
	return s.ready(s.status())
}

// refuse gives the client an error and aborts the transaction it is in: on the server too, by a request that is sure to
// fail there and whose error is replaced by this one.
//
// A transaction that no server has heard of yet begins for it: ROLLBACK TO must find its savepoints. It says whether the
// error comes by way of the link.
func (s *session) refuse(e *wire.Error) (byLink bool) {
	s.p.stats.errors.Add(1)
	if s.traced != nil {
		s.traced.fail(e.Code)
	}
	if s.tx.state == txBegun && s.link == nil && !unreachable(e) {
		// If that fails as well the transaction just fails.
		_, _ = s.linkFor(&router.Plan{Kind: router.AnyShard, Flags: router.Neutral, Shards: s.p.defaultShard})
	}
	if l := s.link; l != nil && l.Err == nil && (s.batch.sent || s.tx.state == txOpen || l.Owed() > 0) {
		l.SetOut(wire.AppendExecute(l.Out(), noPortal, 0))
		l.Expect(engine.Expect{Kind: engine.Execute, Instead: e, Mute: engine.MuteError})
		return true
	}
	if s.tx.state == txBegun {
		s.tx.fail(nil)
	}
	s.SetOut(wire.AppendErrorResponse(s.Out(), e))
	return false
}

// unreachable says whether an error is about servers that cannot be had, by its class.
func unreachable(e *wire.Error) bool {
	switch e.Code[:2] {
	case "08", "53", "57", "58":
		return true
	}
	return false
}

// noPortal is a name that no client's portal has.
const noPortal = "tidemark: no such portal"

// malformed answers a message whose body is not what its type asks for, and skips it: its end is known, so the session
// goes on, as PostgreSQL's does. Errors that are not of a decoder are returned.
func (s *session) malformed(err error) error {
	var e *wire.Error
	if !errors.As(err, &e) || e.EndsSession() {
		return err
	}
	typ, size, herr := s.Header()
	if herr != nil {
		return herr
	}
	if err := s.Skip(size); err != nil {
		return err
	}
	if typ == wire.MsgQuery {
		return s.failed(e)
	}
	return s.failBatch(e)
}

// tooLarge answers a message over the limit, and skips it: the session goes on.
func (s *session) tooLarge(err error) error {
	var e *wire.Error
	if !errors.As(err, &e) || e.Code != wire.ProgramLimitExceeded {
		return err
	}
	typ, size, herr := s.Header()
	if herr != nil {
		return herr
	}
	if err := s.Skip(size); err != nil {
		return err
	}
	if typ == wire.MsgQuery {
		return s.failed(e)
	}
	return s.failBatch(e)
}

// refusal is a plan's refusal as an error.
func refusal(r *router.Refusal) *wire.Error {
	e := wire.Errorf(r.Code, "%s", r.Message)
	e.Detail, e.Hint, e.Position = r.Detail, r.Hint, r.Position
	return e
}

// endsTransaction says whether the plan may run in a failed transaction.
func endsTransaction(p *router.Plan) bool {
	return p.Kind == router.Nothing || p.Kind == router.Tx && (p.Tx.Op == router.Commit || p.Tx.Op == router.Rollback) || p.Tag == router.PrepareTransaction
}

// ended is what the plan is in a transaction that has failed and that no server has, or has any more: PREPARE TRANSACTION is a ROLLBACK
// then.
func (s *session) ended(p *router.Plan) *router.Plan {
	if s.tx.state == txFailed && p.Tag == router.PrepareTransaction {
		return rolledBack
	}
	return p
}

var rolledBack = &router.Plan{Kind: router.Tx, Command: sql.Transaction, Tag: "ROLLBACK", Tx: &router.TxControl{Op: router.Rollback}}

// runsAborted says whether the plan may run in a failed transaction that a server knows, with its savepoints.
func runsAborted(p *router.Plan) bool {
	return endsTransaction(p) || p.Kind == router.Tx && p.Tx.Op == router.RollbackTo
}

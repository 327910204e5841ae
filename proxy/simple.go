package proxy

import (
	"cmp"
	"math"
	"slices"

	"github.com/tidemarkdb/tidemark/internal/engine"
	"github.com/tidemarkdb/tidemark/internal/sql"
	"github.com/tidemarkdb/tidemark/internal/wire"
	"github.com/tidemarkdb/tidemark/router"
)

// query handles a Query message.
func (s *session) query() error {
	if goesOn, err := s.foreseeOne(); !goesOn || err != nil {
		return err
	}
	frame, err := s.Frame(s.p.cfg().MaxMessage)
	if err != nil {
		return s.tooLarge(err)
	}
	text, err := wire.DecodeQuery(frame[wire.HeaderLen:])
	if err != nil {
		return s.malformed(err)
	}
	if plain := s.conforming(text); len(plain) != len(text) {
		s.Replace(len(frame), wire.AppendQuery(nil, string(plain)))
		if frame, err = s.Frame(math.MaxInt); err != nil {
			return err
		}
		text = frame[wire.HeaderLen : len(frame)-1]
	}
	if s.trace(text, false); !s.batch.sent {
		s.drawn = false
	}
	if goesOn, err := s.closed(); !goesOn || err != nil {
		return err
	}
	s.dropUnnamed()
	scratch := scratches.Get(s.Task)
	n := len(frame)
	statements := s.plan(scratch, text)
	if s.blind && s.p.anyHangs(statements) {
		goesOn, err := s.see()
		if err != nil {
			s.putScratch(scratch)
			s.Consume(n)
			return s.failed(err)
		}
		if !goesOn { // an error of the batch skips it
			s.putScratch(scratch)
			return nil
		}
		text = s.Input()[wire.HeaderLen : n-1]
		statements = s.plan(scratch, text)
	}
	return s.runStatements(scratch, statements, text, n)
}

// runStatements runs the statements, which live in scratch, of the Query message of n bytes at the start of Input, and gives scratch back.
// The message is consumed, whatever becomes of it.
func (s *session) runStatements(scratch *router.Scratch, statements []router.Statement, text []byte, n int) error {
	before := s.Consumed()
	err := s.planned(statements, text, n)
	s.putScratch(scratch)
	if err != nil {
		if s.Consumed() == before {
			s.Consume(n)
		}
		err = s.failed(err)
	}
	s.strung = nil // what comes in the extended protocol is not of this string
	return err
}

// planned runs the statements of the Query message of n bytes at the start of Input. Its errors are for the client, or the session's end.
func (s *session) planned(statements []router.Statement, text []byte, n int) (err error) {
	p := statements[0].Plan
	if p.Kind != router.Nothing {
		s.portals.queried()
	}
	if s.after.foreseen != nil && s.batch.sent {
		if err := s.restated(statements, text); err != nil {
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
			return err
		}
		return s.simple(p, text, n)
	}
	if s.failedOnReplica() && endsFailed(statements) != nil && !forBlock(statements[1:]) && (p.Tx == nil || !p.Tx.Chain) {
		if _, goesOn, err := s.rollBack(); err != nil || !goesOn {
			return cmp.Or(err, errAnswered)
		}
		text = s.Input()[wire.HeaderLen : n-1]
	}
	if s.tx.state == txFailed && s.link == nil {
		if rest := endsFailed(statements); rest != nil {
			return s.endFailed(statements[0], rest, text, n)
		}
	}
	if slices.ContainsFunc(statements, func(st router.Statement) bool { return isOwnSetting(st.Plan) }) {
		if statements, err = s.withoutOwn(statements, n); err != nil {
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
			return err
		}
		text = s.Input()[wire.HeaderLen : n-1]
	}
	if err := s.restated(statements, text); err != nil {
		if s.aborted() && !runsAborted(statements[0].Plan) {
			return s.errAborted()
		}
		return err
	}
	if speaksOfPrepared(statements) || s.resets(statements) {
		return s.queryRewritten(statements, text)
	}
	return s.simple(s.together(statements), text, n)
}

// endsFailed is what comes behind the first statement of a query string that begins with the end of a transaction that has failed and that
// no server has; nil where it is not that, or where what comes behind cannot run as a string of its own.
func endsFailed(statements []router.Statement) []router.Statement {
	first, rest := statements[0].Plan, statements[1:]
	switch {
	case first.Kind == router.Nothing || !endsTransaction(first):
		return nil
	case slices.ContainsFunc(rest, func(st router.Statement) bool { return st.Plan.Kind == router.Refuse }): // nothing of it is run
		return nil
	case slices.ContainsFunc(rest, func(st router.Statement) bool { return st.Plan.Has(router.NoTx) }): // alone it would no longer be refused
		return nil
	}
	return rest
}

// forBlock says whether the statements are one that PostgreSQL takes in a string of several, which is a transaction block, and else warns of or refuses.
func forBlock(statements []router.Statement) bool {
	one := (*router.Plan)(nil)
	for _, st := range statements {
		if st.Plan.Kind == router.Nothing {
			continue
		}
		if one != nil {
			return false
		}
		one = st.Plan
	}
	return one != nil && (one.Command == sql.Declare || one.Setting != nil && one.Setting.Local && !one.Setting.Function)
}

// endFailed has the first statement end the transaction, and runs the rest of the string.
func (s *session) endFailed(first router.Statement, rest []router.Statement, text []byte, n int) error {
	p := s.ended(first.Plan)
	s.note(p)
	answer, _, err := s.control(nil, p, text[first.Start:first.End])
	if err != nil {
		return err
	}
	s.Reply(answer)
	for i := first.Start; i < first.End; i++ {
		text[i] = ' '
	}
	if !slices.ContainsFunc(rest, func(st router.Statement) bool { return st.Plan.Kind != router.Nothing }) {
		s.Consume(n)
		return s.ready(s.status())
	}
	return s.planned(rest, text, n)
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
		return refusal(p.Refusal)
	}
	if s.tx.state == txFailed {
		if s.strung == nil {
			p = s.ended(p)
		}
		if !endsTransaction(p) {
			if p.Refusal != nil && p.Refusal.Unread {
				return refusal(p.Refusal)
			}
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
	named := p.Flags&(router.ShowsPrepared|router.Executes) != 0
	if named && s.link != nil && s.link.Preparing() { // what an earlier batch has parsed may yet be skipped
		if err := s.quiet(); err != nil {
			return err
		}
	}
	l, err := s.linkFor(p)
	if err == nil {
		err = s.speaks(l, p)
	}
	if err == nil && named {
		err = s.preparedByName(l, p)
	}
	if err != nil {
		return err
	}
	s.notice()
	e := engine.Expect{Kind: engine.Query}
	if p.Has(router.Executes) {
		e.Names = s.lent.names(nil)
	}
	return s.forward(l, p, s.Input()[:n], e, n)
}

// ahead does what comes before a plan that is more than one statement to be forwarded to one shard. It returns the plan to forward,
// unless the proxy has answered itself: done.
func (s *session) ahead(p *router.Plan, text []byte, n int) (forward *router.Plan, done bool, err error) {
	if s.maybeTemporary(p) {
		if err = s.drain(); err == nil {
			p, err = s.asTemporary(p)
		}
		if err != nil {
			return nil, true, err
		}
		text = s.Input()[wire.HeaderLen : n-1]
	}
	switch {
	case p.Kind == router.Nothing && !s.hasServer(), p.Kind == router.Setting && p.Setting.Own, p.Kind == router.ViewScan, discardsHere(s, p):
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
			return nil, true, err
		}
		if err := s.offReplica(p); err != nil {
			return nil, true, err
		}
		if s.link != nil && s.tx.state != txOpen {
			if err := s.endBatch(); err != nil {
				return nil, true, err
			}
		}
		text = s.Input()[wire.HeaderLen : n-1]
		if answer, handled, err := s.control(nil, p, text); err != nil {
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
	if err := s.checkSetting(p); err != nil {
		return nil, true, err
	}
	if err := s.listenAhead(p); err != nil {
		return nil, true, err
	}
	return s.p.onDefault(p), false, nil
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
		s.batch.wrote, s.batch.heard = false, false // it is no part of a batch
	}
	l.Expect(e)
	var err error
	switch {
	case n > streamFrom: // what the socket does not take stays where it is
		err = s.Pass(l, n, s.p.cfg().MessageTimeout)
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
// is of that batch, and the client has its ReadyForQuery. Or for a COPY in it, whose data comes now.
func (s *session) queryEnded() error {
	for {
		if err := s.settle(); err != nil || s.link == nil || s.link.Copying || !s.batch.ending && (s.batch.sent || !s.after.active) {
			return err
		}
		if err := s.Serve(); err != nil {
			return err
		}
	}
}

// endedBatch begins the next batch.
func (s *session) endedBatch() {
	s.closes = s.closes || s.batch.closes
	s.batch = batch{held: s.batch.held}
	s.drawn = false
	s.syncs++
}

// held says whether ReadyForQuery must wait for something of the session's own.
func (s *session) held() bool {
	return s.after.active && (s.ear != nil || len(s.owns) > 0 || s.after.schema || s.after.mark || s.tx.probeLater || s.strung != nil && s.tx.wrote || s.after.discard && len(s.settings.start) > 0)
}

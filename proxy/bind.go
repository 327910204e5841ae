package proxy

import (
	"errors"

	"github.com/tidemarkdb/tidemark/internal/engine"
	"github.com/tidemarkdb/tidemark/internal/wire"
	"github.com/tidemarkdb/tidemark/router"
)

// bind handles Bind: the values choose the shard.
func (s *session) bind(size int) error {
	m, err := s.bindHead(size)
	if err != nil {
		return s.malformed(err)
	}
	if s.skipping() { // an error that was on its way has come before as much of the message
		return s.Skip(size)
	}
	st := s.statement(m.Statement)
	if s.pending(st) {
		if _, err := s.caughtUp(); err != nil {
			return err
		}
		if s.skipping() {
			return s.Skip(size)
		}
		if m, err = s.bindHead(size); err != nil {
			return s.malformed(err)
		}
		st = s.statement(m.Statement)
	}
	if st == nil {
		return s.skipped(errNoStatement(string(m.Statement)))
	}
	if err := m.Check(); err != nil {
		return s.malformed(err)
	}
	s.trace(st.sql, true)
	repeatable := repeatable(st, &m)
	blind := s.blind
	if goesOn, err := s.lookUp(st); err != nil {
		return s.skipped(err)
	} else if !goesOn {
		return s.Skip(size)
	}
	if blind {
		if m, err = s.bindHead(size); err != nil {
			return s.malformed(err)
		}
	}
	plan := st.template.Generic()
	want, inText := st.template.NumParams(), st.template.TextParams()
	if want < 0 && (s.tx.state == txFailed || s.aborted()) { // no server says it any more, of a statement that it has not got yet
		want = inText
	}
	if want >= 0 && m.NumParams() != want {
		return s.skipped(errParameters(&m, st.name, want))
	}
	if !st.template.Fixed() || s.proxyOwn(plan) || wide(plan) {
		if !m.Whole() {
			frame, err := s.Frame(s.p.cfg().MaxMessage)
			if err != nil {
				return s.tooLarge(err)
			}
			if m, err = wire.DecodeBind(frame[wire.HeaderLen:]); err != nil {
				return s.malformed(err)
			}
		}
		if !st.template.Fixed() {
			plan = st.template.Bind(s.params(&m))
		}
	}
	var restated error
	if executes(plan) { // and so planned by what it executes
		x := plan.Prepared
		if want := len(st.template.Params()); m.NumParams() != want { // here it has the client's name
			return s.skipped(errParameters(&m, st.name, want))
		}
		if st, plan, err = s.executed(st, x); err != nil {
			return s.skipped(err)
		}
		if st.needs != nil {
			restated = s.restatedBy(st.needs, plan, x)
		}
		if blind {
			if m, err = s.bindHead(size); err != nil {
				return s.malformed(err)
			}
		}
	} else {
		restated = s.restatedBy(st, plan, nil)
	}
	if restated != nil {
		return s.skipped(restated)
	}
	if s.maybeTemporary(plan) {
		if s.batch.sent && s.link != nil && s.tx.state != txOpen && !s.batchBound(s.link, plan) {
			err = s.leave()
		}
		if err == nil && !s.batch.sent { // else all shards are not for it, either
			if err = s.drain(); err == nil {
				plan, err = s.asTemporary(plan)
			}
		}
		if err != nil {
			return s.skipped(err)
		}
		if m, err = s.bindHead(size); err != nil {
			return s.malformed(err)
		}
	}
	if plan.Kind == router.Tx && (plan.Tx.Chain || s.batch.over) {
		if err = s.prepareHeld(); err == nil {
			err = s.offReplica(plan)
		}
		if err == nil {
			err = s.endOverBefore(plan)
		}
		if err != nil {
			return s.skipped(err)
		}
		if m, err = s.bindHead(size); err != nil {
			return s.malformed(err)
		}
	}
	plan = s.ended(plan)
	s.note(plan)
	var short [maxName]byte
	name := append(short[:0], shortened(m.Portal)...) // the message may move
	pt := portal{st: st, plan: plan}
	if len(name) > 0 && s.portals.crowded() {
		return s.skipped(wire.Errorf(wire.ProgramLimitExceeded, "too many portals: %d", len(s.portals.named)).
			WithHint("Close those that are not used any more, or end the transaction."))
	}
	abortive := plan.Kind == router.Nothing || !endsTransaction(plan) || m.NumParams() > 0 // what a transaction that has failed does not bind
	if old := s.portals.get(name); len(name) > 0 && old != nil && old.link == nil {        // of others the server knows
		if m.NumParams() != inText { // which PostgreSQL finds first
			return s.skipped(errParameters(&m, st.name, inText))
		}
		if goesOn, err := s.caughtUp(); !goesOn || err != nil {
			if err == nil {
				err = s.Skip(size)
			}
			return err
		}
		if s.aborted() && abortive {
			return s.skipped(s.errAborted())
		}
		return s.skipped(errTakenPortal(string(name)))
	}
	if plan.Kind == router.Refuse {
		return s.skipped(refusal(plan.Refusal))
	}
	if s.tx.state == txFailed && abortive {
		return s.skipped(s.errAborted())
	}
	if s.proxyOwn(plan) || wide(plan) {
		if want := len(st.template.Params()); !wide(plan) && m.NumParams() != want {
			return s.skipped(errParameters(&m, st.name, want))
		}
		pt.bind, pt.name = append([]byte(nil), s.Input()[:size]...), string(name)
		s.Consume(size)
		if err := s.prepareHeld(); err != nil {
			return s.failBatch(err)
		}
		if s.link != nil && !s.batch.sent { // the end of an earlier batch ends the portals that are there then
			if err := s.drain(); err != nil {
				return s.failBatch(err)
			}
		}
		if goesOn, err := s.caughtUp(); !goesOn || err != nil {
			return err
		}
		if s.aborted() && (plan.Kind == router.Nothing || !runsAborted(plan)) {
			return s.failBatch(s.errAborted())
		}
		if old := s.portals.get(name); len(name) > 0 && old != nil && old.link == s.link { // no server sees this one
			return s.failBatch(errTakenPortal(pt.name))
		}
		s.portals.put(name, pt)
		s.replyInOrder(wire.AppendBindComplete(nil))
		return nil
	}
	if err = s.checkSetting(plan); err == nil {
		err = s.checkLastValue(plan)
	}
	if err == nil {
		err = s.listenAhead(plan)
	}
	var l *engine.Link
	if err == nil {
		l, err = s.linkFor(s.p.onDefault(plan))
	}
	if err == nil {
		err = s.speaks(l, plan)
	}
	if err == nil && plan.Has(router.Executes) && !plan.Has(router.ShowsPrepared) {
		err = s.lendPrepared(l)
	}
	if err != nil {
		return s.skipped(err)
	}
	if s.skipping() { // an error that was on its way has come meanwhile
		return s.Skip(size)
	}
	s.notice()
	fresh := s.fresh(st)
	first, from := (repeatable || fresh) && !s.batch.sent && s.tx.state == txNone && plan.Flags&^router.Neutral == 0, len(l.Out())
	s.queriedAhead(l, plan)
	var onServer string
	if s.flushHeld(l); plan.Has(router.ShowsPrepared) {
		s.showPrepared(l, engine.MuteAck, nil)
		onServer = st.name
	}
	if onServer == "" {
		if err := s.asDescribed(l, st, repeatable && s.describesPortal(size)); err != nil {
			return s.skipped(err)
		}
	}
	var mute engine.Mute
	if m.NumParams() == 0 && len(name) == 0 && s.bindsBefore(l, st) {
		mute = engine.MuteAck
		s.replyInOrder(wire.AppendBindComplete(nil))
	}
	if onServer == "" {
		onServer = s.ensure(l, st, engine.MuteAck)
	}
	out, used, err := wire.Rename(l.Out(), s.Input(), size, onServer)
	if err != nil {
		return s.malformed(err)
	}
	if first = first && len(l.Out()) == from && st.name != ""; first {
		s.batch.again, s.batch.described, s.batch.from, s.batch.flushes = true, fresh, int32(from), int32(l.Flushes)
	}
	l.SetOut(out)
	e := engine.Expect{Kind: engine.Bind, Mute: mute, Statement: st.id, Names: st.names, Again: first}
	if s.frees(l, plan) {
		pt.last = &engine.Reply{}
		e.Reply = pt.last
	}
	l.Expect(e)
	s.batch.sent = true
	s.batch.bound(plan)
	s.Consume(used)
	if len(s.Input()) >= size-used {
		l.Queue(s.Input()[:size-used])
		s.Consume(size - used)
	} else if err := s.Pass(l, size-used, s.p.cfg().MessageTimeout); err != nil {
		return err
	}
	pt.link = l
	s.portals.put(name, pt)
	s.batch.unnamed = s.batch.unnamed || len(name) == 0
	if len(name) > 0 && plan.Flags != 0 {
		s.binds(l, plan)
	}
	return nil
}

func errTakenPortal(name string) *wire.Error {
	return wire.Errorf(wire.DuplicateCursor, "cursor \"%s\" already exists", name)
}

// params are the values of m, a whole message, and their formats. They last until the next call.
func (s *session) params(m *wire.Bind) (values [][]byte, formats []int16) {
	s.values, s.formats = m.Params(s.values[:0]), s.formats[:0]
	for i := range m.NumParams() {
		s.formats = append(s.formats, m.ParamFormat(i))
	}
	return s.values, s.formats
}

func errParameters(m *wire.Bind, statement string, want int) *wire.Error {
	return wire.Errorf(wire.ProtocolViolation, "bind message supplies %d parameters, but prepared statement \"%s\" requires %d", m.NumParams(), statement, want)
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
		if len(part) >= maxBindHead {
			return m, wire.Errorf(wire.ProtocolViolation, "names and formats in bind message are too long").Fatal()
		}
		if err := s.Room(maxBindHead); err != nil {
			return m, err
		}
		if err := s.MoreOf(size); err != nil {
			return m, err
		}
	}
}

// maxBindHead is how long the names, the formats and the number of parameters of a Bind may be, in bytes: there can be 65,535
// formats of two bytes.
const maxBindHead = 2*(1<<16) + streamFrom

// streamFrom is the size from which a Bind is passed on while it arrives, if no value of it is needed.
const streamFrom = 16 << 10

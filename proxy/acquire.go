package proxy

import (
	"errors"
	"time"

	"github.com/tidemarkdb/tidemark/internal/backend"
	"github.com/tidemarkdb/tidemark/internal/engine"
	"github.com/tidemarkdb/tidemark/internal/loop"
	"github.com/tidemarkdb/tidemark/internal/lsn"
	"github.com/tidemarkdb/tidemark/internal/wire"
	"github.com/tidemarkdb/tidemark/router"
)

// linkFor returns a link on which the plan may run: the one in use if it suits, else a fresh one, after the old one has
// answered. It refuses what would take a transaction to a second shard. Errors that are *wire.Error are for the client;
// others end the session.
//
// What the session has read of its client's input may move meanwhile: take it from Input again.
func (s *session) linkFor(p *router.Plan) (*engine.Link, error) {
	if len(s.pins) > 0 && s.askState && !s.batch.sent && p.Has(router.Here) { // it may have made more than is known yet
		if err := s.drain(); err != nil {
			return nil, err
		}
	}
	p, refused := s.ofHolder(p)
	if refused != nil {
		return nil, refused
	}
	fresh := (p.Setting != nil || s.strung != nil) && s.setsTempBuffers(p)
	if fresh && s.link != nil && s.tx.state == txNone && !s.batch.sent {
		if err := s.drain(); err != nil {
			return nil, err
		}
	}
	if s.link != nil && s.suits(s.link, p) {
		return s.link, nil
	}
	if s.link != nil {
		if err := s.endOver(); err != nil {
			return nil, err
		}
	}
	shard := ""
	if l := s.link; l != nil {
		if p.Kind == router.Tx {
			shard = l.Shard // from its replica to its primary
		}
		switch {
		case s.suits(l, p):
			return l, nil
		case s.tx.state == txOpen && s.aborted():
			return nil, s.errAborted()
		case s.tx.state == txOpen && (!s.tx.neutral || s.portals.open(l)), s.tx.state != txOpen && s.batchBound(l, p):
			return nil, s.errElsewhere(l, p)
		case s.skipping(): // the error has come while the session waited for something else
			return nil, errAnswered
		}
		if err := s.leave(); err != nil {
			return nil, err
		}
	}
	if s.tx.state == txFailed {
		return nil, s.errAborted()
	}
	if shard == "" {
		shard = s.p.shard(p, 0)
	}
	if p.Kind == router.AnyShard && len(p.Shards) > 1 && !p.Has(router.Neutral) {
		shard = s.p.shard(p, int(s.p.turn.Add(1)%uint32(len(p.Shards))))
	}
	if p.Has(router.Here) && p.Kind != router.Route {
		if held, ok := s.holder(); ok {
			shard = held
		}
	}
	access := backend.Write
	if p.Access == router.Read && (s.tx.state == txNone && !s.rollsBack(p) || s.tx.readOnly) {
		access = s.reading()
	}
	if fresh {
		return s.preface(s.reachUnused(shard, access))
	}
	return s.acquire(shard, access)
}

// reading is the access of what a replica could answer: none runs a serializable transaction.
func (s *session) reading() backend.Access {
	if s.settings.serializable || s.tx.serializable { // by default, even where this one is not: the connection is another's next
		return backend.Write
	}
	return backend.Read
}

// rollsBack says whether the plan, one of a batch, changes settings or channels, and so is for the primary: what comes behind may write, and
// takes the change back if it fails.
func (s *session) rollsBack(p *router.Plan) bool {
	return s.strung == nil && (p.Setting != nil && alters(p.Setting) || s.unlistens(p))
}

// batchBound says whether what the batch has sent to l must stay with the plan, because they are one transaction: it may have changed rows,
// settings, by code for one, or channels, or begun a transaction block.
func (s *session) batchBound(l *engine.Link, p *router.Plan) bool {
	return s.batch.wrote || s.batch.heard || s.batch.sent && (len(s.after.changes) > 0 || s.coded) || s.begins(l, p)
}

// begins says whether the batch that l has got begins a transaction, or says what that is like, and the plan would leave it for another
// shard, or for several.
func (s *session) begins(l *engine.Link, p *router.Plan) bool {
	tx := s.after.tx
	if !s.batch.sent || tx == nil || p.Kind == router.Tx {
		return false
	}
	switch {
	case tx.Op == router.SetTransaction && wide(p): // which may not write, say
		return true
	case tx.Op == router.Begin || tx.Op == router.SetTransaction || tx.Chain:
		return s.p.shard(p, 0) != l.Shard
	}
	return false
}

// suits says whether the plan may run on the link in use, whatever state that is in.
func (s *session) suits(l *engine.Link, p *router.Plan) bool {
	if l.Err != nil {
		return false
	}
	if p.Kind == router.Tx && p.Tx.Op == router.Begin && s.tx.state == txNone && l.Conn.Endpoint().Role() == backend.RoleReplica {
		return false // it may go on to write
	}
	if s.strung != nil && l.Conn.Endpoint().Role() == backend.RoleReplica && s.beginsAnew() {
		return false // the same of what begins within a string
	}
	if s.tx.state == txNone && s.rollsBack(p) && l.Conn.Endpoint().Role() == backend.RoleReplica {
		return false
	}
	if p.Kind == router.Tx || p.Has(router.Here) && p.Kind != router.Route {
		return true
	}
	if s.tx.state == txOpen && p.OnPrimary() && l.Conn.Endpoint().Role() == backend.RoleReplica {
		return false
	}
	there := anywhere(p) && (s.tx.state == txOpen || s.batch.sent)
	for i := range p.Shards {
		there = there || s.p.shard(p, i) == l.Shard
	}
	return there && (s.tx.state == txOpen || p.Access == router.Read || l.Conn.Endpoint().Role() != backend.RoleReplica)
}

// beginsAnew says whether the query string in hand ends the transaction and begins one that is not read only for all that is known.
func (s *session) beginsAnew() bool {
	ended := false
	for _, x := range s.strung.steps {
		c := x.plan.Tx
		switch {
		case x.plan.Kind != router.Tx:
		case c.Op == router.Begin && ended, c.Chain && s.aborted() && s.tx.began&onlyReads == 0:
			return true
		case c.Op == router.Commit || c.Op == router.Rollback:
			ended = !c.Chain
		}
	}
	return false
}

// drain waits until the link has answered what it was asked, and settles it. Not for a batch that is still open.
func (s *session) drain() error {
	for {
		if err := s.settle(); err != nil {
			return err
		}
		if s.link == nil || s.batch.sent || s.link.Idle() && !s.after.active {
			return nil
		}
		if err := s.Serve(); err != nil {
			return err
		}
	}
}

// endOver has the books of a transaction closed that the batch has ended: what comes behind it is for any shard. Between batches it waits
// for that, too.
func (s *session) endOver() error {
	if s.batch.sent && s.batch.over && s.link != nil && !s.portals.open(s.link) {
		return s.leave()
	}
	if !s.batch.sent {
		return s.drain()
	}
	return nil
}

// endOverBefore is that where p begins the next transaction, unless it may just as well go on there.
func (s *session) endOverBefore(p *router.Plan) error {
	if p.Kind == router.Tx && p.Tx.Op == router.Begin && s.batch.over && (len(s.p.shards) > 1 || s.link != nil && s.link.Conn.Endpoint().Role() == backend.RoleReplica) {
		return s.endOver()
	}
	return nil
}

// leave ends the link's part in a batch or transaction that may go on elsewhere: only reads, or nothing that matters,
// have run there. After an error the transaction stays where it failed.
func (s *session) leave() error {
	s.portals.leaving = true
	defer func() { s.portals.leaving = false }()
	l := s.link
	failed := false
	if s.batch.sent {
		var err error
		if failed, err = s.endPart(l); err != nil {
			return err
		}
	}
	failed = failed || l.Err != nil
	if !failed && s.tx.state == txOpen && l.Conn.TxStatus != wire.TxIdle {
		s.queryUnseen(l, "ROLLBACK", nil)
		if err := s.Await(l); err != nil {
			return err
		}
		if l.Err == nil {
			if s.tx.state = txBegun; s.tx.looked {
				s.tx.seal()
			}
		}
	}
	if err := s.drain(); err != nil { // it may have to be asked what is left there
		return err
	}
	if failed {
		s.batch.skip = true
		return errAnswered
	}
	return nil
}

// endPart ends what of the batch has been sent to a link, and waits for it. It says whether that has failed.
func (s *session) endPart(l *engine.Link) (failed bool, err error) {
	var end engine.Reply // of a Close of nothing, which is skipped only behind an error of this batch: those before may have some yet to come
	l.SetOut(wire.AppendClose(l.Out(), wire.KindStatement, noPortal))
	l.Expect(engine.Expect{Kind: engine.Close, Mute: engine.MuteAll, Reply: &end})
	syncUnseen(l)
	if s.batch.goesOn(); s.after.mark {
		s.sendProbe(l)
	}
	err = s.Await(l)
	return end.Err != nil || l.Err != nil, err
}

// errAnswered says that the client has been given an error already.
var errAnswered = errors.New("answered")

// queryUnseen sends a query of the proxy's own; nothing of its answer reaches the client.
func (s *session) queryUnseen(l *engine.Link, sql string, reply *engine.Reply) {
	l.SetOut(wire.AppendQuery(l.Out(), sql))
	l.Expect(engine.Expect{Kind: engine.Query, Mute: engine.MuteAll, Reply: reply})
}

// acquire begins to use a connection to a shard, brings it to the session's settings and, in a transaction, says the
// preamble. It becomes the session's link.
func (s *session) acquire(shard string, access backend.Access) (*engine.Link, error) {
	return s.preface(s.reach(shard, access))
}

// preface says the preamble to a link that was reached.
func (s *session) preface(l *engine.Link, err error) (*engine.Link, error) {
	if err == nil && s.tx.state == txBegun && s.strung != nil {
		err = s.prepareAhead(l)
	}
	if err == nil && s.tx.state == txBegun {
		l.SetOut(wire.AppendQuery(l.Out(), s.tx.preamble))
		l.Expect(engine.Expect{Kind: engine.Query, Mute: engine.MuteAll &^ engine.MuteError})
		s.tx.state = txOpen
	}
	return l, err
}

// reach is acquire outside of the session's transaction.
func (s *session) reach(shard string, access backend.Access) (*engine.Link, error) {
	l, err := s.connect(shard, access)
	return s.fit(l, access, err)
}

// fit makes l the session's link, and brings its connection to the session's settings. Where it cannot have them another one is
// reached.
func (s *session) fit(l *engine.Link, access backend.Access, err error) (*engine.Link, error) {
	if err != nil {
		return nil, err
	}
	s.engage(l)
	if l.Conn.Settings != s.settings.print {
		if err := s.synchronize(l); err != nil {
			again := s.usedTemporary(l, err)
			l.Conn.Spoilt = l.Conn.Spoilt || again
			shard := l.Shard // release gives l back
			if s.release(); again {
				return s.reach(shard, access)
			}
			return nil, err
		}
	}
	s.tell(l)
	if s.ear != nil && s.ear.prime {
		s.primeChannels(l)
	}
	return l, nil
}

// engage makes l the session's link.
func (s *session) engage(l *engine.Link) {
	s.link = l
	s.useUnlessPinned(l)
	s.client.hold(l.Conn)
	s.last.conn(l)
}

// connect takes a connection out of a pool.
func (s *session) connect(shard string, access backend.Access) (*engine.Link, error) {
	if s.traced == nil {
		return s.linkTo(shard, access)
	}
	from := loop.Clock()
	l, err := s.linkTo(shard, access)
	s.traced.acquired(shard, l, from, err)
	return l, err
}

// linkTo is connect without the trace.
func (s *session) linkTo(shard string, access backend.Access) (*engine.Link, error) {
	if len(s.pins) > 0 && s.pins[shard] != nil {
		return s.pins[shard], nil
	}
	if s.p.gate.any.Load() {
		if err := s.awaitResume(shard); err != nil {
			return nil, err
		}
	}
	sh := s.p.backend.Shard(shard)
	if access == backend.Read && (!sh.Replicated() || s.unsure[shard] || s.mode == backend.Session) {
		access = backend.Write
	}
	var least lsn.LSN
	if access == backend.Read && !s.own.eventual {
		least = s.token[shard].LSN
	}
	e, err := sh.Pick(access, least)
	if err != nil {
		return nil, err
	}
	conn, err := e.Acquire(s.Task, s.identity, s.Client, time.Time{})
	if err != nil && access == backend.Read && !errors.Is(err, backend.ErrClientGone) && !errors.Is(err, backend.ErrRecalled) {
		// A replica that cannot be reached: the primary has everything it has.
		if primary, perr := sh.Pick(backend.Write, 0); perr == nil && primary != e {
			conn, err = primary.Acquire(s.Task, s.identity, s.Client, time.Time{})
		}
	}
	l, err := s.got(shard, conn, err)
	if err == nil && s.mode == backend.Session {
		s.stay(l)
	}
	return l, err
}

// got is a link on a connection that the session has asked a pool for, or why there is none.
func (s *session) got(shard string, conn *backend.Conn, err error) (*engine.Link, error) {
	if err != nil {
		if d := backend.WaitedFor(err); d > 0 {
			s.meter(shard).Wait.record(d)
		}
		if s.Stopped() {
			err = engine.ErrStopped
		}
		return nil, err
	}
	l := engine.NewLink(s.Task, conn, shard)
	l.Since = loop.Clock()
	s.meter(shard).Wait.record(conn.Waited)
	return l, nil
}

// synchronize gives the link's connection the session's settings. It waits for the answer: a statement must not run under
// another session's settings or role because its own could not be made, by a role that was dropped, or a cancel request. The
// error is the server's, and leaves the connection with the settings that it had.
func (s *session) synchronize(l *engine.Link) error {
	sql := s.settings.syncSQL()
	if s.keepsForever(l) {
		sql = s.keptSQL(l) // nobody else has been there
	}
	_, err := s.Ask(l, sql, engine.MuteAll|engine.MuteStatus)
	switch {
	case l.Err != nil:
		return nil // a connection that is lost tells itself to whoever uses it next
	case err == nil:
		l.Conn.Settings = s.settings.print
	}
	return err
}

// useUnlessPinned has the relay serve a link, for as long as the session has it. One that is pinned is served at all times: a notification may come.
func (s *session) useUnlessPinned(l *engine.Link) {
	if !s.hasPinned(l) {
		s.Use(l)
	}
}

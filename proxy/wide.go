package proxy

import (
	"cmp"
	"strconv"

	"github.com/tidemarkdb/tidemark/internal/backend"
	"github.com/tidemarkdb/tidemark/internal/engine"
	"github.com/tidemarkdb/tidemark/internal/loop"
	"github.com/tidemarkdb/tidemark/internal/wire"
	"github.com/tidemarkdb/tidemark/router"
)

// Plans over several shards: scatter, broadcast, split COPY. They run while the session has no link of its own, one link
// for each shard, and end with all of them given back.

// alone makes sure that the session is in no transaction that the plan would have to join, and has no link.
func (s *session) alone(p *router.Plan) error {
	if err := s.endOver(); err != nil {
		return err
	}
	switch {
	case s.tx.state == txNone && s.link == nil:
		return nil
	case s.tx.state == txFailed, s.aborted():
		return s.errAborted()
	case s.tx.state == txBegun && p.Kind == router.Scatter && !s.tx.snapshot:
		// Nothing has been written yet, and at read committed each statement sees a state of its own anyway.
		return nil
	case p.Kind == router.Scatter:
		return wire.Errorf(wire.FeatureNotSupported, "a transaction cannot read from several shards").
			WithHint("Read outside of the transaction, before its first statement, or give the shard key in the WHERE clause.")
	}
	return wire.Errorf(wire.FeatureNotSupported, "%s over several shards cannot run inside a transaction block", called(p)).
		WithHint("Run it outside of a transaction: it is then atomic by itself.")
}

// called is a plan's statement in an error message.
func called(p *router.Plan) string {
	if p.Tag != "" {
		return p.Tag
	}
	return "a statement"
}

// open connects to every shard of the plan, in the map's order so that two sessions never wait for each other's pools in a
// circle.
func (s *session) open(p *router.Plan) ([]*engine.Link, error) {
	access := backend.Write
	if p.Access == router.Read {
		access = s.reading()
	}
	links := make([]*engine.Link, 0, len(p.Shards))
	whole := false
	defer func() { // also where the task is unwound while it waits: nobody else knows of them yet
		if !whole {
			s.giveBack(links)
		}
	}()
	for i := range p.Shards {
		l, err := s.connect(s.p.shard(p, i), access)
		if err != nil {
			return nil, err
		}
		l.Since, l.Until = 0, 0 // the shards are asked when all are there, or one after the other
		s.useUnlessPinned(l)
		s.client.hold(l.Conn)
		s.last.conn(l)
		links = append(links, l)
		if l.Conn.Settings != s.settings.print {
			if err := s.synchronize(l); err != nil {
				return nil, err
			}
		}
		if p.Has(router.Dirty) {
			l.Conn.Dirty = true
		}
		l.Conn.Spoilt = l.Conn.Spoilt || p.Has(router.Keeps)
		if access == backend.Write {
			l.Conn.Notifier = s.client.pid
		}
	}
	whole = true
	return links, nil
}

// giveBack releases what is clean and closes the rest: a shard whose answer nobody waits for any more.
func (s *session) giveBack(links []*engine.Link) {
	s.client.letGo()
	for _, l := range links {
		l.Paused = false
		if l.Since != 0 && l.Err == nil && l.Idle() {
			s.measure(l, cmp.Or(l.Until, loop.Clock()))
		} else if s.traced != nil {
			s.traced.served(l, loop.Clock())
		}
		if !s.hasPinned(l) || l.Err != nil || !l.Idle() {
			s.Relay.Drop(l)
		}
		if l.Err != nil || !l.Idle() {
			if s.hasPinned(l) {
				if l.Err != nil {
					continue // which ends the session: see lostPin
				}
				s.unpin(l)
			}
			s.p.abandon(l)
			continue
		}
		if !s.hasPinned(l) {
			l.Conn.Release() // one that is still in a transaction is closed by that, and so rolled back
		}
	}
}

// wide runs a simple query's plan over several shards; the caller gives ReadyForQuery.
// needs are to be prepared before, on each shard.
func (s *session) wide(p *router.Plan, text string, needs ...*statement) error {
	links, err := s.open(p)
	if err != nil {
		return err
	}
	defer func() { s.giveBack(links) }()
	for _, l := range links {
		if err := s.prepareAll(l, needs); err != nil {
			return err
		}
	}
	s.notice()
	if p.Kind == router.Scatter {
		replies := make([]engine.Reply, len(links))
		for i, l := range links {
			mute := engine.MuteAll
			if i == 0 {
				mute &^= engine.MuteDesc | engine.MuteRows
			} else {
				mute &^= engine.MuteRows
				l.Paused = true
			}
			replies[i].PassNotices = i == 0 // all of them read the same text
			l.SetOut(wire.AppendQuery(l.Out(), text))
			l.Expect(engine.Expect{Kind: engine.Query, Mute: mute, Reply: &replies[i]})
		}
		return s.concatenateTagged(links, replies)
	}
	return s.change(p, links, text)
}

func (s *session) concatenateTagged(links []*engine.Link, replies []engine.Reply) error {
	rows, err := s.Concatenate(links, replies)
	if err != nil {
		s.quitPinned(links)
		return err
	}
	s.SetOut(wire.AppendCommandComplete(s.Out(), "SELECT "+strconv.FormatUint(rows, 10)))
	return nil
}

// quitPinned has the links that the session is pinned to end a query that has failed on another shard, or there: they stay with it, with what
// it keeps there, where others are closed.
func (s *session) quitPinned(links []*engine.Link) {
	for _, l := range links {
		if !s.hasPinned(l) || l.Err != nil || l.Idle() {
			continue
		}
		l.Hush()
		key := l.Conn.CancelKey()
		s.Task.Await(func() { s.p.cancelKeys([]backend.CancelKey{key}) })
		if s.Await(l) != nil {
			return // the client has left
		}
	}
}

// change runs a broadcast or a split COPY, takes the marks behind it, and reads the catalog again if it changed.
func (s *session) change(p *router.Plan, links []*engine.Link, text string) error {
	var tag string
	var err error
	switch {
	case p.Kind == router.CopyIn:
		linkOf := make([]*engine.Link, len(s.p.shardMap.Shards()))
		for i, shard := range p.Shards {
			linkOf[shard] = links[i]
		}
		var rows uint64
		rows, err = s.CopySplit(links, linkOf, text, p.Copy)
		tag = "COPY " + strconv.FormatUint(rows, 10)
	case p.Has(router.NoTx):
		tag, err = s.InTurn(links, text)
	default:
		statements := 1
		if s.strung != nil {
			statements = s.strung.n
		}
		tag, err = s.Everywhere(links, text, statements)
	}
	if err != nil {
		for _, l := range links {
			if !s.hasPinned(l) || l.Err != nil {
				continue
			}
			if p.Kind == router.CopyIn && !l.Idle() { // it waits for data; a server that does not ignores this
				l.SetOut(wire.AppendCopyFail(l.Out(), "it has failed on another shard"))
				_ = s.Await(l)
			}
			if l.Err == nil && l.Idle() && l.Conn.TxStatus != wire.TxIdle {
				_, _ = s.Ask(l, "ROLLBACK", engine.MuteAll) // if that fails too, the connection is lost, and the session hears of it
			}
		}
		return err
	}
	if p.Has(router.Writes) && s.marksMatter() {
		for _, l := range links {
			reply, err := s.Ask(l, probeSQL, engine.MuteAll)
			if err != nil {
				s.log().Warn("no mark behind a write", "shard", l.Shard, "error", err)
				s.doubt(l.Shard)
				continue
			}
			s.marked(l.Shard, reply.Row)
		}
	}
	if p.Has(router.Schema) {
		s.Task.Await(s.p.ReloadCatalog)
	}
	s.SetOut(wire.AppendCommandComplete(s.Out(), tag))
	return nil
}

// wideBound runs a bound portal's plan over several shards, without ReadyForQuery.
func (s *session) wideBound(pt *portal) error {
	p := pt.plan
	if p.Kind != router.Scatter {
		m, err := wire.DecodeBind(pt.bind[wire.HeaderLen:])
		if err != nil {
			return err
		}
		if m.NumParams() > 0 {
			return wire.Errorf(wire.FeatureNotSupported, "%s over several shards cannot have parameters", called(p)).
				WithHint("Write the values into the statement.")
		}
		links, err := s.open(p)
		if err != nil {
			return err
		}
		defer func() { s.giveBack(links) }()
		if pt.st.needs != nil {
			for _, l := range links {
				if err := s.prepareNow(l, pt.st.needs); err != nil {
					return err
				}
			}
		}
		return s.change(p, links, string(pt.st.sql))
	}
	links, err := s.open(p)
	if err != nil {
		return err
	}
	defer func() { s.giveBack(links) }()
	s.notice()
	replies := make([]engine.Reply, len(links))
	for i, l := range links {
		l.Paused, replies[i].PassNotices = i > 0, i == 0
		if pt.st.needs != nil {
			if _, known := l.Conn.Statements.Name(pt.st.needs.id); !known {
				s.define(l, pt.st.needs, engine.Expect{Mute: engine.MuteAll, Statement: pt.st.needs.id, Reply: &replies[i]})
			}
		}
		if err := s.askBound(l, pt, i == 0 && pt.told, &replies[i]); err != nil {
			return err
		}
	}
	return s.concatenateTagged(links, replies)
}

// askBound sends a shard the whole of a bound query: Parse, Bind, Describe if the client wants it, Execute and Sync.
func (s *session) askBound(l *engine.Link, pt *portal, describe bool, reply *engine.Reply) error {
	bound, err := wire.DecodeBind(pt.bind[wire.HeaderLen:])
	if err != nil {
		return err
	}
	out := wire.AppendParse(l.Out(), "", pt.st.sql, s.typesOf(pt.st))
	portalName := string(bound.Portal)
	if out, err = wire.AppendRenamed(out, pt.bind, ""); err != nil {
		return err
	}
	l.Conn.Unnamed = 0
	l.Expect(engine.Expect{Kind: engine.Parse, Mute: engine.MuteAll, Reply: reply})
	l.Expect(engine.Expect{Kind: engine.Bind, Mute: engine.MuteAll, Reply: reply})
	if describe {
		out = wire.AppendDescribe(out, wire.KindPortal, portalName)
		l.Expect(engine.Expect{Kind: engine.Describe, Mute: engine.MuteAll &^ engine.MuteDesc, Reply: reply})
	}
	out = wire.AppendExecute(out, portalName, 0)
	l.Expect(engine.Expect{Kind: engine.Execute, Mute: engine.MuteAll &^ engine.MuteRows, Reply: reply})
	l.SetOut(wire.AppendSync(out))
	l.Expect(engine.Expect{Kind: engine.Sync, Mute: engine.MuteAll, Reply: reply})
	return nil
}

package proxy

import (
	"cmp"
	"maps"
	"slices"

	"github.com/tidemarkdb/tidemark/internal/engine"
	"github.com/tidemarkdb/tidemark/internal/wire"
	"github.com/tidemarkdb/tidemark/router"
)

// showPrepared gives the link's connection the session's prepared statements under their own names, and no others, before
// something reads pg_prepared_statements there. The connection is cleaned when it is given back. mute is what the client
// does not hear of it. One that cannot be prepared any more is an error, which reply, if there is one, keeps.
func (s *session) showPrepared(l *engine.Link, mute engine.Mute, reply *engine.Reply) {
	known := l.Conn.Statements.SetAside()
	undo := func() { l.Conn.Statements.TakeBack(known) } // they are closed all together, or all skipped
	for _, name := range known.Names(nil) {
		l.SetOut(wire.AppendClose(l.Out(), wire.KindStatement, name))
		l.Expect(engine.Expect{Kind: engine.Close, Mute: engine.MuteAck, Undo: undo})
		undo = nil
	}
	l.Conn.Dirty = true
	x := s.lending()
	x.on = nil                                              // it has more than is lent
	for _, name := range slices.Sorted(maps.Keys(x.ever)) { // where they are not, closing them does nothing
		s.closeUnseen(l, name)
	}
	inOrder := func(a, b *statement) int { return cmp.Compare(a.order, b.order) } // so that prepare_time sorts them as it should
	for _, st := range slices.SortedFunc(maps.Values(s.stmts), inOrder) {
		name := st.name
		if name == "" || st.template.Generic().Kind == router.ViewScan { // no server could prepare a query on a read model
			continue
		}
		x.ever[name] = true
		e := engine.Expect{Kind: engine.Parse, Mute: mute, Reply: reply, Names: &engine.Names{Retell: func(e *wire.Error) { cannotShow(st.name, e) }}}
		if st.fromSQL != "" {
			s.runUnseen(l, st.fromSQL, e)
			continue
		}
		l.SetOut(wire.AppendParse(l.Out(), name, st.sql, st.oids))
		l.Expect(e)
	}
}

func (s *session) closeUnseen(l *engine.Link, name string) { s.closeUnlessSkipped(l, name, nil) }

// closeUnlessSkipped is closeUnseen with what is to be done where an error of the batch comes first.
func (s *session) closeUnlessSkipped(l *engine.Link, name string, skipped func()) {
	l.SetOut(wire.AppendClose(l.Out(), wire.KindStatement, name))
	l.Expect(engine.Expect{Kind: engine.Close, Mute: engine.MuteAck, Undo: skipped})
}

// preparedByName gives the link's connection the client's statements under their own names, ahead of a Query that needs them.
func (s *session) preparedByName(l *engine.Link, p *router.Plan) error {
	switch {
	case p.Has(router.ShowsPrepared):
		return s.showPreparedAlone(l)
	case s.strung != nil && slices.ContainsFunc(s.strung.steps, func(x step) bool { return setsTransaction(x.plan) }) && s.tx.state == txOpen:
		return nil // behind what is prepared it would be too late for that
	}
	return s.lendPrepared(l)
}

// showPreparedAlone is showPrepared ahead of a Query.
func (s *session) showPreparedAlone(l *engine.Link) error {
	var reply engine.Reply
	s.showPrepared(l, engine.MuteAll, &reply)
	return s.awaitUnseen(l, &reply)
}

// cannotShow turns the error of preparing a statement anew into what its client is told, unless it says no more than that the
// transaction has failed before.
func cannotShow(name string, e *wire.Error) {
	if e.Code == wire.InFailedSQLTransaction {
		return
	}
	cause := e.Message
	*e = *wire.Errorf(wire.FeatureNotSupported, "pg_prepared_statements cannot show prepared statement \"%s\"", name).
		WithDetail("It cannot be prepared any more: %s.", cause).
		WithHint("Show it under the search_path and role that it was prepared under, or DEALLOCATE it if what it speaks of is gone.")
}

// errShowsPrepared refuses to show what a query string does to prepared statements: there they have names of the proxy's.
func errShowsPrepared() *wire.Error {
	return wire.Errorf(wire.FeatureNotSupported, "pg_prepared_statements cannot be shown by a query string that also speaks of prepared statements").
		WithHint("Send them one by one.")
}

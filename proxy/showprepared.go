package proxy

import (
	"maps"
	"slices"

	"github.com/tidemarkdb/tidemark/internal/engine"
	"github.com/tidemarkdb/tidemark/internal/wire"
	"github.com/tidemarkdb/tidemark/router"
)

// showPrepared gives the link's connection the session's prepared statements under their own names, and no others, before
// something reads pg_prepared_statements there. The connection is cleaned when it is given back. mute is what the client
// does not hear of it.
func (s *session) showPrepared(l *engine.Link, mute engine.Mute) {
	known := l.Conn.Statements.SetAside()
	undo := func() { l.Conn.Statements = *known } // they are closed all together, or all skipped
	for _, name := range known.Names(nil) {
		l.SetOut(wire.AppendClose(l.Out(), wire.KindStatement, name))
		l.Expect(engine.Expect{Kind: engine.Close, Mute: engine.MuteAck, Undo: undo})
		undo = nil
	}
	l.Conn.Dirty = true
	for _, name := range slices.Sorted(maps.Keys(s.shown)) { // where they are not, closing them does nothing
		s.closeUnseen(l, name)
	}
	if s.shown == nil {
		s.shown = map[string]bool{}
	}
	for _, name := range slices.Sorted(maps.Keys(s.stmts)) {
		st := s.stmts[name]
		if name == "" || st.template.Generic().Kind == router.ViewScan { // no server could prepare a query on a read model
			continue
		}
		s.shown[name] = true
		e := engine.Expect{Kind: engine.Parse, Mute: mute, Names: st.names}
		if st.fromSQL != "" {
			s.runUnseen(l, st.fromSQL, e)
			continue
		}
		l.SetOut(wire.AppendParse(l.Out(), name, st.sql, st.oids))
		l.Expect(e)
	}
}

func (s *session) closeUnseen(l *engine.Link, name string) {
	l.SetOut(wire.AppendClose(l.Out(), wire.KindStatement, name))
	l.Expect(engine.Expect{Kind: engine.Close, Mute: engine.MuteAck})
}

// showPreparedAlone is showPrepared ahead of a Query.
func (s *session) showPreparedAlone(l *engine.Link) {
	s.showPrepared(l, engine.MuteAll)
	l.SetOut(wire.AppendSync(l.Out()))
	l.Expect(engine.Expect{Kind: engine.Sync, Mute: engine.MuteReady})
}

package proxy

import (
	"fmt"
	"slices"

	"github.com/tidemarkdb/tidemark/internal/engine"
	"github.com/tidemarkdb/tidemark/internal/wire"
)

// How a statement gets to a server connection.

// prepareNow makes a statement known to the link's connection before anything else is sent there, in a round trip of its own
// if it is not: what follows in the simple protocol would run after an error all the same. The error is the server's.
func (s *session) prepareNow(l *engine.Link, st *statement) error {
	if _, known := l.Conn.Statements.Name(st.id); known {
		return nil
	}
	var reply engine.Reply
	s.define(l, st, engine.Expect{Mute: engine.MuteAll, Statement: st.id, Reply: &reply})
	return s.awaitUnseen(l, &reply)
}

// awaitUnseen ends a batch of the proxy's own on the link and waits for its answer. The error is the server's.
func (s *session) awaitUnseen(l *engine.Link, reply *engine.Reply) error {
	syncUnseen(l)
	l.Skipping = false
	if err := s.Await(l); err != nil {
		return err
	}
	if reply.Err != nil {
		return reply.Err
	}
	return nil // a connection that is lost tells itself to whoever uses it next
}

// syncUnseen ends a batch on the link by a Sync of which the client hears nothing.
func syncUnseen(l *engine.Link) {
	l.SetOut(wire.AppendSync(l.Out()))
	l.Expect(engine.Expect{Kind: engine.Sync, Mute: engine.MuteReady})
}

// prepareAll makes statements known to a link's connection, one after the other; all must fit into it together.
func (s *session) prepareAll(l *engine.Link, list []*statement) error {
	for _, st := range list {
		if err := s.prepareNow(l, st); err != nil {
			return err
		}
	}
	for _, st := range list {
		if _, known := l.Conn.Statements.Name(st.id); !known && l.Err == nil {
			return wire.Errorf(wire.ProgramLimitExceeded, "the prepared statements of this query string do not fit into one server connection").
				WithHint("Raise the bound on statements of server connections, or send fewer statements together.")
		}
	}
	return nil
}

// prepared says whether a link's connection has all of the statements.
func (s *session) prepared(l *engine.Link, list []*statement) bool {
	return !slices.ContainsFunc(list, func(st *statement) bool {
		_, known := l.Conn.Statements.Name(st.id)
		return !known
	})
}

// prepareAhead prepares what the query string in hand asks for before its transaction begins on the link. That has not done
// anything yet which could make a difference.
func (s *session) prepareAhead(l *engine.Link) error {
	list := s.strung.ahead
	s.strung.ahead = nil
	if s.prepared(l, list) {
		return nil
	}
	err := s.prepareAll(l, list)
	if err != nil {
		s.release()
	}
	return err
}

// define has a statement prepared on the link's connection, where it is not known yet. e is what is expected of that; its kind
// is filled in. It is closed first: a batch that has not been answered may close it there, or may come to nothing and leave it.
//
// A PREPARE with types is prepared by a PREPARE, for types are known to the server by their names; it goes by way of the
// extended protocol so that an error skips what comes behind, too.
func (s *session) define(l *engine.Link, st *statement, e engine.Expect) (name string) {
	name, evicted := l.Conn.Statements.Add(st.id, len(st.sql), nil)
	for _, old := range evicted {
		l.SetOut(wire.AppendClose(l.Out(), wire.KindStatement, old.Name))
		l.Expect(engine.Expect{Kind: engine.Close, Mute: engine.MuteAck, Undo: func() { l.Conn.Statements.Restore(old) }})
	}
	s.closeUnlessSkipped(l, name, func() { l.Conn.Statements.Unclosed(st.id) })
	if st.literals && !s.coded && st.looksAhead() {
		if now := s.reads(); now != st.readAs() {
			s.readsAnew(l, st.readAs(), e.Mute&engine.MuteError)
			defer s.readsAnew(l, now, e.Mute&engine.MuteError)
		}
	}
	e.Kind = engine.Parse
	if e.Names == nil {
		e.Names = st.names
	}
	if st.types == "" {
		l.SetOut(wire.AppendParse(l.Out(), name, st.sql, s.typesOf(st)))
		l.Expect(e)
		s.infer(l, st, name)
		return name
	}
	s.runUnseen(l, fmt.Sprintf(prepareTyped, name, st.types, st.sql), e)
	return name
}

// prepareTyped is the PREPARE of a statement with types: its name, the types, and its text.
const prepareTyped = "PREPARE %s (%s) AS %s"

// runUnseen runs a statement in the extended protocol without a Sync, by names that no client uses. e is what is expected of
// its parts: the Parse, and Execute if it has a reply to keep.
func (s *session) runUnseen(l *engine.Link, text string, e engine.Expect) {
	l.Conn.Unnamed = 0
	out := wire.AppendParse(l.Out(), "", []byte(text), nil)
	out = wire.AppendBind(out, noPortal, "", nil, nil, nil)
	out = wire.AppendExecute(out, noPortal, 0)
	l.SetOut(wire.AppendClose(out, wire.KindPortal, noPortal))
	l.Expect(e)
	part := engine.Expect{Mute: engine.MuteAll, Statement: e.Statement, Reply: e.Reply, Names: e.Names}
	part.Mute &^= engine.MuteError &^ e.Mute
	for _, k := range []engine.Kind{engine.Bind, engine.Execute, engine.Close} {
		part.Kind = k
		part.Undo = nil
		if k == engine.Execute || k == engine.Bind {
			part.Undo = func() { l.Forget(e.Statement) }
			if e.Undo != nil {
				part.Undo = func() { l.Forget(e.Statement); e.Undo() }
			}
		}
		l.Expect(part)
	}
}

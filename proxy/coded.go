package proxy

import (
	"slices"

	"github.com/tidemarkdb/tidemark/internal/engine"
	"github.com/tidemarkdb/tidemark/internal/wire"
	"github.com/tidemarkdb/tidemark/router"
)

// Code that changes search_path or the role (router.Restates) does so unseen, for its transaction alone or beyond it, and what takes the
// transaction back takes that back, too. When the transaction is over the server is asked for all settings (learn.go). Until then it is
// asked by what the session's names mean, and only where that matters: before a statement is planned whose names mean something else
// under another search_path (router.Plan.ByPath), and before one is prepared, which the session shares with all for whom it means the same.
// In a query string it cannot be asked in between, so there the first is refused, and the second is not shared.
//
//	                             coded   blind
//	code has run                 yes     yes
//	... then SET, SAVEPOINT, ... yes     yes     it may have taken back what was found out
//	the server was asked         yes     no      session.view is what it said, session.settings are not
//	the transaction is over      no      no      session.view is of session.settings again
type meaning struct {
	coded bool // code has run in the transaction under way, or before its Sync
	blind bool // and what names mean is not known
}

// restating are the settings that change the meaning of names. They are shown, not selected: that would take a snapshot, behind which it is
// too late to choose what the transaction is like.
var restating = [...]string{"search_path", "role", "session_authorization"}

// names says whether a statement's place hangs on what its names mean.
func (p *Proxy) names() bool { return len(p.shards) > 1 || p.models }

// hangs says so of one statement. Where there is one place, only those hang on it that name Tidemark's own tables.
func (p *Proxy) hangs(x *router.Plan) bool {
	return x.ByPath && (p.names() || x.Kind == router.ViewScan)
}

// restatesUnseen says whether a statement may change unseen what names mean for those behind it.
func (s *session) restatesUnseen(p *router.Plan, coded bool) bool {
	// What code has put off may run here: a cursor's query, a deferred trigger.
	return p.Has(router.Restates) || coded && (p.Kind == router.Tx || p.Setting != nil && alters(p.Setting) || p.Has(router.Here))
}

// lookUp is template for a statement that is about to be used. goesOn is false where an error of its batch has come first.
func (s *session) lookUp(st *statement) (goesOn bool, err error) {
	s.template(st)
	shares := st.name != "" && st.shared == nil // it is about to be that of all who prepare it where names mean the same
	if !s.blind || !shares && !s.p.hangs(st.template.Generic()) {
		return true, nil
	}
	if goesOn, err = s.see(); goesOn {
		s.template(st)
	}
	return goesOn, err
}

// anyHangs says whether what some of the statements name has to be known.
func (p *Proxy) anyHangs(statements []router.Statement) bool {
	return slices.ContainsFunc(statements, func(st router.Statement) bool { return p.hangs(st.Plan) })
}

// see asks the server what names mean by now. What the session has read of its client's input may move meanwhile. goesOn is false where
// an error of the batch has come first, or this is one.
func (s *session) see() (goesOn bool, err error) {
	if s.batch.over { // in one batch with what asks, what comes next would not be the first of it: DISCARD ALL must be
		if err := s.endOver(); err != nil {
			return false, err
		}
	}
	if goesOn, err = s.allAnswered(); !goesOn {
		return false, err
	}
	if err == nil && s.blind && s.link == nil {
		err = s.seeAnew()
	}
	l := s.link
	if err != nil || !s.blind || l == nil || l.Err != nil || s.aborted() {
		return err == nil, err
	}
	var replies [len(restating)]engine.Reply
	for i, name := range restating {
		if s.batch.sent {
			s.runUnseen(l, "SHOW "+name, engine.Expect{Kind: engine.Parse, Mute: engine.MuteAll &^ engine.MuteError, Reply: &replies[i]})
		} else {
			s.queryUnseen(l, "SHOW "+name, &replies[i])
		}
	}
	if !s.batch.sent {
		err = s.Await(l)
	} else if goesOn, err = s.caughtUp(); !goesOn {
		return false, err
	}
	var names [len(restating)]string
	for i := range replies {
		row := wire.DataRow(replies[i].Row)
		switch {
		case err != nil:
		case l.Err != nil:
			err = l.Err
		case replies[i].Err != nil:
			err = replies[i].Err
		case !row.Next():
			err = wire.Errorf(wire.InternalError, "no answer about %s", restating[i])
		default:
			names[i] = string(row.Value())
		}
	}
	if err != nil {
		return false, err
	}
	user := names[1]
	if user == "none" {
		user = names[2]
	}
	v, err := s.viewBy(&s.settings, user, names[0])
	if err != nil {
		return false, err
	}
	s.view, s.blind = v, false
	if f := s.after.foreseen; f != nil {
		for _, x := range f.states {
			x.log = append(x.log, change{name: "search_path", value: names[0], local: true},
				change{name: "session_authorization", value: names[2], local: true}, change{name: "role", value: names[1], local: true})
		}
	}
	return true, nil
}

// seeAnew asks once more for what is left of a transaction that is over, where that failed then: the connection was kept for that.
func (s *session) seeAnew() error {
	if err := s.useHolder(); err != nil {
		return err
	}
	if s.link != nil && s.tx.state == txNone {
		s.askState = true
		if err := s.drain(); err != nil {
			return err
		}
	}
	if s.blind && s.link == nil {
		return wire.Errorf(wire.FeatureNotSupported, "a table is named that search_path decides on, which is not known").
			WithDetail("A function, trigger or DO may have changed it or the role, and the server could not be asked.").WithHint("DISCARD ALL, or connect anew.")
	}
	return nil
}

// uncode ends what is known of a transaction with code in it: it is over, and what is left of its settings is the session's.
func (s *session) uncode(blind bool) {
	s.coded, s.blind = false, blind
	s.refreshView()
}

// binds notes what a portal of the link may run, which SQL's FETCH can do as well as the protocol's Execute.
func (s *session) binds(l *engine.Link, p *router.Plan) {
	if p.Has(router.Dirty) {
		l.Conn.Dirty = true
	}
	s.asks(l, p)
	if s.restatesUnseen(p, false) {
		s.coded, s.blind = true, true
	}
}

// follows says, of the statements of a query string, whether one may change unseen what names mean for the next, which is refused then.
type follows struct {
	s     *session
	coded bool // the transaction, so far
	blind bool
}

func (s *session) follows() follows { return follows{s: s, coded: s.coded} }

func (f *follows) next(p *router.Plan) error {
	if f.blind && p.ByPath && f.s.p.names() {
		return errUnseen("query string").WithHint("Send them one by one.")
	}
	if f.s.restatesUnseen(p, f.coded) {
		f.coded, f.blind = true, true
	}
	return nil
}

func errUnseen(of string) *wire.Error {
	return wire.Errorf(wire.FeatureNotSupported, "a statement names what code in an earlier one of its %s may have given another meaning", of).
		WithDetail("That calls a function, or runs a trigger or DO, whose code may change search_path or the role, and the name is that of several tables, in different schemas.")
}

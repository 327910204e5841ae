package proxy

import (
	"reflect"
	"slices"

	"github.com/tidemarkdb/tidemark/internal/wire"
	"github.com/tidemarkdb/tidemark/router"
)

// A statement is planned under the settings that its session has when it comes. Where those by which names are looked up are changed by
// what stands before it in its query string, or in its batch, and is not answered yet, it may mean something else, on other shards.
// It only runs if all of that succeeds, so what the settings will be is known.

// foreseen are the settings behind what has been sent and not answered, or stands before a statement in its string. There are two where
// a COMMIT may have been that of a transaction that has failed: an error may be on its way.
type foreseen struct {
	states []*settings
	whole  bool // the transaction is not one that has failed
}

// foresee begins with the session's settings as they are.
func (s *session) foresee() *foreseen {
	l := s.link
	return &foreseen{
		states: []*settings{s.settings.ahead()},
		whole:  s.tx.state != txOpen || l != nil && l.Owed() == 0 && !s.batch.sent && l.Conn.TxStatus != wire.TxAborted,
	}
}

// follow goes on behind a statement.
func (f *foreseen) follow(p *router.Plan) {
	if p.Kind == router.Tx && p.Tx.Op == router.Commit || p.Tag == router.PrepareTransaction {
		if !f.whole {
			undone := f.states[0].ahead()
			undone.end(false)
			f.states = append(f.states, undone)
		}
		f.states[0].end(true)
		f.whole = true
		return
	}
	if p.Kind == router.Tx && (p.Tx.Op == router.Rollback || p.Tx.Op == router.RollbackTo) {
		f.whole = true
	}
	for _, x := range f.states {
		x.expect(p)
	}
}

// restates says whether a statement may change what names mean, or how strings and other literals are read, for those behind it.
func (s *session) restates(p *router.Plan) bool {
	for c := p.Setting; c != nil; c = c.Next {
		switch {
		case !alters(c):
		case c.Op == router.ResetAll, c.Name == "standard_conforming_strings",
			c.Name == "search_path", c.Name == "role", c.Name == "session_authorization", slices.Contains(router.Readers[:], c.Name):
			return true
		}
	}
	return (p.Kind == router.Tx || p.Tag == router.PrepareTransaction) && s.settings.touched()
}

// foreseenBehind is f behind p, which is nil as long as nothing changes what names mean.
func (s *session) foreseenBehind(f *foreseen, p *router.Plan) *foreseen {
	if f == nil && s.restates(p) {
		f = s.foresee()
	}
	if f != nil {
		f.follow(p)
	}
	return f
}

// restated refuses a query string in which that makes a difference. What it executes is looked at by rewritten.take.
func (s *session) restated(statements []router.Statement, text []byte) error {
	var f *foreseen
	if s.batch.sent {
		f = s.after.foreseen.copy()
	}
	code := s.follows()
	for _, st := range statements {
		if err := code.next(st.Plan); err != nil {
			return err
		}
		if err := s.sameAhead(f, st.Plan, "query string", func(rt *router.Router, v *router.Session) *router.Plan {
			if other := rt.Plan(&router.Scratch{}, v, text[st.Start:st.End]); len(other) == 1 {
				return other[0].Plan
			}
			return nil
		}); err != nil {
			return err
		}
		f = s.foreseenBehind(f, st.Plan)
	}
	return nil
}

func (f *foreseen) copy() *foreseen {
	if f == nil {
		return nil
	}
	other := &foreseen{whole: f.whole}
	for _, x := range f.states {
		other.states = append(other.states, x.ahead())
	}
	return other
}

// restatedBy refuses a bound statement, planned as p, in whose batch that makes a difference. executed is the EXECUTE that stands for it.
func (s *session) restatedBy(st *statement, p *router.Plan, executed *router.Prepared) error {
	f := s.after.foreseen
	if f == nil {
		return nil
	}
	values, formats := make([][]byte, len(s.values)), slices.Clone(s.formats)
	for i, v := range s.values {
		values[i] = slices.Clone(v) // the message may move
	}
	known := executed == nil && !st.template.Fixed() // the values are those of this statement
	return s.sameAhead(f, p, "batch", func(rt *router.Router, v *router.Session) *router.Plan {
		switch t := rt.Template(&router.Scratch{}, v, st.sql, st.oids); {
		case executed != nil:
			return t.Execute(executed)
		case t.Fixed() || !known:
			return t.Generic()
		default:
			return t.Bind(values, formats)
		}
	})
}

// sameAhead refuses what has the plan p under the session's settings if it runs otherwise under those foreseen.
func (s *session) sameAhead(f *foreseen, p *router.Plan, of string, plan func(*router.Router, *router.Session) *router.Plan) error {
	var views []*router.Session
	if f != nil && p.Kind != router.Refuse && (s.p.names() || p.Kind == router.ViewScan) {
		for _, x := range f.states {
			if v, err := s.viewOf(x); err == nil && v.Key() != s.view.Key() { // what cannot be read is refused elsewhere
				views = append(views, v)
			}
		}
	}
	if len(views) == 0 {
		return nil
	}
	same := false
	s.Task.Await(func() { // it may have to be parsed
		rt := s.p.router.Load()
		same = !slices.ContainsFunc(views, func(v *router.Session) bool {
			q := plan(rt, v)
			return q == nil || !p.Covers(q, !s.p.copies) || !reflect.DeepEqual(p.Scan, q.Scan) || !reflect.DeepEqual(p.Copy, q.Copy)
		})
	})
	if same {
		return nil
	}
	e := wire.Errorf(wire.FeatureNotSupported, "a statement names what an earlier one of its %s gives another meaning", of).
		WithDetail("It changes search_path or the role, and the statement would run elsewhere under the new value than under the old one.")
	if of == "batch" {
		return e.WithHint("Send a Sync between them.")
	}
	return e.WithHint("Send them one by one.")
}

package proxy

import (
	"slices"

	"github.com/tidemarkdb/tidemark/internal/wire"
	"github.com/tidemarkdb/tidemark/router"
)

// A query string is planned under the settings that its session has when it comes. Where it changes those by which names are looked up,
// what stands behind the change may mean something else, on other shards.

// restated refuses a query string in which that makes a difference.
func (s *session) restated(statements []router.Statement, text []byte) error {
	var views []*router.Session
	for _, st := range statements {
		if len(views) > 0 && !s.meansTheSame(st.Plan, views, func(rt *router.Router, v *router.Session) *router.Plan {
			if other := rt.Plan(&router.Scratch{}, v, text[st.Start:st.End]); len(other) == 1 {
				return other[0].Plan
			}
			return nil
		}) {
			return errRestated("query string").WithHint("Send them one by one.")
		}
		for c := st.Plan.Setting; c != nil; c = c.Next {
			views = s.viewsBehind(views, c)
		}
	}
	return nil
}

// restatedBy refuses a statement of a batch behind what changes its meaning: the change is not answered yet, so that the session
// still has the settings of before.
func (s *session) restatedBy(st *statement, p *router.Plan) error {
	a := &s.after
	if len(a.changes) == 0 && (a.tx == nil || !s.settings.touched()) {
		return nil
	}
	var views []*router.Session
	for _, c := range a.changes {
		views = s.viewsBehind(views, c)
	}
	if a.tx != nil { // it may end the transaction that has changed them, or go back in it
		for _, x := range s.settings.log {
			views = s.viewsBehind(views, &router.SettingChange{Name: x.name, Op: router.SetOp, Values: []string{x.value}, Function: true})
			back := router.SettingChange{Name: x.name, Op: router.ResetOp, Function: true}
			if v, ok := s.settings.base[x.name]; ok {
				back.Op, back.Values = router.SetOp, []string{v}
			}
			views = s.viewsBehind(views, &back)
		}
	}
	if s.meansTheSame(p, views, func(rt *router.Router, v *router.Session) *router.Plan {
		return rt.Template(&router.Scratch{}, v, st.sql, st.oids).Generic()
	}) {
		return nil
	}
	return errRestated("batch").WithHint("Send a Sync between them.")
}

func errRestated(of string) *wire.Error {
	return wire.Errorf(wire.FeatureNotSupported, "a statement names what an earlier one of its %s gives another meaning", of).
		WithDetail("It changes search_path or the role, and the statement would run elsewhere under the new value than under the old one.")
}

// viewsBehind appends the view that the session has behind a change, if names mean something else in it. A statement may run under
// any of these, and under the session's: a transaction may bring them back.
func (s *session) viewsBehind(views []*router.Session, c *router.SettingChange) []*router.Session {
	if len(s.p.shards) == 1 && len(s.p.views) == 0 || !alters(c) ||
		c.Op != router.ResetAll && c.Name != "search_path" && c.Name != "role" && c.Name != "session_authorization" {
		return views
	}
	if v, err := s.viewWith(c); err == nil && v.Key() != s.view.Key() { // what cannot be read is refused elsewhere
		views = append(views, v)
	}
	return views
}

// meansTheSame says whether what has the plan p under the session's view runs in the same way under the others.
func (s *session) meansTheSame(p *router.Plan, views []*router.Session, plan func(*router.Router, *router.Session) *router.Plan) (same bool) {
	if len(views) == 0 {
		return true
	}
	s.Task.Await(func() { // it may have to be parsed
		rt := s.p.router.Load()
		same = !slices.ContainsFunc(views, func(v *router.Session) bool {
			q := plan(rt, v)
			return q == nil || !p.Covers(q, !s.p.copies)
		})
	})
	return same
}

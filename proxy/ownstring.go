package proxy

import (
	"slices"

	"github.com/tidemarkdb/tidemark/internal/engine"
	"github.com/tidemarkdb/tidemark/internal/wire"
	"github.com/tidemarkdb/tidemark/router"
)

// SET, RESET and SHOW of Tidemark's own settings in a query string with statements for servers. Those are one transaction and
// go in one message, in which blanks take the own ones' place. What comes first is done before anything is sent, so that it
// counts for what follows; what is in between when the server has come so far; what is last behind the end, so that the
// token has the mark of what the string wrote. A string with a wrong one is refused whole.

// ownStep is one of them, behind so many statements for servers, or behind all.
type ownStep struct {
	behind int
	last   bool
	plan   *router.Plan
}

func isOwnSetting(p *router.Plan) bool {
	return p.Kind == router.Setting && p.Setting.Own
}

// withoutOwn takes them out of the string of the Query of n bytes at the start of Input, does the first, and keeps the rest in
// s.owns. It returns the statements that are left.
func (s *session) withoutOwn(statements []router.Statement, n int) ([]router.Statement, error) {
	if i := slices.IndexFunc(statements, func(st router.Statement) bool { return st.Plan.Kind == router.Refuse }); i >= 0 {
		return statements[i : i+1], nil
	}
	rest := make([]router.Statement, 0, len(statements))
	var first, owns []ownStep
	behind := 0
	for _, st := range statements {
		switch {
		case !isOwnSetting(st.Plan):
			rest = append(rest, st)
			if st.Plan.Kind != router.Nothing {
				behind++
			}
			continue
		case behind == 0:
			first = append(first, ownStep{plan: st.Plan})
		default:
			owns = append(owns, ownStep{behind: behind, plan: st.Plan})
		}
		if err := s.own.check(s, st.Plan.Setting); err != nil {
			return nil, err
		}
	}
	for i := range owns {
		owns[i].last = owns[i].behind == behind
	}
	for _, st := range rest {
		if len(owns) > 0 && wide(st.Plan) && !owns[0].last {
			return nil, wire.Errorf(wire.FeatureNotSupported, "Tidemark's own settings between statements of several shards are not supported").
				WithHint("Send them before or behind, or in a query string of their own.")
		}
	}
	if err := s.drain(); err != nil {
		return nil, err
	}
	if len(first) > 0 && (s.tx.state == txFailed || s.aborted()) {
		return nil, s.errAborted()
	}
	text := s.Input()[wire.HeaderLen : n-1]
	for _, st := range statements {
		if isOwnSetting(st.Plan) {
			for i := st.Start; i < st.End; i++ {
				text[i] = ' '
			}
		}
	}
	for _, x := range first {
		if err := s.setOwn(x.plan, nil); err != nil {
			return nil, err
		}
	}
	s.owns = owns
	return rest, nil
}

// between has the relay do, while the answer to a string comes, what is not last.
func (s *session) between(r *engine.Reply) {
	if len(s.owns) > 0 && !s.owns[0].last && s.strung != nil {
		r.Between = s.doOwn
	}
}

// doOwn does those that stand behind so many statements, and before any later one.
func (s *session) doOwn(behind int) {
	for len(s.owns) > 0 && s.owns[0].behind <= behind && !s.owns[0].last {
		_ = s.setOwn(s.owns[0].plan, nil) // it was checked before
		s.owns = s.owns[1:]
	}
}

// doLast does the rest, when all else has been done.
func (s *session) doLast() {
	for _, x := range s.owns {
		_ = s.setOwn(x.plan, nil) // it was checked before
	}
	s.owns = nil
}

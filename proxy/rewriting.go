package proxy

import (
	"slices"

	"github.com/tidemarkdb/tidemark/internal/backend"
	"github.com/tidemarkdb/tidemark/internal/engine"
	"github.com/tidemarkdb/tidemark/internal/sql"
	"github.com/tidemarkdb/tidemark/router"
)

// What a server is sent in place of a query string that speaks of prepared statements: see rewritten.go.

// preparedStep is one effect on the session's statements of a query string, once its statement number n has completed.
type preparedStep struct {
	n    int        // counted from 0
	st   *statement // PREPARE: to be kept; DEALLOCATE: what the server was given to deallocate
	drop bool       // DEALLOCATE: the session's statement of st's name is to be forgotten
	all  bool       // DEALLOCATE ALL: all are
}

// rewritten is a query string that speaks of prepared statements, or resets settings of the startup message, in the making.
type rewritten struct {
	s     *session
	text  []byte // what the server is sent
	from  int    // how much of the client's text is in it
	names engine.Names
	needs []*statement          // to be prepared before
	seen  map[string]*statement // what names mean by now, where the string has changed that; nil for none
	none  bool                  // ... and others mean nothing: DEALLOCATE ALL
	steps []preparedStep
	// speaks: it is about prepared statements. first: it sets how its transaction runs, for which it is too late behind any query.
	speaks, first bool

	ran    int   // statements in text so far
	unseen []int // ... that are the proxy's own
}

// take reads one statement of the string, before which the settings are those of f, and puts the server's name into its text.
func (q *rewritten) take(i int, st router.Statement, text []byte, f *foreseen) (*router.Plan, error) {
	s, x := q.s, st.Plan.Prepared
	from, to, err := nameIn(text[st.Start:st.End], x)
	if err != nil {
		return nil, err
	}
	at := st.Start + from
	known, changed := q.seen[x.Name]
	if !changed && !q.none {
		known = s.stmts[x.Name]
	}
	here := s.hereOnly(st.Plan.Command)
	switch x.Op {
	case router.PrepareOp:
		if known != nil { // the server says so, when it comes to it
			taken := known
			if !changed {
				taken = &statement{name: x.Name, sql: []byte("SELECT"), id: s.p.statements.fresh()}
				q.needs = append(q.needs, taken)
			}
			q.name(text, at, st.Start+to, taken.id, x.Name)
			return here, nil
		}
		made, err := s.prepareText(text[st.Start:st.End], 0, st.End-st.Start, to, x)
		if err != nil {
			return nil, err
		}
		s.template(made)
		g := made.template.Generic()
		if g.Kind == router.Refuse {
			return nil, refusal(g.Refusal)
		}
		if err := s.sameAhead(f, g, "query string", func(rt *router.Router, v *router.Session) *router.Plan {
			return rt.Template(&router.Scratch{}, v, made.sql, made.oids).Generic()
		}); err != nil {
			return nil, err
		}
		made.id = s.p.statements.fresh() // the server prepares it, under a name of its own
		made.ahead = engine.Characters(string(text[:st.Start]))
		q.seen[x.Name] = made
		q.steps = append(q.steps, preparedStep{n: i, st: made})
		q.name(text, at, st.Start+to, made.id, x.Name)
		if len(g.Shards) > 0 && g.Kind != router.Scatter {
			here.Shards, here.Kind = g.Shards, router.AnyShard
		}
		here.ByPath = g.ByPath
		return here, nil
	case router.DeallocateOp:
		if known == nil {
			q.missing(text, at, st.Start+to, x.Name)
			return here, nil
		}
		drop := known
		if !changed {
			drop = &statement{name: x.Name, sql: []byte("SELECT"), id: s.p.statements.fresh()}
			q.needs = append(q.needs, drop)
		}
		q.seen[x.Name] = nil
		q.steps = append(q.steps, preparedStep{n: i, st: drop, drop: true})
		q.name(text, at, st.Start+to, drop.id, x.Name)
		return here, nil
	}
	if known == nil {
		q.missing(text, at, st.Start+to, x.Name)
		return here, nil
	}
	s.template(known)
	p := known.template.Execute(x)
	if err := s.sameAhead(f, p, "query string", func(rt *router.Router, v *router.Session) *router.Plan {
		return rt.Template(&router.Scratch{}, v, known.sql, known.oids).Execute(x)
	}); err != nil || p.Kind == router.Refuse {
		return p, err
	}
	if !changed {
		q.needs = append(q.needs, known)
		q.names.Executed = append(q.names.Executed, executedBy(i, known, x.Args))
	}
	q.name(text, at, st.Start+to, known.id, x.Name)
	return p, nil
}

// executedBy is how errors of what statement number n of a text executes are told. PostgreSQL does not look at the values given for a
// statement without parameters.
func executedBy(n int, target *statement, args []router.Arg) engine.Executed {
	x := engine.Executed{Statement: n, Names: namesOf(target)}
	switch {
	case target.template.TextParams() == 0:
	case slices.ContainsFunc(args, func(a router.Arg) bool { return !a.Plain }):
		x.Args = engine.Expressions
	default:
		x.Args = engine.Constants
	}
	return x
}

// discard takes a DEALLOCATE ALL, or a DISCARD ALL, which fails in a string of several.
func (q *rewritten) discard(i int, p *router.Plan) *router.Plan {
	clear(q.seen)
	q.none = true
	q.steps = append(q.steps, preparedStep{n: i, all: true})
	here := *p
	here.Flags &^= router.Discards
	return &here
}

// hereOnly is the plan of what only speaks of the session's statements: wherever it is now.
func (s *session) hereOnly(c sql.Command) *router.Plan {
	return &router.Plan{Kind: router.AnyShard, Command: c, Flags: router.Here, Shards: s.p.defaultShard, Reason: "prepared statements of the session"}
}

// name copies the client's text up to a name at text[from:to] and puts the server's for it.
func (q *rewritten) name(text []byte, from, to int, id uint64, client string) {
	q.text = append(q.text, text[q.from:from]...)
	name := backend.StatementName(id)
	q.text = append(q.text, name...)
	q.from = to
	q.names.Of[name] = client
	q.names.Shifts = append(q.names.Shifts, engine.Shift{
		At: engine.Characters(string(q.text)) + 1,
		By: engine.Characters(string(text[:to])) - engine.Characters(string(q.text)),
	})
}

// insert puts a statement of the proxy's own behind text[:at].
func (q *rewritten) insert(text []byte, at int, own string) {
	q.text = append(q.text, text[q.from:at]...)
	q.text = append(append(q.text, "\n;"...), own...)
	q.from = at
	q.unseen = append(q.unseen, q.ran)
	q.ran++
	q.names.Shifts = append(q.names.Shifts, engine.Shift{
		At: engine.Characters(string(q.text)) + 1,
		By: engine.Characters(string(text[:at])) - engine.Characters(string(q.text)),
	})
}

// missing puts a name that no statement has: the server says so, when it comes to it. The client's name may be one that
// showPrepared has left there.
func (q *rewritten) missing(text []byte, from, to int, client string) {
	q.name(text, from, to, q.s.p.statements.fresh(), client)
}

package proxy

import (
	"fmt"
	"slices"

	"github.com/tidemarkdb/tidemark/internal/sql"
	"github.com/tidemarkdb/tidemark/internal/wire"
	"github.com/tidemarkdb/tidemark/router"
)

// together is the plan for several statements in one query string. They are one implicit transaction, so all must run
// in one place, forwarded as one message; what they are is the sum of what each is.
func (s *session) together(statements []router.Statement) *router.Plan {
	var whole *router.Plan
	free := true // whichever shard runs them makes no difference, so far
	s.strung = &queryString{}
	for _, st := range statements {
		p, err := s.ofHolder(st.Plan)
		switch {
		case err != nil:
			return s.refusedIn(statements, refusedBy(err))
		case p.Kind == router.Refuse:
			return s.refusedIn(statements, p.Refusal)
		case s.checkMode(p) != nil:
			return s.refusedIn(statements, refusedBy(s.errStatementMode()))
		case p.Kind == router.Nothing:
			continue
		case whole == nil:
			copied := *s.p.onDefault(p)
			whole, free = &copied, free && anyShard(p)
			s.strung.add(p)
			continue
		case p.Command == sql.CopyFrom:
			whole.Command = p.Command // of all, that is what the client has to do something about
		}
		s.strung.add(p)
		if !s.join(whole, s.p.onDefault(p), free) {
			return s.refusedIn(statements, &router.Refusal{
				Code:    wire.FeatureNotSupported,
				Message: "these statements cannot run together in one query string",
				Detail:  fmt.Sprintf("They are one implicit transaction, but one needs %s and another needs %s.", s.p.whereOf(whole), s.p.whereOf(p)),
				Hint:    "Send them one by one.",
			})
		}
		free = free && anyShard(p)
	}
	if whole == nil {
		return statements[0].Plan
	}
	if s.tx.state != txNone && whole.Has(router.ShowsPrepared) && slices.ContainsFunc(statements, func(st router.Statement) bool { return setsTransaction(st.Plan) }) {
		return s.refusedIn(statements, &router.Refusal{
			Code:    wire.FeatureNotSupported,
			Message: "pg_prepared_statements cannot be shown by a query string that also sets how its transaction runs",
			Detail:  "What the client has prepared is prepared there ahead of the string, behind which it is too late for that.",
			Hint:    "Send them one by one.",
		})
	}
	if free && s.tx.state == txOpen && s.link != nil {
		whole.Shards = []int{s.p.number(s.link.Shard)}
	}
	if whole.Kind == router.Tx { // BEGIN; …; COMMIT in one string: the server follows it, settle reads the status
		whole.Kind, whole.Tx = router.AnyShard, nil
	}
	if whole.Kind == router.Setting && len(s.strung.changes) > 0 {
		whole.Kind, whole.Setting = router.AnyShard, nil
	}
	return whole
}

// refusedIn refuses the statements, but in a transaction that has failed with the error that all get there, unless the first ends it.
// What cannot be read is told before that.
func (s *session) refusedIn(statements []router.Statement, r *router.Refusal) *router.Plan {
	if !r.Unread && (s.tx.state == txFailed || s.aborted()) && !runsAborted(statements[0].Plan) {
		r = refusedBy(s.errAborted())
	}
	refused := &router.Plan{Kind: router.Refuse, Refusal: r}
	if len(statements) == 1 {
		refused.Command = statements[0].Plan.Command
	}
	return refused
}

// refusedBy is an error for the client as a plan has it.
func refusedBy(e *wire.Error) *router.Refusal {
	return &router.Refusal{Code: e.Code, Message: e.Message, Detail: e.Detail, Hint: e.Hint}
}

// setsTransaction says whether a statement chooses what its transaction is like, which must come before any query.
func setsTransaction(p *router.Plan) bool {
	for c := p.Setting; c != nil; c = c.Next {
		if c.Name == "transaction_isolation" || c.Name == "transaction_read_only" || c.Name == "transaction_deferrable" {
			return true
		}
	}
	if p.Kind != router.Tx {
		return false
	}
	c := p.Tx
	return c.Op == router.SetTransaction || c.Op == router.Begin && (c.Isolation != "" || c.ReadOnly != router.Unset || c.Deferrable != router.Unset)
}

// queryString is a query string of several statements.
type queryString struct {
	n       int    // statements, empty ones left out
	ends    bool   // it ends a transaction
	looks   bool   // something takes a snapshot, behind that if it ends one
	primary bool   // something is for the primary, or behind that may write
	pins    string // why it pins the session, by the first statement that does
	changes []*router.SettingChange
	steps   []step
	ahead   []*statement // to be prepared before its transaction begins
}

// step is what statement number n of a query string, counted from 0, does to settings, channels or transactions.
type step struct {
	n    int
	plan *router.Plan
}

// add counts a statement, and keeps what it does to the session's settings and channels.
func (q *queryString) add(p *router.Plan) {
	if c := p.Setting; c != nil && !c.Own && alters(c) {
		for ; c != nil; c = c.Next {
			q.changes = append(q.changes, c)
		}
		q.steps = append(q.steps, step{q.n, p})
	} else if p.Kind == router.Tx || p.Has(router.Listens) {
		q.steps = append(q.steps, step{q.n, p})
	}
	if q.pins == "" && p.Has(router.Pin) {
		q.pins = pinned(p)
	}
	if p.Kind == router.Tx && p.Tx.Ends() {
		q.ends, q.looks = true, false
	} else {
		q.looks = q.looks || looks(p.Command)
		q.primary = q.primary || p.OnPrimary() || q.ends && (p.Kind == router.Route || p.Kind == router.AnyShard || p.Kind == router.Broadcast) && p.Access == router.Write
	}
	q.n++
}

// transacts says whether some step begins, ends or divides a transaction.
func transacts(steps []step) bool {
	return slices.ContainsFunc(steps, func(x step) bool { return x.plan.Kind == router.Tx })
}

// join makes the plan a of some statements one for those and b; false when they cannot run in one place. free: any shard would do for a.
func (s *session) join(a, b *router.Plan, free bool) bool {
	if !forwarded(a) || !forwarded(b) {
		return a.Kind == router.Broadcast && b.Kind == router.Broadcast && (a.Flags|b.Flags)&router.NoTx == 0
	}
	shards := slices.DeleteFunc(slices.Clone(a.Shards), func(i int) bool { return !slices.Contains(b.Shards, i) })
	switch {
	case len(shards) > 0:
	case free:
		shards = b.Shards
	case anyShard(b):
		shards = a.Shards
	default:
		return false
	}
	a.Shards = shards
	neutral := a.Flags & b.Flags & router.Neutral
	here := (a.Flags | b.Flags) & router.Here
	if !free && !a.Has(router.Here) || !anyShard(b) && !b.Has(router.Here) { // it is not for wherever the session is
		here = 0
	}
	a.Flags = (a.Flags|b.Flags)&^(router.Neutral|router.Here) | neutral | here
	a.Settings = slices.Concat(a.Settings, b.Settings)
	if b.Access == router.Write {
		a.Access = router.Write
	}
	if b.Kind == router.Route || a.Kind == router.Tx || a.Kind == router.Setting {
		a.Kind, a.Setting, a.Tx = b.Kind, b.Setting, b.Tx
	}
	return true
}

// anywhere says that it makes no difference which shard runs the plan.
func anywhere(p *router.Plan) bool {
	return p.Has(router.Neutral) || p.Kind == router.Tx || p.Kind == router.Setting
}

// anyShard says that also of what a query string says of the session's prepared statements: any shard has them.
func anyShard(p *router.Plan) bool {
	return anywhere(p) || p.Has(router.Here) && (p.Command == sql.Prepare || p.Command == sql.Deallocate)
}

// forwarded says whether the plan sends the client's own text to one shard.
func forwarded(p *router.Plan) bool {
	switch p.Kind {
	case router.Route, router.AnyShard, router.Tx:
		return true
	case router.Setting:
		return !p.Setting.Own
	case router.Broadcast, router.Scatter, router.CopyIn:
		return len(p.Shards) == 1
	}
	return false
}

// wide says whether the plan runs on several shards.
func wide(p *router.Plan) bool {
	switch p.Kind {
	case router.Broadcast, router.Scatter, router.CopyIn:
		return len(p.Shards) > 1
	}
	return false
}

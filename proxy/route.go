package proxy

import (
	"fmt"
	"slices"
	"strings"

	"github.com/tidemarkdb/tidemark/internal/backend"
	"github.com/tidemarkdb/tidemark/internal/engine"
	"github.com/tidemarkdb/tidemark/internal/wire"
	"github.com/tidemarkdb/tidemark/router"
)

// route remembers where the last statement went, for SHOW tidemark.route.
type route struct {
	plan  *router.Plan
	where []*backend.Endpoint // in order of use
}

// note begins the route of a new statement; asking for the route does not count.
func (s *session) note(p *router.Plan) {
	s.p.stats.plans[p.Kind].Add(1)
	if s.traced != nil {
		s.traced.planned(p)
	}
	if p.Kind == router.Setting && p.Setting.Own {
		return
	}
	s.last.plan = p
	s.last.where = s.last.where[:0]
	if s.link != nil {
		s.last.conn(s.link)
	}
}

// conn adds the server that a link leads to.
func (r *route) conn(l *engine.Link) {
	e := l.Conn.Endpoint()
	if !slices.Contains(r.where, e) {
		r.where = append(r.where, e)
	}
}

// String is one line: the kind of plan, the servers, and why.
func (r *route) String() string {
	if r.plan == nil {
		return "no statement yet"
	}
	s := strings.ToLower(r.plan.Kind.String())
	switch {
	case r.plan.Kind == router.ViewScan:
		s += " " + r.plan.Scan.View
	default:
		for i, e := range r.where {
			if i > 0 {
				s += ","
			}
			s += fmt.Sprintf(" %s %s %s", e.Shard().Name(), e.Role(), e.Name())
		}
	}
	if r.plan.Reason != "" {
		s += ": " + r.plan.Reason
	}
	return s
}

// notice tells the client where its statement goes, when it has asked for that.
func (s *session) notice() {
	if s.own.notice {
		s.replyInOrder(wire.AppendNoticeResponse(nil, wire.Noticef(wire.SeverityNotice, wire.SuccessfulCompletion, "route: %s", s.last.String())))
	}
}

// whereOf says in words where a plan runs.
func (p *Proxy) whereOf(x *router.Plan) string {
	switch {
	case x.Kind == router.ViewScan:
		return "a read model"
	case x.Kind == router.Setting && x.Setting.Own:
		return "Tidemark itself"
	case len(x.Shards) == 1:
		return "shard " + p.shard(x, 0)
	case len(x.Shards) > 1 && wide(x):
		return "several shards"
	}
	return "any shard"
}

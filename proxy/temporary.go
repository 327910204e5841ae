package proxy

import (
	"strconv"
	"strings"

	"github.com/tidemarkdb/tidemark/internal/backend"
	"github.com/tidemarkdb/tidemark/internal/engine"
	"github.com/tidemarkdb/tidemark/internal/wire"
	"github.com/tidemarkdb/tidemark/router"
)

// Temporary tables live on the default shard, and hide others of their names. DDL without a schema before its names goes to every
// shard unless it is about some of the session's own: the connection that has them is asked.

// maybeTemporary says whether the plan may be about temporary tables of the session: also while a link has not been judged yet, for
// code may have made some there. What is owed has to come first.
func (s *session) maybeTemporary(p *router.Plan) bool {
	return len(p.Bare) > 0 && wide(p) && (s.link != nil || s.pinnedAtHome() != nil)
}

// pinnedAtHome is the connection of the default shard that the session is pinned to, or nil.
func (s *session) pinnedAtHome() *engine.Link {
	return s.pins[s.p.shardMap.Shards()[s.p.defaultShard[0]].Name]
}

// asTemporary is the plan for the default shard alone if all that p names is temporary there. It asks; the link is idle.
func (s *session) asTemporary(p *router.Plan) (*router.Plan, error) {
	l := s.pinnedAtHome()
	if l == nil || s.link != nil && s.link != l || s.tx.state == txFailed || s.aborted() {
		return p, nil // which is refused
	}
	if s.link == nil {
		if _, err := s.acquire(l.Shard, backend.Write); err != nil {
			return nil, err
		}
	}
	names := make([]string, len(p.Bare))
	for i, n := range p.Bare {
		names[i] = "pg_catalog.to_regclass(" + quoteLiteral(quoteName(n)) + ")"
	}
	// Which of two relations of a name it is depends on where the search_path has pg_temp.
	reply, err := s.Ask(l, "SELECT pg_catalog.count(*) FROM pg_catalog.unnest(ARRAY["+strings.Join(names, ", ")+"]) name JOIN pg_catalog.pg_class c ON c.oid = name"+
		" WHERE relnamespace = pg_catalog.pg_my_temp_schema()", engine.MuteAll)
	if err != nil {
		return nil, err
	}
	row := wire.DataRow(reply.Row)
	if !row.Next() {
		return nil, wire.Errorf(wire.InternalError, "no answer about temporary tables")
	}
	switch n := string(row.Value()); n {
	case "0":
		return p, s.settle() // which gives the link back, so that all shards can be used
	case strconv.Itoa(len(names)):
		if p.Refusal != nil {
			return nil, refusal(p.Refusal)
		}
		here := *p
		here.Kind, here.Flags, here.Shards, here.Bare = router.Route, p.Flags&^router.Schema, s.p.defaultShard, nil
		return &here, nil
	}
	return nil, wire.Errorf(wire.FeatureNotSupported, "temporary tables and others in one statement are not supported").
		WithDetail("%s names some of both; temporary ones live on the default shard, others may live on several.", called(p)).
		WithHint("Use a statement for each, and CREATE TEMP VIEW for a view.")
}

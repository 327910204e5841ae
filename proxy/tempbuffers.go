package proxy

import (
	"errors"
	"slices"
	"strings"

	"github.com/tidemarkdb/tidemark/internal/backend"
	"github.com/tidemarkdb/tidemark/internal/engine"
	"github.com/tidemarkdb/tidemark/internal/wire"
	"github.com/tidemarkdb/tidemark/router"
)

// A server process makes room for the blocks of temporary tables when it first uses one, and neither temp_buffers nor the room can be
// changed from then on, not even by DISCARD ALL. So a session that sets temp_buffers gets connections on which nobody has used temporary
// tables, and nobody gets one on which it has.

const tempBuffers = "temp_buffers"

// setsTempBuffers says whether the plan, or the query string in hand, does.
func (s *session) setsTempBuffers(p *router.Plan) bool {
	for c := p.Setting; c != nil; c = c.Next {
		if c.Name == tempBuffers && alters(c) {
			return true
		}
	}
	return s.strung != nil && slices.ContainsFunc(s.strung.changes, func(c *router.SettingChange) bool { return c.Name == tempBuffers })
}

// reachUnused is reach for a connection on which nobody has used temporary tables, unless the session is pinned to one.
func (s *session) reachUnused(shard string, access backend.Access) (*engine.Link, error) {
	for {
		l, err := s.reach(shard, access)
		if err != nil || s.hasPinned(l) {
			return l, err
		}
		reply, err := s.Ask(l, "SELECT pg_catalog.pg_my_temp_schema() OPERATOR(pg_catalog.=) 0", engine.MuteAll)
		if l.Err != nil {
			return l, nil // a connection that is lost tells itself to whoever uses it next
		}
		if err != nil {
			return l, err
		}
		row := wire.DataRow(reply.Row)
		if !row.Next() || string(row.Value()) == "t" {
			return l, nil
		}
		l.Conn.Spoilt = true
		s.release()
	}
}

// usedTemporary says whether the session's settings could not be made on the connection because of temporary tables.
func (s *session) usedTemporary(l *engine.Link, err error) bool {
	var e *wire.Error
	return !s.hasPinned(l) && errors.As(err, &e) && e.Code == wire.InvalidParameterValue && strings.Contains(e.Detail, tempBuffers)
}

// sizesTemporary says whether the session has set temp_buffers.
func (s *session) sizesTemporary() bool {
	_, ok := s.settings.value(tempBuffers)
	return ok
}

package proxy

import (
	"bytes"
	"slices"
	"strings"

	"github.com/tidemarkdb/tidemark/internal/engine"
	"github.com/tidemarkdb/tidemark/internal/wire"
)

// PostgreSQL finds the types of a statement's parameters when it prepares it, from what names mean then, and keeps them: a session that
// changes its search_path uses the same names for other tables, and the same types. So the server that a named statement gets to
// first is asked for them, and others, to which it gets under another search_path or role, are told.

// typesOf are the types of parameters that a server is told with the statement's text.
func (s *session) typesOf(st *statement) []uint32 {
	x := st.shared
	if x == nil || x.key != "" && s.meansTheSame(x) {
		return st.oids
	}
	if types := x.inferred.Load(); types != nil {
		return *types
	}
	return st.oids
}

// meansTheSame says whether a server finds the same types for a statement as when it was first prepared, or such as are to be found anew.
func (s *session) meansTheSame(x *shared) bool {
	return x.schema != s.p.statements.schemas.Load() || strings.HasPrefix(x.key, s.viewAhead().Key()+"\x00")
}

// infer asks for the types, unseen, behind the Parse that gives the link's connection the statement, the first time.
func (s *session) infer(l *engine.Link, st *statement, name string) {
	x := st.shared
	if x == nil || x.key == "" || !st.infers() || x.inferred.Load() != nil || !s.meansTheSame(x) {
		return
	}
	reply := &engine.Reply{}
	l.SetOut(wire.AppendDescribe(l.Out(), wire.KindStatement, name))
	l.Expect(engine.Expect{Kind: engine.Describe, Mute: engine.MuteDesc, Reply: reply})
	l.Expect(engine.Expect{Kind: engine.Synthetic, Late: func() []byte {
		types, err := wire.AppendParameterOIDs(nil, reply.Row)
		if err == nil && (len(s.p.shards) == 1 || !slices.ContainsFunc(types, ofOneShard)) {
			x.inferred.Store(&types)
		}
		return nil
	}})
}

// infers says whether the statement may have parameters of which the client has not given the type.
func (st *statement) infers() bool {
	if bytes.IndexByte(st.sql, '$') < 0 {
		return false
	}
	return st.template == nil || len(st.oids) < st.template.TextParams() || slices.Contains(st.oids, 0) || slices.Contains(st.oids, unknownOID)
}

// ofOneShard says whether a type is of somebody's making, so that it goes by another number on each shard (FirstNormalObjectId).
func ofOneShard(oid uint32) bool { return oid >= 16384 }

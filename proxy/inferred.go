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
// first is asked for them, and others, to which it gets under another search_path or role, are told. An unnamed one is seldom used for longer
// than its batch: of that all are told what the client has been told.

// typesOf are the types of parameters that a server is told with the statement's text.
func (s *session) typesOf(st *statement) []uint32 {
	x := st.shared
	if x == nil {
		return s.typesTold(st)
	}
	if x.key != "" && s.meansTheSame(x) {
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
		if types, ok := s.described(reply); ok {
			x.inferred.Store(&types)
		}
		return nil
	}})
}

// described are the types in the answer to a Describe, unless they may go by other numbers on other servers.
func (s *session) described(reply *engine.Reply) (types []uint32, ok bool) {
	types, err := wire.AppendParameterOIDs(nil, reply.Row)
	return types, err == nil && (len(s.p.shards) == 1 || !slices.ContainsFunc(types, ofOneShard))
}

// describingTypes is where the answer to the client's Describe of the statement is kept; nil where nothing of it is needed.
func (st *statement) describingTypes() *engine.Reply {
	if st.name != "" || st.described != nil || !st.infers() {
		return st.describing()
	}
	st.described = &engine.Reply{}
	return st.described
}

// typesTold are the types of an unnamed statement as the client knows them.
func (s *session) typesTold(st *statement) []uint32 {
	if r := st.described; st.name == "" && r != nil && r.Done && r.Err == nil {
		if types, ok := s.described(r); ok {
			return types
		}
	}
	return st.oids
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

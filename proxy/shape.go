package proxy

import (
	"encoding/binary"
	"hash/maphash"

	"github.com/tidemarkdb/tidemark/internal/engine"
	"github.com/tidemarkdb/tidemark/internal/sql"
	"github.com/tidemarkdb/tidemark/internal/wire"
)

// A client that executes a named statement without asking what its rows look like reads them by the description that it was given
// before. The connection on which PostgreSQL compares the two (RevalidateCachedQuery) may be another one now, which has never seen
// the statement as it was. So where a statement is prepared anew for such a client, its new description is asked for and compared
// first, and the error is PostgreSQL's own.

// shape is a description's hash, 0 for one that is not known. What of it follows the request (formats) or says only where columns
// come from is no part of it.
type shape uint64

var shapeSeed = maphash.MakeSeed()

func shapeOf(reply *engine.Reply) shape {
	var h maphash.Hash
	h.SetSeed(shapeSeed)
	if reply.Desc != nil {
		fields, err := wire.AppendFields(nil, reply.Desc)
		if err != nil {
			return 0
		}
		var b [8]byte
		for _, f := range fields {
			_, _ = h.Write(f.Name)
			binary.BigEndian.PutUint32(b[:], f.TypeOID)
			binary.BigEndian.PutUint32(b[4:], uint32(f.TypeMod))
			_ = h.WriteByte(0)
			_, _ = h.Write(b[:])
		}
	}
	return max(1, shape(h.Sum64()))
}

// describing is where the answer to the client's first Describe of the statement, or of a portal of it, is kept; nil for later ones.
func (st *statement) describing() *engine.Reply {
	if st.name == "" || st.shape != 0 || st.described != nil {
		return nil
	}
	st.described = &engine.Reply{}
	return st.described
}

// told is the shape that the client has been told, 0 for none.
func (st *statement) told() shape {
	if r := st.described; r != nil && (r.Done || r.Err != nil) {
		if st.described = nil; r.Err == nil {
			st.shape = shapeOf(r)
		}
	}
	return st.shape
}

// analyzed are the statements whose rows PostgreSQL knows when it prepares them. What FETCH gives depends on the cursor that is there.
func analyzed(c sql.Command) bool {
	return c == sql.Select || c == sql.Insert || c == sql.Update || c == sql.Delete || c == sql.Merge
}

// asDescribed prepares the statement on a connection that does not know it, and sees that its rows are what the client takes them
// for. described says whether the client asks in this batch.
func (s *session) asDescribed(l *engine.Link, st *statement, described bool) error {
	if st.name == "" || s.fresh(st) || st.told() == 0 || !analyzed(st.template.Generic().Command) {
		return nil
	}
	if _, known := l.Conn.Statements.Name(st.id); known {
		return nil
	}
	var reply engine.Reply
	name := s.ensure(l, st, engine.MuteAck)
	l.SetOut(wire.AppendDescribe(l.Out(), wire.KindStatement, name))
	l.Expect(engine.Expect{Kind: engine.Describe, Mute: engine.MuteDesc, Statement: st.id, Names: st.names, Reply: &reply})
	s.batch.sent = true
	if goesOn, err := s.caughtUp(); err != nil {
		return err
	} else if !goesOn {
		return errAnswered
	}
	switch now := shapeOf(&reply); {
	case now == st.shape:
		return nil
	case described && s.tx.state == txNone:
		st.shape = now
		return nil
	}
	s.closeUnseen(l, name)
	l.Conn.Statements.Remove(st.id)
	s.p.statements.retire(st.id)
	e := wire.Errorf(wire.FeatureNotSupported, "cached plan must not change result type")
	e.Routine = "RevalidateCachedQuery" // by which drivers know it
	return e
}

// describesPortal says whether the message behind the first n bytes of Input is a Describe of a portal. One that has not come yet does not
// count.
func (s *session) describesPortal(n int) bool {
	b := s.Input()
	return len(b) > n+wire.HeaderLen && b[n] == wire.MsgDescribe && b[n+wire.HeaderLen] == wire.KindPortal
}

package proxy

import (
	"bytes"

	"github.com/tidemarkdb/tidemark/internal/engine"
	"github.com/tidemarkdb/tidemark/internal/wire"
	"github.com/tidemarkdb/tidemark/router"
)

// The unnamed statement. Each Parse replaces it, at once in what the session knows, and on the server if that comes so far.

// maxRecycled bounds the text, in bytes, whose memory is used again.
const maxRecycled = 16 << 10

// recycled is the unnamed statement that m replaces, made the one that m asks for; nil where something may still refer to the old
// one. So a client that parses before each execution takes no memory, and no planning while its text stays the same.
func (s *session) recycled(m *wire.Parse) *statement {
	if len(m.Name) > 0 || s.link != nil || s.tx.state != txNone || s.traced != nil || s.portals.any() ||
		len(s.replaced) > 0 || len(s.batch.held) > 0 || len(s.after.aside) > 0 {
		return nil
	}
	st := s.stmts[""]
	if st == nil || st.needs != nil || cap(st.sql) > maxRecycled {
		return nil
	}
	if st.view == s.view && bytes.Equal(st.sql, m.SQL) && m.HasOIDs(st.oids) {
		*st = statement{sql: st.sql, oids: st.oids, template: st.template, rt: st.rt, view: st.view}
	} else {
		*st = statement{sql: append(st.sql[:0], m.SQL...), oids: m.AppendOIDs(st.oids[:0])}
	}
	return st
}

// dropUnnamed is for a Query, which drops the unnamed statement, whatever becomes of it.
func (s *session) dropUnnamed() {
	if len(s.stmts) == 0 {
		return
	}
	if st := s.stmts[""]; st != nil {
		delete(s.stmts, "")
		s.spare = st
	}
}

// unnamedOf makes the unnamed statement that of a batch of the fast path, of template t. Nothing refers to the one before: all of the
// client's is answered.
func (s *session) unnamedOf(m *wire.Parse, t *router.Template) *statement {
	st := s.stmts[""]
	if st == nil {
		if st = s.spare; st == nil || st.needs != nil || cap(st.sql) > maxRecycled {
			st = &statement{}
		}
		if s.spare = nil; s.stmts == nil {
			s.stmts = map[string]*statement{}
		}
		s.stmts[""] = st
	}
	*st = statement{
		sql: append(st.sql[:0], m.SQL...), oids: m.AppendOIDs(st.oids[:0]),
		template: t, rt: s.p.router.Load(), view: s.view, id: s.p.statements.fresh(), syncs: s.syncs,
	}
	s.replaced = nil
	return st
}

// replaced is the unnamed statement that was there before a Parse; nil for none.
type replaced struct {
	by  uint64 // the id of its successor
	was *statement
}

// maxReplaced bounds how many are kept while nothing of a client's pipeline has been answered.
const maxReplaced = 256

// noteReplaced notes that the unnamed statement has a successor of that id, if that may yet turn out not to have been prepared: PostgreSQL
// skips it after an error, and the one before is still there then.
func (s *session) noteReplaced(by uint64) {
	if l := s.link; l == nil || l.Owed() == 0 {
		if s.replaced = nil; len(s.batch.held) == 0 {
			return
		}
	} else if len(l.Unparsed) > 0 {
		s.unparsed(l)
	}
	if len(s.replaced) == maxReplaced {
		s.replaced = append(s.replaced[:0], s.replaced[1:]...)
	}
	s.replaced = append(s.replaced, replaced{by, s.stmts[""]})
}

// unparsed takes back unnamed statements whose Parse has failed on the link, or was skipped. Those with names are dropped by undo.
func (s *session) unparsed(l *engine.Link) {
	for _, u := range l.Unparsed {
		s.takeBack(u)
	}
	l.Unparsed = nil
}

func (s *session) takeBack(u engine.Unparsed) {
	without := func(st *statement) bool { return st != nil && u.From <= st.id && st.id <= u.To }
	var before *statement
	for i, r := range s.replaced {
		if r.by == u.From && !u.Failed {
			before = r.was
		}
		if without(r.was) && r.by > u.To {
			s.replaced[i].was = before
		}
	}
	switch {
	case !without(s.stmts[""]):
	case before == nil:
		delete(s.stmts, "")
	default:
		s.stmts[""] = before
	}
}

package proxy

import (
	"bytes"
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/tidemarkdb/tidemark/internal/backend"
	"github.com/tidemarkdb/tidemark/internal/engine"
	"github.com/tidemarkdb/tidemark/internal/sql"
	"github.com/tidemarkdb/tidemark/internal/wire"
	"github.com/tidemarkdb/tidemark/router"
)

// Code that runs statements by text (a function's EXECUTE, a DO) may execute, deallocate or prepare statements, by the names that the
// client gives them. So what the client has prepared by SQL's PREPARE is lent to the connection under these names before the
// code runs, and the question behind it (learn.go) tells what the code has made of them. The connection is cleaned when it is given
// back.

// lent is what server connections have been given under the client's own names.
type lent struct {
	ever map[string]bool // names that some connection has been given: one that the session is pinned to may have them yet
	on   *backend.Conn   // which has now; nil: it was given back
	now  map[string]*statement
	gone map[string]*wire.Error // what it could not be given, and why
}

func (s *session) lending() *lent {
	if s.lent == nil {
		s.lent = &lent{ever: map[string]bool{}}
	}
	return s.lent
}

// savepoint protects the client's transaction from a statement that cannot be prepared any more.
const savepoint = "tidemark_prepare"

// lendPrepared gives the link's connection what the client has prepared by SQL's PREPARE and it lacks. What cannot be prepared any
// more it does not get: only code that asks for that shall notice.
func (s *session) lendPrepared(l *engine.Link) error {
	if s.lent == nil && !s.preparesBySQL() {
		return nil
	}
	if !s.batch.sent {
		if err := s.Await(l); err != nil {
			return err
		}
	}
	list := s.toLend(l)
	if s.batch.sent && slices.ContainsFunc(list, func(st *statement) bool { return l.Unsure(st.id) }) { // it may not exist at all
		if err := s.stillGoing(); err != nil {
			return err
		}
		list = s.toLend(l)
	}
	if len(list) == 0 || s.aborted() || l.Err != nil {
		return nil
	}
	l.Conn.Dirty = true
	if s.batch.sent {
		return s.lendAmid(l, list)
	}
	inBlock := l.Conn.TxStatus == wire.TxOpen
	for len(list) > 0 {
		replies := make([]engine.Reply, len(list))
		for i, st := range list {
			if inBlock {
				s.runUnseen(l, "SAVEPOINT "+savepoint, engine.Expect{Kind: engine.Parse, Mute: engine.MuteAll})
			}
			s.runUnseen(l, st.fromSQL, engine.Expect{Kind: engine.Parse, Mute: engine.MuteAll, Reply: &replies[i]})
			if inBlock {
				s.runUnseen(l, "RELEASE "+savepoint, engine.Expect{Kind: engine.Parse, Mute: engine.MuteAll})
			}
			syncUnseen(l)
		}
		l.Skipping = false
		if err := s.Await(l); err != nil || l.Err != nil {
			return err // a connection that is lost tells itself to whoever uses it next
		}
		failed := -1
		for i, st := range list {
			if replies[i].Err == nil {
				s.lent.now[st.name] = st
			} else if failed < 0 {
				failed = i
			}
			if err := replies[i].Err; err != nil && (i == failed || !inBlock) { // others were skipped
				if s.lent.gone[st.name] = err; err.Position > 0 {
					err.Position += st.ahead
				}
			}
		}
		if !inBlock || failed < 0 {
			return nil
		}
		s.queryUnseen(l, "ROLLBACK TO "+savepoint+"; RELEASE "+savepoint, nil)
		list = list[failed+1:]
	}
	return s.Await(l)
}

// lendAmid is that in a batch that has been sent. What it has changed before, search_path for one, counts already, and an error would end it
// where there may be no savepoint, so the statements are prepared by code that catches theirs. Which are there the server tells.
func (s *session) lendAmid(l *engine.Link, list []*statement) error {
	var reply engine.Reply
	s.runUnseen(l, lendSQL(list), engine.Expect{Kind: engine.Parse, Mute: engine.MuteAll &^ engine.MuteError})
	s.runUnseen(l, "SELECT "+preparedSQL, engine.Expect{Kind: engine.Parse, Mute: engine.MuteAll &^ engine.MuteError, Reply: &reply})
	if err := s.stillGoing(); err != nil || l.Err != nil {
		return err
	}
	row := wire.DataRow(reply.Row)
	if !row.Next() {
		return wire.Errorf(wire.InternalError, "no answer about prepared statements")
	}
	found := preparedIn(row.Value())
	for _, st := range list {
		if _, is := found[st.name]; is {
			s.lent.now[st.name] = st
		}
	}
	return nil
}

// lendSQL is a DO that prepares what can be prepared of the list.
func lendSQL(list []*statement) string {
	var code strings.Builder
	code.WriteString("BEGIN")
	for _, st := range list {
		code.WriteString(" BEGIN EXECUTE " + quoteLiteral(st.fromSQL) + "; EXCEPTION WHEN OTHERS THEN NULL; END;")
	}
	code.WriteString(" END")
	return "DO LANGUAGE plpgsql " + quoteLiteral(code.String())
}

// names are those by which errors of code on the link are told that may execute what it could not be given: PostgreSQL says then why.
func (x *lent) names(n *engine.Names) *engine.Names {
	if x == nil || len(x.gone) == 0 {
		return n
	}
	told := &engine.Names{}
	if n != nil {
		*told = *n
	}
	gone := maps.Clone(x.gone)
	told.Retell = func(e *wire.Error) {
		for name, why := range gone {
			if e.Code == wire.InvalidSQLStatementName && e.Message == errNoStatement(name).Message {
				executedBut(e, why)
			}
		}
	}
	return told
}

// executedBut makes the error of code that executes a statement which is not there one of why it cannot be prepared any more.
func executedBut(e, why *wire.Error) {
	const before, behind = `SQL statement "`, `"`
	first, rest, _ := strings.Cut(e.Where, "\n")
	text, ok := strings.CutSuffix(strings.TrimPrefix(first, before), behind)
	if word := sql.FirstWord([]byte(text)); !ok || word != "execute" && word != "explain" {
		return
	}
	e.Code, e.Message, e.Detail, e.Hint, e.Routine = why.Code, why.Message, why.Detail, why.Hint, why.Routine
	if why.Position > 0 {
		e.InternalPosition, e.InternalQuery, e.Where = why.Position, text, rest
	}
}

// preparesBySQL says whether the client has prepared anything by SQL's PREPARE.
func (s *session) preparesBySQL() bool {
	for _, st := range s.stmts {
		if st.fromSQL != "" {
			return true
		}
	}
	return false
}

// toLend are the statements that the link's connection lacks, in the order in which the client has prepared them. What it has under
// names that mean something else by now, or nothing, is closed.
func (s *session) toLend(l *engine.Link) (list []*statement) {
	for _, st := range s.stmts {
		if st.fromSQL == "" {
			continue
		}
		if s.template(st); st.template.Generic().Kind != router.ViewScan { // which no server could prepare
			list = append(list, st)
		}
	}
	x := s.lending()
	if x.on != l.Conn {
		for _, name := range slices.Sorted(maps.Keys(x.ever)) { // where they are not, closing them does nothing
			s.closeUnlessSkipped(l, name, func() { x.on = nil })
		}
		x.on, x.now = l.Conn, map[string]*statement{}
	}
	now := x.now
	for name, st := range now {
		if s.stmts[name] != st {
			s.closeUnlessSkipped(l, name, func() { now[name] = st })
			delete(now, name)
		}
	}
	x.gone = map[string]*wire.Error{}
	list = slices.DeleteFunc(list, func(st *statement) bool { return x.now[st.name] == st })
	slices.SortFunc(list, func(a, b *statement) int { return cmp.Compare(a.order, b.order) })
	for _, st := range list {
		if x.ever[st.name] { // it has what code has made of that, if the session is pinned to it
			s.closeUnseen(l, st.name)
		}
		x.ever[st.name] = true
	}
	return list
}

// takenBack notes that no connection has the client's statements under their own names any more, for all that is known.
func (s *session) takenBack() {
	if s.lent != nil {
		s.lent.on, s.lent.gone = nil, nil
	}
}

// preparedSQL is a query for what a connection has prepared by SQL, but for the proxy's own: one value, as settingsSQL's.
const preparedSQL = "(SELECT pg_catalog.string_agg(name || chr(31) || statement, chr(30)) FROM pg_catalog.pg_prepared_statements" +
	" WHERE from_sql AND name !~ '^" + backend.StatementPrefix + "')"

// preparedIn are the texts in an answer to preparedSQL, by name.
func preparedIn(answer []byte) map[string][]byte {
	found := map[string][]byte{}
	for record := range bytes.SplitSeq(answer, []byte{recordSeparator}) {
		if name, text, ok := bytes.Cut(record, []byte{unitSeparator}); ok {
			found[string(name)] = text
		}
	}
	return found
}

// learnPrepared takes over what code has done to the client's statements, from the answer to preparedSQL.
func (s *session) learnPrepared(l *engine.Link, answer []byte) {
	var lent map[string]*statement
	if s.lent != nil && s.lent.on == l.Conn {
		lent = s.lent.now
	}
	found := preparedIn(answer)
	for name, st := range lent {
		if text, is := found[name]; is && string(text) == st.fromSQL {
			continue
		}
		if delete(lent, name); s.stmts[name] == st {
			s.forget(name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(found)) {
		stale := s.lent != nil && s.lent.on != l.Conn && s.lent.ever[name] // it was not looked at ahead of the code: see preparedByName
		if lent[name] == nil && s.stmts[name] == nil && !stale {
			s.adopt(name, found[name])
		}
	}
}

// adopt makes the client's own what code has prepared under that name. What is more than the client may have, or what it could not
// have prepared itself, goes with the connection.
func (s *session) adopt(name string, text []byte) {
	scratch := scratches.Get(s.Task)
	defer s.putScratch(scratch)
	for _, x := range s.plan(scratch, text) {
		if x.Plan.Kind != router.OfPrepared || x.Plan.Prepared.Op != router.PrepareOp || x.Plan.Prepared.Name != name {
			continue
		}
		text = text[x.Start:x.End]
		_, to, err := nameIn(text, x.Plan.Prepared)
		if err != nil {
			return
		}
		st, err := s.prepareText(text, 0, len(text), to, x.Plan.Prepared)
		if err != nil {
			return
		}
		if s.template(st); st.template.Generic().Kind != router.Refuse {
			s.keep(st)
			s.lending().ever[name] = true
		}
		return
	}
}

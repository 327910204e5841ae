package proxy

import (
	"slices"

	"github.com/tidemarkdb/tidemark/internal/backend"
	"github.com/tidemarkdb/tidemark/internal/engine"
	"github.com/tidemarkdb/tidemark/internal/sql"
	"github.com/tidemarkdb/tidemark/internal/wire"
	"github.com/tidemarkdb/tidemark/router"
)

// A session is pinned to a server connection while state lives there that cannot be moved: temporary tables, session
// advisory locks, WITH HOLD cursors, a LISTEN that cannot be shared (see listen.go). The statement that makes it shows, unless a function made it; that it is gone
// shows nowhere. So behind a statement that may have done either the server is asked, when the client has its answer:
//
//	the connection is   the server says   then
//	pinned              clean             it is given back, and cleaned there
//	pinned              state             it stays
//	not pinned          clean             it is given back, and cleaned there
//	not pinned          state             it is pinned
//
// What a session loads by LOAD nobody can take away again, nor what some functions keep in the server process (router.Keeps): it
// has its connection until its end, and nobody gets it afterwards. A session in session mode keeps its connections anyway. The
// same question brings what the statement did to the session's settings, see learn.go.

// stateSQL asks whether nothing is left in the connection that would miss its session, and to which channels it listens. As all that is
// asked over a client's connection it finds functions in pg_catalog by name, and operators either by name or by having those types there:
// what the client's search_path leads to would answer otherwise. A client that has put something before pg_catalog itself deceives itself alone:
// its connection is cleaned before anybody else has it.
const stateSQL = "SELECT NOT EXISTS (SELECT FROM pg_catalog.pg_cursors WHERE is_holdable)" +
	" AND NOT EXISTS (SELECT FROM pg_catalog.pg_locks WHERE locktype = 'advisory' AND pid = pg_catalog.pg_backend_pid())" +
	" AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend WHERE refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_namespace'::pg_catalog.regclass AND refobjid = pg_catalog.pg_my_temp_schema())" +
	", (SELECT pg_catalog.json_agg(c) FROM pg_catalog.pg_listening_channels() c)"

// pinned says why a plan pins its session, as the admin tables tell it.
func pinned(p *router.Plan) string {
	switch p.Command {
	case sql.Declare:
		return "cursor WITH HOLD"
	case sql.DDL, sql.CreateTableAs:
		return "a temporary object"
	}
	return "session advisory lock"
}

// The reasons of pins that no probe ends.
const (
	loaded = "LOAD"
	kept   = "state of the server process"
	opaque = "settings that a function made"
)

// pin keeps the link's connection with this session, for a reason.
func (s *session) pin(l *engine.Link, why string) {
	if s.pins == nil {
		s.pins = map[string]*engine.Link{}
	}
	switch {
	case why == loaded, why == kept:
		s.lasts(why)
		l.Conn.Spoilt = true
	case why == opaque && s.forever() == "":
		s.lasts(why)
	}
	if forever := s.forever(); forever != "" {
		why = forever
	}
	s.pins[l.Shard] = l
	s.client.pin(l.Conn, why)
	l.Conn.Dirty = true
	if s.Overhears == nil {
		s.Overhears = s.overhears
	}
}

// hasPinned says whether the session is pinned to the link's connection.
func (s *session) hasPinned(l *engine.Link) bool { return len(s.pins) > 0 && s.pins[l.Shard] == l }

// holder is the shard of the only connection that the session is pinned to; what it asks of its own state is there.
func (s *session) holder() (shard string, ok bool) {
	if len(s.pins) != 1 {
		return "", false
	}
	for shard = range s.pins {
	}
	return shard, true
}

// ofHolder is the plan of what asks for state of the session: in a session that is pinned, for the connection that has it, wherever the
// session is now. With several, that is the default shard's: temporary tables, locks and cursors are made there. The error refuses what
// asks for it beside rows of another shard.
func (s *session) ofHolder(p *router.Plan) (*router.Plan, *wire.Error) {
	if len(s.pins) == 0 || !p.Has(router.Here) || !s.asksState(p) {
		return p, nil
	}
	shard, ok := s.holder()
	switch home := s.p.shard(&router.Plan{Shards: s.p.defaultShard}, 0); {
	case s.askState && s.link != nil && s.link.Shard == home: // what code has just left there is not known yet
		return p, nil
	case !ok && s.pins[home] != nil:
		shard, ok = home, true
	}
	if !ok {
		return p, nil
	}
	there := *p
	there.Kind, there.Flags, there.Shards = router.Route, p.Flags&^(router.Neutral|router.Here), []int{s.p.number(shard)}
	if p.Kind != router.Route || slices.Contains(p.Shards, there.Shards[0]) {
		return &there, nil
	}
	return nil, wire.Errorf(wire.FeatureNotSupported, "state of the session cannot be asked for beside rows of another shard").
		WithDetail("The session has its locks, cursors and temporary tables on shard %s; the rows are on %s.", shard, s.p.whereOf(p)).
		WithHint("Use a statement for each.")
}

// asksState says whether a plan with Here asks for what a connection keeps, or takes it away. What speaks of settings or prepared
// statements runs wherever the session is; so do sequences' last numbers, and cursors in a transaction or string, which may be of that.
func (s *session) asksState(p *router.Plan) bool {
	if p.Kind == router.Nothing || p.Setting != nil || p.Flags&(router.LastValue|router.Discards|router.Pin) != 0 {
		return false
	}
	switch p.Command {
	case sql.Prepare, sql.Deallocate, sql.SetConstraints, sql.SetSnapshot:
		return false
	case sql.Fetch, sql.ClosePortal:
		return s.strung == nil && !s.inTransaction()
	}
	return s.ear == nil || p.Flags&(router.Listens|router.ShowsChannels) == 0
}

// useHolder makes that the link in use when there is none, for a portal that is not the protocol's: a cursor WITH HOLD.
func (s *session) useHolder() error {
	shard, ok := s.holder()
	if s.link != nil || !ok || s.tx.state == txFailed {
		return nil
	}
	_, err := s.acquire(shard, backend.Write)
	return err
}

// lostPin is why a connection that the session is pinned to, and does not use now, has broken: what the client keeps there is
// lost, as if its own server process had ended.
func (s *session) lostPin() error {
	for _, l := range s.pins {
		if l.Err != nil && l != s.link {
			return l.Err
		}
	}
	return nil
}

// unpin lets the connection go when the link is released.
func (s *session) unpin(l *engine.Link) {
	delete(s.pins, l.Shard)
	s.client.unpin(l.Conn)
}

// mayChangeState says whether a statement may have left state in the link's connection unseen, or taken away what there was.
func (s *session) mayChangeState(l *engine.Link, p *router.Plan) bool {
	if p.Has(router.Dirty) && (p.Setting == nil || p.Has(router.Restates)) {
		return true
	}
	if s.mode == backend.Session || s.forever() != "" || !s.hasPinned(l) {
		return false
	}
	switch p.Command {
	case sql.DDL, sql.Discard, sql.ClosePortal, sql.Unlisten:
		return true
	}
	return s.strung != nil || p.Kind == router.Tx || p.Has(router.Here) && p.Kind != router.Nothing && !p.Has(router.Neutral)
}

// judge acts on what the server said to stateSQL. The error ends the session.
func (s *session) judge(l *engine.Link) error {
	if s.asksAgain() {
		return nil
	}
	answer, ok := s.stateAnswer()
	clean := answer.clean
	is := s.hasPinned(l)
	if ok && s.judgeChannels(l, answer.channels) {
		clean = false
	}
	switch {
	case !ok && !is: // by statement_timeout, for one
		s.pin(l, "state that is not known")
	case ok && !clean && !is:
		s.pin(l, "state that a function made")
	case !ok || s.mode == backend.Session || s.forever() != "":
	case clean && is:
		s.unpin(l)
	}
	if s.coded || s.blind { // blind alone: it is asked again
		defer func() { s.uncode(!ok) }()
	}
	if !ok {
		return nil
	}
	if answer.asked {
		s.learnPrepared(l, answer.prepared)
	}
	return s.learn(l, answer.settings, answer.resets)
}

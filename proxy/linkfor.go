package proxy

import (
	"slices"
	"strings"

	"github.com/tidemarkdb/tidemark/internal/backend"
	"github.com/tidemarkdb/tidemark/internal/engine"
	"github.com/tidemarkdb/tidemark/internal/sql"
	"github.com/tidemarkdb/tidemark/router"
)

// linkFor returns a link on which the plan may run: the one in use if it suits, else a fresh one, after the old one has
// answered. It refuses what would take a transaction to a second shard. Errors that are *wire.Error are for the client;
// others end the session.
//
// What the session has read of its client's input may move meanwhile: take it from Input again.
func (s *session) linkFor(p *router.Plan) (*engine.Link, error) {
	if len(s.pins) > 0 && s.askState && !s.batch.sent && p.Has(router.Here) { // it may have made more than is known yet
		if err := s.drain(); err != nil {
			return nil, err
		}
	}
	p, refused := s.ofHolder(p)
	if refused != nil {
		return nil, refused
	}
	fresh := (p.Setting != nil || s.strung != nil) && s.setsTempBuffers(p)
	if fresh && s.link != nil && s.tx.state == txNone && !s.batch.sent {
		if err := s.drain(); err != nil {
			return nil, err
		}
	}
	if err := s.awaitBegun(); err != nil {
		return nil, err
	}
	if s.link != nil && s.suits(s.link, p) {
		return s.link, nil
	}
	if s.link != nil {
		if err := s.endOver(); err != nil {
			return nil, err
		}
	}
	shard := ""
	if l := s.link; l != nil {
		if p.Kind == router.Tx {
			shard = l.Shard // from its replica to its primary
		}
		switch {
		case s.suits(l, p):
			return l, nil
		case s.tx.state == txOpen && s.aborted():
			return nil, s.errAborted()
		case s.tx.state == txOpen && (!s.tx.neutral || s.portals.open(l)), s.tx.state != txOpen && s.batchBound(l, p):
			return nil, s.errElsewhere(l, p)
		case s.skipping(): // the error has come while the session waited for something else
			return nil, errAnswered
		}
		if err := s.leave(); err != nil {
			return nil, err
		}
	}
	if s.tx.state == txFailed {
		return nil, s.errAborted()
	}
	if shard == "" {
		shard = s.p.shard(p, 0)
	}
	if s.spread(p) {
		shard = s.p.shard(p, int(s.p.turn.Add(1)%uint32(len(p.Shards))))
	}
	if p.Has(router.Here) && p.Kind != router.Route {
		if held, ok := s.holder(); ok {
			shard = held
		}
	}
	if fresh {
		return s.preface(s.reachUnused(shard, s.access(p)))
	}
	return s.acquire(shard, s.access(p))
}

// awaitBegun waits until the link's transaction has begun, where more would be run outside of it if it has not.
func (s *session) awaitBegun() error {
	l := s.link
	if l == nil || !l.Begins() {
		return nil
	}
	for l.Begins() {
		if err := s.Serve(); err != nil {
			return err
		}
	}
	if l.Err == nil && s.skipping() { // an error of the batch has come meanwhile
		return errAnswered
	}
	return nil
}

// spread says whether a plan that any of its shards can run goes to each in turn. What others have to follow to its shard goes to the first.
func (s *session) spread(p *router.Plan) bool {
	return p.Kind == router.AnyShard && p.Command == sql.Select && p.Access == router.Read && !p.Has(router.Neutral) && s.tx.state == txNone
}

// access is that of a plan for which there is no link yet.
func (s *session) access(p *router.Plan) backend.Access {
	if s.serializes(p) {
		return backend.Write
	}
	if p.Access == router.Read && (s.tx.state == txNone && !s.forPrimary(p) || s.tx.readOnly) {
		return s.reading()
	}
	return backend.Write
}

// serializes says whether the plan, or a step of the query string in hand, makes the transaction serializable, which no replica runs.
func (s *session) serializes(p *router.Plan) bool {
	sets := func(p *router.Plan) bool {
		if p.Kind == router.Tx {
			return p.Tx.Isolation == "serializable"
		}
		return p.Setting != nil && p.Setting.Name == "transaction_isolation" && strings.EqualFold(p.Setting.Value(), "serializable")
	}
	return sets(p) || s.strung != nil && slices.ContainsFunc(s.strung.steps, func(x step) bool { return sets(x.plan) })
}

// reading is the access of what a replica could answer: none runs a serializable transaction, or one that has been said to write.
func (s *session) reading() backend.Access {
	if s.settings.serializable || s.tx.serializable || s.tx.readWrite { // the first by default, even where this one is not: the connection is another's next
		return backend.Write
	}
	return backend.Read
}

// forPrimary says whether the plan, one of a batch, is for the primary because of what comes behind, which may write and takes it back if it
// fails: it changes rows, settings, by code for one, or channels, or opens a cursor.
func (s *session) forPrimary(p *router.Plan) bool {
	return s.strung == nil && (p.Setting != nil && alters(p.Setting) || p.Flags&(router.Restates|router.Writes) != 0 || p.Command == sql.Declare || s.unlistens(p))
}

// batchBound says whether what the batch has sent to l must stay with the plan, because they are one transaction: it may have changed rows,
// settings, by code for one, or channels, or begun a transaction block.
func (s *session) batchBound(l *engine.Link, p *router.Plan) bool {
	return s.batch.wrote || s.batch.heard || s.batch.sent && (len(s.after.changes) > 0 || s.coded && s.p.names()) || s.begins(l, p)
}

// begins says whether the batch that l has got begins a transaction, or says what that is like, and the plan would leave it for another
// shard, or for several.
func (s *session) begins(l *engine.Link, p *router.Plan) bool {
	tx := s.after.tx
	if !s.batch.sent || tx == nil || p.Kind == router.Tx {
		return false
	}
	switch {
	case tx.Op == router.SetTransaction && wide(p): // which may not write, say
		return true
	case s.after.begun || tx.Op == router.SetTransaction:
		return s.p.shard(p, 0) != l.Shard
	}
	return false
}

// suits says whether the plan may run on the link in use, whatever state that is in.
func (s *session) suits(l *engine.Link, p *router.Plan) bool {
	if l.Err != nil {
		return false
	}
	if p.Kind == router.Tx && (p.Tx.Op == router.Begin || p.Tx.Op == router.SetTransaction) && s.tx.state == txNone && l.Conn.Endpoint().Role() == backend.RoleReplica {
		return false // it may go on to write
	}
	if s.tx.state == txOpen && s.tx.neutral && !s.tx.looked && !s.batch.sent && l.Conn.Endpoint().Role() == backend.RoleReplica && !s.aborted() && s.serializes(p) {
		return false
	}
	if s.strung != nil && l.Conn.Endpoint().Role() == backend.RoleReplica && s.leavesReplica() {
		return false // the same of what comes behind the end of a transaction within a string
	}
	if s.tx.state == txNone && s.forPrimary(p) && l.Conn.Endpoint().Role() == backend.RoleReplica {
		return false
	}
	if p.Flags&(router.Pin|router.Keeps|router.Opaque) != 0 && l.Conn.Endpoint().Role() == backend.RoleReplica {
		return false // the session would have to stay there
	}
	if p.Kind == router.Tx || p.Has(router.Here) && p.Kind != router.Route {
		return true
	}
	if s.tx.state == txOpen && p.OnPrimary() && l.Conn.Endpoint().Role() == backend.RoleReplica {
		return false
	}
	there := anywhere(p) && (s.tx.state == txOpen || s.batch.sent)
	for i := range p.Shards {
		there = there || s.p.shard(p, i) == l.Shard
	}
	open := s.tx.state == txOpen && !s.batch.over // where the transaction is read only, a replica says so of what writes
	return there && (open || p.Access == router.Read || l.Conn.Endpoint().Role() != backend.RoleReplica)
}

// leavesReplica says whether the query string in hand ends the transaction and goes on with what is for the primary, or begins one that is
// not read only for all that is known.
func (s *session) leavesReplica() bool {
	if s.strung.primary {
		return true
	}
	ended := false
	for _, x := range s.strung.steps {
		c := x.plan.Tx
		switch {
		case x.plan.Kind != router.Tx:
		case c.Op == router.Begin && ended, c.Chain && s.aborted() && s.tx.began&onlyReads == 0:
			return true
		case c.Ends():
			ended = !c.Chain
		}
	}
	return false
}

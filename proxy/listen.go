package proxy

import (
	"context"
	"encoding/json"
	"math"
	"strings"

	"github.com/tidemarkdb/tidemark/internal/backend"
	"github.com/tidemarkdb/tidemark/internal/engine"
	"github.com/tidemarkdb/tidemark/internal/notify"
	"github.com/tidemarkdb/tidemark/internal/sql"
	"github.com/tidemarkdb/tidemark/internal/wire"
	"github.com/tidemarkdb/tidemark/router"
)

// A session hears its channels over a server connection that listens for many (internal/notify). Its own statements go where
// they would anyway, LISTEN and UNLISTEN too: the server that runs them says what it would say, and the connection is cleaned
// before anybody else gets it. So LISTEN takes these steps:
//
//	when                        what
//	before it is forwarded      the shared connection listens, and hears for the session from here on
//	it succeeds                 the channel is in the log of the transaction
//	before COMMIT, if the       what has been heard so far is forgotten: it was committed before
//	session had no channel
//	the commit has succeeded    the session listens
//
// What has been heard is given to the client where PostgreSQL gives it: when it is idle, at once; else behind the end of its
// transaction, before ReadyForQuery. There a fence makes sure that all has been heard that was committed before, by the session
// itself or by others.
//
// The process id in a notification is the one that the sender was told, if the sender listens: so it can know its own. For that
// it must be certain that what the server process sends is the session's: what others have sent over it is fenced first.
type ear struct {
	sub *notify.Subscriber
	channels
	asked map[string]bool // what sub hears: on, and what a transaction under way may add
	ahead bool            // asked may have more than the session listens to

	prime    bool          // the next connection is to listen to the session's channels itself
	primed   *backend.Conn // one that does
	lent     []string      // channels that the connection in use listens to for the session's sake
	speaking *backend.Conn // what comes of this one is the session's
}

// sharesChannels says whether the session's notifications can come over a connection that others share: its text is in the
// encoding that a session has which asks for none. In session mode it has a connection of its own.
func (s *session) sharesChannels() bool {
	if s.mode == backend.Session {
		return false
	}
	now, set := s.settings.value("client_encoding")
	return (!set || s.p.usualEncoding(now)) && (s.settings.base["client_encoding"] == "" || s.p.usualEncoding(s.settings.base["client_encoding"]))
}

// usualEncoding says whether a client_encoding is the one that the servers report to a client that asks for none.
func (p *Proxy) usualEncoding(name string) bool {
	params, err := p.backend.Shard(p.home).ServerParams(context.Background()) // known since the first login
	usual := params["client_encoding"]
	return err == nil && (encodingName(name) == encodingName(usual) || usual == "UTF8" && isUTF8(name))
}

// listenAhead does what must be done before a server hears of the plan. What the session has read of its client's input may
// move meanwhile.
func (s *session) listenAhead(p *router.Plan) error {
	if s.ear == nil && !p.Has(router.Listens) {
		return nil
	}
	if p.Has(router.Listens) && s.sharesChannels() {
		if err := s.askChannels(p); err != nil {
			return err
		}
	}
	e := s.ear
	if e == nil {
		return nil
	}
	if e.begins() && s.commits(p) {
		if err := s.answered(e.sub.Fence()); err != nil {
			return err
		}
		e.sub.Take(nil, nil, math.MaxInt)
	}
	if s.link == nil && s.tx.state == txNone && !s.batch.sent && (p.Has(router.Listens) || p.Has(router.Dirty) || p.Has(router.Discards)) {
		if err := s.hearAll(); err != nil { // what was committed before is not lost to an UNLISTEN, which it may contain
			return err
		}
	}
	e.prime = s.link == nil && len(e.on) > 0 && (p.Has(router.Dirty) || p.Has(router.ShowsChannels))
	if p.Has(router.ShowsChannels) && len(e.on) > 0 && !e.prime && e.primed != s.link.Conn {
		if s.strung == nil && s.aborted() {
			return s.errAborted()
		}
		return wire.Errorf(wire.FeatureNotSupported, "pg_listening_channels() is not supported in a transaction that has begun, in a session that listens").
			WithDetail("The channels are listened to over a server connection that is shared; the one in use cannot be made to show them any more.").
			WithHint("Ask outside of the transaction, or first in it.")
	}
	return nil
}

// showAhead has the connection that the plan's statement is prepared on show the session's channels, if the statement does: in
// the same batch or transaction it runs there.
func (s *session) showAhead(p *router.Plan) {
	if e := s.ear; e != nil && s.link == nil && p.Has(router.ShowsChannels) {
		e.prime = len(e.on) > 0
	}
}

// askChannels has the shared connection hear what the plan's LISTENs name.
func (s *session) askChannels(p *router.Plan) error {
	var more []string
	for _, x := range s.listensOf(p) {
		if x.Command == sql.Listen && (s.ear == nil || !s.ear.asked[x.Channel]) {
			more = append(more, x.Channel)
		}
	}
	if len(more) == 0 {
		return nil
	}
	if s.ear == nil {
		s.ear = &ear{sub: s.p.hub.Subscribe(s.Task, s.identity, s.client.pid), asked: map[string]bool{}}
		s.Overhears = s.overhears
	}
	e := s.ear
	e.ahead = true
	if s.p.gate.any.Load() {
		if err := s.awaitResume(s.p.home); err != nil {
			return err
		}
	}
	if err := e.crowded(e.asked, more); err != nil {
		return err
	}
	if err := s.answered(e.sub.Listen(more)); err != nil {
		return err
	}
	for _, name := range more {
		e.asked[name] = true
	}
	return nil
}

// commits says whether the request in hand has a COMMIT.
func (s *session) commits(p *router.Plan) bool {
	for _, x := range s.listensOf(p) {
		if x.Kind == router.Tx && x.Tx.Op == router.Commit {
			return true
		}
	}
	return false
}

// listensOf are the plans in the request in hand that matter to channels.
func (s *session) listensOf(p *router.Plan) []*router.Plan {
	if s.strung == nil {
		return []*router.Plan{p}
	}
	all := make([]*router.Plan, 0, len(s.strung.steps))
	for _, x := range s.strung.steps {
		all = append(all, x.plan)
	}
	return all
}

// answered waits for the answer of the shared connection. Links are served meanwhile.
func (s *session) answered(r *notify.Request) error {
	for !r.Done() {
		if err := s.Serve(); err != nil {
			return err
		}
	}
	if err := r.Err(); err != nil {
		return err
	}
	return nil
}

// unlistens says whether the plan is an UNLISTEN that may matter.
func (s *session) unlistens(p *router.Plan) bool { return s.ear != nil && p.Command == sql.Unlisten }

// heed notes what the statement, which is sent to the link now, does to the session's channels.
func (s *session) heed(l *engine.Link, p *router.Plan) {
	list := []step{{0, p}}
	if s.strung != nil {
		list = s.strung.steps
	}
	for _, x := range list {
		if x.plan.Command == sql.Listen {
			if e := s.ear; e != nil && e.asked[x.plan.Channel] {
				l.Conn.Dirty = true
				e.lent = append(e.lent, x.plan.Channel)
			} else {
				s.pin(l, "LISTEN")
				continue
			}
		}
		if s.ear != nil {
			s.ear.say(s.after.looked+x.n, x.plan)
		}
	}
}

// heeded follows what the link has answered.
func (s *session) heeded(l *engine.Link, ok bool, completed int) {
	if s.tx.state == txBegun {
		return // it left this server for another, see leave
	}
	e := s.ear
	e.channels.answered(ok, completed, l.Conn.TxStatus)
	e.ahead = true
}

// primeChannels has a connection that has just been acquired listen to the session's channels: what shows them, or may take
// them away unseen, runs there next.
func (s *session) primeChannels(l *engine.Link) {
	e := s.ear
	e.prime = false
	var b strings.Builder
	for name := range e.on {
		b.WriteString("LISTEN " + quoteName(name) + ";")
		e.lent = append(e.lent, name)
	}
	s.queryUnseen(l, b.String(), nil)
	l.Conn.Dirty = true
	e.primed = l.Conn
}

// quietChannels has a connection that the session is pinned to listen to nothing that comes over the shared one; it says whether
// there was something to do.
func (s *session) quietChannels(l *engine.Link) bool {
	e := s.ear
	if e == nil || len(e.lent) == 0 || !s.hasPinned(l) {
		return false
	}
	var b strings.Builder
	for _, name := range e.lent {
		if e.on[name] { // else it has failed, and the connection may listen to it from before
			b.WriteString("UNLISTEN " + quoteName(name) + ";")
		}
	}
	if e.lent, e.primed = nil, nil; b.Len() == 0 {
		return false
	}
	s.after.active = true
	s.queryUnseen(l, b.String(), nil)
	l.Since = 0 // which is no request of the client's
	return true
}

// judgeChannels compares what a connection listens to, as the server said to stateSQL, with what it should: what functions have
// unlistened is taken from the session; others says whether there are channels that functions listen to.
func (s *session) judgeChannels(l *engine.Link, said []byte) (others bool) {
	var names []string
	if said != nil && json.Unmarshal(said, &names) != nil {
		return true
	}
	e := s.ear
	if e == nil {
		return len(names) > 0
	}
	there := map[string]bool{}
	for _, name := range names {
		there[name] = true
		others = others || !e.on[name] // also one that it listens to there alone, and then failed to over the shared one
	}
	if e.primed == l.Conn {
		for name := range e.on {
			if !there[name] {
				delete(e.on, name)
				e.ahead = true
			}
		}
	}
	return others
}

// checkEncoding refuses a change of the encoding by which notifications could not be read any more.
func (s *session) checkEncoding(c *router.SettingChange) error {
	value := ""
	switch {
	case s.ear == nil || c.Name != "client_encoding" && c.Op != router.ResetAll:
		return nil
	case c.Op == router.SetOp:
		value = raw(c)
	default:
		value = s.settings.start["client_encoding"]
	}
	if value == "" || s.p.usualEncoding(value) {
		return nil
	}
	return wire.Errorf(wire.FeatureNotSupported, "client_encoding cannot become %s in a session that listens", value).
		WithDetail("Its notifications come over a server connection that is shared with sessions of another encoding.").
		WithHint("UNLISTEN * first, or set it before LISTEN.")
}

func quoteName(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

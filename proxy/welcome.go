package proxy

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/tidemarkdb/tidemark/internal/engine"
	"github.com/tidemarkdb/tidemark/internal/loop"
	"github.com/tidemarkdb/tidemark/internal/wire"
	"github.com/tidemarkdb/tidemark/router"
)

// welcome is a client's task: its login, and the session behind it.
func (p *Proxy) welcome(t *loop.Task, conn *loop.Conn) {
	if s, asked, params := p.letIn(t, conn); s != nil {
		s.serveClient(asked, params)
	}
}

// letIn takes a client through its login. It returns its session, the settings that it asked for, and those of servers; no session where
// the client is refused, or has come for the admin database.
func (p *Proxy) letIn(t *loop.Task, conn *loop.Conn) (s *session, asked []wire.Parameter, params map[string]string) {
	defer p.logins.Done()
	n, uncount := int64(0), func() {}
	if !p.draining.Load() { // else a drain would wait for those whom it refuses
		n, uncount = p.clients.count.Add(1), func() { p.clients.count.Add(-1) }
	}
	log := func() *slog.Logger { return p.log.With("client", hostPort(conn.RemoteAddr())) }
	t.Keep(conn)
	l := newLogin(p, t, conn)
	l.full = n > int64(l.live.MaxClients)
	in := false
	defer func() { // also behind a panic
		p.doorstep.leave(l)
		if in {
			return
		}
		uncount()
		end := l.conn.Close
		if l.told {
			end = l.conn.Finish
		}
		_ = end() // whatever it reports, this client is gone
	}()
	if err := l.run(); err != nil {
		if !errors.Is(err, errDone) {
			p.stats.refused.Add(1)
			log().Info("login refused", "user", l.user, "error", err)
		}
		return nil, nil, nil
	}
	if l.admin {
		if err := p.openConsole(l); err != nil {
			log().Warn("login failed", "user", l.user, "error", err)
		}
		return nil, nil, nil
	}
	x, params, err := p.greet(l)
	if err == nil {
		err = p.seats.take(l.user, p.cfg().MaxClientsOf[l.user])
	}
	if err != nil {
		log().Warn("login failed", "user", l.user, "error", l.refuse(err))
		return nil, nil, nil
	}
	in = true
	// What the login needed is garbage from here on: the session keeps hold of nothing.
	return p.newSession(t, x, l), l.params, params
}

// openConsole has the admin database serve a client, away from the loop.
func (p *Proxy) openConsole(l *login) error {
	if err := l.write(nil); err != nil {
		return err
	}
	nc, err := l.conn.Detach()
	if err != nil {
		return err
	}
	p.admin.running.Go(func() { p.admin.enter(nc, l.user, l.version) })
	return nil
}

// greet makes the client known by a key, and finds what servers tell one that sets nothing.
func (p *Proxy) greet(l *login) (x *client, params map[string]string, err error) {
	home := p.backend.Shard(p.home)
	params, known := home.Params()
	if !known {
		l.until = time.Now().Add(p.cfg().LoginTimeout)
		l.await(func(ctx context.Context) { params, err = home.ServerParams(ctx) })
	}
	if err != nil {
		return nil, nil, err
	}
	if p.serverZone.Load() == nil {
		z := params["TimeZone"]
		p.serverZone.Store(&z)
	}
	key, err := cancelKey(l.version)
	if err != nil {
		return nil, nil, err
	}
	x = &client{key: key, user: l.user, addr: l.conn.RemoteAddr(), since: time.Now()}
	for _, q := range l.params {
		if strings.EqualFold(q.Name, "application_name") {
			x.app = q.Value
		}
	}
	return x, params, nil
}

// newSession is the session of a client that has logged in and has a seat.
func (p *Proxy) newSession(t *loop.Task, x *client, l *login) *session {
	x.task, x.relay = t, engine.NewRelay(t, l.conn, p.memory)
	s := &session{Relay: x.relay, p: p, client: x, identity: l.identity}
	s.resume = s.goOn
	s.SetOut(l.out)
	return s
}

// serveClient runs one client's session until it ends or waits, see goOn.
func (s *session) serveClient(asked []wire.Parameter, params map[string]string) {
	defer s.depart()
	err := s.start(asked, params)
	if err == nil {
		err = s.run(false)
	}
	if !s.rests {
		s.farewell(err)
	}
}

// start makes the session known, takes the settings of the startup message, and greets the client.
func (s *session) start(asked []wire.Parameter, params map[string]string) error {
	s.p.clients.add(s.client)
	s.Task.Own(s.Client)
	s.own.defaults(s.p.cfg())
	if s.identity == nil {
		s.identity = s.p.backend.SharedAs(s.client.user)
	}
	s.client.tracedUntil.Store(s.p.traces.of(s.client.user))
	s.p.backend.Admit(s.identity)
	s.mode = s.p.backend.ModeOf(s.client.user)
	if err := s.begin(asked); err != nil {
		return err
	}
	params, err := s.beginWith(params)
	if err != nil {
		return err
	}
	greeting := append(s.Out(), noticesOfCut(asked)...)
	for _, name := range sortedKeys(params) {
		greeting = wire.AppendParameterStatus(greeting, name, s.asTold(name, params[name]))
	}
	greeting = wire.AppendBackendKeyData(greeting, s.client.pid, s.client.key)
	s.SetOut(wire.AppendReadyForQuery(greeting, wire.TxIdle))
	s.p.stats.logins.Add(1)
	return nil
}

// begin takes the settings that came with the startup message.
func (s *session) begin(params []wire.Parameter) error {
	kept := params[:0:0]
	for _, q := range params {
		if isOwn(q.Name) {
			if err := s.own.set(s, q.Name, q.Value); err != nil {
				return err
			}
			continue
		}
		if passesAtStart(q.Name, q.Value) {
			continue
		}
		if err := checkPreload(q.Name, q.Value); err != nil {
			return err
		}
		kept = append(kept, q)
	}
	s.settings.startup(kept)
	v, err := s.viewWith(nil)
	if err != nil {
		return err
	}
	s.view = v
	return nil
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// goOn runs the session on when its wait for the next message is over: see next.
func (s *session) goOn(_ *loop.Task, cause loop.Cause) {
	s.rests = false
	defer s.depart()
	busy := s.link != nil || s.place != nil || cause == loop.Ready
	cause, err := s.hurry(cause)
	if s.rests {
		return
	}
	if err == nil {
		err = s.Rested(cause)
	}
	s.awoken()
	if err == nil {
		err = s.run(busy)
	}
	if !s.rests {
		s.farewell(err)
	}
}

// depart gives back all that the session holds, also after a panic.
func (s *session) depart() {
	if s.rests {
		return
	}
	defer s.p.clients.count.Add(-1)
	defer s.p.seats.leave(s.client.user)
	defer func() { // whatever it reports, this client is gone
		if s.parted {
			_ = s.Client.Finish()
		} else {
			_ = s.Client.Close()
		}
	}()
	defer s.p.clients.remove(s.client)
	s.end()
	s.Free()
	s.traced.abandon()
}

// log is made anew for each line: few sessions ever write one, and an idle one is to take little memory.
func (s *session) log() *slog.Logger { return s.p.log.With("client", hostPort(s.client.addr)) }

// farewell tells the client why its session ends, when it does not know.
func (s *session) farewell(err error) {
	var e *wire.Error
	var r *router.Refusal
	switch {
	case err == nil, errors.Is(err, engine.ErrClientGone):
		if s.p.log.Enabled(context.Background(), slog.LevelDebug) { // every session comes here
			s.log().Debug("session ended", "user", s.client.user, "error", err)
		}
		return
	case errors.Is(err, errTorn): // an error would be read as the rest of that message, so the log alone can say why
		s.log().Warn("session ended without an error message", "user", s.client.user, "error", err)
		return
	case errors.Is(err, engine.ErrClosing), errors.Is(err, engine.ErrStopped), errors.Is(err, errDrained):
		e = errTerminated()
	case errors.As(err, &r):
		e = refusal(r)
	default:
		e = wire.AsError(err)
		s.log().Warn("session ended by an error", "user", s.client.user, "error", err)
	}
	told := *e
	s.SetOut(wire.AppendErrorResponse(s.Out(), told.Fatal()))
	s.Relay.Last(lastWords)
	s.parted = true
}

// errTerminated ends a session from outside, in PostgreSQL's words.
func errTerminated() *wire.Error {
	return wire.Errorf(wire.AdminShutdown, "terminating connection due to administrator command").
		WithHint("The proxy is stopped or replaced, or an administrator has ended this session. Connect again.")
}

// lastWords is how long a client may take to receive its last message.
const lastWords = time.Second

// errDrained ends sessions that are idle while the proxy shuts down.
var errDrained = errors.New("the proxy is shutting down")

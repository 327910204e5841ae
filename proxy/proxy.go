// Package proxy is what clients connect to: it lets them in, speaks PostgreSQL's protocol with them, keeps each session's
// state, asks the router where a statement goes, and has the engine run it.
package proxy

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tidemarkdb/tidemark/cqrs"
	"github.com/tidemarkdb/tidemark/internal/backend"
	"github.com/tidemarkdb/tidemark/internal/engine"
	"github.com/tidemarkdb/tidemark/internal/loop"
	"github.com/tidemarkdb/tidemark/internal/notify"
	"github.com/tidemarkdb/tidemark/internal/wire"
	"github.com/tidemarkdb/tidemark/router"
	"github.com/tidemarkdb/tidemark/sharding"
)

// Parts are what a proxy is built on. All but Views and Levels are required.
type Parts struct {
	Engine  loop.Engine
	Backend *backend.Backend
	Map     *sharding.Map
	// Catalog reads the state of the schema; it is called at start and after each change of the schema that passes.
	Catalog func(context.Context) (*router.Catalog, error)
	// Views are the read models, by the name under which they are queried; Levels says how far each has come.
	Views  map[string]cqrs.View
	Levels *cqrs.Levels
	// ServerUser is who server connections log in as.
	ServerUser string
	// Admin is what the process adds to the admin database.
	Admin Admin
	// Lookup finds users that Config does not list; nil: there are no others.
	Lookup Lookup
	// Version is what SHOW tidemark.version says.
	Version string
	Log     *slog.Logger
}

// Proxy serves one database.
type Proxy struct {
	live       atomic.Pointer[live] // what a reload replaces
	engine     loop.Engine
	backend    *backend.Backend
	shardMap   *sharding.Map
	shards     []*backend.Shard // those of the map, in its order
	catalog    func(context.Context) (*router.Catalog, error)
	views      map[string]cqrs.View
	levels     *cqrs.Levels
	serverUser string
	version    string
	log        *slog.Logger

	lookup       Lookup
	salt         []byte                        // of users that have none of their own, where Config gives no secret for it
	doorstep     doorstep                      // clients on their way in
	router       atomic.Pointer[router.Router] // nil while the proxy starts
	starting     starting
	reload       sync.Mutex // one reading of the catalog at a time
	startups     startups
	clients      clients
	seats        seats
	statements   registry
	turn         atomic.Uint32 // of shards, for statements that any can answer
	defaultShard []int
	home         string      // the name of the default shard
	hub          *notify.Hub // of connections to it that listen for sessions
	copies       bool        // something lags behind the primaries: replicas or read models
	draining     atomic.Bool
	gate         gate
	traces       traceOrders
	meters       meters
	admin        *admin
	started      time.Time
	logins       sync.WaitGroup
	stats        counters
	serverZone   atomic.Pointer[string] // the servers' TimeZone, for sessions that set none
}

// New makes a proxy. Serve starts it.
func New(cfg Config, parts Parts) (*Proxy, error) {
	p := &Proxy{
		engine: parts.Engine, backend: parts.Backend, shardMap: parts.Map, catalog: parts.Catalog, views: parts.Views,
		levels: parts.Levels, serverUser: parts.ServerUser, version: parts.Version, log: parts.Log,
		salt: make([]byte, 32), lookup: parts.Lookup, started: time.Now(),
	}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	p.clients.byPID, p.starting.decided = map[uint32]*client{}, make(chan struct{})
	if _, err := rand.Read(p.salt); err != nil {
		return nil, err
	}
	l, err := newLive(cfg, p.lookup, p.salt)
	if err != nil {
		return nil, err
	}
	p.live.Store(l)
	p.defaultShard = []int{p.shardMap.Default()}
	p.home = p.shardMap.Shards()[p.shardMap.Default()].Name
	for name := range p.views {
		p.copies = p.copies || !strings.HasPrefix(name, AdminDatabase+".") // those tell of the process itself
	}
	for _, s := range p.shardMap.Shards() {
		sh := p.backend.Shard(s.Name)
		if sh == nil {
			return nil, fmt.Errorf("proxy: the map's shard %q has no servers", s.Name)
		}
		p.shards = append(p.shards, sh)
		p.copies = p.copies || len(sh.Endpoints()) > 1
	}
	p.hub = notify.New(p.engine, p.backend.Shard(p.home), func() int { return p.cfg().MaxNotifications }, p.log)
	if p.admin, err = newAdmin(p, parts.Admin); err != nil {
		return nil, err
	}
	return p, nil
}

// shard is the name of the i-th shard of a plan.
func (p *Proxy) shard(x *router.Plan, i int) string { return p.shardMap.Shards()[x.Shards[i]].Name }

// number is a shard's index in the map.
func (p *Proxy) number(shard string) int {
	return slices.IndexFunc(p.shardMap.Shards(), func(x sharding.Shard) bool { return x.Name == shard })
}

// onDefault gives a plan that names no shard the default one.
func (p *Proxy) onDefault(x *router.Plan) *router.Plan {
	if len(x.Shards) > 0 {
		return x
	}
	q := *x
	q.Shards = p.defaultShard
	return &q
}

// ErrHandedOver is the cause of a context's end by which Serve is told that another process accepts clients on the same
// socket: clients that are just logging in are let in first.
var ErrHandedOver = errors.New("another process has taken over")

// lateLogins is how long a login under way may hold up the drain then.
const lateLogins = 2 * time.Second

// Serve accepts clients until ctx ends, then drains: new clients are refused, idle sessions end at once, others when their
// transaction does. Drain cuts that short. Start runs before it, or beside it: clients that come meanwhile wait for a moment,
// and are told then why nobody is served yet.
func (p *Proxy) Serve(ctx context.Context, ln net.Listener) error {
	stop := context.AfterFunc(ctx, func() {
		if !errors.Is(context.Cause(ctx), ErrHandedOver) {
			p.draining.Store(true)
		}
		p.starting.decide() // who waits for the start waits in vain
		if err := ln.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			p.log.Warn("close listener", "error", err)
		}
		p.clients.wakeAll()
	})
	defer stop()
	for {
		nc, err := ln.Accept()
		switch {
		case ctx.Err() != nil && err != nil:
			defer time.AfterFunc(lateLogins, p.sendAway).Stop()
			p.logins.Wait()
			p.sendAway()
			return nil
		case err != nil:
			if errors.Is(err, net.ErrClosed) {
				return fmt.Errorf("accept clients: %w", err)
			}
			// Out of descriptors, most likely: some will be given back.
			p.log.Warn("accept failed", "error", err)
			time.Sleep(acceptPause)
			continue
		}
		p.logins.Add(1)
		go func() {
			defer p.logins.Done()
			p.welcome(context.WithoutCancel(ctx), nc) // who has been accepted is let in or told why not, whatever comes
		}()
	}
}

// sendAway has sessions end that are idle, or when they become so.
func (p *Proxy) sendAway() {
	p.draining.Store(true)
	p.clients.wakeAll()
}

const acceptPause = 50 * time.Millisecond

// welcome takes a client through its login and starts its session.
func (p *Proxy) welcome(ctx context.Context, nc net.Conn) {
	n := p.clients.count.Add(1)
	log := func() *slog.Logger { return p.log.With("client", nc.RemoteAddr().String()) }
	leave := func() {} // gives back the seat of the user
	l := newLogin(p, p.engine.Wrap(nc))
	l.full = n > int64(l.live.MaxClients)
	in := false
	defer func() {
		if e := recover(); e != nil {
			log().Error("login panicked", "panic", fmt.Sprint(e), "stack", string(debug.Stack()))
		}
		p.doorstep.leave(l)
		if !in {
			p.clients.count.Add(-1)
			leave()
			end := l.conn.Close
			if l.told {
				end = func() error { return loop.Finish(l.conn) }
			}
			_ = end() // whatever it reports, this client is gone
		}
	}()
	if err := l.run(ctx); err != nil {
		if !errors.Is(err, errDone) {
			p.stats.refused.Add(1)
			log().Info("login refused", "user", l.user, "error", err)
		}
		return
	}
	if l.admin {
		in = true
		p.clients.count.Add(-1)
		p.admin.running.Go(func() { p.admin.enter(l.conn, l.user, l.version) })
		return
	}
	x, params, err := p.greet(ctx, l)
	if err == nil {
		leave, err = p.seats.take(l.user, p.cfg().MaxClientsOf[l.user])
	}
	if err == nil {
		err = l.conn.SetDeadline(time.Time{})
	}
	if err != nil {
		log().Warn("login failed", "user", l.user, "error", l.refuse(err))
		return
	}
	conn, err := p.engine.Adopt(l.conn)
	if err != nil {
		log().Warn("login failed", "user", l.user, "error", err)
		return
	}
	in = true
	// What the login needed is garbage from here on: the task's function keeps hold of nothing.
	p.engine.Go(func(t *loop.Task) { p.newSession(t, conn, x, l, leave).serve(l.params, params) })
}

// greet makes the client known by a key, and finds what servers tell one that sets nothing.
func (p *Proxy) greet(ctx context.Context, l *login) (*client, map[string]string, error) {
	ctx, stop := context.WithTimeout(ctx, p.cfg().LoginTimeout)
	defer stop()
	params, err := p.backend.Shard(p.shardMap.Shards()[p.defaultShard[0]].Name).ServerParams(ctx)
	if err != nil {
		return nil, nil, err
	}
	if z := params["TimeZone"]; p.serverZone.Load() == nil {
		p.serverZone.Store(&z)
	}
	key, err := cancelKey(l.version)
	if err != nil {
		return nil, nil, err
	}
	x := &client{key: key, user: l.user, addr: l.conn.RemoteAddr(), since: time.Now()}
	for _, q := range l.params {
		if equalFold(q.Name, "application_name") {
			x.app = q.Value
		}
	}
	return x, params, nil
}

// newSession is the session of a client that has logged in; leave gives back its user's seat.
func (p *Proxy) newSession(t *loop.Task, conn *loop.Conn, x *client, l *login, leave func()) *session {
	x.task, x.relay = t, engine.NewRelay(t, conn)
	s := &session{Relay: x.relay, p: p, user: l.user, client: x, identity: l.identity, unseat: leave}
	s.resume = s.goOn
	return s
}

// serve runs one client's session until it ends or waits, see goOn.
func (s *session) serve(asked []wire.Parameter, params map[string]string) {
	defer s.depart()
	err := s.start(asked, params)
	if err == nil {
		err = s.run()
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
		s.identity = s.p.backend.SharedAs(s.user)
	}
	s.client.tracedUntil.Store(s.p.traces.of(s.user))
	s.p.backend.Admit(s.identity)
	s.mode = s.p.backend.ModeOf(s.user)
	if err := s.begin(asked); err != nil {
		return err
	}
	params, err := s.beginWith(params)
	if err != nil {
		return err
	}
	greeting := noticesOfCut(asked)
	for _, name := range sortedKeys(params) {
		greeting = wire.AppendParameterStatus(greeting, name, s.asTold(name, params[name]))
	}
	greeting = wire.AppendBackendKeyData(greeting, s.client.pid, s.client.key)
	s.Reply(wire.AppendReadyForQuery(greeting, wire.TxIdle))
	s.p.stats.logins.Add(1)
	return nil
}

// goOn runs the session on when its wait for the next message is over: see next.
func (s *session) goOn(_ *loop.Task, cause loop.Cause) {
	s.rests = false
	defer s.depart()
	cause, err := s.hurry(cause)
	if s.rests {
		return
	}
	if err == nil {
		err = s.Rested(cause)
	}
	if l := s.link; l != nil {
		l.MayRepeat = false
	}
	if err == nil {
		err = s.run()
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
	defer s.unseat()
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
func (s *session) log() *slog.Logger { return s.p.log.With("client", s.client.addr.String()) }

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

// farewell tells the client why its session ends, when it does not know.
func (s *session) farewell(err error) {
	var e *wire.Error
	var r *router.Refusal
	switch {
	case err == nil, errors.Is(err, engine.ErrClientGone), errors.Is(err, errTorn):
		s.log().Debug("session ended", "user", s.user, "error", err)
		return
	case errors.Is(err, engine.ErrClosing), errors.Is(err, engine.ErrStopped), errors.Is(err, errDrained):
		e = wire.Errorf(wire.AdminShutdown, "terminating connection due to administrator command")
	case errors.As(err, &r):
		e = refusal(r)
	default:
		e = wire.AsError(err)
		s.log().Warn("session ended by an error", "user", s.user, "error", err)
	}
	told := *e
	s.SetOut(wire.AppendErrorResponse(s.Out(), told.Fatal()))
	s.Relay.Last(lastWords)
	s.parted = true
}

// lastWords is how long a client may take to receive its last message.
const lastWords = time.Second

// errDrained ends sessions that are idle while the proxy shuts down.
var errDrained = errors.New("the proxy is shutting down")

// Drain waits, when Serve has been told to stop, until all clients have left. When ctx ends first, those that are left are
// cut off: their statements are cancelled, and they are told. Then the connections to the admin database end. It returns how
// many clients were cut off.
func (p *Proxy) Drain(ctx context.Context) int {
	for p.Clients() > 0 && ctx.Err() == nil {
		sleep(ctx, drainPoll)
	}
	left := p.Clients()
	for _, x := range p.clients.all() {
		p.kill(x)
	}
	for until := time.Now().Add(2 * lastWords); p.Clients() > 0 && time.Now().Before(until); {
		time.Sleep(drainPoll)
	}
	p.admin.close()
	return left
}

// drainPoll is how often Drain counts.
const drainPoll = 20 * time.Millisecond

// Clients is the number of clients that are connected, logins included.
func (p *Proxy) Clients() int { return int(p.clients.count.Load()) }

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

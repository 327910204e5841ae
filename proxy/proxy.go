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
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tidemarkdb/tidemark/cqrs"
	"github.com/tidemarkdb/tidemark/internal/backend"
	"github.com/tidemarkdb/tidemark/internal/engine"
	"github.com/tidemarkdb/tidemark/internal/loop"
	"github.com/tidemarkdb/tidemark/internal/notify"
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
	// SocketKept says that connections wait in the listening socket when this process leaves it, as one of systemd's.
	SocketKept bool
	// Elsewhere passes on a cancel request that means none of this process's clients; nil: there is nobody to pass it on to.
	Elsewhere func(pid uint32, key []byte)
	Log       *slog.Logger
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
	reload       sync.Mutex    // one reading of the catalog at a time
	covered      uint64        // under reload: the changes that the last reading began behind
	changes      atomic.Uint64 // of the schema, that passed here
	startups     startups
	clients      clients
	seats        seats
	statements   registry
	turn         atomic.Uint32 // of shards, for statements that any can answer
	defaultShard []int
	home         string      // the name of the default shard
	hub          *notify.Hub // of connections to it that listen for sessions
	copies       bool        // something lags behind the primaries: replicas or read models
	models       bool        // there are read models
	draining     atomic.Bool
	gate         gate
	traces       traceOrders
	meters       meters
	admin        *admin
	started      time.Time
	socketKept   bool
	elsewhere    func(pid uint32, key []byte)
	listeners    []*loop.Listener // that Drain closes; none: nothing is left to be closed
	logins       sync.WaitGroup
	stats        counters
	memory       *engine.Memory         // for messages of clients that are read whole
	serverZone   atomic.Pointer[string] // the servers' TimeZone, for sessions that set none
}

// New makes a proxy. Serve starts it.
func New(cfg Config, parts Parts) (*Proxy, error) {
	p := &Proxy{
		engine: parts.Engine, backend: parts.Backend, shardMap: parts.Map, catalog: parts.Catalog, views: parts.Views,
		levels: parts.Levels, serverUser: parts.ServerUser, version: parts.Version, log: parts.Log,
		salt: make([]byte, 32), lookup: parts.Lookup, started: time.Now(), socketKept: parts.SocketKept, elsewhere: parts.Elsewhere,
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
	p.memory = &engine.Memory{Limit: func() int { return p.cfg().MessageMemory }, Pause: func() time.Duration { return p.cfg().MessageTimeout }}
	p.defaultShard = []int{p.shardMap.Default()}
	p.home = p.shardMap.Shards()[p.shardMap.Default()].Name
	for name := range p.views {
		p.models = p.models || !strings.HasPrefix(name, AdminDatabase+".") // those tell of the process itself
	}
	p.copies = p.models
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
// transaction does. Drain waits for that. The sockets stay open meanwhile, for cancel requests, the admin database, and to tell
// who comes why he is refused, unless others serve them, or hold them for the next process: then they are left to these. Start runs before
// Serve, or beside it: clients that come meanwhile wait for a moment, and are told then why nobody is served yet.
func (p *Proxy) Serve(ctx context.Context, sockets ...net.Listener) error {
	var listeners []*loop.Listener
	for _, ln := range sockets {
		l, err := p.engine.Listen(ln)
		if err != nil {
			closeAll(listeners)
			return fmt.Errorf("accept clients: %w", err)
		}
		listeners = append(listeners, l)
	}
	var broken error
	over := make(chan struct{})
	go func() { // ends when listeners are closed: below, or by Drain
		defer close(over)
		var accepting errgroup.Group
		for _, l := range listeners {
			accepting.Go(func() error { return p.accept(l) })
		}
		broken = accepting.Wait()
	}()
	select {
	case <-over:
		if ctx.Err() == nil {
			return broken
		}
	case <-ctx.Done():
	}
	leaves := p.socketKept || errors.Is(context.Cause(ctx), ErrHandedOver) // the sockets, to others: nobody is to be refused
	if !leaves {
		p.draining.Store(true)
	}
	p.starting.decide() // who waits for the start waits in vain
	if !leaves {
		p.listeners = listeners
		p.sendAway()
		return nil
	}
	closeAll(listeners)
	p.clients.wakeAll()
	<-over
	defer time.AfterFunc(lateLogins, p.sendAway).Stop()
	p.logins.Wait()
	p.sendAway()
	return nil
}

// closeAll closes what nobody is to come by any more. A listener may have been closed.
func closeAll(listeners []*loop.Listener) {
	for _, l := range listeners {
		_ = l.Close()
	}
}

// accept welcomes clients until ln is closed. Who has been accepted is let in or told why not, whatever comes.
func (p *Proxy) accept(ln *loop.Listener) error {
	var warned time.Time
	for {
		conn, err := ln.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return fmt.Errorf("accept clients: %w", err)
			}
			// Out of descriptors, most likely: some will be given back.
			if time.Since(warned) > acceptWarning {
				warned = time.Now()
				p.log.Warn("clients cannot be accepted; it is tried again", "error", err)
			}
			time.Sleep(acceptPause)
			continue
		}
		p.logins.Add(1)
		p.engine.Go(func(t *loop.Task) { p.welcome(t, conn) })
	}
}

// sendAway has sessions end that are idle, or when they become so.
func (p *Proxy) sendAway() {
	p.draining.Store(true)
	p.clients.wakeAll()
}

// How long nobody is accepted when that has failed, and how often that is said.
const (
	acceptPause   = 50 * time.Millisecond
	acceptWarning = 10 * time.Second
)

// Drain waits, when Serve has been told to stop, until all clients have left. When ctx ends first, those that are left are
// cut off: their statements are cancelled, and they are told. Then the sockets are closed, and the connections to the admin database
// end. It returns how many clients were cut off.
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
	closeAll(p.listeners)
	p.doorstep.clear()
	p.admin.close()
	return left
}

// drainPoll is how often Drain counts.
const drainPoll = 20 * time.Millisecond

// Clients is the number of clients that are connected, logins included.
func (p *Proxy) Clients() int { return int(p.clients.count.Load()) }

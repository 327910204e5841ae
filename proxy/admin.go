package proxy

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"runtime/debug"
	"sync"
	"time"

	"github.com/tidemarkdb/tidemark/cqrs"
	"github.com/tidemarkdb/tidemark/internal/loop"
	"github.com/tidemarkdb/tidemark/internal/wire"
	"github.com/tidemarkdb/tidemark/router"
	"github.com/tidemarkdb/tidemark/sharding"
)

// The admin database: tables of the process's own state, and commands. A console, as one connection to it is called, is
// served by ordinary goroutines over its blocking connection and needs no server or pool, and a loop only to log in, so that it
// answers also when those are in trouble. Clients at their limit do not keep it out, and a drain does not end it before the last client
// has left.

// AdminDatabase is the name under which the admin database is connected to.
const AdminDatabase = "tidemark"

// maxConsoles bounds the connections to the admin database.
const maxConsoles = 64

// Admin is what the process around the proxy adds to its admin database.
type Admin struct {
	Tables []Table
	// Reload reads the configuration again and applies it, or says why it cannot be; nil: RELOAD is refused.
	Reload func(context.Context) error
	// Stop ends the process: when transactions have ended, or now; nil: DRAIN and SHUTDOWN are refused.
	Stop func(now bool)
}

// admin is the admin database of a proxy.
type admin struct {
	p      *Proxy
	parts  Admin
	tables []Table
	views  map[string]cqrs.View // by the name that plans have
	router *router.Router
	view   *router.Session

	running sync.WaitGroup
	mu      sync.Mutex // guards what follows
	byPID   map[uint32]*console
	closed  bool
}

// newAdmin makes the admin database. Each table is known by its name, and as tidemark.NAME.
func newAdmin(p *Proxy, parts Admin) (*admin, error) {
	a := &admin{p: p, parts: parts, byPID: map[uint32]*console{}, views: map[string]cqrs.View{}}
	a.tables = append(p.ownTables(), parts.Tables...)
	catalog := &router.Catalog{}
	for _, t := range a.tables {
		for _, schema := range []string{"", "tidemark"} {
			name := t.Name
			if schema != "" {
				name = schema + "." + name
			}
			if a.views[name] != nil {
				return nil, fmt.Errorf("proxy: the admin table %q is there twice", t.Name)
			}
			a.views[name] = t.View(name)
			m := router.Model{Schema: schema, Name: t.Name, Own: true}
			for _, c := range t.Cols {
				m.Columns = append(m.Columns, router.ModelColumn{Name: c.Name, OID: c.OID, TypeMod: -1})
			}
			catalog.Models = append(catalog.Models, m)
		}
	}
	one, err := sharding.New(sharding.Definition{Shards: []sharding.Shard{{Name: "none", Buckets: []sharding.Range{{First: 0, Last: sharding.DefaultBuckets - 1}}}}})
	if err != nil {
		return nil, err
	}
	if a.router, err = router.New(router.Config{Map: one, Catalog: catalog, CacheBytes: 1 << 20}); err != nil {
		return nil, err
	}
	a.view, err = router.NewSession("", "", "UTF8", true)
	return a, err
}

// Tables are those of the admin database.
func (p *Proxy) Tables() []Table { return p.admin.tables }

// rights say what a user may do in the admin database.
type rights uint8

const (
	noRights   rights = iota
	readRights        // SELECT and SHOW
	allRights
)

func (c *Config) rightsOf(user string) rights {
	for _, u := range c.Admins {
		if u == user {
			return allRights
		}
	}
	for _, u := range c.StatsUsers {
		if u == user {
			return readRights
		}
	}
	return noRights
}

// enter serves a client of the admin database that has logged in, until it leaves. It closes the connection.
func (a *admin) enter(conn net.Conn, user string, version uint32) {
	end := conn.Close
	defer func() { _ = end() }() // whatever it reports, this client is gone
	defer func() {
		if e := recover(); e != nil { // it must not take the clients of the served database with it
			a.p.log.Error("console panicked", "panic", fmt.Sprint(e), "stack", string(debug.Stack()))
		}
	}()
	key, err := cancelKey(version)
	if err != nil {
		a.p.log.Error("no key for a console", "error", err)
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	c := &console{
		a: a, conn: conn, user: user, rights: a.p.cfg().rightsOf(user), key: key, since: time.Now(), end: stop, status: wire.TxIdle,
		stmts: map[string]*adminStatement{}, portals: map[string]*adminPortal{},
	}
	c.cancel = func() {}
	err = a.register(c)
	if err == nil {
		defer a.forget(c)
		a.p.log.Info("console opened", "user", user, "client", hostPort(conn.RemoteAddr()))
		err = c.run(ctx)
	}
	var e *wire.Error
	if errors.As(err, &e) {
		c.out = wire.AppendErrorResponse(c.out, e.Fatal())
		_ = c.flush() // the client may have left
		end = func() error { return loop.Finish(conn) }
	}
}

// register lets a console in.
func (a *admin) register(c *console) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.closed:
		return errShuttingDown()
	case c.rights == noRights:
		return wire.Errorf(wire.InsufficientPrivilege, "permission denied for database %q", AdminDatabase).
			WithHint("List the user %q under admin.users or admin.stats_users.", c.user)
	case len(a.byPID) >= maxConsoles:
		return wire.Errorf(wire.TooManyConnections, "sorry, too many connections to the admin database already: %d", len(a.byPID))
	}
	for c.pid == 0 || a.byPID[c.pid] != nil {
		c.pid = 1 + rand.Uint32N(1<<31-2)
	}
	a.byPID[c.pid] = c
	return nil
}

func (a *admin) forget(c *console) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.byPID, c.pid)
}

// cancelled serves a cancel request; false when it is not for a console.
func (a *admin) cancelled(pid uint32, key []byte) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	c := a.byPID[pid]
	if c == nil || subtle.ConstantTimeCompare(c.key, key) != 1 {
		return false
	}
	c.cancel()
	return true
}

// close ends all consoles and waits for them. The connection is cut, so that one whose client reads nothing ends too.
func (a *admin) close() {
	a.mu.Lock()
	a.closed = true
	for _, c := range a.byPID {
		c.end()
		_ = c.conn.SetDeadline(time.Now().Add(lastWords)) // it fails only where the connection is over
	}
	a.mu.Unlock()
	a.running.Wait()
}

package backend

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/tidemarkdb/tidemark/internal/loop"
	"github.com/tidemarkdb/tidemark/internal/lsn"
)

// Endpoint is one PostgreSQL server of a shard. It is safe for concurrent use.
type Endpoint struct {
	shard *Shard
	b     *Backend
	cfg   EndpointConfig
	name  string // host:port
	in    atomic.Pointer[login]

	pool    *pool       // of the shared role
	own     ownPools    // of identities
	bound   *bound      // the endpoint's own limit on connections
	paused  atomic.Bool // see Backend.Pause
	breaker *breaker
	health  *health

	role   atomic.Uint32 // Role; RoleAuto while unknown
	level  atomic.Uint64 // lsn.LSN
	status atomic.Pointer[Status]
}

// Status is what the last health check found out.
type Status struct {
	Role          Role
	Level         lsn.LSN       // replayed position of a replica, insert position of a primary
	Lag           time.Duration // of a replica that has something to replay: age of the last replayed commit
	Timeline      uint32
	SystemID      uint64
	ServerVersion int // server_version_num, such as 150010
	CheckedAt     time.Time
	Err           error // why the last check failed; the rest is then from the last good one
}

func newEndpoint(b *Backend, s *Shard, database string, cfg EndpointConfig) (*Endpoint, error) {
	e := &Endpoint{shard: s, b: b, cfg: cfg, name: net.JoinHostPort(cfg.Host, strconv.Itoa(cfg.Port))}
	in, err := newLogin(b.cfg(), b.eng, database, cfg)
	if err != nil {
		return nil, err
	}
	e.in.Store(in)
	e.breaker = newBreaker(b.cfg().Rise, b.cfg().Fall, e.breakerChanged)
	e.health = newHealth(e)
	e.bound = &bound{what: "max_connections of the database", limit: limitOf(b.cfg().MaxConnections)}
	e.pool = newPool(b, e, nil, false)
	e.status.Store(&Status{})
	e.role.Store(uint32(cfg.Role))
	if cfg.Role == RoleAuto && len(b.shardConfig(s.name).Endpoints) == 1 {
		e.role.Store(uint32(RolePrimary)) // the only one, until a check says otherwise
	}
	return e, nil
}

func (b *Backend) shardConfig(name string) ShardConfig {
	for _, s := range b.cfg().Shards {
		if s.Name == name {
			return s
		}
	}
	return ShardConfig{}
}

// login is how to enter the endpoint now.
func (e *Endpoint) login() *login { return e.in.Load() }

// Shard is the shard that the endpoint belongs to.
func (e *Endpoint) Shard() *Shard { return e.shard }

// Name is host:port.
func (e *Endpoint) Name() string { return e.name }

// Host and Port are where the endpoint is, Database what its connections are to.
func (e *Endpoint) Host() string { return e.cfg.Host }

// Port is the server's port.
func (e *Endpoint) Port() int { return e.cfg.Port }

// Database is as the server names it.
func (e *Endpoint) Database() string { return e.login().database }

// Region and Zone say where the endpoint is, as configured.
func (e *Endpoint) Region() string { return e.cfg.Region }

// Zone is the zone within the region, as configured.
func (e *Endpoint) Zone() string { return e.cfg.Zone }

// String names the endpoint and its shard for people.
func (e *Endpoint) String() string { return fmt.Sprintf("shard %q at %s", e.shard.name, e.name) }

// Role is the detected role; before the first check the configured one.
func (e *Endpoint) Role() Role { return Role(e.role.Load()) }

// Level is the position that the endpoint is known to have replayed; for a primary it is where it inserts.
func (e *Endpoint) Level() lsn.LSN { return lsn.LSN(e.level.Load()) }

// Healthy says whether checks and connections succeed; false before the first one has.
func (e *Endpoint) Healthy() bool {
	return e.breaker.current() == breakerClosed && e.breaker.reached.Load()
}

// Unhealthy is why the endpoint is not Healthy.
func (e *Endpoint) Unhealthy() error {
	switch err := e.status.Load().Err; {
	case err != nil:
		return err
	case e.breaker.reached.Load():
		return errors.New("it recovers")
	}
	return errors.New("it has not answered yet")
}

// Status is what the last health check found out.
func (e *Endpoint) Status() Status { return *e.status.Load() }

// Nudge makes health checks frequent for a second, because somebody waits for this endpoint's level. It neither blocks
// nor allocates.
func (e *Endpoint) Nudge() { e.health.nudge() }

// Acquire waits, first come first served, for a server connection of id (nil: the shared role) in transaction status I,
// and moves it to the task's loop. A zero deadline is Config.AcquireTimeout from now. client may be nil; when it hangs up
// the wait is abandoned.
//
// The error is a *wire.Error: 53300 when no connection became free in time; what the server or the network answered when
// one could not be opened (28P01, 3D000, 53300, 57P03, 08006, …), at once when the endpoint is known to be down; 57P01
// when Tidemark shuts down; one that wraps ErrClientGone when the client has left, or ErrRecalled, with 57014, after Recall.
//
// The wait uses the task's mailbox: a Wake that was meant for something else may be consumed here, and one meant for
// here may stay pending. A session therefore looks at its own state after Acquire and takes a surprising Woken as nothing.
func (e *Endpoint) Acquire(t *loop.Task, id *Identity, client *loop.Conn, deadline time.Time) (*Conn, error) {
	for {
		p, err := e.poolOf(id)
		if err != nil {
			return nil, err
		}
		c, err := p.acquire(t, id, client, deadline)
		if err != errAbolished { //nolint:errorlint // it is never wrapped, and this is on every statement's path
			return c, err
		}
	}
}

// AtHand is Acquire where that need not wait, move a connection, or look at one closely; nil elsewhere.
func (e *Endpoint) AtHand(t *loop.Task, id *Identity) *Conn {
	p, err := e.poolOf(id)
	if err != nil {
		return nil
	}
	return p.atHand(t, id)
}

// Enqueue is the beginning of Acquire with the default deadline, for a task that waits by itself: until its Waiter has an answer, the
// deadline has passed, or its client hangs up. There is no waiter when the connection can be had, or cannot, at once.
func (e *Endpoint) Enqueue(t *loop.Task, id *Identity) (*Conn, *Waiter, error) {
	for {
		p, err := e.poolOf(id)
		if err != nil {
			return nil, nil, err
		}
		c, w, err := p.enqueue(t, id, time.Time{})
		if err != errAbolished { //nolint:errorlint // as in Acquire
			return c, w, err
		}
	}
}

// Stats are the numbers of the endpoint's shared pool.
func (e *Endpoint) Stats() PoolStats { return e.pool.snapshot() }

// sameSystem says whether e can be a replica of primary. Endpoints that were not asked yet get the benefit of the doubt.
func (e *Endpoint) sameSystem(primary *Endpoint) bool {
	if primary == nil {
		return true
	}
	a, b := e.status.Load().SystemID, primary.status.Load().SystemID
	return a == 0 || b == 0 || a == b
}

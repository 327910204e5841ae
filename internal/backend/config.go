// Package backend is everything about reaching a PostgreSQL: shards and their endpoints, server connections and the
// pools that hold them, health, role and replay level, the choice of an endpoint, and cancelling.
//
// A session asks in three steps: Shard.Pick chooses an endpoint, Endpoint.Acquire waits for a server connection of it,
// Conn.Release gives it back. Pick never blocks and Acquire suspends the session's task only; connecting happens in
// ordinary goroutines. Every error for a client is a *wire.Error with PostgreSQL's own SQLSTATE.
package backend

import (
	"errors"
	"fmt"
	"time"
)

// Config is what the package needs to know. Zero values mean the defaults named here.
type Config struct {
	Shards []ShardConfig

	// Database, User and Password are what server connections log in with. An empty password is looked up in PGPASSWORD
	// and the password file, as libpq does. A shard may have a database of another name.
	Database string
	User     string
	Password string

	// SSLMode is libpq's sslmode: disable, allow, prefer (default), require, verify-ca, verify-full. The file names are
	// libpq's sslrootcert, sslcert and sslkey.
	SSLMode     string
	SSLRootCert string
	SSLCert     string
	SSLKey      string

	// Mode is for how long a session keeps a connection. Default Transaction.
	Mode Mode
	// PoolSize bounds the server connections of one pool, which is one (database, user, endpoint). Default 20.
	PoolSize int
	// ReserveSize is how many connections a pool may have beyond that, for sessions that have waited for ReserveTimeout.
	// Defaults 0 and 5 s.
	ReserveSize    int
	ReserveTimeout time.Duration
	// MinIdle is how many connections a pool opens ahead, and keeps when they are idle. Default 0.
	MinIdle int
	// Budget bounds the server connections of the whole process, those being opened included, connections for health
	// checks (one per endpoint) not. When it is used up, an idle connection elsewhere is closed to make room. Default 200.
	Budget int

	// MaxConnections bounds the server connections to one endpoint, of all users together. Default: no bound but Budget.
	MaxConnections int
	// Users are limits of single users, by name.
	Users map[string]UserConfig

	// AcquireTimeout is how long a session may wait for a connection when it names no deadline. Default 30 s.
	AcquireTimeout time.Duration
	// ConnectTimeout bounds one attempt to connect: address, TLS and login. Default 5 s.
	ConnectTimeout time.Duration
	// IdleTime is how long an unused connection is kept, Lifetime how long any is, both give or take a tenth so that
	// connections which were opened together do not end together. Defaults 10 min and 1 h.
	IdleTime time.Duration
	Lifetime time.Duration
	// CheckDelay is how long a connection may be idle before it is proven alive at its next use, by an empty query. Default
	// 30 s; negative: never.
	CheckDelay time.Duration
	// ResetTimeout bounds the cleaning (DISCARD ALL) of a dirty connection. Default 5 s.
	ResetTimeout time.Duration

	// HealthInterval is the pause between two health checks of an endpoint, NudgeInterval the pause while a session waits
	// for a replica's level. Defaults 1 s and 100 ms.
	HealthInterval time.Duration
	NudgeInterval  time.Duration
	// SilenceLimit is how long an endpoint may leave health checks without an answer before its connections in use are
	// broken. Default 1 min, as long as TCP's own keep-alive takes.
	SilenceLimit time.Duration
	// Rise is how many good checks in a row bring an endpoint back, Fall how many failures (of checks and of connections)
	// take it out. Defaults 2 and 3.
	Rise, Fall int

	// StatementBytes bounds the texts of prepared statements that one server connection keeps. Default 1 MiB.
	StatementBytes int
}

// UserConfig is what differs for one user. Zero values are what holds for all.
type UserConfig struct {
	Mode           Mode
	PoolSize       int // of the user's pool on each endpoint
	MaxConnections int // to all endpoints together
}

// Mode is for how long a session keeps a server connection.
type Mode string

// The modes, as PgBouncer has them.
const (
	Transaction Mode = "transaction" // for one transaction
	Session     Mode = "session"     // until the client leaves
	Statement   Mode = "statement"   // for one statement: transactions of several are refused
)

func (m Mode) known() bool { return m == Transaction || m == Session || m == Statement }

// ModeOf is the pool mode of a user.
func (b *Backend) ModeOf(user string) Mode {
	cfg := b.cfg()
	if m := cfg.Users[user].Mode; m != "" {
		return m
	}
	return cfg.Mode
}

// SharedAs is the identity of a user whose connections log in as the shared role: nil, and so the shared pools, unless the
// user has limits that call for pools of its own.
func (b *Backend) SharedAs(user string) *Identity { return b.live.Load().shared[user] }

// ShardConfig is one PostgreSQL cluster: a primary and its replicas.
type ShardConfig struct {
	Name      string
	Database  string // Config.Database when empty
	Endpoints []EndpointConfig
}

// EndpointConfig is one PostgreSQL server.
type EndpointConfig struct {
	Host   string // name, address, or folder of a Unix socket
	Port   int    // 5432 when 0
	Role   Role   // RoleAuto follows pg_is_in_recovery()
	Region string
	Zone   string
	Weight int // share of a shard's replica reads, 1 to 100; 1 when 0
}

// Bounds that keep a mistyped number from becoming a surprise.
const (
	maxWeight        = 100
	maxOpenAtOnce    = 4 // connections that one pool opens at the same time: a ramp against connection storms
	minBackoff       = 100 * time.Millisecond
	maxBackoff       = 5 * time.Second
	janitorInterval  = time.Second
	nudgeDuration    = time.Second // how long one Nudge keeps an endpoint's checks fast
	healthName       = "tidemark health"
	poolKeep         = time.Minute // how long an identity's pool stays when it is empty
	defaultReserve   = 5 * time.Second
	defaultCheck     = 30 * time.Second
	defaultAcquire   = 30 * time.Second
	defaultConnect   = 5 * time.Second
	defaultIdle      = 10 * time.Minute
	defaultLifetime  = time.Hour
	defaultReset     = 5 * time.Second
	defaultHealth    = time.Second
	defaultNudge     = 100 * time.Millisecond
	defaultSilence   = time.Minute
	defaultPool      = 20
	defaultBudget    = 200
	defaultStmtBytes = 1 << 20
)

// withDefaults fills in defaults and reports everything that cannot be, at once.
func (c Config) withDefaults() (Config, error) {
	def(&c.SSLMode, "prefer")
	def(&c.PoolSize, defaultPool)
	def(&c.Mode, Transaction)
	def(&c.ReserveTimeout, defaultReserve)
	def(&c.CheckDelay, defaultCheck)
	def(&c.Budget, defaultBudget)
	def(&c.AcquireTimeout, defaultAcquire)
	def(&c.ConnectTimeout, defaultConnect)
	def(&c.IdleTime, defaultIdle)
	def(&c.Lifetime, defaultLifetime)
	def(&c.ResetTimeout, defaultReset)
	def(&c.HealthInterval, defaultHealth)
	def(&c.NudgeInterval, defaultNudge)
	def(&c.SilenceLimit, defaultSilence)
	def(&c.Rise, 2)
	def(&c.Fall, 3)
	def(&c.StatementBytes, defaultStmtBytes)

	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf("backend: "+format, args...)) }
	for _, n := range []struct {
		name string
		n    int
	}{
		{"pool size", c.PoolSize},
		{"budget", c.Budget},
		{"rise", c.Rise},
		{"fall", c.Fall},
		{"statement bytes", c.StatementBytes},
		{"reserve timeout", int(c.ReserveTimeout)},
		{"acquire timeout", int(c.AcquireTimeout)},
		{"connect timeout", int(c.ConnectTimeout)},
		{"idle time", int(c.IdleTime)},
		{"lifetime", int(c.Lifetime)},
		{"silence limit", int(c.SilenceLimit)},
		{"reset timeout", int(c.ResetTimeout)},
		{"health interval", int(c.HealthInterval)},
		{"nudge interval", int(c.NudgeInterval)},
	} {
		if n.n < 1 {
			fail("%s must be positive, not %d", n.name, n.n)
		}
	}
	if c.MinIdle < 0 || c.MinIdle > c.PoolSize {
		fail("min idle is %d, want 0 to the pool size of %d", c.MinIdle, c.PoolSize)
	}
	if c.ReserveSize < 0 || c.MaxConnections < 0 {
		fail("reserve size %d and max connections %d must not be negative", c.ReserveSize, c.MaxConnections)
	}
	if !c.Mode.known() {
		fail("mode %q: want transaction, session or statement", c.Mode)
	}
	for name, u := range c.Users {
		if u.Mode != "" && !u.Mode.known() {
			fail("user %q: mode %q: want transaction, session or statement", name, u.Mode)
		}
		if u.PoolSize < 0 || u.MaxConnections < 0 {
			fail("user %q: pool size %d and max connections %d must not be negative", name, u.PoolSize, u.MaxConnections)
		}
	}
	if len(c.Shards) == 0 {
		fail("no shard is configured")
	}
	names := map[string]bool{}
	c.Shards = append([]ShardConfig(nil), c.Shards...)
	for i := range c.Shards {
		s := &c.Shards[i]
		if s.Name == "" || names[s.Name] {
			fail("shard %d: name %q is empty or used twice", i+1, s.Name)
		}
		names[s.Name] = true
		def(&s.Database, c.Database)
		if len(s.Endpoints) == 0 {
			fail("shard %q has no endpoint", s.Name)
		}
		s.Endpoints = append([]EndpointConfig(nil), s.Endpoints...)
		for j := range s.Endpoints {
			e := &s.Endpoints[j]
			def(&e.Port, 5432)
			def(&e.Weight, 1)
			if e.Host == "" {
				fail("shard %q: endpoint %d has no host", s.Name, j+1)
			}
			if e.Port < 1 || e.Port > 65535 {
				fail("shard %q: endpoint %s has port %d, want 1 to 65535", s.Name, e.Host, e.Port)
			}
			if e.Weight < 1 || e.Weight > maxWeight {
				fail("shard %q: endpoint %s has weight %d, want 1 to %d", s.Name, e.Host, e.Weight, maxWeight)
			}
			if e.Role > RoleReplica {
				fail("shard %q: endpoint %s has an unknown role", s.Name, e.Host)
			}
		}
	}
	return c, errors.Join(errs...)
}

func def[T comparable](p *T, value T) {
	var zero T
	if *p == zero {
		*p = value
	}
}

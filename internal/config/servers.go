package config

import (
	"net"
	"strconv"
	"time"

	"github.com/tidemarkdb/tidemark/proxy"
	"github.com/tidemarkdb/tidemark/sharding"
)

// Clients bounds what clients can ask for.
type Clients struct {
	Max          int
	MaxLogins    int
	LoginTimeout time.Duration
	MaxMessage   int64 // bytes

	MessageMemory int64 // bytes; 0: left to the proxy

	MessageTimeout   time.Duration
	MaxNotifications int64 // bytes
}

func (c *Clients) fields() []field {
	return []field{
		{key: "max", into: integer(&c.Max, 1, 1_000_000), def: "10000", doc: "Connected clients at most; further ones are refused with SQLSTATE 53300."},
		{key: "max_logins", into: integer(&c.MaxLogins, 1, 1_000_000), def: "1000", doc: "Clients at most that have not proven yet who they are. At the limit one that has kept silent for 5 seconds makes room; if there is none, the newest is refused with SQLSTATE 53300."},
		{key: "login_timeout", into: period(&c.LoginTimeout), def: "30s", doc: "How long a login may take. The first packet must come within 10 seconds."},
		{key: "max_message", into: size(&c.MaxMessage), def: "64MB", doc: "The largest statement, or set of parameters that choose a shard; it takes two to three times as much memory until it is passed on. Other parameters, rows and COPY data are streamed and have no such limit."},
		{key: "message_memory", into: size(&c.MessageMemory), doc: "What such messages of all clients, those of at most 32 KB apart, may take together while they are read and until they are passed on, and what clients in bulk are read by, as in COPY, 256 KB each; one that there is no memory for is refused with SQLSTATE 53200, and its session goes on. At least twice `max_message`; 1GB when left out, or four times `max_message` where that is more."},
		{key: "message_timeout", into: period(&c.MessageTimeout), def: "1m", doc: "How long a client may pause in the middle of a message that is streamed (parameters of more than 16 KB, COPY data), and so keep a server connection waiting for the rest, or that is large and read whole; then its session ends. Between messages, within a transaction or a COPY, it may pause as long as PostgreSQL lets it."},
		{key: "max_notifications", into: size(&c.MaxNotifications), def: "1MB", doc: "Notifications that may wait for one client that listens, while it is in a transaction or does not read. A client that has more is told so, and its session ends."},
	}
}

// TLS is what clients see of the proxy.
type TLS struct {
	Cert, Key string // files in PEM form
	CA        string // file; empty: clients need no certificate
	Require   bool

	ClientAuth ClientAuth
	MinVersion TLSVersion
}

// ClientAuth says whether clients need a certificate where there are authorities.
type ClientAuth string

// The ways.
const (
	ClientAuthOptional ClientAuth = "optional"
	ClientAuthRequired ClientAuth = "required"
)

// TLSVersion is a version of TLS.
type TLSVersion string

// The versions.
const (
	TLS12 TLSVersion = "1.2"
	TLS13 TLSVersion = "1.3"
)

func (t *TLS) fields() []field {
	return []field{
		{key: "cert", into: text(&t.Cert), required: true, doc: "File with the certificate chain, PEM. A relative path is relative to the configuration file. The files of this section are read again when they change."},
		{key: "key", into: text(&t.Key), required: true, doc: "File with its private key, PEM."},
		{key: "ca", into: text(&t.CA), doc: "File with the authorities, PEM, that sign clients' certificates."},
		{key: "client_auth", into: choice(&t.ClientAuth, ClientAuthOptional, ClientAuthRequired), def: "required", doc: "With `ca`: whether every client over TLS must present a certificate, in addition to its password, or only if it wants to, as for `method: cert`."},
		{key: "min_version", into: choice(&t.MinVersion, TLS12, TLS13), def: "1.2", doc: "The oldest version of TLS that clients may speak."},
		{key: "require", into: boolean(&t.Require), def: "false", doc: "Refuse clients that do not use TLS."},
	}
}

// Database is the one database that is served.
type Database struct {
	Name       string // as clients name it
	ServerName string // as the servers name it
	User       string
	Password   Secret
	Login      proxy.LoginAs
	TLS        SSLMode
	CA         string
	Cert, Key  string

	MaxConnections int // to one server, of all users; 0: no limit of its own
}

// SSLMode is libpq's sslmode.
type SSLMode string

func (db *Database) fields() []field {
	return []field{
		{key: "name", into: text(&db.Name), required: true, doc: "The name that clients connect to."},
		{key: "server_name", into: text(&db.ServerName), doc: "The database's name on the servers; the same as `name` when left out."},
		{key: "user", into: text(&db.User), required: true, doc: "The role by which Tidemark logs in to the servers. The proxy needs the rights of its clients; capture needs `REPLICATION` too."},
		{key: "password", into: secret(&db.Password), doc: "That role's password. Left out, `PGPASSWORD` and the password file are asked, as libpq does."},
		{key: "login", into: choice(&db.Login, proxy.LoginShared, proxy.LoginClient), def: "shared", doc: "As whom clients' statements run on the servers: all as `user`, or each client as itself, by the password or the SCRAM keys of its own login; see [auth.md](auth.md)."},
		{key: "tls", into: choice[SSLMode](&db.TLS, "disable", "prefer", "require", "verify-ca", "verify-full"), def: "prefer", doc: "TLS to the servers, as libpq's `sslmode`. Only `verify-full` protects against an attacker in the network."},
		{key: "ca", into: text(&db.CA), doc: "File with the authorities, PEM, that sign the servers' certificates; the system's when left out."},
		{key: "cert", into: text(&db.Cert), doc: "File with the certificate, PEM, that Tidemark presents to the servers."},
		{key: "key", into: text(&db.Key), doc: "File with its private key, PEM."},
		{key: "max_connections", into: integer(&db.MaxConnections, 1, 100_000), doc: "Connections to one server at most, of all users together. Left out, only `pool.budget` bounds them."},
	}
}

// User may connect to the proxy. At most one of Password, SCRAM and MD5 is set; with none it comes in by certificate or
// trust.
type User struct {
	Name     string
	Password Secret
	SCRAM    Secret // a verifier as pg_authid.rolpassword holds it
	MD5      Secret // a hash as pg_authid.rolpassword holds it

	PoolMode       PoolMode // empty: Pool.Mode
	PoolSize       int      // 0: Pool.Size
	MaxConnections int      // to all servers; 0: no limit of its own
	MaxClients     int      // 0: no limit of its own
}

func (u *User) fields() []field {
	return []field{
		{key: "name", into: text(&u.Name), required: true, doc: "The user's name."},
		{key: "password", into: secret(&u.Password), doc: "The password in the clear, best as `${NAME}`."},
		{key: "scram", into: secret(&u.SCRAM), doc: "Instead of a password, its SCRAM-SHA-256 verifier as PostgreSQL stores it in `pg_authid.rolpassword`."},
		{key: "md5", into: secret(&u.MD5), doc: "Instead of a password, its MD5 hash as PostgreSQL stores it: `md5` and 32 hexadecimal digits. For rules of method `md5` or `password`."},
		{key: "pool_mode", into: choice(&u.PoolMode, TransactionMode, SessionMode, StatementMode), doc: "This user's pool mode; `pool.mode` when left out."},
		{key: "pool_size", into: integer(&u.PoolSize, 1, 10_000), doc: "Connections of this user to one server at most. The user then has pools of its own, also where it shares the role that logs in; `pool.size` when left out."},
		{key: "max_connections", into: integer(&u.MaxConnections, 1, 100_000), doc: "Connections of this user to all servers together at most. It then has pools of its own."},
		{key: "max_clients", into: integer(&u.MaxClients, 1, 1_000_000), doc: "Clients of this user at most; further ones are refused with SQLSTATE 53300."},
	}
}

// Shard is one PostgreSQL cluster. Servers are named by role (Primary, Replicas) or listed (Endpoints) and asked for it.
type Shard struct {
	Name      string
	Region    string
	Buckets   string // as written; empty: an even share
	Ranges    []sharding.Range
	Primary   *Endpoint
	Replicas  []Endpoint
	Endpoints []Endpoint
}

func (s *Shard) fields() []field {
	return []field{
		{key: "name", into: text(&s.Name), required: true, doc: "The shard's name; it appears in routes, logs, events and tokens, so it should not change."},
		{key: "region", into: text(&s.Region), doc: "The region of the shard's endpoints that give none themselves."},
		{key: "buckets", into: text(&s.Buckets), doc: "The buckets that the shard owns, such as `0-2047` or `0-1023,3072-4095`. Given for every shard or for none; without it buckets are split evenly."},
		{key: "primary", into: optional(&s.Primary, (*Endpoint).fields), doc: "The server that takes writes."},
		{key: "replicas", into: list(&s.Replicas, (*Endpoint).fields), doc: "Its streaming replicas."},
		{key: "endpoints", into: list(&s.Endpoints, (*Endpoint).fields), doc: "Instead of `primary` and `replicas`: the servers in any order; each is asked for its role."},
	}
}

// Endpoint is one PostgreSQL server.
type Endpoint struct {
	Host   string
	Port   int
	Role   Role
	Region string
	Weight int
}

// Role is what the file says about an endpoint, by the key it stands under.
type Role string

// The roles. AnyRole is found out by asking.
const (
	AnyRole     Role = ""
	PrimaryRole Role = "primary"
	ReplicaRole Role = "replica"
)

// Address is host:port, for people and for TCP.
func (e Endpoint) Address() string { return net.JoinHostPort(e.Host, strconv.Itoa(e.Port)) }

// Servers are all the endpoints of a shard, a named primary first.
func (s *Shard) Servers() []Endpoint {
	var out []Endpoint
	for e := range s.eachServer("") {
		out = append(out, *e)
	}
	return out
}

func (e *Endpoint) fields() []field {
	return []field{
		{key: "host", into: host(&e.Host), required: true, doc: "Name, address, or directory of the Unix socket."},
		{key: "port", into: integer(&e.Port, 1, 65535), def: "5432", doc: "The server's port."},
		{key: "region", into: text(&e.Region), doc: "The server's region; the shard's when left out."},
		{key: "weight", into: integer(&e.Weight, 1, 100), def: "1", doc: "Its share of reads among the shard's replicas."},
	}
}

// Pool bounds the server connections.
type Pool struct {
	Mode           PoolMode
	Size           int // per user and endpoint
	MinIdle        int // per user and endpoint
	ReserveSize    int // per user and endpoint
	ReserveTimeout time.Duration
	Budget         int // for the process
	AcquireTimeout time.Duration
	IdleTimeout    time.Duration
	Lifetime       time.Duration
	ConnectTimeout time.Duration
	CheckDelay     time.Duration // 0: never
	HealthInterval time.Duration
}

// PoolMode says for how long a client keeps a server connection.
type PoolMode string

// The pool modes, as PgBouncer has them.
const (
	TransactionMode PoolMode = "transaction"
	SessionMode     PoolMode = "session"
	StatementMode   PoolMode = "statement"
)

func (p *Pool) fields() []field {
	return []field{
		{key: "mode", into: choice(&p.Mode, TransactionMode, SessionMode, StatementMode), def: "transaction", doc: "For how long a client keeps a server connection. `transaction`: until its transaction ends. `session`: until it leaves; it then uses one connection to the primary of each shard that it touches, and replicas serve it no reads. `statement`: until its statement ends; `BEGIN` is refused."},
		{key: "size", into: integer(&p.Size, 1, 10_000), def: "20", doc: "Connections to one server at most, of all clients that log in to it as the same user."},
		{key: "min_idle", into: integer(&p.MinIdle, 0, 10_000), def: "0", doc: "Connections to one server that are opened ahead and kept, for each such user that has used some lately, as far as the limits leave room."},
		{key: "reserve_size", into: integer(&p.ReserveSize, 0, 10_000), def: "0", doc: "Connections beyond `size` that are opened when clients have waited for `reserve_timeout`, one for each such client. They are closed when they are idle again."},
		{key: "reserve_timeout", into: period(&p.ReserveTimeout), def: "5s", doc: "How long a client waits before it gets a connection of the reserve."},
		{key: "budget", into: integer(&p.Budget, 1, 100_000), def: "200", doc: "Connections of this process to all servers together at most, of all users. Where that is not enough, idle ones make room, and pools that have none get their turn. Beside these there are one to each server for its health, one that reads the schema when it changes, and is kept for ten seconds then, one for each cancel request, and at most four for `auth.query`."},
		{key: "acquire_timeout", into: period(&p.AcquireTimeout), def: "10s", doc: "How long a client waits for a free connection before its statement fails."},
		{key: "idle_timeout", into: period(&p.IdleTimeout), def: "10m", doc: "When an unused connection is closed, give or take a tenth, so that not all go at once."},
		{key: "lifetime", into: period(&p.Lifetime), def: "1h", doc: "When a connection is replaced, give or take a tenth, in use or not; at the end of its transaction."},
		{key: "connect_timeout", into: period(&p.ConnectTimeout), def: "5s", doc: "How long connecting and logging in to a server may take."},
		{key: "check_delay", into: duration(&p.CheckDelay), def: "30s", doc: "A connection that was idle for longer is asked for an empty query before its next use, because firewalls drop idle connections silently; `0s` for never. Connections in steady use never pay for it."},
		{key: "health_interval", into: period(&p.HealthInterval), def: "1s", doc: "How often each endpoint is asked for its health, role and replay position."},
	}
}

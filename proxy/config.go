package proxy

import (
	"crypto/tls"
	"errors"
	"fmt"
	"time"

	"github.com/tidemarkdb/tidemark/internal/wire"
)

// Config is what a proxy serves and to whom.
type Config struct {
	// Database is the name that clients connect to. Required.
	Database string
	// Users who may come in. Required where Parts has no Lookup.
	Users []User
	// LookupTTL is for how long a looked-up user is remembered, LookupAbsent for how long that there is none, or one that
	// nobody has logged in as. Defaults 1 min, 5 s.
	LookupTTL, LookupAbsent time.Duration
	// Rules say how clients prove who they are; the first that matches decides. Default: all by SCRAM-SHA-256.
	Rules []Rule
	// MockSecret makes the salts of users that do not exist. All proxies of a cluster should have the same, and keep it,
	// or the salts tell after a while who exists. Default: random.
	MockSecret string
	// LoginAs says as whom statements run on the servers. Default LoginShared.
	LoginAs LoginAs
	// Admins may enter the admin database and give commands there, StatsUsers may read its tables. They log in as all
	// users do.
	Admins, StatsUsers []string
	// TLS is offered to clients that ask for it, or begin with it, when set. RequireTLS refuses those that do not.
	// Its GetConfigForClient may give another one to each client. Channel binding needs one certificate in each.
	TLS        *tls.Config
	RequireTLS bool
	// MaxClients bounds connected clients; further ones get SQLSTATE 53300. Default 10,000.
	MaxClients int
	// MaxClientsOf bounds the clients of single users, by name, in the same way.
	MaxClientsOf map[string]int
	// MaxLogins bounds clients that have not proven yet who they are; see doorstep. Default 1,000.
	MaxLogins int
	// LoginTimeout bounds a login, from accept to ReadyForQuery. Default 30 s.
	LoginTimeout time.Duration
	// MaxMessage bounds, in bytes, a message of a client that must be read whole before it can be routed: Query,
	// Parse, and a Bind whose values choose the shard. Default 64 MiB.
	MaxMessage int
	// MessageMemory bounds, in bytes, what such messages of all clients take together, those of at most 32 KiB apart; what is beyond it
	// gets SQLSTATE 53200. At least twice MaxMessage. Default 1 GiB, or four times MaxMessage.
	MessageMemory int
	// MessageTimeout bounds how long a client may pause in the middle of a message that is passed on while it comes, for that keeps
	// a server connection, or that is large and read whole, for that keeps memory. Default 1 min.
	MessageTimeout time.Duration
	// MaxNotifications bounds, in bytes, the notifications that wait for a client which listens: while it is in a transaction, or
	// does not read. Beyond it the client's session ends. Default 1 MiB.
	MaxNotifications int
	// Consistency is the default of tidemark.consistency. Default Session.
	Consistency Consistency
	// WaitTimeout is the default of tidemark.wait_timeout: how long a read waits for a copy to reach the session's
	// marks. Default 5 s.
	WaitTimeout time.Duration
	// OnTimeout is the default of tidemark.on_timeout. Default OnTimeoutError.
	OnTimeout OnTimeout
	// Tracing is where traces go; nil: there are none.
	Tracing *Tracing
}

// Consistency says how old an answer may be, relative to what the session wrote and saw.
type Consistency string

// The levels of consistency.
const (
	Eventual Consistency = "eventual" // any copy answers
	Session  Consistency = "session"  // only copies that have what the session wrote and saw
)

// OnTimeout says what happens when a copy does not arrive in time.
type OnTimeout string

// What can happen then.
const (
	OnTimeoutPrimary OnTimeout = "primary" // a table is read from its primary; a read model gives an error
	OnTimeoutStale   OnTimeout = "stale"   // the old answer, with a warning
	OnTimeoutError   OnTimeout = "error"   // an error
)

func (c Config) withDefaults() (Config, error) {
	if c.Database == "" {
		return c, errors.New("proxy: no database name")
	}
	if c.RequireTLS && c.TLS == nil {
		return c, errors.New("proxy: TLS is required, but no certificate is configured")
	}
	if c.MaxClients == 0 {
		c.MaxClients = 10_000
	}
	if c.MaxLogins == 0 {
		c.MaxLogins = 1000
	}
	if c.LookupTTL == 0 {
		c.LookupTTL = time.Minute
	}
	if c.LookupAbsent == 0 {
		c.LookupAbsent = 5 * time.Second
	}
	if c.LoginAs == "" {
		c.LoginAs = LoginShared
	}
	if c.LoginTimeout == 0 {
		c.LoginTimeout = 30 * time.Second
	}
	if c.MaxMessage == 0 {
		c.MaxMessage = 64 << 20
	}
	if c.MessageMemory == 0 {
		c.MessageMemory = max(1<<30, 4*c.MaxMessage)
	}
	if c.MessageMemory < 2*c.MaxMessage {
		return c, fmt.Errorf("proxy: MessageMemory, %d bytes, is less than twice MaxMessage, %d bytes", c.MessageMemory, c.MaxMessage)
	}
	if c.MessageTimeout == 0 {
		c.MessageTimeout = time.Minute
	}
	if c.MaxNotifications == 0 {
		c.MaxNotifications = 1 << 20
	}
	if c.Consistency == "" {
		c.Consistency = Session
	}
	if c.WaitTimeout == 0 {
		c.WaitTimeout = 5 * time.Second
	}
	if c.OnTimeout == "" {
		c.OnTimeout = OnTimeoutError
	}
	if c.MaxClients < 0 || c.MaxLogins < 0 || c.LookupTTL < 0 || c.LookupAbsent < 0 || c.LoginTimeout < 0 || c.MaxMessage < 0 || c.MessageTimeout < 0 || c.MaxNotifications < 0 || c.WaitTimeout < 0 {
		return c, errors.New("proxy: a limit is negative")
	}
	if _, err := parseConsistency(string(c.Consistency)); err != nil {
		return c, fmt.Errorf("proxy: %w", err)
	}
	if _, err := parseOnTimeout(string(c.OnTimeout)); err != nil {
		return c, fmt.Errorf("proxy: %w", err)
	}
	return c, nil
}

func parseConsistency(s string) (Consistency, error) {
	switch c := Consistency(s); c {
	case Eventual, Session:
		return c, nil
	case "strong":
		return "", wire.Errorf(wire.FeatureNotSupported, `tidemark.consistency "strong" is not supported`).
			WithHint(`Use "session", or read inside a transaction, which always runs on the primary.`)
	}
	return "", wire.Errorf(wire.InvalidParameterValue, "invalid value for parameter \"tidemark.consistency\": %q", s).
		WithHint("Available values: eventual, session.")
}

func parseOnTimeout(s string) (OnTimeout, error) {
	switch o := OnTimeout(s); o {
	case OnTimeoutPrimary, OnTimeoutStale, OnTimeoutError:
		return o, nil
	}
	return "", wire.Errorf(wire.InvalidParameterValue, "invalid value for parameter \"tidemark.on_timeout\": %q", s).
		WithHint("Available values: primary, stale, error.")
}

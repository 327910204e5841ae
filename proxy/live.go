package proxy

import (
	"fmt"
)

// live is all that a new configuration replaces, in one step: the Config with its defaults, and what is made of it once.
// It is never changed in place. A login sees one of them from its begin to its end only where it keeps it; sessions look
// again with every message, which costs one load.
type live struct {
	Config
	doorkeeper *doorkeeper
	tls        *clientTLS // nil: none
}

// newLive takes salt to make those of users from that have none of their own.
func newLive(cfg Config, lookup Lookup, salt []byte) (*live, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	l := &live{Config: cfg, tls: newClientTLS(cfg.TLS)}
	l.doorkeeper, err = newDoorkeeper(&l.Config, lookup, salt)
	return l, err
}

// cfg is the configuration now. It must not be changed.
func (p *Proxy) cfg() *Config { return &p.live.Load().Config }

// Prepare checks a new configuration and returns what puts it into force: all of it at once, for logins and statements from
// then on. Settings that sessions already have stay theirs. The database's name cannot change.
func (p *Proxy) Prepare(cfg Config) (apply func(), err error) {
	l, err := newLive(cfg, p.lookup, p.salt)
	if err != nil {
		return nil, err
	}
	if old := p.cfg().Database; l.Database != old {
		return nil, fmt.Errorf("proxy: the database is %q and cannot become %q while the proxy runs", old, l.Database)
	}
	return func() { p.live.Store(l) }, nil
}

package proxy

import (
	"fmt"

	"github.com/tidemarkdb/tidemark/internal/wire"
)

// live is all that a new configuration replaces, in one step: the Config with its defaults, and what is made of it once.
// It is never changed in place. A login sees one of them from its begin to its end only where it keeps it; sessions look
// again with every message, which costs one load.
type live struct {
	Config
	users map[string]wire.Verifier
}

func newLive(cfg Config) (*live, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	l := &live{Config: cfg, users: map[string]wire.Verifier{}}
	for _, u := range cfg.Users {
		if _, twice := l.users[u.Name]; twice {
			return nil, fmt.Errorf("proxy: user %q is configured twice", u.Name)
		}
		l.users[u.Name] = u.Verifier
	}
	return l, nil
}

// cfg is the configuration now. It must not be changed.
func (p *Proxy) cfg() *Config { return &p.live.Load().Config }

// Prepare checks a new configuration and returns what puts it into force: all of it at once, for logins and statements from
// then on. Settings that sessions already have stay theirs. The database's name cannot change.
func (p *Proxy) Prepare(cfg Config) (apply func(), err error) {
	l, err := newLive(cfg)
	if err != nil {
		return nil, err
	}
	if old := p.cfg().Database; l.Database != old {
		return nil, fmt.Errorf("proxy: the database is %q and cannot become %q while the proxy runs", old, l.Database)
	}
	return func() { p.live.Store(l) }, nil
}

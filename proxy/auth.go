package proxy

import (
	"context"
	"errors"
	"fmt"

	"github.com/tidemarkdb/tidemark/internal/wire"
)

// doorkeeper is who may come in, by one configuration: the rules, the users and where others are looked up.
type doorkeeper struct {
	rules     []Rule
	users     map[string]Secret
	disguise  *disguise
	directory *directory // nil: there are no users but those
}

// newDoorkeeper takes about a millisecond for each user whose password is known in the clear.
func newDoorkeeper(cfg *Config, lookup Lookup, salt []byte) (*doorkeeper, error) {
	k := &doorkeeper{rules: cfg.Rules, users: make(map[string]Secret, len(cfg.Users)), disguise: newDisguise(cfg.MockSecret, salt)}
	if len(k.rules) == 0 {
		k.rules = defaultRules
	}
	if err := k.check(cfg); err != nil {
		return nil, err
	}
	for _, u := range cfg.Users {
		if _, twice := k.users[u.Name]; twice {
			return nil, fmt.Errorf("proxy: user %q is configured twice", u.Name)
		}
		s, err := k.disguise.complete(u.Name, u.Secret)
		if err != nil {
			return nil, fmt.Errorf("proxy: user %q: %w", u.Name, err)
		}
		k.users[u.Name] = s
		k.disguise.saw(s)
	}
	if lookup != nil {
		k.directory = newDirectory(lookup, k.disguise, cfg.LookupTTL, cfg.LookupAbsent)
	} else if len(k.users) == 0 {
		return nil, errors.New("proxy: no users: nobody could log in")
	}
	return k, nil
}

// check finds rules that could never let anybody in.
func (k *doorkeeper) check(cfg *Config) error {
	for i, r := range k.rules {
		needsTLS := r.Type == ConnTLS || r.Method == MethodSCRAMPlus || r.Method == MethodCert
		switch {
		case needsTLS && cfg.TLS == nil:
			return fmt.Errorf("proxy: rule %d (%s, %s) needs TLS, but no certificate is configured", i, r.Type, r.Method)
		case needsTLS && (r.Type == ConnPlain || r.Type == ConnLocal):
			return fmt.Errorf("proxy: rule %d: method %s needs TLS, which connections of type %s do not have", i, r.Method, r.Type)
		case r.Method == MethodPeer && r.Type != ConnLocal:
			return fmt.Errorf("proxy: rule %d: method peer is for connections of type local only", i)
		}
	}
	return nil
}

// lookUp is what is known of a user. known is false for one that does not exist. The error is for the log.
func (l *login) lookUp() (s Secret, known bool, err error) {
	k := l.live.doorkeeper
	if s, known = k.users[l.user]; known || k.directory == nil {
		return s, known, nil
	}
	e := k.directory.find(l.user)
	if e.known() {
		return e.answer(context.Background())
	}
	l.await(func(ctx context.Context) { s, known, err = e.answer(ctx) })
	return s, known, err
}

// authenticate has the client prove who it is, in the way that the first matching rule says. What fails, fails alike for
// wrong passwords and for users that do not exist.
func (l *login) authenticate() error {
	k := l.live.doorkeeper
	a := newArrival(l.user, l.database, l.conn.RemoteAddr(), l.tls != nil)
	r := decide(k.rules, a)
	switch {
	case r == nil:
		return errNoRule(k.rules, a)
	case r.Method == MethodReject:
		return errRejected(a)
	case (r.Method == MethodSCRAMPlus || r.Method == MethodCert) && !a.encrypted,
		r.Method == MethodPassword && !r.Cleartext && !a.encrypted && a.addr.IsValid():
		return r.errNeedsTLS(a)
	}
	secret, known, err := l.lookUp()
	if err != nil {
		return errors.Join(wire.Errorf(wire.CannotConnectNow, "cannot look up the user").
			WithHint("The query of auth.query failed; the proxy's log says why."), err)
	}
	l.known = known
	answer, err := l.prove(r, secret, known)
	switch {
	case k.directory == nil:
	case err == nil:
		k.directory.proven(l.user)
	case errors.Is(err, errNotProven):
		k.directory.failed(l.user)
	}
	if err != nil {
		return err
	}
	l.method, l.secret = r.Method, secret
	l.out = wire.AppendAuthenticationOK(answer)
	return nil
}

// prove runs the method of a rule. What it returns goes in front of AuthenticationOk.
func (l *login) prove(r *Rule, secret Secret, known bool) ([]byte, error) {
	switch r.Method {
	case MethodTrust, MethodCert, MethodPeer:
		if err := l.unasked(r); err != nil {
			return nil, err
		}
		return nil, l.exists(known)
	case MethodPassword:
		return nil, l.byPassword(secret)
	case MethodMD5:
		if _, ok := secret.md5Hash(l.user); ok || secret.empty() && l.live.doorkeeper.disguise.asksMD5() {
			return nil, l.byMD5(secret)
		}
	}
	return l.bySCRAM(secret, r.Method == MethodSCRAMPlus)
}

// unasked proves who a client is without a word of its own.
func (l *login) unasked(r *Rule) error {
	switch r.Method {
	case MethodCert:
		return l.byCertificate(r.CertName)
	case MethodPeer:
		return l.byPeer()
	}
	return nil // MethodTrust
}

// exists answers clients that need not prove anything that the proxy keeps: as in PostgreSQL they still need a user.
func (l *login) exists(known bool) error {
	if known {
		return nil
	}
	return wire.Errorf(wire.InvalidAuthorizationSpecification, "role \"%s\" does not exist", l.user).
		WithHint("Neither users nor auth.query of the configuration knows it.")
}

func errNeedsTLS() *wire.Error {
	return wire.Errorf(wire.InvalidAuthorizationSpecification, "connection requires TLS").WithHint("Connect with sslmode=require.")
}

// errNotProven is within every refusal of a wrong password.
var errNotProven = errors.New("authentication failed")

// errPassword is what every wrong password is told. The reason is for the log; empty: the usual one.
func (l *login) errPassword(secret Secret, reason string) error {
	switch {
	case reason != "":
	case !l.known:
		reason = "there is no such user"
	case secret.empty():
		reason = "the user has no password"
	default:
		reason = "the password does not match"
	}
	e := wire.Errorf(wire.InvalidPassword, "password authentication failed for user \"%s\"", l.user)
	return errors.Join(e, fmt.Errorf("%w: %s", errNotProven, reason))
}

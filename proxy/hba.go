package proxy

import (
	"crypto/x509"
	"net"
	"net/netip"
	"slices"

	"github.com/tidemarkdb/tidemark/internal/wire"
)

// Rule says how clients that come in one way prove who they are. As in pg_hba.conf the first rule that matches decides,
// and a client that none matches is refused.
type Rule struct {
	Type      ConnType
	Databases []string       // names, or RuleAll, or RuleSameUser; none: all
	Users     []string       // names, or RuleAll; none: all
	Addresses []netip.Prefix // of the client; none: any, Unix sockets included
	Method    Method
	Cleartext bool     // MethodPassword without TLS too
	CertName  CertName // MethodCert: which name of the certificate is the user's; default CertCN
}

// ConnType is how a client is connected.
type ConnType string

// The ways to connect.
const (
	ConnAny   ConnType = "any"
	ConnTLS   ConnType = "tls"   // TCP with TLS: pg_hba.conf's hostssl
	ConnPlain ConnType = "plain" // TCP without: hostnossl
	ConnLocal ConnType = "local" // a Unix socket
)

// Method is how a client proves who it is, by PostgreSQL's name.
type Method string

// The methods.
const (
	MethodSCRAM     Method = "scram-sha-256"      // bound to the TLS channel when the client can
	MethodSCRAMPlus Method = "scram-sha-256-plus" // always bound
	MethodMD5       Method = "md5"                // SCRAM for users whose secret is a SCRAM verifier, as in PostgreSQL
	MethodPassword  Method = "password"           // in the clear, over TLS unless Rule.Cleartext
	MethodCert      Method = "cert"               // by a name in the verified certificate
	MethodPeer      Method = "peer"               // by the system's name of the user at the other end of a Unix socket
	MethodTrust     Method = "trust"
	MethodReject    Method = "reject"
)

// CertName is the part of a client's certificate that names the user.
type CertName string

// The parts.
const (
	CertCN  CertName = "cn"  // the subject's common name
	CertSAN CertName = "san" // any subject alternative name: DNS, e-mail or URI
)

// Words that stand for names in a Rule.
const (
	RuleAll      = "all"
	RuleSameUser = "sameuser" // the database is named as the user
)

// defaultRules hold when none are configured.
var defaultRules = []Rule{{Type: ConnAny, Method: MethodSCRAM}}

// arrival is what rules ask about a client.
type arrival struct {
	user, database string
	addr           netip.Addr // not valid for a Unix socket
	host           string     // for people: the address, or localHost
	encrypted      bool
}

// hostPort is a client's address for people.
func hostPort(a net.Addr) string {
	if a.Network() == "unix" {
		return localHost // what the client has bound, if anything, tells nothing
	}
	return a.String()
}

// localHost stands for the address of clients on a Unix socket, as in PostgreSQL.
const localHost = "[local]"

func newArrival(user, database string, remote net.Addr, encrypted bool) arrival {
	a := arrival{user: user, database: database, host: localHost, encrypted: encrypted}
	if tcp, ok := remote.(*net.TCPAddr); ok {
		a.addr = tcp.AddrPort().Addr().Unmap().WithZone("")
		a.host = a.addr.String()
	}
	return a
}

// decide is the first rule that matches, nil for none.
func decide(rules []Rule, a arrival) *Rule {
	for i := range rules {
		if rules[i].matches(a) {
			return &rules[i]
		}
	}
	return nil
}

func (r *Rule) matches(a arrival) bool {
	switch r.Type {
	case ConnTLS:
		if !a.encrypted {
			return false
		}
	case ConnPlain:
		if a.encrypted || !a.addr.IsValid() {
			return false
		}
	case ConnLocal:
		if a.addr.IsValid() {
			return false
		}
	}
	if len(r.Addresses) > 0 && !slices.ContainsFunc(r.Addresses, func(p netip.Prefix) bool { return p.Contains(a.addr) }) {
		return false
	}
	return (len(r.Databases) == 0 || slices.ContainsFunc(r.Databases, func(d string) bool {
		return d == RuleAll || d == a.database || d == RuleSameUser && a.database == a.user
	})) && (len(r.Users) == 0 || slices.ContainsFunc(r.Users, func(u string) bool { return u == RuleAll || u == a.user }))
}

// encryption is how PostgreSQL's messages call it.
func (a arrival) encryption() string {
	if a.encrypted {
		return "SSL encryption"
	}
	return "no encryption"
}

// errNoRule is pg_hba.conf's answer to those that no line is for.
func errNoRule(rules []Rule, a arrival) *wire.Error {
	e := wire.Errorf(wire.InvalidAuthorizationSpecification, "no auth.rules entry for host %q, user %q, database %q, %s", a.host, a.user, a.database, a.encryption())
	a.encrypted = true
	if r := decide(rules, a); a.addr.IsValid() && r != nil && r.Method != MethodReject {
		return e.WithHint("There is one for TLS: connect with sslmode=require.")
	}
	return e.WithHint("Add a rule that matches to auth.rules.")
}

// errNeedsTLS is for clients whose connection is not fit for the rule's method.
func (r *Rule) errNeedsTLS(a arrival) *wire.Error {
	if a.addr.IsValid() {
		return errNeedsTLS()
	}
	return wire.Errorf(wire.InvalidAuthorizationSpecification, "method %s of auth.rules needs TLS, which a Unix socket does not have", r.Method).
		WithHint("Connect by TCP with sslmode=require, or put a rule of type local and another method before this one.")
}

func errRejected(a arrival) *wire.Error {
	return wire.Errorf(wire.InvalidAuthorizationSpecification, "auth.rules rejects connection for host %q, user %q, database %q, %s", a.host, a.user, a.database, a.encryption()).
		WithHint("A rule of method reject is the first that matches.")
}

// named says whether a certificate names the user.
func (c CertName) named(cert *x509.Certificate, user string) bool {
	if c != CertSAN {
		return cert.Subject.CommonName == user
	}
	for _, u := range cert.URIs {
		if u.String() == user {
			return true
		}
	}
	return slices.Contains(cert.DNSNames, user) || slices.Contains(cert.EmailAddresses, user)
}

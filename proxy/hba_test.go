package proxy

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"testing"
)

func TestRules(t *testing.T) {
	tcp := func(ip string) net.Addr { return &net.TCPAddr{IP: net.ParseIP(ip), Port: 40000} }
	unix := &net.UnixAddr{Name: "@", Net: "unix"}
	prefixes := func(texts ...string) (out []netip.Prefix) {
		for _, s := range texts {
			out = append(out, netip.MustParsePrefix(s))
		}
		return out
	}
	rules := []Rule{
		0: {Type: ConnAny, Users: []string{"mallory"}, Method: MethodReject},
		1: {Type: ConnLocal, Users: []string{"ops"}, Method: MethodTrust},
		2: {Type: ConnTLS, Users: []string{"svc", "job"}, Addresses: prefixes("10.1.0.0/16", "2001:db8::/32"), Method: MethodCert},
		3: {Type: ConnPlain, Databases: []string{"legacy"}, Method: MethodMD5},
		4: {Type: ConnTLS, Databases: []string{RuleSameUser}, Method: MethodPassword},
		5: {Type: ConnTLS, Databases: []string{RuleAll}, Users: []string{RuleAll}, Method: MethodSCRAMPlus},
		6: {Type: ConnPlain, Addresses: prefixes("127.0.0.1/32"), Method: MethodSCRAM},
	}
	for _, tt := range []struct {
		user, database string
		from           net.Addr
		encrypted      bool
		want           int // -1: none
	}{
		{"mallory", "shop", tcp("127.0.0.1"), true, 0},
		{"mallory", "shop", unix, false, 0},
		{"ops", "shop", unix, false, 1},
		{"ann", "shop", unix, false, -1},
		{"ops", "shop", tcp("127.0.0.1"), false, 6},
		{"svc", "shop", tcp("10.1.2.3"), true, 2},
		{"svc", "shop", tcp("::ffff:10.1.2.3"), true, 2}, // an IPv4 client of a listener for both
		{"job", "shop", tcp("2001:db8::7"), true, 2},
		{"svc", "shop", tcp("10.2.2.3"), true, 5},
		{"svc", "shop", tcp("10.1.2.3"), false, -1},
		{"svc", "legacy", tcp("10.1.2.3"), false, 3},
		{"ann", "legacy", unix, false, -1}, // a Unix socket is not plain TCP
		{"ann", "ann", tcp("192.0.2.1"), true, 4},
		{"ann", "shop", tcp("192.0.2.1"), true, 5},
		{"ann", "shop", tcp("192.0.2.1"), false, -1},
		{"all", "shop", tcp("127.0.0.1"), false, 6},
	} {
		got := decide(rules, newArrival(tt.user, tt.database, tt.from, tt.encrypted))
		switch {
		case got == nil && tt.want >= 0, got != nil && (tt.want < 0 || got != &rules[tt.want]):
			t.Errorf("%s to %s from %v, TLS %t: got %+v, want rule %d", tt.user, tt.database, tt.from, tt.encrypted, got, tt.want)
		}
	}
	if r := decide(defaultRules, newArrival("ann", "shop", unix, false)); r == nil || r.Method != MethodSCRAM {
		t.Errorf("without rules: %+v", r)
	}
}

func TestNoRuleHints(t *testing.T) {
	rules := []Rule{{Type: ConnTLS, Users: []string{"svc"}, Method: MethodSCRAM}, {Type: ConnTLS, Method: MethodReject}}
	tcp := &net.TCPAddr{IP: net.ParseIP("10.1.2.3"), Port: 40000}
	const byTLS, add = "There is one for TLS: connect with sslmode=require.", "Add a rule that matches to auth.rules."
	for _, tt := range []struct {
		user string
		addr net.Addr
		want string
	}{
		{"svc", tcp, byTLS},
		{"ann", tcp, add},
		{"svc", &net.UnixAddr{Name: "@", Net: "unix"}, add},
	} {
		if e := errNoRule(rules, newArrival(tt.user, "shop", tt.addr, false)); e.Hint != tt.want || !strings.HasSuffix(e.Message, ", no encryption") {
			t.Errorf("%s by %s: %q, %q, want hint %q", tt.user, tt.addr.Network(), e.Message, e.Hint, tt.want)
		}
	}
}

// Over a Unix socket nobody can be asked for TLS.
func TestNeedsTLS(t *testing.T) {
	r := &Rule{Type: ConnAny, Method: MethodCert}
	for _, tt := range []struct {
		addr net.Addr
		want string
	}{
		{&net.TCPAddr{IP: net.ParseIP("10.1.2.3"), Port: 40000}, "Connect with sslmode=require."},
		{&net.UnixAddr{Name: "@", Net: "unix"}, "Connect by TCP with sslmode=require, or put a rule of type local and another method before this one."},
	} {
		if e := r.errNeedsTLS(newArrival("svc", "shop", tt.addr, false)); e.Hint != tt.want {
			t.Errorf("%s: %q, want %q", tt.addr.Network(), e.Hint, tt.want)
		}
	}
}

func TestCertificateNamesUser(t *testing.T) {
	spiffe := &url.URL{Scheme: "spiffe", Host: "shop", Path: "/svc"}
	cert := &x509.Certificate{Subject: pkix.Name{CommonName: "svc"}, DNSNames: []string{"svc.shop"}, EmailAddresses: []string{"svc@shop"}, URIs: []*url.URL{spiffe}}
	for _, tt := range []struct {
		by   CertName
		user string
		want bool
	}{
		{CertCN, "svc", true},
		{CertCN, "SVC", false},
		{CertCN, "svc.shop", false},
		{"", "svc", true},
		{CertCN, "", false},
		{CertSAN, "svc", false},
		{CertSAN, "svc.shop", true},
		{CertSAN, "svc@shop", true},
		{CertSAN, "spiffe://shop/svc", true},
		{CertSAN, "", false},
	} {
		if got := tt.by.named(cert, tt.user); got != tt.want {
			t.Errorf("by %q, user %q: got %t", tt.by, tt.user, got)
		}
	}
}

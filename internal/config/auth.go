package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/tidemarkdb/tidemark/proxy"
)

// Auth says how clients prove who they are, and where users are looked up that the file does not list.
type Auth struct {
	Rules      []AuthRule // none: all by SCRAM
	Query      string     // empty: only Users
	User       string     // who runs Query; empty: Database.User
	Password   Secret
	CacheTime  time.Duration
	AbsentTime time.Duration
	MockSecret Secret
}

// AuthRule is one rule; the first that matches decides.
type AuthRule struct {
	Type      proxy.ConnType
	Databases []string
	Users     []string
	Addresses []netip.Prefix
	Method    proxy.Method
	Cleartext bool
	CertName  proxy.CertName
}

func (a *Auth) fields() []field {
	return []field{
		{key: "rules", into: list(&a.Rules, (*AuthRule).fields), doc: "How clients prove who they are, by where they come from; see [auth.md](auth.md). As in `pg_hba.conf` the first rule that matches decides, and a client that none matches is refused. Without rules all log in by SCRAM-SHA-256."},
		{key: "query", into: text(&a.Query), doc: "A query that finds users which `users` does not list, as PgBouncer's `auth_query`: `$1` is the name, and the row has the name and the secret, as in `SELECT usename, passwd FROM pg_shadow WHERE usename = $1`. It runs on the default shard, with `pg_catalog` alone in its `search_path`: other names need their schema."},
		{key: "user", into: text(&a.User), doc: "The role that runs the query; `database.user` when left out."},
		{key: "password", into: secret(&a.Password), doc: "That role's password."},
		{key: "cache_time", into: period(&a.CacheTime), def: "1m", doc: "How long a user that has logged in by the query's answer is remembered. A password that fails against an older answer has the query asked again next time."},
		{key: "absent_time", into: period(&a.AbsentTime), def: "5s", doc: "How long an answer is remembered that nobody has logged in by, as that there is no such user."},
		{key: "mock_secret", into: secret(&a.MockSecret), doc: "A long random text that makes the salts which users that do not exist are given. Several proxies should share it; without it each process has its own, and the salts that differ between them tell which users have no verifier."},
	}
}

func (r *AuthRule) fields() []field {
	return []field{
		{key: "type", into: choice(&r.Type, proxy.ConnAny, proxy.ConnTLS, proxy.ConnPlain, proxy.ConnLocal), def: "any", doc: "How the client is connected: TCP with TLS, TCP without (`plain`), a Unix socket (`local`), or any."},
		{key: "databases", into: texts(&r.Databases, "database", "a database's name, all, or sameuser", false, checkRuleName), doc: "The databases asked for, `all`, or `sameuser` where the database is named as the user. All when left out."},
		{key: "users", into: texts(&r.Users, "user", "a user's name, or all", false, checkRuleName), doc: "The users, or `all`. All when left out."},
		{key: "address", into: prefixes(&r.Addresses), doc: "The client's addresses, as `10.0.0.0/8` or `::1`. Any when left out, Unix sockets included."},
		{key: "method", into: choice(&r.Method, proxy.MethodSCRAM, proxy.MethodSCRAMPlus, proxy.MethodMD5, proxy.MethodPassword, proxy.MethodCert, proxy.MethodPeer, proxy.MethodTrust, proxy.MethodReject), required: true, doc: "How the client proves who it is. `scram-sha-256-plus` requires channel binding; `md5` takes SCRAM for users with a SCRAM verifier; `cert` takes a name in the certificate that `tls.ca` has signed; `peer` takes the name by which the system knows the user at the other end of a Unix socket."},
		{key: "cleartext", into: boolean(&r.Cleartext), def: "false", doc: "Let `method: password` send the password over TCP without TLS."},
		{key: "cert_name", into: choice(&r.CertName, proxy.CertCN, proxy.CertSAN), def: "cn", doc: "Which name in the certificate must be the user's: the subject's common name, or any subject alternative name (DNS, e-mail, URI)."},
	}
}

func checkRuleName(s string) error {
	switch {
	case s == "":
		return fmt.Errorf("it is empty")
	case s[0] == '/' || s[0] == '+' || s[0] == '@':
		return fmt.Errorf("regular expressions, roles' members and files are not supported")
	case s == "samerole" || s == "samegroup" || s == "replication":
		return fmt.Errorf("the word %s is not supported", s)
	}
	return nil
}

func prefixes(into *[]netip.Prefix) value {
	var found []string
	v := texts(&found, "address", "an address or a range as 10.0.0.0/8", false, func(s string) error {
		if s == "all" {
			*into = append(*into, netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0"))
			return nil
		}
		if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
			*into = append(*into, netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()))
			return nil
		}
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return fmt.Errorf("it is neither; names of hosts are not supported")
		}
		if p != p.Masked() {
			return fmt.Errorf("it has bits behind the mask; %v is meant", p.Masked())
		}
		*into = append(*into, p)
		return nil
	})
	return v
}

func (d *decoder) checkAuth(c *Config) {
	a := &c.Auth
	switch {
	case a.Query == "" && a.User != "":
		d.addAt("auth.user", "there is no auth.query that it could run")
	case a.Query == "" && !a.Password.Empty():
		d.addAt("auth.password", "there is no auth.query")
	case a.Query != "" && !strings.Contains(a.Query, "$1"):
		d.addAt("auth.query", "it does not use the user's name; expected $1 in it, as in ... WHERE usename = $1")
	case a.User == "" && !a.Password.Empty():
		d.addAt("auth.password", "there is no auth.user; database.user has its own password")
	}
	if d.present("auth.rules") && len(a.Rules) == 0 {
		d.addAt("auth.rules", "it is empty; expected at least one rule, or leave it out for SCRAM-SHA-256")
	}
	for i, r := range a.Rules {
		path := fmt.Sprintf("auth.rules[%d]", i)
		needsTLS := r.Method == proxy.MethodSCRAMPlus || r.Method == proxy.MethodCert
		switch {
		case needsTLS && (r.Type == proxy.ConnPlain || r.Type == proxy.ConnLocal):
			d.addAt(path+".method", "%s needs TLS, which connections of type %s do not have", r.Method, r.Type)
		case r.Method == proxy.MethodPeer && r.Type != proxy.ConnLocal:
			d.addAt(path+".method", "peer is for Unix sockets only; expected type: local")
		case needsTLS && c.TLS == nil:
			d.addAt(path+".method", "%s needs TLS; expected a section tls", r.Method)
		case r.Type == proxy.ConnTLS && c.TLS == nil:
			d.addAt(path+".type", "no connection has TLS without a section tls")
		case r.Method == proxy.MethodCert && c.TLS.CA == "":
			d.addAt(path+".method", "cert needs the authorities that sign clients' certificates; expected tls.ca")
		}
		for key, n := range map[string]int{"databases": len(r.Databases), "users": len(r.Users), "address": len(r.Addresses)} {
			if node := d.at[path+"."+key]; n == 0 && node != nil && node.Kind == yaml.SequenceNode && len(node.Content) == 0 {
				d.addAt(path+"."+key, "it is empty, which nothing matches; leave it out for all")
			}
		}
		if r.Cleartext && r.Method != proxy.MethodPassword {
			d.addAt(path+".cleartext", "it is for method password only")
		}
		if d.present(path+".cert_name") && r.Method != proxy.MethodCert {
			d.addAt(path+".cert_name", "it is for method cert only")
		}
		if r.Type == proxy.ConnLocal && len(r.Addresses) > 0 {
			d.addAt(path+".address", "a Unix socket's client has no address")
		}
		for _, name := range r.Databases {
			if known := []string{proxy.RuleAll, proxy.RuleSameUser, c.Database.Name, proxy.AdminDatabase}; c.Database.Name != "" && !slices.Contains(known, name) {
				d.addAt(path+".databases", "there is no database %q%s; expected %s", name, didYouMean(name, known), oneOf(known))
			}
		}
	}
}

// takes says whether some client can log in by one of the methods.
func (a *Auth) takes(methods ...proxy.Method) bool {
	return slices.ContainsFunc(a.Rules, func(r AuthRule) bool { return slices.Contains(methods, r.Method) })
}

func (a *Auth) rules() []proxy.Rule {
	var out []proxy.Rule
	for _, r := range a.Rules {
		out = append(out, proxy.Rule(r))
	}
	return out
}

package proxy_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/md5"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tidemarkdb/tidemark/internal/wire"
	"github.com/tidemarkdb/tidemark/proxy"
)

// authority signs certificates for tests.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	dir  string
	file string // its certificate
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir()}
	der := a.sign(&x509.Certificate{Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true}, "authority")
	var err error
	if a.cert, err = x509.ParseCertificate(der.Certificate[0]); err != nil {
		t.Fatal(err)
	}
	a.key = der.PrivateKey.(*ecdsa.PrivateKey)
	a.file = filepath.Join(a.dir, "authority.crt")
	return a
}

// sign makes a certificate, and the files name.crt and name.key.
func (a *authority) sign(template *x509.Certificate, name string) tls.Certificate {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template.SerialNumber, template.NotAfter = big.NewInt(time.Now().UnixNano()), time.Now().Add(time.Hour)
	parent, signer := template, key
	if a.cert != nil {
		parent, signer = a.cert, a.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{name + ".crt": {Type: "CERTIFICATE", Bytes: der}, name + ".key": {Type: "PRIVATE KEY", Bytes: pkcs8}} {
		if err := os.WriteFile(filepath.Join(a.dir, file), pem.EncodeToMemory(block), 0o600); err != nil {
			a.t.Fatal(err)
		}
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// server is what a proxy on 127.0.0.1 shows; it takes the authority's clients.
func (a *authority) server() *tls.Config {
	pair := a.sign(&x509.Certificate{Subject: pkix.Name{CommonName: "proxy"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}, "server")
	roots := x509.NewCertPool()
	roots.AddCert(a.cert)
	return &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: roots, ClientAuth: tls.VerifyClientCertIfGiven}
}

func md5Secret(t *testing.T, user, password string) proxy.Secret {
	t.Helper()
	s, err := proxy.ParseMD5(fmt.Sprintf("md5%x", md5.Sum([]byte(password+user))))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func verifier(t *testing.T, password string) wire.Verifier {
	t.Helper()
	v, err := wire.NewVerifier(password)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// Every method, by psql, which is to say libpq: who gets in, and what the others hear.
func TestMethodsWithPsql(t *testing.T) {
	psql := tool(t, "psql")
	ca := newAuthority(t)
	server := ca.server()
	ca.sign(&x509.Certificate{Subject: pkix.Name{CommonName: "svc"}, DNSNames: []string{"san"}}, "svc")
	stranger := newAuthority(t)
	stranger.sign(&x509.Certificate{Subject: pkix.Name{CommonName: "svc"}}, "svc")
	f := newFixture(t, fixtureSpec{shards: 1, config: func(c *proxy.Config) {
		c.TLS = server
		c.Users = []proxy.User{
			{Name: "plain", Secret: proxy.PasswordSecret("s3cret")},
			{Name: "hash", Secret: md5Secret(t, "hash", "s3cret")},
			{Name: "scram", Secret: proxy.VerifierSecret(verifier(t, "s3cret"))},
			{Name: "svc"},
			{Name: "san"},
		}
		for _, m := range []proxy.Method{proxy.MethodSCRAM, proxy.MethodSCRAMPlus, proxy.MethodMD5, proxy.MethodPassword, proxy.MethodCert, proxy.MethodTrust, proxy.MethodReject} {
			// The rule is chosen by the database's name, which "shop" does not have: who gets in hears that it does not exist.
			c.Rules = append(c.Rules, proxy.Rule{Type: proxy.ConnAny, Databases: []string{string(m)}, Method: m})
		}
		c.Rules = append(c.Rules, proxy.Rule{Type: proxy.ConnAny, Databases: []string{"san"}, Method: proxy.MethodCert, CertName: proxy.CertSAN},
			proxy.Rule{Type: proxy.ConnAny, Databases: []string{"cleartext"}, Method: proxy.MethodPassword, Cleartext: true},
			proxy.Rule{Type: proxy.ConnTLS, Databases: []string{"shop"}, Method: proxy.MethodSCRAM})
	}})
	p := f.run(t, "epoll")
	_, port, err := net.SplitHostPort(p.addr)
	if err != nil {
		t.Fatal(err)
	}
	const (
		in    = "does not exist" // FATAL:  database "md5" does not exist: the last check, behind authentication
		wrong = "password authentication failed for user"
		none  = "sslmode=disable"
		with  = "sslmode=require"
	)
	cert := func(a *authority, name string) string {
		return fmt.Sprintf("sslmode=require sslcert=%s/%s.crt sslkey=%s/%s.key", a.dir, name, a.dir, name)
	}
	for _, tt := range []struct{ rule, user, password, options, want string }{
		{"shop", "plain", "s3cret", with + " channel_binding=require", "in"},
		{"shop", "plain", "s3cret", "sslmode=verify-full sslrootcert=" + ca.file, "in"},
		{"shop", "plain", "s3cret", none, `no auth.rules entry for host "127.0.0.1", user "plain", database "shop", no encryption`},
		{"elsewhere", "plain", "s3cret", with, "SSL encryption"},
		{"scram-sha-256", "plain", "s3cret", none, in},
		{"scram-sha-256", "scram", "s3cret", none, in},
		{"scram-sha-256", "scram", "s3cret", with + " channel_binding=disable", in},
		{"scram-sha-256", "scram", "s3cret", with + " channel_binding=require", in},
		{"scram-sha-256", "scram", "wrong", with, wrong},
		{"scram-sha-256", "hash", "s3cret", none, wrong},
		{"scram-sha-256", "nobody", "s3cret", none, wrong},
		{"scram-sha-256-plus", "scram", "s3cret", with, in},
		{"scram-sha-256-plus", "scram", "wrong", with, wrong},
		{"scram-sha-256-plus", "scram", "s3cret", with + " channel_binding=disable", "channel binding is required"},
		{"scram-sha-256-plus", "scram", "s3cret", none, "connection requires TLS"},
		{"md5", "plain", "s3cret", none, in},
		{"md5", "hash", "s3cret", none, in},
		{"md5", "hash", "wrong", none, wrong},
		{"md5", "scram", "s3cret", none, in},
		{"md5", "nobody", "s3cret", none, wrong},
		{"md5", "hash", "s3cret", with + " channel_binding=require", "channel binding required"},
		{"password", "plain", "s3cret", with, in},
		{"password", "hash", "s3cret", with, in},
		{"password", "scram", "s3cret", with, in},
		{"password", "scram", "wrong", with, wrong},
		{"password", "nobody", "s3cret", with, wrong},
		{"password", "plain", "s3cret", none, "connection requires TLS"},
		{"cleartext", "plain", "s3cret", none, in},
		{"cert", "svc", "", cert(ca, "svc"), in},
		{"cert", "plain", "", cert(ca, "svc"), "certificate authentication failed"},
		{"cert", "svc", "", with, "connection requires a valid client certificate"},
		{"cert", "svc", "", none, "connection requires TLS"},
		{"cert", "svc", "", cert(stranger, "svc"), "unknown ca"},
		{"san", "san", "", cert(ca, "svc"), in},
		{"san", "svc", "", cert(ca, "svc"), "certificate authentication failed"},
		{"trust", "plain", "", none, in},
		{"trust", "nobody", "", none, `role "nobody" does not exist`},
		{"reject", "plain", "s3cret", none, "auth.rules rejects connection for host"},
	} {
		cmd := osexec.Command(psql, "-XAtw", fmt.Sprintf("host=127.0.0.1 port=%s dbname=%s user=%s %s", port, tt.rule, tt.user, tt.options), "-c", "select 'in'")
		cmd.Env = append(os.Environ(), "PGPASSWORD="+tt.password, "HOME="+t.TempDir())
		out, _ := cmd.CombinedOutput() // the output says what went wrong
		want := tt.want
		if want == in {
			want = fmt.Sprintf("database %q does not exist", tt.rule)
		}
		if !strings.Contains(string(out), want) {
			t.Errorf("%s as %s with %q, %s:\ngot  %swant %s", tt.rule, tt.user, tt.password, tt.options, out, want)
		}
	}
}

// TLS from the first byte, as PostgreSQL 17's sslnegotiation=direct, on both engines; and what must not follow it.
func TestDirectTLS(t *testing.T) {
	ca := newAuthority(t)
	server := ca.server()
	engines(t, func(t *testing.T, engineName string) {
		f := newFixture(t, fixtureSpec{shards: 1, config: func(c *proxy.Config) { c.TLS = server }})
		p := f.run(t, engineName)
		dsn := altered(p.dsn, "sslmode=disable", "sslmode=verify-full&sslnegotiation=direct&sslrootcert="+ca.file)
		c := connect(t, dsn)
		exec(t, c, "select repeat('x', 100000)")
		roots := x509.NewCertPool()
		roots.AddCert(ca.cert)
		for _, tt := range []struct {
			name      string
			protocols []string
			want      string // type of the first message; empty: none
		}{
			{"right", []string{"postgresql"}, "R"}, {"without ALPN", nil, "E"}, {"another protocol", []string{"h2"}, ""},
		} {
			tc := tls.Client(dialRaw(t, p.addr), &tls.Config{RootCAs: roots, ServerName: "127.0.0.1", NextProtos: tt.protocols})
			err := tc.HandshakeContext(t.Context())
			if err == nil {
				_, err = tc.Write(packet(3<<16, "user", clientUser, "database", "shop"))
			}
			first := make([]byte, 1)
			if err == nil {
				_, err = tc.Read(first)
			}
			if got := strings.Trim(string(first), "\x00"); got != tt.want {
				t.Errorf("%s: got %q, %v; want %q", tt.name, got, err, tt.want)
			}
		}
	})
	f := newFixture(t, fixtureSpec{shards: 1})
	p := f.run(t, "epoll")
	c := dialRaw(t, p.addr)
	write(t, c, []byte{0x16, 3, 1, 0, 5, 1, 2, 3, 4, 5})
	if n, err := c.Read(make([]byte, 1)); n > 0 || err == nil {
		t.Errorf("TLS where there is none was answered: %d bytes, %v", n, err)
	}
}

// pgx binds the channel too, with the certificate that it was shown.
func TestChannelBindingWithPgx(t *testing.T) {
	ca := newAuthority(t)
	server := ca.server()
	f := newFixture(t, fixtureSpec{shards: 1, config: func(c *proxy.Config) {
		c.TLS, c.Rules = server, []proxy.Rule{{Type: proxy.ConnTLS, Method: proxy.MethodSCRAMPlus}}
	}})
	dsn := f.start(t, "epoll")
	connect(t, altered(dsn, "sslmode=disable", "sslmode=require&channel_binding=require"))
	if _, err := pgx.Connect(t.Context(), altered(dsn, "sslmode=disable", "sslmode=require&channel_binding=disable")); code(err) != "28000" {
		t.Errorf("a login that is not bound: %v", err)
	}
}

// Users that only the query knows log in; it is asked once for many, and again when a password has changed.
func TestLookup(t *testing.T) {
	var asked atomic.Int32
	var password atomic.Value
	password.Store("first")
	f := newFixture(t, fixtureSpec{shards: 1, config: func(c *proxy.Config) {
		c.LookupTTL, c.LookupAbsent = time.Hour, time.Millisecond
	}, lookup: func(_ context.Context, user string) (string, bool, error) {
		asked.Add(1)
		switch user {
		case "far":
			return password.Load().(string), true, nil
		case "down":
			return "", false, errors.New("the directory is down")
		}
		return "", false, nil
	}})
	dsn := f.start(t, "epoll")
	as := func(user, password string) error {
		c, err := pgconn.Connect(t.Context(), altered(dsn, clientUser+":"+clientPassword, user+":"+password))
		if err == nil {
			err = c.Close(t.Context())
		}
		return err
	}
	for range 3 {
		if err := as("far", "first"); err != nil {
			t.Fatal(err)
		}
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("%d lookups for three logins of one user", n)
	}
	if err := as(clientUser, clientPassword); err != nil || asked.Load() != 1 {
		t.Errorf("a user of the configuration: %v, %d lookups", err, asked.Load())
	}
	password.Store("second")
	if err := as("far", "second"); code(err) != "28P01" {
		t.Errorf("against the old answer: %v", err)
	}
	if err := as("far", "second"); err != nil {
		t.Errorf("the query was not asked again: %v", err)
	}
	for user, want := range map[string]string{"nobody": "28P01", "down": "57P03"} {
		if err := as(user, "x"); code(err) != want {
			t.Errorf("%s: %v, want %s", user, err, want)
		}
	}
}

// A password that has been set anew on the server, to the same even, counts from the second login on.
func TestPasswordSetAnew(t *testing.T) {
	var stored atomic.Pointer[string]
	f := newFixture(t, fixtureSpec{shards: 1, config: func(c *proxy.Config) {
		c.LoginAs, c.LookupTTL, c.LookupAbsent = proxy.LoginClient, time.Hour, time.Millisecond
	}, lookup: func(_ context.Context, user string) (string, bool, error) {
		return *stored.Load(), user == "pt_anew", nil
	}})
	admin, err := pgx.Connect(t.Context(), f.cluster.Shards[0].Primary.DSN("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_, err := admin.Exec(context.Background(), "DROP ROLE pt_anew")
		if err != nil {
			t.Error(err)
		}
		_ = admin.Close(context.Background())
	})
	store := func(how, password string) {
		t.Helper()
		v := verifier(t, password)
		text := v.Reveal()
		stored.Store(&text)
		if _, err := admin.Exec(t.Context(), how+" ROLE pt_anew LOGIN PASSWORD '"+text+"'"); err != nil {
			t.Fatal(err)
		}
	}
	store("CREATE", "s3cret")
	dsn := f.start(t, "")
	enter := func(password string) error {
		c, err := pgx.Connect(t.Context(), altered(dsn, clientUser+":"+clientPassword, "pt_anew:"+password))
		if err == nil {
			_, err = c.Exec(t.Context(), "select 1")
			_ = c.Close(t.Context())
		}
		return err
	}
	if err := enter("s3cret"); err != nil {
		t.Fatal(err)
	}
	for _, password := range []string{"s3cret", "an0ther"} {
		store("ALTER", password)
		if _, err := admin.Exec(t.Context(), "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE usename = 'pt_anew'"); err != nil {
			t.Fatal(err)
		}
		if err := enter(password); code(err) != "28P01" && err != nil {
			t.Errorf("the first login with %s: %v", password, err)
		}
		if err := enter(password); err != nil {
			t.Errorf("the second login with %s: %v", password, err)
		}
	}
}

// Each client is itself on the server: by its password, or by the SCRAM keys of its own login, with no password stored.
func TestLoginAsClient(t *testing.T) {
	v := verifier(t, "s3cret")
	var asked string
	f := newFixture(t, fixtureSpec{shards: 1, config: func(c *proxy.Config) {
		c.LoginAs = proxy.LoginClient
		c.Rules = []proxy.Rule{{Users: []string{"pt_trusted"}, Method: proxy.MethodTrust}, {Users: []string{"pt_sent"}, Method: proxy.MethodPassword, Cleartext: true}, {Method: proxy.MethodSCRAM}}
		c.Users = []proxy.User{
			{Name: "pt_keys", Secret: proxy.VerifierSecret(v)},
			{Name: "pt_salt", Secret: proxy.VerifierSecret(verifier(t, "s3cret"))},
			{Name: "pt_plain", Secret: proxy.PasswordSecret("s3cret")},
			{Name: "pt_sent", Secret: proxy.VerifierSecret(v)},
			{Name: "pt_trusted"},
		}
	}})
	admin, err := pgx.Connect(t.Context(), f.cluster.Shards[0].Primary.DSN("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, user := range []string{"pt_keys", "pt_salt", "pt_plain", "pt_sent"} {
			if _, err := admin.Exec(context.Background(), "DROP ROLE "+user); err != nil {
				t.Error(err)
			}
		}
		_ = admin.Close(context.Background())
	})
	for _, user := range []string{"pt_keys", "pt_salt", "pt_plain", "pt_sent"} {
		if _, err := admin.Exec(t.Context(), "CREATE ROLE "+user+" LOGIN PASSWORD '"+v.Reveal()+"'"); err != nil {
			t.Fatal(err)
		}
	}
	engines(t, func(t *testing.T, engineName string) {
		dsn := f.start(t, engineName)
		as := func(user string) (*pgx.Conn, error) {
			return pgx.Connect(t.Context(), altered(dsn, clientUser+":"+clientPassword, user+":s3cret"))
		}
		for _, user := range []string{"pt_keys", "pt_plain", "pt_sent"} {
			c, err := as(user)
			if err != nil {
				t.Fatalf("%s: %v", user, err)
			}
			if err := c.QueryRow(t.Context(), "select current_user || ' ' || session_user").Scan(&asked); err != nil || asked != user+" "+user {
				t.Errorf("%s is %q on the server, %v", user, asked, err)
			}
			_ = c.Close(t.Context())
		}
		c, err := as("pt_salt") // the same password, another salt
		if err == nil {
			_, err = c.Exec(t.Context(), "select 1")
			_ = c.Close(t.Context())
		}
		var pgErr *pgconn.PgError
		if !errors.As(err, &pgErr) || pgErr.Code != "28P01" || !strings.Contains(pgErr.Hint, "same salt") {
			t.Errorf("verifiers that differ: %v", err)
		}
		if _, err := as("pt_trusted"); code(err) != "28000" || !strings.Contains(err.Error(), "cannot log in to the server") {
			t.Errorf("nothing to log in with: %v", err)
		}
	})
}

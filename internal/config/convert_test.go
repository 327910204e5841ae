package config

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tidemarkdb/tidemark/internal/backend"
	"github.com/tidemarkdb/tidemark/internal/wire"
)

func parsed(t *testing.T, src string) *Config {
	t.Helper()
	c, err := Parse(filepath.Join(t.TempDir(), "t.yaml"), []byte(src), nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Reference and local tables are captured from one shard, sharded ones from all.
func TestCaptureOf(t *testing.T) {
	c := parsed(t, withMinimal(`
capture: {tables: [orders, products, audit.log, unnamed]}
kafka: {brokers: [k:9092]}
sharding:
  default_shard: s2
  tables: {orders: {key: id}, products: reference, audit.log: {shard: s1}}
`))
	got := map[string][]string{}
	for _, s := range c.Shards {
		cfg, _ := c.CaptureOf(s)
		got[s.Name] = cfg.Tables
	}
	want := map[string][]string{"s1": {"orders", "audit.log"}, "s2": {"orders", "products", "unnamed"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("tables (-want +got)\n%s", diff)
	}
	cfg, _ := c.CaptureOf(c.Shards[1])
	if diff := cmp.Diff(map[string]string{"orders": "id"}, cfg.ShardKeys); diff != "" {
		t.Errorf("shard keys (-want +got)\n%s", diff)
	}
	for view, want := range map[string][]string{"orders": nil, "products": {"s2"}, "audit.log": {"s1"}} {
		if diff := cmp.Diff(want, c.ViewShards(View{From: view})); diff != "" {
			t.Errorf("shards of a view from %s (-want +got)\n%s", view, diff)
		}
	}
}

func TestBackendEndpoints(t *testing.T) {
	c := parsed(t, withMinimal(`
shards:
  - {name: s1, region: eu, primary: {host: a}, replicas: [{host: b, region: us, weight: 3}]}
  - {name: s2, endpoints: [{host: c}, {host: d, port: 5433}]}
`))
	want := []backend.ShardConfig{
		{Name: "s1", Endpoints: []backend.EndpointConfig{
			{Host: "a", Port: 5432, Role: backend.RolePrimary, Region: "eu", Weight: 1}, {Host: "b", Port: 5432, Role: backend.RoleReplica, Region: "us", Weight: 3},
		}},
		{Name: "s2", Endpoints: []backend.EndpointConfig{{Host: "c", Port: 5432, Weight: 1}, {Host: "d", Port: 5433, Weight: 1}}},
	}
	got, err := c.Backend()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got.Shards); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// A password from the file and its SCRAM verifier let the same client in.
func TestProxyUsers(t *testing.T) {
	verifier, err := wire.NewVerifier("hunter2")
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"password: hunter2", "scram: '" + verifier.Reveal() + "'"} {
		c, err := parsed(t, withMinimal("users: [{name: a, "+secret+"}]\n")).Proxy()
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range []string{"hunter2", "hunter3"} {
			if got, want := c.Users[0].Secret.Fits("a", p), p == "hunter2"; got != want {
				t.Errorf("%v: %s is let in: %v", c.Users[0].Secret, p, got)
			}
		}
	}
}

func TestClientTLS(t *testing.T) {
	dir := t.TempDir()
	writePair(t, filepath.Join(dir, "c.pem"), filepath.Join(dir, "k.pem"))
	load := func(section string) (*tls.Config, error) {
		c, err := Parse(filepath.Join(dir, "t.yaml"), []byte(withMinimal("tls: "+section+"\n")), nil)
		if err != nil {
			t.Fatal(err)
		}
		p, err := c.Proxy()
		return p.TLS, err
	}
	got, err := load("{cert: c.pem, key: k.pem}") // relative to the file
	if err != nil || len(got.Certificates) != 1 || got.ClientAuth != tls.NoClientCert {
		t.Errorf("certificate and key: %+v, %v", got, err)
	}
	if got, err = load("{cert: c.pem, key: k.pem, ca: c.pem}"); err != nil || got.ClientAuth != tls.RequireAndVerifyClientCert || got.ClientCAs == nil {
		t.Errorf("with authorities: %+v, %v", got, err)
	}
	for section, want := range map[string]string{
		"{cert: none.pem, key: k.pem}":            "tls.cert: open",
		"{cert: c.pem, key: none.pem}":            "tls.key: open",
		"{cert: c.pem, key: c.pem}":               "tls.key: tls: ",
		"{cert: k.pem, key: k.pem}":               "tls.cert: k.pem holds no certificate",
		"{cert: c.pem, key: k.pem, ca: k.pem}":    "tls.ca: k.pem holds no certificate",
		"{cert: c.pem, key: k.pem, ca: none.pem}": "tls.ca: open",
	} {
		if _, err := load(section); err == nil || !strings.Contains(err.Error(), want) || !regexp.MustCompile(`^\S*t\.yaml:\d+: `).MatchString(err.Error()) {
			t.Errorf("%s: error %v, want one with file, line and %q", section, err, want)
		}
	}
}

// So are the files for the servers.
func TestServerFiles(t *testing.T) {
	dir := t.TempDir()
	writePair(t, filepath.Join(dir, "c.pem"), filepath.Join(dir, "k.pem"))
	for section, want := range map[string]string{
		"{}":                                   "",
		"{ca: c.pem, cert: c.pem, key: k.pem}": "",
		"{ca: none.pem, tls: disable}":         "",
		"{ca: none.pem}":                       "database.ca: open",
		"{ca: k.pem}":                          "database.ca: k.pem holds no certificate",
		"{cert: none.pem, key: k.pem}":         "database.cert: open",
		"{cert: c.pem, key: none.pem}":         "database.key: open",
		"{cert: c.pem, key: c.pem}":            "database.key: tls: ",
		"{cert: k.pem, key: k.pem}":            "database.cert: k.pem holds no certificate",
	} {
		section = "{name: shop, user: app, " + section[1:]
		c, err := Parse(filepath.Join(dir, "t.yaml"), []byte(withMinimal("database: "+section+"\n")), nil)
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Backend()
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want) || !regexp.MustCompile(`^\S*t\.yaml:\d+: `).MatchString(err.Error())) {
			t.Errorf("%s: error %v, want one with file, line and %q", section, err, want)
		}
	}
}

// A renewed certificate is in use without anybody saying so; while the files do not fit together the old one stays.
func TestCertificatesAreReadAgain(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "c.pem"), filepath.Join(dir, "k.pem")
	writePair(t, cert, key)
	c, err := Parse(filepath.Join(dir, "t.yaml"), []byte(withMinimal("tls: {cert: c.pem, key: k.pem}\n")), nil)
	if err != nil {
		t.Fatal(err)
	}
	var warnings []error
	x := &certificates{c: c, warn: func(err error) { warnings = append(warnings, err) }}
	if x.current, err = c.readTLS(); err != nil {
		t.Fatal(err)
	}
	x.files = x.states()
	serial := func() string {
		x.looked = time.Now().Add(-certificatesEvery)
		return string(x.now().Certificates[0].Certificate[0])
	}
	first := serial()
	old, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	writePair(t, cert, key)
	renewed, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	write := func(b []byte, at time.Time) {
		t.Helper()
		if err := errors.Join(os.WriteFile(key, b, 0o600), os.Chtimes(key, at, at)); err != nil {
			t.Fatal(err)
		}
	}
	write(old, time.Now().Add(time.Minute)) // the certificate is new, its key is not yet
	for range 2 {
		if serial() != first {
			t.Error("halfway the old certificate is gone")
		}
	}
	if len(warnings) != 1 {
		t.Errorf("halfway: warnings %v, want one", warnings)
	}
	write(renewed, time.Now().Add(2*time.Minute))
	if x.looked = time.Now(); string(x.now().Certificates[0].Certificate[0]) != first {
		t.Error("it looked again too soon")
	}
	if serial() == first {
		t.Error("the renewed certificate is not in use")
	}
}

func writePair(t *testing.T, certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"}}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: cert}, keyFile: {Type: "EC PRIVATE KEY", Bytes: der}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

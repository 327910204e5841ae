package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tidemarkdb/tidemark/internal/config"
)

func TestTLSFindings(t *testing.T) {
	dir := t.TempDir()
	write := func(name, kind string, der []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	from := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	until := from.AddDate(1, 0, 0)
	for _, name := range []string{"a", "b"} {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: from, NotAfter: until}
		cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.MarshalECPrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		write(name+".crt", "CERTIFICATE", cert)
		write(name+".key", "EC PRIVATE KEY", der)
	}
	for _, test := range []struct {
		cert, key       string
		now             time.Time
		detail, problem string
	}{
		{"a.crt", "a.key", from.AddDate(0, 1, 0), "valid until 2031-01-01", ""},
		{"a.crt", "a.key", from.AddDate(0, -1, 0), "", "not valid before 2030-01-01"},
		{"a.crt", "a.key", until.AddDate(0, 1, 0), "", "expired"},
		{"a.crt", "b.key", from.AddDate(0, 1, 0), "", "does not match"},
		{"none.crt", "a.key", from.AddDate(0, 1, 0), "", "none.crt"},
	} {
		c := &config.Config{TLS: &config.TLS{Cert: filepath.Join(dir, test.cert), Key: filepath.Join(dir, test.key)}}
		detail, err := probeTLS(c, test.now)
		if detail != test.detail || (err != nil) != (test.problem != "") || err != nil && !strings.Contains(err.Error(), test.problem) {
			t.Errorf("%s, %s at %s: %q, %v", test.cert, test.key, test.now, detail, err)
		}
	}
}

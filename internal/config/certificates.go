package config

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"sync"
	"time"
)

// certificatesEvery is how often a handshake looks whether the files have changed.
const certificatesEvery = 2 * time.Second

// certificates is the tls section's files, as they are now: a renewed certificate is used without a restart or a RELOAD.
// While the files are wrong, as between the writing of a certificate and of its key, the last good ones stay.
type certificates struct {
	c    *Config
	warn func(error) // of wrong files, once for each change; nil: nobody

	mu      sync.Mutex // guards the fields below
	current *tls.Config
	files   [3]fileState // of current, or of what was wrong last
	looked  time.Time
}

// fileState tells whether a file has been written.
type fileState struct {
	written time.Time
	size    int64
}

// ClientTLS is the tls section; nil for none. The files must be right now, and are read again when they change. What is
// wrong then goes to warn.
func (c *Config) ClientTLS(warn func(error)) (*tls.Config, error) {
	if c.TLS == nil {
		return nil, nil
	}
	x := &certificates{c: c, warn: warn, looked: time.Now()}
	x.files = x.states()
	var err error
	if x.current, err = c.readTLS(); err != nil {
		return nil, err
	}
	out := x.current.Clone()
	out.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return x.now(), nil }
	return out, nil
}

// now is the configuration for one handshake.
func (x *certificates) now() *tls.Config {
	x.mu.Lock()
	defer x.mu.Unlock()
	if time.Since(x.looked) < certificatesEvery {
		return x.current
	}
	x.looked = time.Now()
	states := x.states()
	if states == x.files {
		return x.current
	}
	x.files = states
	next, err := x.c.readTLS()
	switch {
	case err == nil:
		x.current = next
	case x.warn != nil:
		x.warn(fmt.Errorf("the files changed, and the old ones stay in use: %w", err))
	}
	return x.current
}

func (x *certificates) states() (s [3]fileState) {
	for i, file := range []string{x.c.TLS.Cert, x.c.TLS.Key, x.c.TLS.CA} {
		if file == "" {
			continue
		}
		if info, err := os.Stat(x.c.path(file)); err == nil { // where there is none, reading it says so
			s[i] = fileState{info.ModTime(), info.Size()}
		}
	}
	return s
}

// readTLS reads the files. What it returns has all that the protocol wants, so that nobody copies it for each client.
func (c *Config) readTLS() (*tls.Config, error) {
	pair, err := c.keyPair("tls", c.TLS.Cert, c.TLS.Key)
	if err != nil {
		return nil, err
	}
	out := &tls.Config{
		Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12,
		NextProtos: []string{"postgresql"}, SessionTicketsDisabled: true,
	}
	if c.TLS.MinVersion == TLS13 {
		out.MinVersion = tls.VersionTLS13
	}
	if c.TLS.CA != "" {
		if out.ClientCAs, err = c.authorities("tls.ca", c.TLS.CA); err != nil {
			return nil, err
		}
		out.ClientAuth = tls.RequireAndVerifyClientCert
		if c.TLS.ClientAuth == ClientAuthOptional {
			out.ClientAuth = tls.VerifyClientCertIfGiven
		}
	}
	return out, nil
}

// ServerFiles reads the files by which servers are logged in to, so that one which does not do is told by its key.
func (c *Config) ServerFiles() error {
	db := c.Database
	if db.TLS == "disable" {
		return nil
	}
	if db.CA != "" {
		if _, err := c.authorities("database.ca", db.CA); err != nil {
			return err
		}
	}
	if db.Cert == "" {
		return nil
	}
	_, err := c.keyPair("database", db.Cert, db.Key)
	return err
}

// keyPair reads the certificate and the private key of a section.
func (c *Config) keyPair(section, certFile, keyFile string) (pair tls.Certificate, err error) {
	cert, err := os.ReadFile(c.path(certFile))
	if err != nil {
		return pair, c.wrong(section+".cert", err)
	}
	if !x509.NewCertPool().AppendCertsFromPEM(cert) { // X509KeyPair does not tell which of the two is wrong
		return pair, c.wrong(section+".cert", fmt.Errorf("%s holds no certificate in PEM form", certFile))
	}
	key, err := os.ReadFile(c.path(keyFile))
	if err != nil {
		return pair, c.wrong(section+".key", err)
	}
	if pair, err = tls.X509KeyPair(cert, key); err != nil {
		return pair, c.wrong(section+".key", err)
	}
	return pair, nil
}

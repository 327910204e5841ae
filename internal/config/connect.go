package config

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"

	"github.com/jackc/pgx/v5"
)

// ConnConfig says how to log in to one server, in the database that is served. The environment's PG* variables and the
// password file have no say in it.
func (c *Config) ConnConfig(e Endpoint) (*pgx.ConnConfig, error) {
	cc, err := pgx.ParseConfig("sslmode=disable")
	if err != nil {
		return nil, fmt.Errorf("configure connection: %w", err)
	}
	secure, err := c.ServerTLSConfig(e.Host)
	if err != nil {
		return nil, err
	}
	cc.Host, cc.Port = e.Host, uint16(e.Port) //nolint:gosec // validated to be a port
	cc.Database, cc.User, cc.Password = c.Database.ServerName, c.Database.User, c.Database.Password.Reveal()
	cc.TLSConfig, cc.Fallbacks = secure, nil
	cc.ConnectTimeout = c.Pool.ConnectTimeout
	cc.RuntimeParams = map[string]string{"application_name": "tidemark"}
	return cc, nil
}

// ServerTLSConfig is database.tls for one host; nil for none.
func (c *Config) ServerTLSConfig(host string) (*tls.Config, error) {
	db := c.Database
	if db.TLS == TLSDisable {
		return nil, nil
	}
	out := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
	if db.CA != "" {
		roots, err := c.certificates("database.ca", db.CA)
		if err != nil {
			return nil, err
		}
		out.RootCAs = roots
	}
	switch db.TLS {
	case TLSRequire:
		out.InsecureSkipVerify = true //nolint:gosec // that is what require means, as in libpq
	case TLSVerifyCA: // the chain but not the name: Go verifies both or, with a hook, what the hook verifies
		out.InsecureSkipVerify = true //nolint:gosec // VerifyConnection does the rest
		out.VerifyConnection = func(state tls.ConnectionState) error {
			opts := x509.VerifyOptions{Roots: out.RootCAs, Intermediates: x509.NewCertPool()}
			for _, cert := range state.PeerCertificates[1:] {
				opts.Intermediates.AddCert(cert)
			}
			_, err := state.PeerCertificates[0].Verify(opts)
			return err
		}
	}
	return out, nil
}

// ClientTLSConfig is the tls section; nil for none.
func (c *Config) ClientTLSConfig() (*tls.Config, error) {
	if c.TLS == nil {
		return nil, nil
	}
	pair, err := tls.LoadX509KeyPair(c.path(c.TLS.Cert), c.path(c.TLS.Key))
	if err != nil {
		return nil, fmt.Errorf("%s: tls: %w", c.File, err)
	}
	out := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	if c.TLS.CA != "" {
		if out.ClientCAs, err = c.certificates("tls.ca", c.TLS.CA); err != nil {
			return nil, err
		}
		out.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return out, nil
}

func (c *Config) certificates(key, file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(c.path(file))
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %w", c.File, key, err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s: %s: %s holds no certificate in PEM form", c.File, key, file)
	}
	return pool, nil
}

// path makes a path of the file absolute: relative ones are relative to the file.
func (c *Config) path(p string) string {
	if filepath.IsAbs(p) {
		return p
	}
	return filepath.Join(filepath.Dir(c.File), p)
}

package backend

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidemarkdb/tidemark/internal/loop"
	"github.com/tidemarkdb/tidemark/internal/wire"
	"github.com/tidemarkdb/tidemark/testcontainers"
)

// tlsFront is a server that speaks TLS in front of a PostgreSQL that does not, as a service mesh would. It counts the
// connections that came through encrypted.
type tlsFront struct {
	addr      *net.TCPAddr
	root      string // file with its certificate
	key       string // file with that one's key: a client can show the same certificate
	encrypted atomic.Int64
}

func newTLSFront(t *testing.T, to string) *tlsFront {
	t.Helper()
	return newTLSFrontFor(t, to, tls.NoClientCert)
}

// newTLSFrontFor is one that may ask clients for a certificate.
func newTLSFrontFor(t *testing.T, to string, ask tls.ClientAuthType) *tlsFront {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "front"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	f := &tlsFront{root: filepath.Join(t.TempDir(), "root.crt")}
	if err := os.WriteFile(f.root, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	f.key = filepath.Join(filepath.Dir(f.root), "root.key")
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(f.key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600); err != nil {
		t.Fatal(err)
	}
	own, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	cfg := &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, ClientAuth: ask, ClientCAs: x509.NewCertPool()}
	cfg.ClientCAs.AddCert(own)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f.addr = l.Addr().(*net.TCPAddr)
	var running sync.WaitGroup
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		running.Wait()
	})
	running.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() { f.serve(nc, cfg, to) })
		}
	})
	return f
}

// serve relays one connection; when either side ends, so does the other. What goes wrong shows at the two ends.
func (f *tlsFront) serve(nc net.Conn, cfg *tls.Config, to string) {
	defer func() { _ = nc.Close() }()
	request := make([]byte, 8)
	if _, err := io.ReadFull(nc, request); err != nil {
		return
	}
	if string(request) != string(wire.AppendSSLRequest(nil)) {
		return // nobody may come in plain
	}
	if _, err := nc.Write([]byte("S")); err != nil {
		return
	}
	client := tls.Server(nc, cfg)
	server, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	f.encrypted.Add(1)
	var both sync.WaitGroup
	both.Go(func() {
		_, _ = io.Copy(server, client)
		_ = server.Close()
	})
	both.Go(func() {
		_, _ = io.Copy(client, server)
		_ = client.Close()
	})
	both.Wait()
}

func TestTLS(t *testing.T) {
	bothEngines(t, func(t *testing.T, eng loop.Engine) {
		c := servers(t)
		front := newTLSFront(t, c.Shards[0].Primary.Addr())
		cfg := Config{
			Database: "postgres", User: testcontainers.AppUser, Password: testcontainers.AppPassword, SSLMode: "verify-full", SSLRootCert: front.root, PoolSize: 1,
			Shards: []ShardConfig{{Name: "s", Endpoints: []EndpointConfig{{Host: "127.0.0.1", Port: front.addr.Port}}}},
		}
		b := open(t, eng, cfg)
		e := primaryOf(t, b)
		inTask(t, eng, func(task *loop.Task) error {
			for range 3 {
				conn, err := e.Acquire(task, nil, nil, time.Time{})
				if err != nil {
					return err
				}
				if conn.IO.TLS() == nil {
					return errors.New("the connection is plain")
				}
				got, err := query(task, conn, "select repeat('x', 100000)")
				if err != nil || len(got) != 1 || len(got[0]) != 100000 {
					return fmt.Errorf("%d rows, %w", len(got), err)
				}
				conn.Dirty = true
				conn.Release()
			}
			conn, err := e.Acquire(task, nil, nil, time.Time{})
			if err != nil {
				return err
			}
			before := front.encrypted.Load()
			key := conn.CancelKey()
			task.Await(func() { err = key.Cancel(context.Background()) })
			conn.Release()
			if n := front.encrypted.Load() - before; n != 1 {
				err = errors.Join(err, fmt.Errorf("%d encrypted connections for a cancel request, want 1", n))
			}
			return err
		})
		if s := e.Stats(); s.Opened != 1 {
			t.Errorf("%+v: want one connection, used again and again", s)
		}
	})
}

// A certificate of a stranger is an error that says so, not a plain connection.
func TestTLSIsVerified(t *testing.T) {
	eng := newEngine(t, "epoll")
	c := servers(t)
	front, other := newTLSFront(t, c.Shards[0].Primary.Addr()), newTLSFront(t, c.Shards[0].Primary.Addr())
	b := open(t, eng, Config{
		Database: "postgres", User: testcontainers.AppUser, Password: testcontainers.AppPassword, SSLMode: "verify-full", SSLRootCert: other.root,
		Shards: []ShardConfig{{Name: "s", Endpoints: []EndpointConfig{{Host: "127.0.0.1", Port: front.addr.Port}}}},
	})
	inTask(t, eng, func(task *loop.Task) error {
		_, err := primaryOf(t, b).Acquire(task, nil, nil, time.Time{})
		var unknown x509.UnknownAuthorityError
		if wire.SQLSTATE(err) != wire.ConnectionFailure || !errors.As(err, &unknown) {
			return fmt.Errorf("got %v, want 08006 because of the certificate", err)
		}
		return nil
	})
}

// A server that asks for a client certificate gets the configured one, by either way to log in, and nobody else in.
func TestClientCertificate(t *testing.T) {
	eng := newEngine(t, "epoll")
	s := servers(t).Shards[0].Primary
	front := newTLSFrontFor(t, s.Addr(), tls.RequireAndVerifyClientCert)
	user := role(t, s, "one")
	for _, with := range []bool{true, false} {
		cfg := Config{
			Database: "postgres", User: testcontainers.AppUser, Password: testcontainers.AppPassword, SSLMode: "verify-full", SSLRootCert: front.root,
			Shards: []ShardConfig{{Name: "s", Endpoints: []EndpointConfig{{Host: "127.0.0.1", Port: front.addr.Port}}}},
		}
		if with {
			cfg.SSLCert, cfg.SSLKey = front.root, front.key
		}
		e := primaryOf(t, open(t, eng, cfg))
		for _, id := range []*Identity{nil, {User: user, Keys: recoverKeys(t, s, user, "one")}} {
			inTask(t, eng, func(task *loop.Task) error {
				conn, err := e.Acquire(task, id, nil, time.Time{})
				switch {
				case with && err == nil:
					conn.Release()
					return nil
				case with:
					return err
				case wire.SQLSTATE(err) != wire.ConnectionFailure && wire.SQLSTATE(err) != wire.CannotConnectNow:
					return fmt.Errorf("without a certificate: %v", err)
				}
				return nil
			})
		}
	}
}

// A login by SCRAM keys uses TLS as sslmode says, as logins by password do.
func TestKeysOverTLS(t *testing.T) {
	bothEngines(t, func(t *testing.T, eng loop.Engine) {
		c := servers(t)
		s := c.Shards[0].Primary
		front := newTLSFront(t, s.Addr())
		user := role(t, s, "one")
		id := &Identity{User: user, Keys: recoverKeys(t, s, user, "one")}
		for _, tt := range []struct {
			mode, root string
			port       int
			encrypted  bool
			code       string // of the error; empty: none
		}{
			{"verify-full", front.root, front.addr.Port, true, ""},
			{"prefer", "", front.addr.Port, true, ""},
			{"prefer", "", s.Port, false, ""}, // the server says N, and the second way is plain
			{"require", "", s.Port, false, wire.ConnectionFailure},
		} {
			cfg := Config{
				Database: "postgres", User: testcontainers.AppUser, Password: testcontainers.AppPassword, SSLMode: tt.mode, SSLRootCert: tt.root,
				Shards: []ShardConfig{{Name: "s", Endpoints: []EndpointConfig{{Host: "127.0.0.1", Port: tt.port}}}},
			}
			e := primaryOf(t, open(t, eng, cfg))
			inTask(t, eng, func(task *loop.Task) error {
				conn, err := e.Acquire(task, id, nil, time.Time{})
				if tt.code != "" {
					if wire.SQLSTATE(err) != tt.code {
						return fmt.Errorf("sslmode %s: %w, want %s", tt.mode, err, tt.code)
					}
					return nil
				}
				if err != nil {
					return err
				}
				defer conn.Release()
				if on := conn.IO.TLS() != nil; on != tt.encrypted {
					return fmt.Errorf("sslmode %s: encrypted is %t", tt.mode, on)
				}
				got, err := query(task, conn, "select session_user")
				if err == nil && fmt.Sprint(got) != "["+user+"]" {
					err = fmt.Errorf("logged in as %v", got)
				}
				return err
			})
		}
	})
}

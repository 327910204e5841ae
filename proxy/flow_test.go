package proxy_test

import (
	"bytes"
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
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"
	"golang.org/x/sync/errgroup"

	"github.com/tidemarkdb/tidemark/proxy"
)

// selfSigned makes a certificate for 127.0.0.1 and the file that a client verifies it with.
func selfSigned(t *testing.T) (*tls.Config, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "tidemark test"}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(t.TempDir(), "root.crt")
	if err := os.WriteFile(root, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, root
}

func TestTLS(t *testing.T) {
	cert, root := selfSigned(t)
	_, stranger := selfSigned(t)
	engines(t, func(t *testing.T, engineName string) {
		_, dsn := shop(t, engineName, fixtureSpec{config: func(c *proxy.Config) { c.TLS = cert }})
		exec(t, connect(t, dsn), "select 1") // without is allowed here
		for mode, works := range map[string]bool{
			"require": true, "verify-full&sslrootcert=" + root: true, "verify-ca&sslrootcert=" + root: true,
			"verify-full&sslrootcert=" + stranger: false,
		} {
			c, err := pgx.Connect(t.Context(), altered(dsn, "sslmode=disable", "sslmode="+mode))
			if (err == nil) != works {
				t.Fatalf("sslmode=%s: %v", mode, err)
			}
			if err != nil {
				continue
			}
			if _, on := c.PgConn().Conn().(*tls.Conn); !on {
				t.Errorf("sslmode=%s: no TLS", mode)
			}
			_ = c.Close(t.Context())
		}
		c := connect(t, altered(dsn, "sslmode=disable", "sslmode=verify-full&sslrootcert="+root))
		var data bytes.Buffer
		for i := 0; data.Len() < 20<<20; i++ {
			fmt.Fprintf(&data, "%d\t%s\n", i, strings.Repeat("x", 1000))
		}
		rows := int64(bytes.Count(data.Bytes(), []byte("\n")))
		if tag, err := c.PgConn().CopyFrom(t.Context(), &data, "copy customers from stdin"); err != nil || tag.RowsAffected() != rows {
			t.Fatalf("20 MB of COPY: %v, %v", tag, err)
		}
		out := &counter{}
		if _, err := c.PgConn().CopyTo(t.Context(), out, "copy (select repeat('x', 1000) from generate_series(1, 20000)) to stdout"); err != nil || out.n != 20000*1001 {
			t.Fatalf("%d bytes came out, %v", out.n, err)
		}
		// Cancel requests come over TLS too.
		failed := make(chan error, 1)
		go func() {
			_, err := c.Exec(t.Context(), "select pg_sleep(60)")
			failed <- err
		}()
		eventually(t, "a cancelled statement ends", func() error {
			if err := c.PgConn().CancelRequest(t.Context()); err != nil {
				return err
			}
			select {
			case err := <-failed:
				if code(err) != "57014" {
					t.Errorf("cancelled: %v", err)
				}
				return nil
			case <-time.After(100 * time.Millisecond):
				return errors.New("it runs")
			}
		})
	})
	f := newFixture(t, fixtureSpec{shards: 1, config: func(c *proxy.Config) { c.TLS, c.RequireTLS = cert, true }})
	if _, err := pgx.Connect(t.Context(), f.start(t, "epoll")); code(err) != "28000" {
		t.Errorf("without TLS where it is required: %v", err)
	}
}

type counter struct{ n int }

func (c *counter) Write(b []byte) (int, error) {
	c.n += len(b)
	return len(b), nil
}

// A large result and a large request pass each other.
func TestBothDirectionsAtOnce(t *testing.T) {
	f := newFixture(t, fixtureSpec{shards: 1})
	engines(t, func(t *testing.T, engineName string) {
		c := dialWire(t, f.start(t, engineName))
		if err := c.conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		const bindSize = 20 << 20
		var g errgroup.Group
		g.Go(func() error {
			for _, m := range []pgproto3.FrontendMessage{
				&pgproto3.Parse{Query: "select repeat('x', 1000) from generate_series(1, 50000)"}, &pgproto3.Bind{}, &pgproto3.Execute{},
				&pgproto3.Parse{Name: "len", Query: "select length($1::text)"},
				&pgproto3.Bind{PreparedStatement: "len", Parameters: [][]byte{bytes.Repeat([]byte("y"), bindSize)}}, &pgproto3.Execute{}, &pgproto3.Sync{},
			} {
				b, err := m.Encode(nil)
				if err != nil {
					return err
				}
				if _, err := c.conn.Write(b); err != nil {
					return err
				}
			}
			return nil
		})
		rows, last := 0, ""
		for {
			m, err := c.fe.Receive()
			if err != nil {
				t.Fatal(err)
			}
			switch x := m.(type) {
			case *pgproto3.DataRow:
				rows, last = rows+1, string(x.Values[0])
			case *pgproto3.ErrorResponse:
				t.Fatal(x.Message)
			case *pgproto3.ReadyForQuery:
				if err := g.Wait(); err != nil {
					t.Fatal(err)
				}
				if rows != 50001 || last != fmt.Sprint(bindSize) {
					t.Errorf("%d rows, the last %.20q", rows, last)
				}
				return
			}
		}
	})
}

// A client that does not read holds up its server, not the proxy's memory.
func TestSlowReaderTakesNoMemory(t *testing.T) {
	f := newFixture(t, fixtureSpec{shards: 1})
	engines(t, func(t *testing.T, engineName string) {
		c := dialWire(t, f.start(t, engineName)).conn
		if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		heap := func() int {
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			return int(m.HeapAlloc)
		}
		before := heap()
		write(t, c, frame('Q', "select repeat('x', 10000) from generate_series(1, 22000)\x00"))
		buf := make([]byte, 64<<10)
		total, most := 0, 0
		for total < 200<<20 {
			if total%(40<<20) < len(buf) { // stops now and then
				time.Sleep(200 * time.Millisecond)
				most = max(most, heap()-before)
			}
			n, err := io.ReadFull(c, buf)
			if err != nil {
				t.Fatal(err)
			}
			total += n
		}
		if most > 8<<20 {
			t.Errorf("200 MB to a slow reader took %d MB", most>>20)
		}
	})
}

// Idle clients cost little and none is forgotten.
func TestManyIdleClients(t *testing.T) {
	const n = 1000 // a login costs both sides 4,096 rounds of a hash
	f := newFixture(t, fixtureSpec{shards: 1, pool: 2})
	engines(t, func(t *testing.T, engineName string) {
		p := f.run(t, engineName)
		conns := make([]*pgx.Conn, n)
		var g errgroup.Group
		g.SetLimit(20)
		for i := range conns {
			g.Go(func() (err error) {
				conns[i], err = pgx.Connect(t.Context(), p.dsn)
				return err
			})
		}
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		pids := map[uint32]bool{}
		for i, c := range conns {
			g.Go(func() error {
				var got int
				err := c.QueryRow(t.Context(), "select $1::int", i).Scan(&got)
				if err == nil && got != i {
					err = fmt.Errorf("client %d got %d", i, got)
				}
				mu.Lock()
				pids[c.PgConn().PID()] = true
				mu.Unlock()
				return errors.Join(err, c.Close(context.Background()))
			})
		}
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
		if len(pids) != n {
			t.Errorf("%d process ids", len(pids))
		}
	})
}

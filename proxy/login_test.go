package proxy_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tidemarkdb/tidemark/proxy"
)

// altered is a connection string with one thing replaced.
func altered(dsn, old, with string) string { return strings.Replace(dsn, old, with, 1) }

func TestLoginRefusals(t *testing.T) {
	f := newFixture(t, fixtureSpec{shards: 1})
	engines(t, func(t *testing.T, engineName string) {
		dsn := f.start(t, engineName)
		for _, tc := range []struct{ name, dsn, code string }{
			{"wrong password", altered(dsn, clientPassword, "wrong"), "28P01"},
			{"unknown user", altered(dsn, "//app:", "//apq:"), "28P01"},
			{"unknown database", altered(dsn, "/shop?", "/shoq?"), "3D000"},
			{"replication", dsn + "&replication=database", "0A000"},
			{"option of a server", dsn + "&options=-x", "42601"},
			{"option without a value", dsn + "&options=-c%20work_mem", "42601"},
			{"strong consistency", dsn + "&options=-c%20tidemark.consistency%3Dstrong", "0A000"},
			{"encoding that hides quotes", dsn + "&client_encoding=SJIS", "0A000"},
		} {
			if c, err := pgconn.Connect(t.Context(), tc.dsn); code(err) != tc.code {
				t.Errorf("%s: got %v, want %s", tc.name, err, tc.code)
				if err == nil {
					_ = c.Close(context.Background())
				}
			}
		}
	})
}

// Nobody can find out which users exist: both take the same messages, of the same lengths, with the same salt each time.
func TestUnknownUserLooksLikeWrongPassword(t *testing.T) {
	f := newFixture(t, fixtureSpec{shards: 1})
	dsn := f.start(t, "epoll")
	known, saltKnown := loginShape(t, altered(dsn, clientPassword, "wrong"))
	unknown, saltUnknown := loginShape(t, altered(dsn, "//app:", "//apq:"))
	if diff := cmp.Diff(known, unknown); diff != "" {
		t.Errorf("known user -, unknown user +\n%s", diff)
	}
	if len(known) < 3 {
		t.Errorf("the exchange ended early: %v", known)
	}
	for _, again := range []struct{ dsn, salt string }{{altered(dsn, clientPassword, "wrong"), saltKnown}, {altered(dsn, "//app:", "//apq:"), saltUnknown}} {
		if _, salt := loginShape(t, again.dsn); salt != again.salt {
			t.Errorf("salt and iterations changed from %s to %s", again.salt, salt)
		}
	}
}

// The log, other than the client, is told why a password did not fit.
func TestLogOfRefusedLogins(t *testing.T) {
	var log lockedBuffer
	f := newFixture(t, fixtureSpec{shards: 1, log: &log, config: func(c *proxy.Config) {
		c.Users = append(c.Users, proxy.User{Name: "none"})
		c.Rules = []proxy.Rule{{Type: proxy.ConnAny, Users: []string{"clear"}, Method: proxy.MethodPassword, Cleartext: true}, {Type: proxy.ConnAny, Method: proxy.MethodSCRAM}}
		c.Users = append(c.Users, proxy.User{Name: "clear", Secret: proxy.PasswordSecret("pencil")})
	}})
	dsn := f.start(t, "epoll")
	for user, reason := range map[string]string{
		clientUser: "the password does not match", "clear": "the password does not match", "apq": "there is no such user", "none": "the user has no password",
	} {
		_, err := pgconn.Connect(t.Context(), altered(dsn, clientUser+":"+clientPassword, user+":wrong"))
		if code(err) != "28P01" || strings.Contains(err.Error(), reason) {
			t.Errorf("%s: the client is told %v", user, err)
		}
		eventually(t, "the log says why", func() error {
			for line := range strings.Lines(log.String()) {
				if strings.Contains(line, "user="+user+" ") && strings.Contains(line, reason) {
					return nil
				}
			}
			return fmt.Errorf("no line about %s with %q in\n%s", user, reason, log.String())
		})
	}
}

// lockedBuffer is what several goroutines write to.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// loginShape is what a server sends during a login that fails: types and sizes, and SCRAM's salt and iterations.
func loginShape(t *testing.T, dsn string) (shape []string, salt string) {
	t.Helper()
	cfg, err := pgconn.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	var got []byte
	cfg.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		return recorder{c, &got}, err
	}
	if _, err := pgconn.ConnectConfig(t.Context(), cfg); code(err) != "28P01" {
		t.Fatalf("got %v, want 28P01", err)
	}
	for len(got) >= 5 {
		size := 1 + int(binary.BigEndian.Uint32(got[1:]))
		if size > len(got) {
			break
		}
		shape = append(shape, fmt.Sprintf("%c %d", got[0], size))
		if at := strings.Index(string(got[:size]), ",s="); at >= 0 {
			salt = string(got[at:size])
		}
		got = got[size:]
	}
	return shape, salt
}

type recorder struct {
	net.Conn
	into *[]byte
}

func (r recorder) Read(b []byte) (int, error) {
	n, err := r.Conn.Read(b)
	*r.into = append(*r.into, b[:n]...)
	return n, err
}

func TestMaxClients(t *testing.T) {
	f := newFixture(t, fixtureSpec{shards: 1, config: func(c *proxy.Config) { c.MaxClients = 2 }})
	p := f.run(t, "epoll")
	one, _ := connect(t, p.dsn), connect(t, p.dsn)
	if _, err := pgconn.Connect(t.Context(), p.dsn); code(err) != "53300" {
		t.Fatalf("a third of two clients: %v", err)
	}
	if err := one.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a client that left makes room", func() error {
		c, err := pgx.Connect(t.Context(), p.dsn)
		if err != nil {
			return err
		}
		return c.Close(t.Context())
	})
}

// eventually waits until f succeeds; half a minute is for a busy machine.
func eventually(t *testing.T, what string, f func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if err = f(); err == nil {
			return
		}
	}
	t.Fatalf("%s: %v", what, err)
}

// Protocol versions and parameters that the proxy does not know are negotiated, as PostgreSQL does.
func TestGSSAndVersionNegotiation(t *testing.T) {
	f := newFixture(t, fixtureSpec{shards: 1})
	p := f.run(t, "epoll")
	c := dialRaw(t, p.addr)
	write(t, c, packet(80877104)) // GSSENCRequest
	if b := readN(t, c, 1); b[0] != 'N' {
		t.Fatalf("GSSENCRequest was answered %q", b)
	}
	write(t, c, packet(80877103)) // SSLRequest without a certificate
	if b := readN(t, c, 1); b[0] != 'N' {
		t.Fatalf("SSLRequest was answered %q", b)
	}
	write(t, c, packet(3<<16|99, "user", clientUser, "database", "shop", "_pq_.wish", "1"))
	if b := readN(t, c, 1); b[0] != 'v' {
		t.Fatalf("protocol 3.99 was answered %q", b)
	}
	size := binary.BigEndian.Uint32(readN(t, c, 4))
	if body := string(readN(t, c, int(size)-4)); !strings.Contains(body, "_pq_.wish") {
		t.Fatalf("unknown parameter is not named in %q", body)
	}
	if b := readN(t, c, 1); b[0] != 'R' {
		t.Fatalf("then came %q", b)
	}
}

func dialRaw(t *testing.T, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c
}

// packet is a message of the startup family.
func packet(codeOrVersion uint32, params ...string) []byte {
	b := binary.BigEndian.AppendUint32(make([]byte, 4), codeOrVersion)
	for _, p := range params {
		b = append(append(b, p...), 0)
	}
	if len(params) > 0 {
		b = append(b, 0)
	}
	binary.BigEndian.PutUint32(b, uint32(len(b)))
	return b
}

func write(t *testing.T, c net.Conn, b []byte) {
	t.Helper()
	if _, err := c.Write(b); err != nil {
		t.Fatal(err)
	}
}

func readN(t *testing.T, c net.Conn, n int) []byte {
	t.Helper()
	b := make([]byte, n)
	if _, err := io.ReadFull(c, b); err != nil {
		t.Fatal(err)
	}
	return b
}

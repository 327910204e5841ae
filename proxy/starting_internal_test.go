package proxy

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tidemarkdb/tidemark/internal/backend"
	"github.com/tidemarkdb/tidemark/internal/loop"
	"github.com/tidemarkdb/tidemark/internal/wire"
	"github.com/tidemarkdb/tidemark/router"
	"github.com/tidemarkdb/tidemark/sharding"
)

// start is a proxy in a bubble that accepts clients, and whose readings of the schema are the test's.
type start struct {
	t    *testing.T
	p    *Proxy
	ln   pipes
	stop context.CancelCauseFunc
	over chan error // of Serve
}

// pipes is a listener for clients of the same process.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	close  *sync.Once
}

func (l pipes) Addr() net.Addr { return nil }

func (l pipes) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l pipes) Close() error {
	l.close.Do(func() { close(l.closed) })
	return nil
}

func newStart(t *testing.T, read func(context.Context) error, log io.Writer) *start {
	t.Helper()
	engine, err := loop.New(loop.Config{Engine: "goroutines"})
	if err != nil {
		t.Fatal(err)
	}
	servers, err := backend.New(backend.Config{
		Database: "shop", User: "tidemark",
		Shards: []backend.ShardConfig{{Name: "s1", Endpoints: []backend.EndpointConfig{{Host: "127.0.0.1", Port: 1}}}},
	}, engine, nil)
	if err != nil {
		t.Fatal(err)
	}
	m, err := sharding.New(sharding.Definition{Shards: []sharding.Shard{{Name: "s1", Buckets: []sharding.Range{{First: 0, Last: sharding.DefaultBuckets - 1}}}}})
	if err != nil {
		t.Fatal(err)
	}
	s := &start{t: t, ln: pipes{make(chan net.Conn), make(chan struct{}), new(sync.Once)}, over: make(chan error, 1)}
	s.p, err = New(Config{
		Database: "shop", Users: []User{{Name: "ann", Secret: PasswordSecret("pencil")}}, Admins: []string{"ann"},
		Rules: []Rule{{Type: ConnAny, Method: MethodTrust}}, LoginTimeout: time.Minute,
	}, Parts{
		Engine: engine, Backend: servers, Map: m, Log: slog.New(slog.NewTextHandler(log, nil)),
		Catalog: func(ctx context.Context) (*router.Catalog, error) { return &router.Catalog{}, read(ctx) },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancelCause(t.Context())
	s.stop = stop
	go func() { _ = s.p.starting.try(ctx, s.p.loadCatalog, s.p.log) }()
	go func() { s.over <- s.p.Serve(ctx, s.ln) }()
	t.Cleanup(func() {
		stop(nil)
		synctest.Wait()
		_ = s.ln.Close()
		_ = servers.Close(context.Background())
		_ = engine.Close(context.Background())
	})
	return s
}

// login is how a client's login ends, and how long it takes. One that is let in asks for a database that is not there.
func (s *start) login(user string) (*wire.Error, time.Duration) {
	s.t.Helper()
	began := time.Now()
	c, server := net.Pipe()
	defer func() { _ = c.Close() }()
	s.ln.conns <- server
	body := "\x00\x03\x00\x00user\x00" + user + "\x00database\x00other\x00\x00"
	if _, err := c.Write(append(binary.BigEndian.AppendUint32(nil, uint32(4+len(body))), body...)); err != nil {
		s.t.Fatal(err)
	}
	for {
		head := make([]byte, wire.HeaderLen)
		if _, err := io.ReadFull(c, head); err != nil {
			s.t.Fatal(err)
		}
		message := make([]byte, binary.BigEndian.Uint32(head[1:])-4)
		if _, err := io.ReadFull(c, message); err != nil {
			s.t.Fatal(err)
		}
		if head[0] == wire.MsgErrorResponse {
			e, err := wire.DecodeError(message)
			if err != nil {
				s.t.Fatal(err)
			}
			return e, time.Since(began)
		}
	}
}

func TestClientsOfAStart(t *testing.T) {
	const (
		in       = "FATAL 3D000 database \"other\" does not exist"
		refused  = "FATAL 57P03 the proxy is starting up: The schema cannot be read from shard \"s1\": "
		unread   = "FATAL 57P03 the proxy is starting up: The schema has not been read from shard \"s1\" yet."
		stopping = "FATAL 57P03 the proxy is shutting down"
	)
	absent := &pgconn.PgError{Severity: "FATAL", Code: "3D000", Message: `database "shop" does not exist`}
	takes := func(d time.Duration, err error) func(context.Context) error {
		return func(ctx context.Context) error {
			select {
			case <-time.After(d):
				return err
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	for _, test := range []struct {
		name     string
		readings []func(context.Context) error // the last one again and again
		after    time.Duration                 // the client comes
		user     string
		want     string
		took     time.Duration
	}{
		{"the first reading is under way", []func(context.Context) error{takes(4*time.Second, nil)}, 0, "ann", in, 4 * time.Second},
		{"it has succeeded", []func(context.Context) error{takes(4*time.Second, nil)}, 5 * time.Second, "ann", in, 0},
		{"it ends too late", []func(context.Context) error{takes(time.Minute, nil)}, 0, "ann", unread, startPatience},
		{"one fails", []func(context.Context) error{takes(0, absent), takes(0, nil)}, 0, "ann", in, startRetry},
		{"all fail", []func(context.Context) error{takes(0, absent)}, 0, "ann", refused + `database "shop" does not exist (SQLSTATE 3D000).`, startRetry},
		{"all have failed", []func(context.Context) error{takes(0, absent)}, time.Minute, "ann", refused + `database "shop" does not exist (SQLSTATE 3D000).`, 0},
		{"a stranger", []func(context.Context) error{takes(0, absent)}, time.Minute, "bob", refused + `its server has no database of the configured name.`, 0},
		{"many failed, then one succeeds", []func(context.Context) error{takes(0, absent), takes(0, absent), takes(0, absent), takes(0, nil)}, 3*startRetry + 1, "ann", in, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := 0
				s := newStart(t, func(ctx context.Context) error {
					read := test.readings[min(n, len(test.readings)-1)]
					n++
					return read(ctx)
				}, io.Discard)
				time.Sleep(test.after)
				e, took := s.login(test.user)
				if got := inWords(e); got != test.want || took != test.took {
					t.Errorf("after %v: %s\nwant after %v: %s", took, got, test.took, test.want)
				}
			})
		})
	}
	for _, test := range []struct {
		cause error
		kept  bool // the socket is systemd's: the client might wait there
		want  string
	}{{nil, false, stopping}, {nil, true, unread}, {ErrHandedOver, false, unread}} {
		t.Run(fmt.Sprintf("a stop by %v, the socket kept: %t", test.cause, test.kept), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStart(t, takes(time.Hour, nil), io.Discard)
				s.p.socketKept = test.kept
				time.AfterFunc(time.Second, func() { s.stop(test.cause) })
				e, took := s.login("ann")
				if got := inWords(e); got != test.want || took != time.Second {
					t.Errorf("after %v: %s\nwant after 1s: %s", took, got, test.want)
				}
				if err := <-s.over; err != nil {
					t.Error(err)
				}
				if n := s.p.Drain(t.Context()); n != 0 {
					t.Errorf("%d clients are cut off", n)
				}
			})
		})
	}
}

func inWords(e *wire.Error) string {
	words := e.Severity + " " + e.Code + " " + e.Message
	if e.Detail != "" {
		words += ": " + e.Detail
	}
	return words
}

// What fails for long is told rarely, and at once when it is something else.
func TestLogOfAStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		began := time.Now()
		newStart(t, func(context.Context) error {
			n := int(time.Since(began) / time.Second)
			if n == 100 {
				return errors.New("connection reset")
			}
			return fmt.Errorf("connection refused: port %d", n)
		}, &log)
		time.Sleep(3*time.Minute + time.Second/2)
		synctest.Wait()
		var told []string
		for line := range strings.Lines(log.String()) {
			_, rest, _ := strings.Cut(line, "failures=")
			n, _, _ := strings.Cut(rest, " ")
			told = append(told, n)
		}
		if got, want := strings.Join(told, " "), "1 3 7 15 31 61 91 101 121 151 181"; got != want {
			t.Errorf("told of the failures %s, want %s", got, want)
		}
	})
}

// A stranger learns the kind of a failure; names are for others.
func TestCausesOfAStart(t *testing.T) {
	for _, test := range []struct {
		cause         error
		general, full string
	}{
		{&pgconn.PgError{Code: "28P01", Message: `password authentication failed for user "u"`}, "its server refuses the configured login", `password authentication failed for user "u" (SQLSTATE 28P01)`},
		{&pgconn.PgError{Code: "53300", Message: "sorry, too many clients already"}, "its server answers with SQLSTATE 53300", "sorry, too many clients already (SQLSTATE 53300)"},
		{fmt.Errorf("shard s1: %w", &net.OpError{Op: "read", Net: "tcp", Err: errors.New("connection reset by peer")}), "the reading failed", "connection reset by peer"},
		{context.DeadlineExceeded, "the reading failed", "connection attempt timed out"},
	} {
		if got := inGeneral(test.cause); got != test.general {
			t.Errorf("%v: %s, want %s", test.cause, got, test.general)
		}
		if got := inFull(test.cause); got != test.full {
			t.Errorf("%v: %s, want %s", test.cause, got, test.full)
		}
	}
}

package proxy_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidemarkdb/tidemark/internal/backend"
)

// faultProxy lies between Tidemark and a server, and hurts the connections that pass through it. A connection is cut, by
// FIN or by RST, when it has carried a number of the server's bytes, or stands still from there on.
type faultProxy struct {
	ln     net.Listener
	server string

	mu    sync.Mutex // guards the fields below
	fault fault
	conns map[net.Conn]bool
}

type fault struct {
	kind  string // "", "cut", "reset", "slow"
	after int    // bytes of the server's answers, from when the fault was set
}

func newFaultProxy(t *testing.T, server string) *faultProxy {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &faultProxy{ln: ln, server: server, conns: map[net.Conn]bool{}}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { f.serve(c) })
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		f.mu.Lock()
		for c := range f.conns {
			_ = c.Close()
		}
		f.mu.Unlock()
		serving.Wait()
	})
	return f
}

func (f *faultProxy) addr() (host string, port int) {
	a := f.ln.Addr().(*net.TCPAddr)
	return a.IP.String(), a.Port
}

func (f *faultProxy) set(x fault) {
	f.mu.Lock()
	f.fault = x
	f.mu.Unlock()
}

// next says how many of the server's n bytes may pass before something happens, and what; it happens once.
func (f *faultProxy) next(n int) (pass int, kind string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.fault.kind == "" || f.fault.kind == "slow":
		return n, f.fault.kind
	case n <= f.fault.after:
		f.fault.after -= n
		return n, ""
	}
	pass, kind = f.fault.after, f.fault.kind
	f.fault = fault{}
	return pass, kind
}

func (f *faultProxy) serve(c net.Conn) {
	s, err := net.Dial("tcp", f.server)
	if err != nil {
		_ = c.Close()
		return
	}
	f.mu.Lock()
	f.conns[c], f.conns[s] = true, true
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		delete(f.conns, c)
		delete(f.conns, s)
		f.mu.Unlock()
		_, _ = c.Close(), s.Close()
	}()
	go func() {
		_, _ = io.Copy(s, c)
		_ = s.(*net.TCPConn).CloseWrite()
	}()
	buf := make([]byte, 16<<10)
	for {
		n, err := s.Read(buf)
		pass, kind := f.next(n)
		if kind == "slow" {
			for i := range pass {
				if _, err := c.Write(buf[i : i+1]); err != nil {
					return
				}
			}
			continue
		}
		if _, werr := c.Write(buf[:pass]); werr != nil || err != nil {
			return
		}
		switch kind {
		case "reset":
			_ = c.(*net.TCPConn).SetLinger(0)
			return
		case "cut":
			return
		}
	}
}

// A client whose statement is prepared when the server connection breaks, at any byte of the answers to Parse and Describe, can
// prepare it again by the same name: drivers name statements by their text.
func TestPrepareAgainAfterAFault(t *testing.T) {
	f := newFixture(t, fixtureSpec{shards: 1})
	primary := f.cluster.Shards[0].Primary
	fp := newFaultProxy(t, net.JoinHostPort(primary.Host, strconv.Itoa(primary.Port)))
	f.spec.backend = func(c *backend.Config) {
		c.PoolSize = 1
		c.HealthInterval = time.Hour // the fault is for the client's connection
	}
	f.spec.endpoint = fp.addr
	engines(t, func(t *testing.T, engineName string) {
		c := connect(t, f.start(t, engineName))
		for after := range 70 {
			name, sql := fmt.Sprintf("st%d", after), fmt.Sprintf("select %d + $1::int as sum", after)
			exec(t, c, "select 1")
			fp.set(fault{kind: "cut", after: after})
			_, err := c.PgConn().Prepare(t.Context(), name, sql, nil)
			fp.set(fault{})
			if err == nil { // the answer is shorter than that
				break
			}
			if c.IsClosed() { // in the middle of a message
				c = connect(t, f.start(t, engineName))
				continue
			}
			eventually(t, "the statement is prepared again", func() error {
				_, err := c.PgConn().Prepare(t.Context(), name, sql, nil)
				return err
			})
			if got := text(t, c, fmt.Sprintf("execute %s(1)", name)); got != strconv.Itoa(after+1) {
				t.Errorf("behind a fault at byte %d: %q", after, got)
			}
		}
	})
}

// A server connection that breaks at any byte of any answer gives its client a proper error or the whole answer, and
// nobody else's; the session goes on, or ends with an error when half a message had been passed on; and the pool is whole.
func TestServerFaults(t *testing.T) {
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewSource(seed))
	f := newFixture(t, fixtureSpec{shards: 1})
	primary := f.cluster.Shards[0].Primary
	fp := newFaultProxy(t, net.JoinHostPort(primary.Host, strconv.Itoa(primary.Port)))
	f.spec.backend = func(c *backend.Config) {
		c.PoolSize = 2
		c.HealthInterval = 50 * time.Millisecond // its connections take some of the faults
		c.ConnectTimeout = 5 * time.Second
	}
	f.spec.endpoint = fp.addr
	exec(t, connect(t, f.direct(0)), "create table lines (a int, b text); insert into lines select g, repeat('x', 50) from generate_series(1, 100) g")
	engines(t, func(t *testing.T, engineName string) {
		p := f.run(t, engineName)
		b := connect(t, f.direct(0))
		requests := []struct {
			name string
			do   func(ctx context.Context, c *pgx.Conn, i int) (string, error)
			want func(i int) string
		}{
			{"simple", func(ctx context.Context, c *pgx.Conn, i int) (got string, err error) {
				err = c.QueryRow(ctx, fmt.Sprintf("select 'answer %d'", i), pgx.QueryExecModeSimpleProtocol).Scan(&got)
				return got, err
			}, func(i int) string { return fmt.Sprint("answer ", i) }},
			{"extended", func(ctx context.Context, c *pgx.Conn, i int) (got string, err error) {
				err = c.QueryRow(ctx, "select 'answer ' || $1::int", pgx.QueryExecModeDescribeExec, i).Scan(&got)
				return got, err
			}, func(i int) string { return fmt.Sprint("answer ", i) }},
			{"prepared", func(ctx context.Context, c *pgx.Conn, i int) (got string, err error) {
				err = c.QueryRow(ctx, "select 'answer ' || $1::int", pgx.QueryExecModeCacheStatement, i).Scan(&got)
				return got, err
			}, func(i int) string { return fmt.Sprint("answer ", i) }},
			{"many rows", func(ctx context.Context, c *pgx.Conn, i int) (string, error) {
				rows, err := c.Query(ctx, "select a + $1 from lines where a <= 100 order by a", pgx.QueryExecModeExec, i)
				if err != nil {
					return "", err
				}
				sum, err := pgx.CollectRows(rows, pgx.RowTo[int])
				total := 0
				for _, n := range sum {
					total += n
				}
				return fmt.Sprint(total), err
			}, func(i int) string { return fmt.Sprint(5050 + 100*i) }},
			{"copy out", func(ctx context.Context, c *pgx.Conn, i int) (string, error) {
				var out strings.Builder
				_, err := c.PgConn().CopyTo(ctx, &out, fmt.Sprintf("copy (select a, %d from lines where a < 4 order by a) to stdout", i))
				return out.String(), err
			}, func(i int) string { return fmt.Sprintf("1\t%d\n2\t%d\n3\t%d\n", i, i, i) }},
			{"copy in", func(ctx context.Context, c *pgx.Conn, _ int) (string, error) {
				tag, err := c.PgConn().CopyFrom(ctx, strings.NewReader("1000\tcopied\n"), "copy lines from stdin")
				return tag.String(), err
			}, func(int) string { return "COPY 1" }},
			{"transaction", func(ctx context.Context, c *pgx.Conn, i int) (got string, err error) {
				err = pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
					if _, err := tx.Exec(ctx, "insert into lines values ($1, 'tx')", pgx.QueryExecModeExec, 2000+i); err != nil {
						return err
					}
					return tx.QueryRow(ctx, "select 'answer ' || $1::int", pgx.QueryExecModeExec, i).Scan(&got)
				})
				return got, err
			}, func(i int) string { return fmt.Sprint("answer ", i) }},
		}
		c := connect(t, p.dsn)
		again := func() *pgx.Conn {
			if !c.IsClosed() {
				return c
			}
			c = connect(t, p.dsn)
			return c
		}
		broken := 0
		for i := range 105 {
			r := requests[i%len(requests)]
			fp.set(fault{kind: []string{"cut", "reset"}[rnd.Intn(2)], after: rnd.Intn(200)})
			ctx, stop := context.WithTimeout(t.Context(), 20*time.Second)
			got, err := r.do(ctx, again(), i)
			stop()
			hung := errors.Is(err, context.DeadlineExceeded)
			switch {
			case hung:
				t.Errorf("%s, request %d hangs", r.name, i)
			case err == nil && got != r.want(i):
				t.Errorf("%s, request %d: %q, want %q", r.name, i, got, r.want(i))
			case err != nil:
				broken++
				if !unreachable(err) && !c.IsClosed() {
					t.Errorf("%s, request %d: %v", r.name, i, err)
				}
			}
			fp.set(fault{})
			if c := again(); c.PgConn().TxStatus() != 'I' {
				exec(t, c, "rollback")
			}
			eventually(t, "the session goes on behind "+r.name, func() error {
				ctx, stop := context.WithTimeout(t.Context(), 20*time.Second)
				defer stop()
				err := again().QueryRow(ctx, "select 'after ' || $1::int", pgx.QueryExecModeExec, i).Scan(&got)
				if err == nil && got != fmt.Sprint("after ", i) {
					t.Errorf("behind %s, request %d: %q", r.name, i, got)
				}
				return err
			})
		}
		if broken < 15 {
			t.Errorf("only %d of the faults were felt", broken)
		}
		fp.set(fault{kind: "slow"}) // every message in pieces of a byte
		for i, r := range requests {
			got, err := r.do(t.Context(), again(), i)
			if err != nil || got != r.want(i) {
				t.Errorf("%s, byte by byte: %q, %v", r.name, got, err)
			}
		}
		fp.set(fault{})
		whole(t, p, 1)
		eventuallyRunning(t, b, "%", "0")
	})
}

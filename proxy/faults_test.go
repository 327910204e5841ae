package proxy_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidemarkdb/tidemark/internal/backend"
)

// faultProxy lies between Tidemark and a server, and hurts the connections that pass through it. A connection is cut, by
// FIN or by RST, when it has carried a number of the server's bytes; or all of them stand still from there on, though nobody
// closes them; or everything takes its time.
type faultProxy struct {
	ln     net.Listener
	server string

	mu    sync.Mutex // guards the fields below
	fault fault
	typ   byte // the fault comes in the middle of the next message of this type, not of a health check's; 0: by bytes
	still bool
	conns map[net.Conn]bool
}

type fault struct {
	kind  string // "", "cut", "reset", "still", "delay", "bytes": one at a time
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
		f.set(fault{})
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

// set begins a fault; none heals what stands still.
func (f *faultProxy) set(x fault) {
	f.mu.Lock()
	f.fault, f.typ, f.still = x, 0, false
	f.mu.Unlock()
}

// amid sets a fault that comes in the middle of the next message of a type. It returns what tells whether it has come.
func (f *faultProxy) amid(x fault, typ byte) (hit func() bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault, f.typ, f.still = x, typ, false
	return func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.fault.kind == ""
	}
}

// messages follows the answers of one connection: rest bytes of a message are still to come, or head of the next has.
type messages struct {
	rest int
	head []byte
}

// walk looks at what comes next on a connection. It gives a fault amid a message its place.
func (f *faultProxy) walk(m *messages, b []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for at := 0; at < len(b); {
		if m.rest > 0 {
			n := min(m.rest, len(b)-at)
			m.rest, at = m.rest-n, at+n
			continue
		}
		begin := at - len(m.head)
		n := min(5-len(m.head), len(b)-at)
		m.head = append(m.head, b[at:at+n]...)
		if at += n; len(m.head) < 5 {
			return
		}
		size := 1 + int(binary.BigEndian.Uint32(m.head[1:]))
		if f.typ == m.head[0] {
			f.fault.after, f.typ = max(0, begin+size/2), 0
		}
		m.rest, m.head = size-5, m.head[:0]
	}
}

// next says how many of the server's n bytes may pass before something happens, and what; it happens once.
func (f *faultProxy) next(n int) (pass int, kind string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.typ != 0:
		return n, ""
	case f.fault.kind == "" || f.fault.kind == "bytes" || f.fault.kind == "delay":
		return n, f.fault.kind
	case n <= f.fault.after:
		f.fault.after -= n
		return n, ""
	}
	pass, kind = f.fault.after, f.fault.kind
	f.fault, f.still = fault{}, kind == "still"
	return pass, kind
}

// moving waits while everything stands still.
func (f *faultProxy) moving() {
	for {
		f.mu.Lock()
		still := f.still
		f.mu.Unlock()
		if !still {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
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
	var health atomic.Bool
	go func() {
		buf := make([]byte, 16<<10)
		for {
			n, err := c.Read(buf)
			if bytes.Contains(buf[:n], []byte("tidemark health")) {
				health.Store(true)
			}
			f.moving()
			if _, werr := s.Write(buf[:n]); werr != nil || err != nil {
				_ = s.(*net.TCPConn).CloseWrite()
				return
			}
		}
	}()
	buf := make([]byte, 16<<10)
	var m messages
	for {
		n, err := s.Read(buf)
		f.moving()
		if !health.Load() {
			f.walk(&m, buf[:n])
		}
		pass, kind := f.next(n)
		switch kind {
		case "bytes":
			for i := range pass {
				if _, err := c.Write(buf[i : i+1]); err != nil {
					return
				}
			}
			continue
		case "delay":
			time.Sleep(20 * time.Millisecond)
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
		case "still":
			f.moving()
			if _, err := c.Write(buf[pass:n]); err != nil {
				return
			}
		}
	}
}

// faultRequest is something that a client asks for, and its answer.
type faultRequest struct {
	name string
	do   func(ctx context.Context, c *pgx.Conn, i int) (string, error)
	want func(i int) string
}

func sameAnswer(s string) func(int) string { return func(int) string { return s } }

func numbered(i int) string { return fmt.Sprint("answer ", i) }

// faultRequests are requests of every kind. One table is where the faults are, another on both shards.
var faultRequests = []faultRequest{
	{"simple", func(ctx context.Context, c *pgx.Conn, i int) (got string, err error) {
		err = c.QueryRow(ctx, fmt.Sprintf("select 'answer %d'", i), pgx.QueryExecModeSimpleProtocol).Scan(&got)
		return got, err
	}, numbered},
	{"extended", func(ctx context.Context, c *pgx.Conn, i int) (got string, err error) {
		err = c.QueryRow(ctx, "select 'answer ' || $1::int", pgx.QueryExecModeDescribeExec, i).Scan(&got)
		return got, err
	}, numbered},
	{"prepared", func(ctx context.Context, c *pgx.Conn, i int) (got string, err error) {
		err = c.QueryRow(ctx, "select 'answer ' || $1::int", pgx.QueryExecModeCacheStatement, i).Scan(&got)
		return got, err
	}, numbered},
	{"pipeline", func(ctx context.Context, c *pgx.Conn, i int) (got string, err error) {
		var b pgx.Batch
		for range 3 {
			b.Queue("select 'answer ' || $1::int", i)
		}
		r := c.SendBatch(ctx, &b)
		for range 3 {
			err = errors.Join(err, r.QueryRow().Scan(&got))
		}
		return got, errors.Join(err, r.Close())
	}, numbered},
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
	{"scatter", func(ctx context.Context, c *pgx.Conn, _ int) (string, error) {
		rows, err := c.Query(ctx, "select id from customers", pgx.QueryExecModeExec)
		if err != nil {
			return "", err
		}
		ids, err := pgx.CollectRows(rows, pgx.RowTo[int])
		slices.Sort(ids)
		return fmt.Sprint(ids), err
	}, sameAnswer("[1 2 3 4 5 6 7 8]")},
	{"broadcast", func(ctx context.Context, c *pgx.Conn, i int) (string, error) {
		tag, err := c.Exec(ctx, fmt.Sprintf("update products set name = 'name %d' where id = 1", i), pgx.QueryExecModeSimpleProtocol)
		return tag.String(), err
	}, sameAnswer("UPDATE 1")},
	{"copy out", func(ctx context.Context, c *pgx.Conn, i int) (string, error) {
		var out strings.Builder
		_, err := c.PgConn().CopyTo(ctx, &out, fmt.Sprintf("copy (select a, %d from lines where a < 4 order by a) to stdout", i))
		return out.String(), err
	}, func(i int) string { return fmt.Sprintf("1\t%d\n2\t%d\n3\t%d\n", i, i, i) }},
	{"copy in", func(ctx context.Context, c *pgx.Conn, _ int) (string, error) {
		tag, err := c.PgConn().CopyFrom(ctx, strings.NewReader("1000\tcopied\n"), "copy lines from stdin")
		return tag.String(), err
	}, sameAnswer("COPY 1")},
	{"split copy", func(ctx context.Context, c *pgx.Conn, i int) (string, error) {
		tag, err := c.PgConn().CopyFrom(ctx, strings.NewReader(fmt.Sprintf("%d\t1\n%d\t2\n%d\t3\n", 3*i, 3*i+1, 3*i+2)), "copy orders (customer_id, id) from stdin")
		return tag.String(), err
	}, sameAnswer("COPY 3")},
	{"transaction", func(ctx context.Context, c *pgx.Conn, i int) (got string, err error) {
		err = pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, "insert into lines values ($1, 'tx')", pgx.QueryExecModeExec, 2000+i); err != nil {
				return err
			}
			return tx.QueryRow(ctx, "select 'answer ' || $1::int", pgx.QueryExecModeExec, i).Scan(&got)
		})
		return got, err
	}, numbered},
	{"portions", func(ctx context.Context, c *pgx.Conn, i int) (got string, err error) {
		err = pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, "declare p cursor for select 'answer ' || $1::int from generate_series(1, 9)", pgx.QueryExecModeExec, i); err != nil {
				return err
			}
			for range 3 {
				rows, err := tx.Query(ctx, "fetch 3 from p", pgx.QueryExecModeSimpleProtocol)
				if err != nil {
					return err
				}
				all, err := pgx.CollectRows(rows, pgx.RowTo[string])
				if err != nil {
					return err
				}
				got = strings.Join(slices.Compact(all), ",")
			}
			return nil
		})
		return got, err
	}, numbered},
}

// faulty is a client whose connection may end, and is then another one.
type faulty struct {
	t *testing.T
	p *instance
	c *pgx.Conn
	// unsure: pgx had CloseComplete for a statement and then an error, and takes it for one that still exists; or it had
	// ParseComplete and then an error, and closes the statement before some later Prepare, even if a batch has prepared it by the
	// same name meanwhile and pgx goes on using that.
	unsure bool
}

func (x *faulty) conn() *pgx.Conn {
	if x.c == nil || x.c.IsClosed() {
		eventually(x.t, "a client comes in", func() (err error) { // it is told what a server says, so one has to answer
			x.c, err = pgx.Connect(x.t.Context(), x.p.dsn)
			return err
		})
		c := x.c
		x.t.Cleanup(func() { _ = c.Close(context.Background()) })
	}
	return x.c
}

// try makes a request while there is a fault. It gets its answer, a proper error, or the end of its connection; the error is
// returned when it was felt.
func (x *faulty) try(r faultRequest, i int) error {
	x.t.Helper()
	c := x.conn()
	ctx, stop := context.WithTimeout(x.t.Context(), 40*time.Second)
	got, err := r.do(ctx, c, i)
	stop()
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		x.t.Errorf("%s, request %d hangs", r.name, i)
	case err == nil && got != r.want(i):
		x.t.Errorf("%s, request %d: %q, want %q", r.name, i, got, r.want(i))
	case err != nil && !unreachable(err) && !c.IsClosed():
		x.t.Errorf("%s, request %d: %v", r.name, i, err)
	}
	x.unsure = x.unsure || err != nil && (strings.Contains(err.Error(), "failed to deallocate cached statement") ||
		strings.Contains(err.Error(), "prepare failed after ParseComplete"))
	return err
}

// forget lets pgx close what it means to close, and then forget every statement.
func (x *faulty) forget(ctx context.Context) error {
	if _, err := x.conn().Prepare(ctx, "", "select 1"); err != nil {
		return err
	}
	if err := x.conn().DeallocateAll(ctx); err != nil {
		return err
	}
	x.unsure = false
	return nil
}

// goesOn makes sure that the session, or a new one, does.
func (x *faulty) goesOn(behind string, i int) {
	x.t.Helper()
	if c := x.conn(); c.PgConn().TxStatus() != 'I' {
		exec(x.t, c, "rollback")
	}
	eventually(x.t, "the session goes on behind "+behind, func() error {
		var got string
		ctx, stop := context.WithTimeout(x.t.Context(), 20*time.Second)
		defer stop()
		if x.unsure {
			if err := x.forget(ctx); err != nil {
				return err
			}
		}
		err := x.conn().QueryRow(ctx, "select 'after ' || $1::int", pgx.QueryExecModeExec, i).Scan(&got)
		if err == nil && got != fmt.Sprint("after ", i) {
			x.t.Errorf("behind %s, request %d: %q", behind, i, got)
		}
		return err
	})
}

// faultFixture is a proxy over two shards, of which the first is reached by way of a fault proxy, with tables for faultRequests.
func faultFixture(t *testing.T, engineName string, spec fixtureSpec) (*faultProxy, *instance, *pgx.Conn) {
	t.Helper()
	spec.shards, spec.tables = 2, shopTables
	f := newFixture(t, spec)
	primary := f.cluster.Shards[0].Primary
	fp := newFaultProxy(t, net.JoinHostPort(primary.Host, strconv.Itoa(primary.Port)))
	f.spec.endpoint = fp.addr
	p := f.run(t, engineName)
	c := connect(t, p.dsn)
	for _, ddl := range strings.Split(shopSchema, ";") {
		exec(t, c, ddl)
	}
	for id := 1; id <= 8; id++ {
		exec(t, c, "insert into customers values ($1, 'x')", id)
	}
	exec(t, c, "insert into products values (1, 'name')")
	b := connect(t, f.direct(0))
	exec(t, b, "create table if not exists lines (a int, b text); truncate lines; insert into lines select g, repeat('x', 50) from generate_series(1, 100) g")
	if err := c.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	return fp, p, b
}

// A server connection that breaks at any byte of any answer, its login's too, gives its client a proper error or the whole
// answer, and nobody else's; the session goes on, or ends with an error when half a message had been passed on; and the pool
// is whole.
func TestServerFaults(t *testing.T) {
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewSource(seed))
	engines(t, func(t *testing.T, engineName string) {
		fp, p, b := faultFixture(t, engineName, fixtureSpec{backend: func(c *backend.Config) {
			c.PoolSize = 2
			c.HealthInterval = 50 * time.Millisecond // its connections take some of the faults
		}})
		x := &faulty{t: t, p: p}
		felt := map[string]int{}
		for i := range 9 * len(faultRequests) {
			r := faultRequests[i%len(faultRequests)]
			after := rnd.Intn(200)
			if i%3 == 0 { // a new connection has to be opened: the fault may come in its login
				p.backend.Reconnect()
				after = rnd.Intn(600)
			}
			x.conn()
			fp.set(fault{kind: []string{"cut", "reset"}[rnd.Intn(2)], after: after})
			if x.try(r, i) != nil {
				felt[r.name]++
			}
			fp.set(fault{})
			x.goesOn(r.name, i)
		}
		for _, r := range faultRequests {
			if felt[r.name] == 0 {
				t.Logf("no fault was felt by %s", r.name)
			}
		}
		if len(felt) < len(faultRequests)/2 {
			t.Errorf("faults were felt by %v only", felt)
		}
		_ = x.conn().Close(t.Context()) // with what the driver makes of the faults
		for from, kind := range map[int]string{1000: "bytes", 2000: "delay"} {
			fp.set(fault{kind: kind})
			for i, r := range faultRequests {
				i += from
				if got, err := r.do(t.Context(), x.conn(), i); err != nil || got != r.want(i) {
					t.Errorf("%s, %s: %q, %v", r.name, kind, got, err)
				}
			}
		}
		fp.set(fault{})
		whole(t, p, 1)
		eventuallyRunning(t, b, "%", "0")
	})
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

// A server that stands still amid an answer, with every connection left open, keeps nobody for ever: who waits there is told,
// others who need it are refused at once, and when it moves again so does everything.
func TestServerStandsStill(t *testing.T) {
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewSource(seed))
	engines(t, func(t *testing.T, engineName string) {
		fp, p, b := faultFixture(t, engineName, fixtureSpec{backend: func(c *backend.Config) {
			c.PoolSize = 2
			c.HealthInterval = 20 * time.Millisecond
			c.ConnectTimeout, c.SilenceLimit = 300*time.Millisecond, 600*time.Millisecond
		}})
		x := &faulty{t: t, p: p}
		felt := 0
		for i, r := range faultRequests {
			x.conn()
			fp.set(fault{kind: "still", after: rnd.Intn(60)})
			if x.try(r, i) != nil {
				felt++
			}
			fp.set(fault{})
			x.goesOn(r.name, i)
		}
		if felt == 0 {
			t.Error("none was felt")
		}
		whole(t, p, 1)
		eventuallyRunning(t, b, "%", "0")
	})
}

package proxy_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidemarkdb/tidemark/proxy"
)

// Hostile clients: whatever one sends, or does not read, memory stays bounded, others are served, nothing of it is left
// when it has gone, and the pool is whole.

// bystander is a well-behaved client that works all the time.
type bystander struct {
	stop   context.CancelFunc
	served atomic.Int64
	ended  chan error
}

func standBy(t *testing.T, dsn string) *bystander {
	t.Helper()
	c := comeIn(t, dsn)
	ctx, stop := context.WithCancel(context.Background())
	b := &bystander{stop: stop, ended: make(chan error, 1)}
	go func() {
		for i := 0; ctx.Err() == nil; i++ {
			var got int
			if err := c.QueryRow(context.Background(), "select $1::int", i).Scan(&got); err != nil || got != i {
				b.ended <- fmt.Errorf("query %d: %d, %w", i, got, err)
				return
			}
			b.served.Add(1)
			time.Sleep(time.Millisecond)
		}
		b.ended <- nil
	}()
	return b
}

// comeIn is connect where LoginTimeout is shorter than a login may take on a busy machine.
func comeIn(t *testing.T, dsn string) (c *pgx.Conn) {
	t.Helper()
	eventually(t, "a client comes in", func() (err error) {
		c, err = pgx.Connect(t.Context(), dsn)
		return err
	})
	t.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

// goesOn waits until the bystander was served some more.
func (b *bystander) goesOn(t *testing.T) {
	t.Helper()
	from := b.served.Load()
	eventually(t, "the bystander is served", func() error {
		if n := b.served.Load() - from; n < 5 {
			return fmt.Errorf("%d times", n)
		}
		return nil
	})
}

func (b *bystander) leave(t *testing.T) {
	t.Helper()
	b.stop()
	if err := <-b.ended; err != nil {
		t.Errorf("the bystander: %v", err)
	}
}

// heapNow is the memory in use, in bytes, garbage excluded.
func heapNow() int {
	runtime.GC()
	runtime.GC() // what pools keep is free only after the second time
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// whole waits until every server connection is back in its pool and only n clients are left.
func whole(t *testing.T, p *instance, n int) {
	t.Helper()
	eventually(t, "the pool is whole", func() error {
		if got := p.proxy.Clients(); got != n {
			return fmt.Errorf("%d clients", got)
		}
		for _, s := range p.backend.Stats() {
			if s.Active != 0 || s.Waiting != 0 {
				return fmt.Errorf("%s %s: %d active, %d waiting", s.Shard, s.Endpoint, s.Active, s.Waiting)
			}
		}
		return nil
	})
}

// flood writes the same bytes again and again without reading, until 0.3 s pass in which the proxy takes none, or as
// much was taken as a well-bounded proxy cannot have kept.
func flood(t *testing.T, c net.Conn, unit []byte, most int) (taken int) {
	t.Helper()
	chunk := bytes.Repeat(unit, max(1, (64<<10)/len(unit)))
	for taken < most {
		if err := c.SetWriteDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		n, err := c.Write(chunk)
		taken += n
		if err != nil { // also when the proxy has ended the connection
			break
		}
		if rest := taken % len(unit); rest != 0 {
			t.Fatalf("%d bytes of a unit", rest)
		}
	}
	return taken
}

func frames(f ...[]byte) []byte { return bytes.Join(f, nil) }

// A client that asks and asks and does not read is held up: neither what it asked nor the answers pile up.
func TestEndlessRequests(t *testing.T) {
	const most, bound = 12 << 20, 16 << 20
	parse := func(name, sql string) []byte { return frame('P', name+"\x00"+sql+"\x00\x00\x00") }
	bind := func(portal, name string) []byte { return frame('B', portal+"\x00"+name+"\x00\x00\x00\x00\x00\x00\x00") }
	execute := frame('E', "\x00\x00\x00\x00\x00")
	sync := frame('S', "")
	long := strings.Repeat("x", 1000)
	floods := map[string]struct{ first, unit []byte }{
		"queries":                   {nil, frame('Q', "select 1\x00")},
		"queries with long answers": {nil, frame('Q', "select repeat('x', 10000)\x00")},
		"the proxy's own answers":   {nil, frame('Q', "show tidemark.consistency\x00")},
		"empty queries":             {nil, frame('Q', ";\x00")},
		"errors":                    {nil, frame('Q', "selec\x00")},
		"refusals":                  {nil, frame('Q', "select count(*) from customers\x00")},
		"scattered queries":         {nil, frame('Q', "select name from customers\x00")},
		"batches":                   {nil, frames(parse("", "select 1"), bind("", ""), execute, sync)},
		"one batch":                 {nil, frames(parse("", "select 1"), bind("", ""), execute)},
		"one batch by key":          {nil, frames(parse("", "select name from customers where id = 7"), bind("", ""), execute)},
		"one long transaction":      {frame('Q', "begin\x00"), frames(parse("", "select 1"), bind("", ""), execute, sync)},
		"Parse alone":               {nil, parse("", "select '"+long+"'")},
		"Parse with Sync":           {nil, frames(parse("", "select '"+long+"'"), sync)},
		"Bind alone":                {parse("a", "select 1"), bind("", "a")},
		"Execute alone":             {frames(frame('Q', "begin\x00"), parse("a", "select 1"), bind("", "a")), execute},
		"Describe alone":            {parse("a", "select 1"), frame('D', "Sa\x00")},
		"Close alone":               {nil, frame('C', "Snobody\x00")},
		"Close of portals":          {frame('Q', "begin; select 1\x00"), frame('C', "Pnobody\x00")},
		"Sync alone":                {nil, sync},
		"Flush alone":               {frames(parse("", "select 1"), bind("", "")), frame('H', "")},
		"errors in a batch":         {nil, frames(parse("", "selec"), bind("", ""), execute, sync)},
		"skipped":                   {frame('B', "\x00nobody\x00\x00\x00\x00\x00\x00\x00"), frames(parse("", "select '"+long+"'"), bind("", ""), execute)},
		"settings":                  {nil, frame('Q', "set application_name = 'x'\x00")},
		"the proxy's own, prepared": {nil, frames(parse("", "show tidemark.consistency"), bind("", ""), execute)},
		"transactions":              {nil, frame('Q', "begin\x00")},
		"BEGIN in a batch":          {nil, frames(parse("", "begin"), bind("", ""), execute, parse("", "commit"), bind("", ""), execute)},
		"CopyData out of place":     {nil, frame('d', long)},
		"CopyDone out of place":     {nil, frame('c', "")},
		"function calls":            {nil, frame('F', "\x00\x00\x06\x24\x00\x00\x00\x01\x00\x00\x00\x01-\x00\x00")},
	}
	engines(t, func(t *testing.T, engineName string) {
		_, p := shopProxy(t, engineName, fixtureSpec{pool: 4})
		b := standBy(t, p.dsn)
		for name, fl := range floods {
			c := dialWire(t, p.dsn).conn
			before := heapNow()
			write(t, c, fl.first)
			taken := flood(t, c, fl.unit, most)
			if grown := heapNow() - before; grown > bound {
				t.Errorf("%s: %d MB of requests took %d MB", name, taken>>20, grown>>20)
			}
			b.goesOn(t)
			_ = c.Close()
		}
		// What has a name is kept for long, so that there is a bound in bytes and in number.
		for _, named := range []struct {
			name  string
			bound int
			unit  func(i int) []byte
		}{
			{"statements", 64 << 20, func(i int) []byte {
				return frames(parse(fmt.Sprint("s", i), fmt.Sprintf("select '%s%d'", strings.Repeat(long, 60), i)), sync)
			}},
			{"settings", 24 << 20, func(i int) []byte { return frame('Q', fmt.Sprintf("set my.s%d = '%s'\x00", i, long)) }},
			{"savepoints", 32 << 20, func(i int) []byte { return frame('Q', fmt.Sprintf("savepoint s%d%s\x00", i, long)) }},
			{"portals", 32 << 20, func(i int) []byte { return bind(fmt.Sprint("p", i)+long, "s") }},
		} {
			name, unit := named.name, named.unit
			w := dialWire(t, p.dsn)
			before, cached := heapNow(), p.proxy.Stats().PlanCache.Bytes
			write(t, w.conn, frames(frame('Q', "begin\x00"), parse("s", "select 1")))
			go func() {
				buf := make([]byte, 64<<10)
				for {
					if _, err := w.conn.Read(buf); err != nil {
						return
					}
				}
			}()
			var out []byte
			for i := range 24 << 20 / len(unit(0)) {
				out = append(out, unit(i)...)
				if len(out) < 64<<10 {
					continue
				}
				if err := w.conn.SetWriteDeadline(time.Now().Add(10 * time.Second)); err != nil {
					t.Fatal(err)
				}
				if _, err := w.conn.Write(out); err != nil {
					break
				}
				out = out[:0]
			}
			grown := heapNow() - before
			plans := int(p.proxy.Stats().PlanCache.Bytes - cached) // which are everybody's, and have a bound of their own
			t.Logf("named %s took %d MB, of them %d for plans", name, grown>>20, plans>>20)
			if grown-plans > named.bound {
				t.Errorf("named %s took %d MB, and %d for plans", name, (grown-plans)>>20, plans>>20)
			}
			b.goesOn(t)
			_ = w.conn.Close()
		}
		b.leave(t)
		whole(t, p, 2) // and the one that made the tables
	})
}

// Lengths that lie, in every type of message, before and after the login.
func TestLyingLengths(t *testing.T) {
	f := newFixture(t, fixtureSpec{shards: 1, pool: 2})
	engines(t, func(t *testing.T, engineName string) {
		p := f.run(t, engineName)
		b := standBy(t, p.dsn)
		before := heapNow()
		var open []net.Conn
		start := packet(3<<16, "user", clientUser, "database", "shop")
		for _, typ := range []byte("QPBDECSHFdcfpX\x00Z~") {
			for _, length := range []uint32{0, 3, 0xffffffff, 0x7fffffff, 0x40000000, 0x80000000} {
				early := dialRaw(t, p.addr)
				write(t, early, frames(start, lying(typ, length, "abc")))
				late := dialWire(t, p.dsn).conn
				if err := late.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
					t.Fatal(err)
				}
				write(t, late, lying(typ, length, "abc\x00def\x00"))
				open = append(open, early, late)
			}
		}
		if grown := heapNow() - before; grown > 16<<20 {
			t.Errorf("%d lengths that lie took %d MB", len(open), grown>>20)
		}
		b.goesOn(t)
		for _, c := range open { // who announced much may send it still: half of the connection is closed to say that nothing comes
			_ = c.(*net.TCPConn).CloseWrite()
			if err := untilClosed(c); err != nil {
				t.Error(err)
			}
			_ = c.Close()
		}
		b.leave(t)
		whole(t, p, 1)
	})
}

// Clients that stop in the middle of a message, whichever it is and wherever, hold no server connection between transactions: with a
// single one for all, others go on. Where they had one, they give it back when they leave.
func TestHalfFrames(t *testing.T) {
	f := newFixture(t, fixtureSpec{shards: 1, pool: 1})
	exec(t, connect(t, f.direct(0)), "create table half (a text)")
	prepared := frames(frame('P', "a\x00select $1::text\x00\x00\x00"), frame('S', ""))
	bound := frame('B', "\x00a\x00\x00\x00\x00\x01\x00\x00\x00\x03abc\x00\x00")
	copying := frame('Q', "copy half from stdin\x00")
	slow := frame('Q', "begin; select pg_sleep(0.1); commit\x00") // what follows has begun to come when it is answered
	messages := map[string]struct{ first, half []byte }{
		"Query":           {nil, frame('Q', "select 'half a query'\x00")},
		"Parse":           {nil, frame('P', "b\x00select 'half a parse'\x00\x00\x00")},
		"Bind":            {prepared, bound},
		"Describe":        {prepared, frame('D', "Sa\x00")},
		"Close":           {prepared, frame('C', "Sa\x00")},
		"Sync":            {nil, frame('S', "")},
		"Flush":           {nil, frame('H', "")},
		"Terminate":       {nil, frame('X', "")},
		"FunctionCall":    {nil, frame('F', "\x00\x00\x06\x24\x00\x00\x00\x01\x00\x00\x00\x01-\x00\x00")},
		"CopyData":        {nil, frame('d', "half a line\n")},
		"long Parse":      {nil, frame('P', "c\x00select '"+strings.Repeat("x", 100_000)+"'\x00\x00\x00")},
		"long Query":      {nil, frame('Q', "select '"+strings.Repeat("x", 100_000)+"'\x00")},
		"late Query":      {slow, frame('Q', "select 'half a query'\x00")},
		"late long Query": {slow, frame('Q', "select '"+strings.Repeat("x", 100_000)+"'\x00")},
	}
	amid := map[string]struct{ first, half []byte }{ // a transaction has begun: the connection is theirs
		"Execute":       {frames(prepared, bound), frame('E', "\x00\x00\x00\x00\x00")},
		"Sync":          {frames(prepared, bound, frame('E', "\x00\x00\x00\x00\x00")), frame('S', "")},
		"CopyData":      {copying, frame('d', "half a line\n")},
		"CopyDone":      {copying, frame('c', "")},
		"CopyFail":      {copying, frame('f', "half an excuse\x00")},
		"long CopyData": {copying, frame('d', strings.Repeat("x", 100_000)+"\n")},
		"long Bind":     {prepared, frame('B', "\x00a\x00\x00\x00\x00\x01\x00\x01\x86\xa0"+strings.Repeat("x", 100_000)+"\x00\x00")},
		"Query in one":  {frame('Q', "begin; insert into half values ('never')\x00"), frame('Q', "commit\x00")},
	}
	cuts := func(m []byte) map[int]bool { return map[int]bool{1: true, 4: true, len(m) / 2: true, len(m) - 1: true} }
	engines(t, func(t *testing.T, engineName string) {
		p := f.run(t, engineName)
		b := standBy(t, p.dsn)
		before := heapNow()
		var open []net.Conn
		for _, m := range messages {
			for cut := range cuts(m.half) {
				c := dialWire(t, p.dsn).conn
				write(t, c, frames(m.first, m.half[:cut]))
				open = append(open, c)
			}
		}
		b.goesOn(t)
		if grown := heapNow() - before; grown > len(open)*(256<<10) {
			t.Errorf("%d halves of messages took %d kB each", len(open), grown/len(open)>>10)
		}
		for i, c := range open {
			if i%2 == 0 {
				_ = c.(*net.TCPConn).SetLinger(0) // it leaves by RST
			}
			_ = c.Close()
		}
		for _, m := range amid {
			for cut := range cuts(m.half) {
				c := dialWire(t, p.dsn).conn
				write(t, c, frames(m.first, m.half[:cut]))
				_ = c.Close()
			}
		}
		b.goesOn(t)
		b.leave(t)
		whole(t, p, 1)
		if got := text(t, connect(t, f.direct(0)), "select count(*) from half"); got != "0" {
			t.Errorf("%s rows of COPYs and transactions that nobody ended", got)
		}
	})
}

// Clients that connect and say nothing, or half of something, keep nobody out for long.
func TestHalfOpenLogins(t *testing.T) {
	const n = 2500
	cert, _ := selfSigned(t)
	f := newFixture(t, fixtureSpec{shards: 1, pool: 2, config: func(c *proxy.Config) { c.LoginTimeout, c.TLS = 5*time.Second, cert }})
	engines(t, func(t *testing.T, engineName string) {
		p := f.run(t, engineName)
		b := standBy(t, p.dsn)
		goroutines, before := runtime.NumGoroutine(), heapNow()
		start := packet(3<<16, "user", clientUser, "database", "shop")
		ssl := packet(80877103)
		said := [][]byte{nil, start[:5], start, frames(ssl, []byte{22, 3, 1}), frames(ssl, start), ssl, frames(start, frame('p', "SCRAM-SHA-256\x00")[:9])}
		open := make([]net.Conn, n)
		for i := range open {
			c, err := net.Dial("tcp", p.addr)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = c.Write(said[i%len(said)]) // it may have been refused by now
			open[i] = c
		}
		b.goesOn(t)
		if grown := heapNow() - before; grown > n*(32<<10) {
			t.Errorf("%d logins took %d kB each", n, grown/n>>10)
		}
		eventually(t, "a client comes in beside them", func() error {
			c, err := pgx.Connect(t.Context(), p.dsn)
			if err != nil {
				return err
			}
			return c.Close(t.Context())
		})
		eventually(t, "they are gone", func() error {
			if got := p.proxy.Clients(); got != 1 {
				return fmt.Errorf("%d clients", got)
			}
			return nil
		})
		for _, c := range open {
			_ = c.Close()
		}
		eventually(t, "nothing of them is left", func() error {
			if got := runtime.NumGoroutine(); got > goroutines+10 {
				return fmt.Errorf("%d goroutines, %d before", got, goroutines)
			}
			return nil
		})
		b.leave(t)
		whole(t, p, 1)
	})
}

// A client that writes a byte at a time, and several that do not read large results, hold up nobody.
func TestSlowClients(t *testing.T) {
	f := newFixture(t, fixtureSpec{shards: 1, pool: 5})
	engines(t, func(t *testing.T, engineName string) {
		p := f.run(t, engineName)
		b := standBy(t, p.dsn)
		before := heapNow()
		var stalled []net.Conn
		for range 3 {
			c := dialWire(t, p.dsn).conn
			write(t, c, frame('Q', "select repeat('x', 1000000) from generate_series(1, 100)\x00"))
			stalled = append(stalled, c)
		}
		w := dialWire(t, p.dsn)
		for _, x := range frames(frame('P', "\x00select $1::text\x00\x00\x00"), frame('B', "\x00\x00\x00\x00\x00\x01\x00\x00\x00\x03abc\x00\x00"), frame('E', "\x00\x00\x00\x00\x00"), frame('S', "")) {
			write(t, w.conn, []byte{x})
			time.Sleep(100 * time.Microsecond)
		}
		got := ""
		for {
			m, err := w.fe.Receive()
			if err != nil {
				t.Fatal(err)
			}
			name := strings.TrimPrefix(fmt.Sprintf("%T", m), "*pgproto3.")
			if got += name + " "; name == "ReadyForQuery" {
				break
			}
		}
		if want := "ParseComplete BindComplete DataRow CommandComplete ReadyForQuery "; got != want {
			t.Errorf("byte by byte: %s", got)
		}
		b.goesOn(t)
		if grown := heapNow() - before; grown > 8<<20 {
			t.Errorf("slow clients took %d MB", grown>>20)
		}
		for _, c := range append(stalled, w.conn) {
			_ = c.Close()
		}
		b.leave(t)
		whole(t, p, 1)
	})
}

// Statements at the limits of the protocol and of the parser get what PostgreSQL says, or a clear refusal, and the session goes on.
func TestExtremeStatements(t *testing.T) {
	f := newFixture(t, fixtureSpec{shards: 1, pool: 2})
	r := strings.Repeat
	engines(t, func(t *testing.T, engineName string) {
		p := f.run(t, engineName)
		b := standBy(t, p.dsn)
		c := connect(t, p.dsn)
		before := heapNow()
		for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec} {
			for name, tc := range map[string]struct{ sql, want string }{
				"60 MB of literal":    {"select length('" + r("x", 60<<20) + "')", ""},
				"70 MB":               {"select length('" + r("x", 70<<20) + "')", "54000"},
				"a comment of 20 MB":  {"select 1 /*" + r("x", 20<<20) + "*/", ""},
				"deep parentheses":    {"select " + r("(", 100_000) + "1" + r(")", 100_000), "54001"},
				"a long sum":          {"select 1" + r("+1", 100_000), "54001"},
				"a long union":        {"select 1" + r(" union select 1", 20_000), "54001"},
				"invalid UTF-8":       {"select '\xff\xfe'", "22021"},
				"invalid UTF-8, bare": {"select \xff\xfe", "22021"},
				"a long name":         {"select 1 as " + r("x", 100_000), ""},
				"many columns":        {"select 1" + r(", 1", 2000), "54011"},
			} {
				ctx, stop := context.WithTimeout(t.Context(), 2*time.Minute)
				_, err := c.Exec(ctx, tc.sql, mode)
				stop()
				if got := code(err); err == nil && tc.want != "" || err != nil && got != tc.want {
					t.Errorf("%s, %v: %.200v", name, mode, err)
				}
				if c.IsClosed() {
					t.Logf("%s, %v ends the session", name, mode)
					c = connect(t, p.dsn)
				}
			}
		}
		// A NUL byte ends the string: what is behind it makes the message one that PostgreSQL refuses.
		w := dialWire(t, p.dsn)
		write(t, w.conn, frames(frame('Q', "select 1\x00; create table behind_nul (a int)\x00"), frame('X', "")))
		if err := untilClosed(w.conn); err != nil {
			t.Error(err)
		}
		_ = w.conn.Close()
		if got := text(t, c, "select to_regclass('behind_nul') is null"); got != "true" {
			t.Error("what stood behind a NUL byte was run")
		}

		// As many parameters as a Bind can have.
		const n = 65535
		var pb, bb bytes.Buffer
		pb.WriteString("\x00select $1 + $65535\x00\xff\xff")
		bb.WriteString("\x00\x00\x00\x00\xff\xff")
		for range n {
			_ = binary.Write(&pb, binary.BigEndian, uint32(23))
			bb.WriteString("\x00\x00\x00\x011")
		}
		bb.WriteString("\x00\x00")
		for _, dsn := range []string{f.direct(0), p.dsn} {
			w := dialWire(t, dsn)
			if err := w.conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
				t.Fatal(err)
			}
			write(t, w.conn, frames(frame('P', pb.String()), frame('B', bb.String()), frame('E', "\x00\x00\x00\x00\x00"), frame('S', "")))
			got := ""
			for {
				m, err := w.fe.Receive()
				if err != nil {
					t.Fatal(err)
				}
				name := strings.TrimPrefix(fmt.Sprintf("%T", m), "*pgproto3.")
				if got += name + " "; name == "ReadyForQuery" {
					break
				}
			}
			if want := "ParseComplete BindComplete DataRow CommandComplete ReadyForQuery "; got != want {
				t.Errorf("65535 parameters: %s", got)
			}
			_ = w.conn.Close()
		}
		b.goesOn(t)
		_ = c.Close(t.Context())
		b.leave(t)
		whole(t, p, 1)
		if grown := heapNow() - before; grown > 24<<20 {
			t.Errorf("%d MB are left of it", grown>>20)
		}
	})
}

// Nothing that is sent behind an SSLRequest in plain text gets into the session that TLS protects, and garbage ends the login.
func TestGarbageInTLS(t *testing.T) {
	cert, _ := selfSigned(t)
	f := newFixture(t, fixtureSpec{shards: 1, config: func(c *proxy.Config) { c.LoginTimeout, c.TLS = 2*time.Second, cert }})
	engines(t, func(t *testing.T, engineName string) {
		p := f.run(t, engineName)
		b := standBy(t, p.dsn)
		before := heapNow()
		start := packet(3<<16, "user", clientUser, "database", "shop")
		for name, sent := range map[string][]byte{
			"a startup message":   frames(packet(80877103), start),
			"zeros":               frames(packet(80877103), make([]byte, 1000)),
			"half a ClientHello":  frames(packet(80877103), []byte{22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3}),
			"a record of 64 kB":   frames(packet(80877103), []byte{22, 3, 1, 255, 255}, make([]byte, 65535)),
			"ClientHello at once": {22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3},
		} {
			c := dialRaw(t, p.addr)
			write(t, c, sent)
			if err := untilClosed(c); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			_ = c.Close()
		}
		b.goesOn(t)
		b.leave(t)
		if grown := heapNow() - before; grown > 4<<20 {
			t.Errorf("garbage took %d MB", grown>>20)
		}
		for _, dsn := range []string{altered(p.dsn, "sslmode=disable", "sslmode=require"), p.dsn} {
			exec(t, comeIn(t, dsn), "select 1")
		}
	})
}

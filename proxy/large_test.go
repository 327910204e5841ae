package proxy_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// Values of any size pass in both directions, in every message that can have one, and in bounded memory. `make large` has them as
// large as PostgreSQL takes them.
func TestLargeValues(t *testing.T) {
	large, patience := 96<<20, 2*time.Minute // gathered anywhere, it would take twice as much
	if n, err := strconv.Atoi(os.Getenv("TIDEMARK_LARGE_MB")); err == nil {
		large, patience = n<<20, time.Hour
	}
	wants := func(format string) string { return fmt.Sprintf(format, large>>20) }
	f := newFixture(t, fixtureSpec{shards: 1, pool: 2})
	engines(t, func(t *testing.T, engineName string) {
		p := f.run(t, engineName)
		b := standBy(t, p.dsn)
		exec(t, connect(t, f.direct(0)), "drop table if exists large; create table large (a text)")
		sync, execute := frame('S', ""), frame('E', "\x00\x00\x00\x00\x00")
		for _, tc := range []struct {
			name   string
			before []byte // what is sent ahead
			typ    byte   // of the large message: its body is head, so many bytes, and tail
			head   string
			body   int
			tail   string
			after  []byte
			want   string // see shapeOfAnswer
		}{
			{"a row", frame('Q', fmt.Sprintf("select repeat('x', %d)\x00", large)), 0, "", 0, "", nil, wants("T D%dM C Z")},
			{
				"a parameter", frame('P', "\x00select length($1::text)\x00\x00\x00"), 'B', "\x00\x00\x00\x00\x00\x01" + length(large), large, "\x00\x00",
				frames(execute, sync), "1 2 D C Z",
			},
			{
				"a parameter and a row", frame('P', "\x00select $1::text\x00\x00\x00"), 'B', "\x00\x00\x00\x00\x00\x01" + length(large), large, "\x00\x00",
				frames(execute, sync), wants("1 2 D%dM C Z"),
			},
			{"a line of COPY", frame('Q', "copy large from stdin\x00"), 'd', "", large, "\n", frame('c', ""), "G C Z"},
			{"COPY out", frame('Q', "copy large to stdout\x00"), 0, "", 0, "", nil, wants("H d%dM c C Z")},
			{"a function's argument and result", nil, 'F', "\x00\x00\x06\x56\x00\x00\x00\x02" + length(large), large, length(1) + "1\x00\x00", nil, wants("V%dM Z")},
			{"a notice", frame('Q', fmt.Sprintf("do $$ begin raise notice '%%', repeat('x', %d); end $$\x00", 20<<20)), 0, "", 0, "", nil, "N20M C Z"},
			{"an error", frame('Q', fmt.Sprintf("do $$ begin raise exception '%%', repeat('x', %d); end $$\x00", 20<<20)), 0, "", 0, "", nil, "E Z"},
			{"and goes on", frame('Q', "truncate large\x00"), 0, "", 0, "", nil, "C Z"},
		} {
			c := dialWire(t, p.dsn).conn
			if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
				t.Fatal(err)
			}
			peak := watchHeap()
			write(t, c, tc.before)
			sent := make(chan error, 1)
			go func() { sent <- sendLarge(c, tc.typ, tc.head, tc.body, tc.tail, tc.after) }()
			got, err := shapeOfAnswer(c)
			if err != nil {
				t.Errorf("%s: %s, %v", tc.name, got, err)
			}
			if err := <-sent; err != nil {
				t.Errorf("%s: %v", tc.name, err)
			}
			if grown := peak(); grown > 64<<20 {
				t.Errorf("%s took %d MB", tc.name, grown>>20)
			}
			if got != tc.want {
				t.Errorf("%s: %s, want %s", tc.name, got, tc.want)
			}
			_ = c.Close()
			b.goesOn(t)
		}
		b.leave(t)
		whole(t, p, 1)
	})
}

// A line of a COPY that is split by key is not gathered either, once its key has come.
func TestLargeLinesOfASplitCopy(t *testing.T) {
	const large = 96 << 20
	engines(t, func(t *testing.T, engineName string) {
		_, dsn := shop(t, engineName, fixtureSpec{})
		c := dialWire(t, dsn).conn
		if err := c.SetDeadline(time.Now().Add(2 * time.Minute)); err != nil {
			t.Fatal(err)
		}
		peak := watchHeap()
		write(t, c, frames(frame('Q', "copy customers (id, name) from stdin\x00"), frame('d', "1\tfirst\n")))
		sent := make(chan error, 1)
		go func() { sent <- sendLarge(c, 'd', "2\t", large, "\n3\tthird\n", frame('c', "")) }()
		if got, err := shapeOfAnswer(c); got != "G C Z" || err != nil {
			t.Errorf("%s, %v", got, err)
		}
		if err := <-sent; err != nil {
			t.Error(err)
		}
		if grown := peak(); grown > 64<<20 {
			t.Errorf("took %d MB", grown>>20)
		}
		d := connect(t, dsn)
		for id, want := range []string{"", "5", fmt.Sprint(large), "5"} {
			if got := text(t, d, "select length(name) from customers where id = $1", id); got != want {
				t.Errorf("customer %d has %s characters, want %s", id, got, want)
			}
		}
	})
}

// What a shard has to say of a split COPY the client hears at once, also where it sends nothing more before.
func TestErrorOfASplitCopy(t *testing.T) {
	engines(t, func(t *testing.T, engineName string) {
		_, dsn := shop(t, engineName, fixtureSpec{})
		c := dialWire(t, dsn).conn
		if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		write(t, c, frames(frame('Q', "copy customers (id, name) from stdin\x00"), frame('d', "1\tfirst\textra\n")))
		if got, err := shapeOfAnswer(c); got != "G E Z" || err != nil {
			t.Errorf("%s, %v", got, err)
		}
	})
}

// A statement is read whole, and a long literal in it is not copied many times over, neither for the parser nor for the server. One
// that is too long without its literals is not read to its end.
func TestLargeStatements(t *testing.T) {
	const large = 20 << 20
	f := newFixture(t, fixtureSpec{shards: 1, pool: 2})
	p := f.run(t, "epoll")
	by := standBy(t, p.dsn)
	for _, tc := range []struct {
		name string
		send func(net.Conn) error
		want string
	}{
		{"a query", func(c net.Conn) error { return sendLarge(c, 'Q', "select length('", large, "')\x00", nil) }, "T D C Z"},
		{"a query whose error is at its end", func(c net.Conn) error { return sendLarge(c, 'Q', "select length('", large, "'),\x00", nil) }, "E Z"},
		{"a statement to prepare", func(c net.Conn) error {
			return sendLarge(c, 'P', "\x00select length('", large, "')\x00\x00\x00", frames(frame('B', "\x00\x00\x00\x00\x00\x00\x00\x00"), frame('E', "\x00\x00\x00\x00\x00"), frame('S', "")))
		}, "1 2 D C Z"},
		{"many statements", func(c net.Conn) error {
			_, err := c.Write(frame('Q', strings.Repeat("select 1;", large/9)+"\x00"))
			return err
		}, "E Z"},
	} {
		c := dialWire(t, p.dsn).conn
		if err := c.SetDeadline(time.Now().Add(2 * time.Minute)); err != nil {
			t.Fatal(err)
		}
		peak := watchHeap()
		sent := make(chan error, 1)
		go func() { sent <- tc.send(c) }()
		if got, err := shapeOfAnswer(c); got != tc.want || err != nil {
			t.Errorf("%s: %s, %v, want %s", tc.name, got, err, tc.want)
		}
		if err := <-sent; err != nil {
			t.Errorf("%s: %v", tc.name, err)
		}
		if grown := peak(); grown > 6*large {
			t.Errorf("%s took %d MB", tc.name, grown>>20)
		}
		_ = c.Close()
		by.goesOn(t)
	}
	by.leave(t)
	whole(t, p, 1)
}

func length(n int) string { return string(binary.BigEndian.AppendUint32(nil, uint32(n))) }

// sendLarge sends one message in pieces, and what follows it. typ 0: there is no such.
func sendLarge(c net.Conn, typ byte, head string, n int, tail string, after []byte) error {
	if typ == 0 {
		return nil
	}
	b := binary.BigEndian.AppendUint32([]byte{typ}, uint32(4+len(head)+n+len(tail)))
	if _, err := c.Write(append(b, head...)); err != nil {
		return err
	}
	for piece := bytes.Repeat([]byte("x"), 64<<10); n > 0; {
		k := min(n, len(piece))
		if _, err := c.Write(piece[:k]); err != nil {
			return err
		}
		n -= k
	}
	_, err := c.Write(append([]byte(tail), after...))
	return err
}

// shapeOfAnswer reads up to ReadyForQuery and keeps nothing: types, and lengths in MB of what is that long.
func shapeOfAnswer(c net.Conn) (string, error) {
	var shape []string
	for {
		var head [5]byte
		if _, err := io.ReadFull(c, head[:]); err != nil {
			return strings.Join(shape, " "), err
		}
		n := int64(binary.BigEndian.Uint32(head[1:])) - 4
		switch s := string(head[:1]); {
		case s == "S":
		case n>>20 > 0:
			shape = append(shape, fmt.Sprintf("%s%dM", s, n>>20))
		default:
			shape = append(shape, s)
		}
		if _, err := io.CopyN(io.Discard, c, n); err != nil {
			return strings.Join(shape, " "), err
		}
		if head[0] == 'Z' {
			return strings.Join(shape, " "), nil
		}
	}
}

// watchHeap begins to look at the heap, garbage included; peak ends that and says how many bytes it was larger at most.
func watchHeap() (peak func() int) {
	percent := debug.SetGCPercent(10) // else the garbage may be as much as what others have left
	before := heapNow()
	var most atomic.Int64
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			most.Store(max(most.Load(), int64(m.HeapAlloc)))
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	}()
	return func() int {
		close(stop)
		<-done
		debug.SetGCPercent(percent)
		return int(most.Load()) - before
	}
}

// A Bind of the most parameters that there can be, each with a format of its own, is passed on like any other: what stands before
// the values alone is larger than what one read takes.
func TestMostParameters(t *testing.T) {
	f := newFixture(t, fixtureSpec{shards: 1, pool: 1})
	engines(t, func(t *testing.T, engineName string) {
		c := connect(t, f.run(t, engineName).dsn)
		for _, n := range []int{8200, 33000, 1<<16 - 1} {
			var query strings.Builder
			query.WriteString("select $1 || cardinality(array[$2::int4")
			values, formats := [][]byte{[]byte("n = "), {0, 0, 0, 7}}, []int16{0, 1}
			for i := 3; i <= n; i++ {
				fmt.Fprintf(&query, ",$%d", i)
				values, formats = append(values, []byte{0, 0, 0, 7}), append(formats, 1)
			}
			query.WriteString("])")
			r := c.PgConn().ExecParams(t.Context(), query.String(), values, nil, formats, nil).Read()
			if r.Err != nil {
				t.Fatalf("%d parameters: %v", n, r.Err)
			}
			if got, want := string(r.Rows[0][0]), fmt.Sprintf("n = %d", n-1); got != want {
				t.Errorf("%s, want %s", got, want)
			}
		}
	})
}

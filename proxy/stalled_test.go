package proxy_test

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
)

// A server that does not read holds up its client, not the proxy's memory. What it was sent before is not lost, and what it
// answers meanwhile arrives.
func TestStalledServerTakesNoMemory(t *testing.T) {
	f := newFixture(t, fixtureSpec{shards: 1, pool: 2})
	engines(t, func(t *testing.T, engineName string) {
		p := f.run(t, engineName)
		d, blocker := connect(t, f.direct(0)), connect(t, f.direct(0))
		exec(t, d, "drop table if exists stalled; create table stalled (id int unique, a text)")
		// The server begins to insert, and waits, when it has 64 KB of rows together; most of them it drops.
		const rows = 15_000
		send := func(c net.Conn) error {
			out := bufio.NewWriterSize(c, 64<<10)
			_, _ = out.Write(frame('Q', "copy stalled from stdin where id < 20\x00")) // Flush says what went wrong
			row := "\t" + strings.Repeat("x", 4000) + "\n"
			for i := range rows {
				_, _ = out.Write(frame('d', fmt.Sprint(i)+row))
			}
			_, _ = out.Write(frame('c', ""))
			return out.Flush()
		}
		for _, tc := range []struct{ name, then, want, count string }{
			{"it goes on", "rollback", "G C Z", "20"},
			{"it is cancelled", "select pg_cancel_backend(pid) from pg_stat_activity where wait_event_type = 'Lock' and query like 'copy stalled%'", "G E Z", "0"},
		} {
			c := dialWire(t, p.dsn).conn
			if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
				t.Fatal(err)
			}
			exec(t, blocker, "begin; insert into stalled values (0, '')")
			peak := watchHeap()
			sent := make(chan error, 1)
			go func() { sent <- send(c) }()
			awaitRow(t, d, "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and query like 'copy stalled%'", "1")
			time.Sleep(300 * time.Millisecond) // as much as the sockets take, and more if anybody gathered it
			select {
			case err := <-sent:
				t.Errorf("%s: all was sent to a server that does not read (%v)", tc.name, err)
				sent <- err
			default:
			}
			if grown := peak(); grown > 24<<20 { // garbage counts, the test's own too
				t.Errorf("%s: took %d MB", tc.name, grown>>20)
			}
			exec(t, blocker, tc.then)
			got, err := shapeOfAnswer(c)
			if got != tc.want || err != nil {
				t.Errorf("%s: %s, %v; want %s", tc.name, got, err, tc.want)
			}
			if err := <-sent; err != nil {
				t.Errorf("%s: %v", tc.name, err)
			}
			exec(t, blocker, "rollback")
			if got := text(t, d, "select count(*) from stalled"); got != tc.count {
				t.Errorf("%s: %s rows, want %s", tc.name, got, tc.count)
			}
			exec(t, d, "truncate stalled")
			_ = c.Close()
		}
		whole(t, p, 0)
	})
}

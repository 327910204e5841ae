package proxy_test

import (
	"runtime"
	"runtime/debug"
	"testing"
	"time"

	"github.com/tidemarkdb/tidemark/internal/backend"
)

// A client that says goodbye leaves its buffer, in which that still lies, to the next.
func TestGoodbyesTakeNoMemory(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector has pools forget what they are given")
	}
	f := newFixture(t, fixtureSpec{shards: 1, pool: 2, backend: func(c *backend.Config) { c.HealthInterval = time.Minute }}) // what it allocates goes by time
	engines(t, func(t *testing.T, engineName string) {
		p := f.run(t, engineName)
		visit := func() {
			c := dialWire(t, p.dsn).conn
			write(t, c, frames(frame('Q', "select 1\x00")))
			if got, err := shapeOfAnswer(c); got != "T D C Z" || err != nil {
				t.Fatal(got, err)
			}
			write(t, c, frame('X', ""))
			if err := c.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
				t.Fatal(err)
			}
			var b [1]byte
			if n, err := c.Read(b[:]); n != 0 || err == nil {
				t.Fatalf("after the goodbye: %d bytes, %v", n, err)
			}
			_ = c.Close()
		}
		for range 5 {
			visit()
		}
		defer debug.SetGCPercent(debug.SetGCPercent(-1)) // it would empty the pools
		const visits = 50
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range visits {
			visit()
		}
		runtime.ReadMemStats(&after)
		whole(t, p, 0)
		// Both sides' logins, and in the goroutine engine the connection's read-ahead.
		if each, limit := (after.TotalAlloc-before.TotalAlloc)/visits, map[string]uint64{"epoll": 60 << 10, "goroutines": 124 << 10}[engineName]; each > limit {
			t.Errorf("%d bytes were allocated for each visit, at most %d are right", each, limit)
		} else {
			t.Logf("%d bytes for each visit", each)
		}
	})
}

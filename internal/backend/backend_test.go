package backend

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tidemarkdb/tidemark/internal/loop"
)

func TestConfig(t *testing.T) {
	good := func() Config {
		return Config{Shards: []ShardConfig{{Name: "s", Endpoints: []EndpointConfig{{Host: "h"}}}}}
	}
	for _, tt := range []struct {
		name   string
		change func(*Config)
		want   string // in the error; "" for none
	}{
		{"good", func(*Config) {}, ""},
		{"no shard", func(c *Config) { c.Shards = nil }, "no shard"},
		{"no name", func(c *Config) { c.Shards[0].Name = "" }, "name"},
		{"twice", func(c *Config) { c.Shards = append(c.Shards, c.Shards[0]) }, "twice"},
		{"no endpoint", func(c *Config) { c.Shards[0].Endpoints = nil }, "no endpoint"},
		{"no host", func(c *Config) { c.Shards[0].Endpoints[0].Host = "" }, "no host"},
		{"port", func(c *Config) { c.Shards[0].Endpoints[0].Port = 70000 }, "port 70000"},
		{"weight", func(c *Config) { c.Shards[0].Endpoints[0].Weight = 101 }, "weight 101"},
		{"pool", func(c *Config) { c.PoolSize = -1 }, "pool size"},
		{"idle", func(c *Config) { c.MinIdle = 21 }, "min idle"},
		{"sslmode", func(c *Config) { c.SSLMode = "perhaps" }, "sslmode"},
		{"two at once", func(c *Config) { c.Budget, c.AcquireTimeout = -1, -1 }, "budget must be positive, not -1\nbackend: acquire timeout"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := good()
			tt.change(&cfg)
			_, err := New(cfg, loop.NewGoroutines(), nil)
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestStatements(t *testing.T) {
	s := newStatements(3 * (statementOverhead + 100))
	var evicted []Evicted
	add := func(id uint64) string {
		var name string
		name, evicted = s.Add(id, 100, evicted[:0])
		return name
	}
	one := add(1)
	add(2)
	three := add(3)
	if len(evicted) != 0 || s.Len() != 3 {
		t.Fatalf("evicted %v of %d", evicted, s.Len())
	}
	if name, ok := s.Name(1); !ok || name != one {
		t.Errorf("statement 1 is %q", name)
	}
	two, _ := s.Name(2)
	s.Name(1)
	add(4) // 3 was used least recently
	if len(evicted) != 1 || evicted[0].Name != three {
		t.Errorf("evicted %v", evicted)
	}
	if _, ok := s.Name(3); ok {
		t.Error("an evicted statement is still known")
	}
	restored := evicted[0]
	s.Remove(4)
	s.Restore(restored)
	if name, ok := s.Name(3); !ok || name != three || s.Len() != 3 {
		t.Errorf("the statement that was evicted is %q of %d again", name, s.Len())
	}
	s.Remove(3)
	add(4)
	if add(2) != two || s.Len() != 3 || len(evicted) != 0 {
		t.Error("adding twice must change nothing")
	}
	s.Remove(2)
	s.Remove(99)
	if s.Len() != 2 || s.Bytes() != 2*(statementOverhead+100) {
		t.Errorf("%d statements of %d bytes", s.Len(), s.Bytes())
	}
	s.Add(5, 1<<20, nil) // larger than the bound: alone
	if s.Len() != 1 {
		t.Errorf("%d statements", s.Len())
	}
	if allocs := testing.AllocsPerRun(10, func() { s.Name(5) }); allocs != 0 {
		t.Errorf("Name allocates %v times", allocs)
	}
	s.Reset()
	if s.Len() != 0 || s.Bytes() != 0 || add(6) == "" {
		t.Error("reset")
	}
}

// What an error discards is taken back in the order in which it was asked for: a Close, then a Parse of the same statement.
func TestStatementsTakenBack(t *testing.T) {
	size := statementOverhead + 100
	s := newStatements(2 * size)
	s.Add(1, 100, nil)
	s.Add(2, 100, nil)
	known := func(want ...uint64) {
		t.Helper()
		for _, id := range want {
			if _, ok := s.Name(id); !ok {
				t.Errorf("statement %d is not known", id)
			}
		}
		if s.Len() != len(want) || s.Bytes() != len(want)*size {
			t.Errorf("%d statements of %d bytes, want %d", s.Len(), s.Bytes(), len(want))
		}
	}
	_, closed := s.Add(3, 100, nil)     // closes 1
	_, closedToo := s.Add(1, 100, nil)  // closes 2
	_, closedLast := s.Add(2, 100, nil) // closes 3
	s.Restore(closed[0])                // all of it was skipped
	s.Unparsed(3)
	s.Restore(closedToo[0])
	s.Unparsed(1)
	s.Restore(closedLast[0])
	s.Unparsed(2)
	s.Settled()
	known(1, 2)

	old := s.SetAside() // closes both
	s.Add(2, 100, nil)
	s.Add(4, 100, nil) // in a batch of its own
	s.TakeBack(old)
	s.Unparsed(2)
	s.Settled()
	known(1, 2, 4)
	old = s.SetAside() // closes all three
	s.Add(1, 100, nil) // in the next batch
	s.Add(2, 100, nil)
	s.TakeBack(old) // the first was skipped
	s.Settled()
	s.Unclosed(1) // of the second, from here on
	s.Unparsed(1)
	s.Unparsed(2) // has been closed
	s.Settled()
	known(1, 4)
	s.Add(2, 100, nil)
	s.Unparsed(1)
	s.Settled()
	known(2, 4)
	s.Add(5, 100, nil)
	known(4, 5)

	old = s.SetAside()
	s.Add(4, 100, nil)
	s.Add(5, 100, nil)
	_, closed = s.Add(6, 100, nil)
	s.TakeBack(old)
	s.Unparsed(4)
	s.Unparsed(5)
	s.Restore(closed[0])
	s.Unparsed(6)
	s.Settled()
	known(4, 5)
}

// The table of breaker.go, event by event.
func TestBreaker(t *testing.T) {
	var log []string
	b := newBreaker(2, 3, func(from, to breakerState, _ error) { log = append(log, fmt.Sprintf("%s>%s", from, to)) })
	failed := errors.New("no")
	for _, step := range []struct {
		event string
		want  breakerState
	}{
		{"fail", breakerClosed},
		{"fail", breakerClosed},
		{"ok", breakerClosed},
		{"fail", breakerClosed},
		{"fail", breakerClosed},
		{"fail", breakerOpen},
		{"fail", breakerOpen},
		{"ask", breakerOpen},
		{"ok", breakerHalfOpen},
		{"fail", breakerOpen},
		{"ok", breakerHalfOpen},
		{"ok", breakerClosed},
		{"fail", breakerClosed},
		{"fail", breakerClosed},
		{"fail", breakerOpen},
		{"later", breakerOpen},
		{"ok", breakerHalfOpen},
		{"ok", breakerClosed},
	} {
		switch step.event {
		case "ok":
			b.success()
		case "fail":
			b.failure(failed)
		case "later":
			b.openedAt = b.openedAt.Add(-time.Hour)
			fallthrough
		case "ask":
			if since, cause, open := b.isOpen(); !open || since.IsZero() || !errors.Is(cause, failed) {
				t.Errorf("isOpen: %t %v %v", open, since, cause)
			}
		}
		if got := b.current(); got != step.want {
			t.Fatalf("after %v: %s, want %s", log, got, step.want)
		}
	}
	want := "up>down down>recovering recovering>down down>recovering recovering>up up>down down>recovering recovering>up"
	if got := strings.Join(log, " "); got != want {
		t.Errorf("transitions\n got %s\nwant %s", got, want)
	}
}

func TestBackoff(t *testing.T) {
	for failures, want := range []time.Duration{minBackoff, 2 * minBackoff, 4 * minBackoff, 8 * minBackoff} {
		if d := backoff(failures); d < want/2 || d >= want {
			t.Errorf("after %d failures: %s, want half of %s or more", failures, d, want)
		}
	}
	if d := backoff(1000); d < maxBackoff/2 || d >= maxBackoff {
		t.Errorf("after many failures: %s", d)
	}
}

func TestParseStatus(t *testing.T) {
	row := func(s ...string) [][]byte {
		r := make([][]byte, len(s))
		for i, v := range s {
			if v != "NULL" {
				r[i] = []byte(v)
			}
		}
		return r
	}
	st, err := parseStatus(row("t", "0/3000060", "1.5", "2", "7432185721234567890", "150010"))
	st.CheckedAt = time.Time{}
	want := Status{Role: RoleReplica, Level: 0x3000060, Lag: 1500 * time.Millisecond, Timeline: 2, SystemID: 7432185721234567890, ServerVersion: 150010}
	if err != nil || st != want {
		t.Errorf("got %+v, %v", st, err)
	}
	if st, err := parseStatus(row("f", "NULL", "NULL", "1", "1", "180000")); err != nil || st.Role != RolePrimary || st.Level != 0 {
		t.Errorf("nulls: %+v, %v", st, err)
	}
	for i := 1; i < 6; i++ {
		r := row("f", "0/1", "0", "1", "1", "180000")
		r[i] = []byte("x")
		if _, err := parseStatus(r); err == nil {
			t.Errorf("column %d is nonsense and passed", i)
		}
	}
}

// foreign servers get no reads.
func TestForeignReplicaGetsNoReads(t *testing.T) {
	b, err := New(Config{Shards: []ShardConfig{{Name: "s", Endpoints: []EndpointConfig{
		{Host: "a", Role: RolePrimary}, {Host: "b", Role: RoleReplica}, {Host: "c", Role: RoleReplica},
	}}}}, loop.NewGoroutines(), nil)
	if err != nil {
		t.Fatal(err)
	}
	s := b.Shard("s")
	s.Endpoints()[0].status.Store(&Status{SystemID: 1})
	s.Endpoints()[1].status.Store(&Status{SystemID: 2})
	s.Endpoints()[2].status.Store(&Status{SystemID: 1})
	s.refresh()
	for range 5 {
		if e, err := s.Pick(Read, 0); err != nil || e != s.Endpoints()[2] {
			t.Errorf("read goes to %v, %v", e, err)
		}
	}
}

package cqrs

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tidemarkdb/tidemark/internal/lsn"
)

var testView = ViewID{Name: "v", Generation: 1}

func mark(l lsn.LSN) lsn.Mark { return lsn.Mark{Epoch: 1, LSN: l} }

func progress(shard string, l lsn.LSN, ends ...int64) Progress {
	return Progress{Shard: shard, Mark: mark(l), Ends: map[string][]int64{"t": ends}}
}

func applied(n int, offset int64) Applied {
	return Applied{View: testView, Topic: "t", Partition: n, Offset: offset}
}

func reset(n int, offset int64) Applied {
	a := applied(n, offset)
	a.Reset = true
	return a
}

// Each step feeds one thing and names the level of shard s afterwards; 0: not known.
func TestLevel(t *testing.T) {
	type step struct {
		feed any
		want lsn.LSN
	}
	tests := map[string][]step{
		"applied first":             {{applied(0, 5), 0}, {applied(1, 5), 0}, {progress("s", 100, 5, 5), 100}},
		"progress first":            {{progress("s", 100, 5, 5), 0}, {applied(0, 5), 0}, {applied(1, 4), 0}, {applied(1, 5), 100}},
		"an idle partition is free": {{progress("s", 100, 5, 0), 0}, {applied(0, 5), 100}},
		"nothing was published":     {{progress("s", 100, 0, 0), 100}},
		"another topic's events":    {{Progress{Shard: "s", Mark: mark(100), Ends: map[string][]int64{"other": {9}}}, 100}},
		"several records at once": {
			{progress("s", 100, 1), 0}, {progress("s", 110, 2), 0}, {progress("s", 120, 3), 0}, {applied(0, 2), 110}, {applied(0, 9), 120},
		},
		"an offset that goes back": {{progress("s", 100, 5), 0}, {applied(0, 5), 100}, {applied(0, 2), 100}, {progress("s", 110, 5), 110}},
		"capture repeats itself":   {{progress("s", 100, 5), 0}, {progress("s", 90, 7), 0}, {applied(0, 5), 100}, {progress("s", 100, 9), 100}},
		"a former owner speaks":    {{progress("s", 100, 5), 0}, {applied(0, 5), 100}, {progress("s", 90, 3), 100}, {progress("s", 110, 6), 100}, {applied(0, 6), 110}},
		"a new epoch":              {{progress("s", 100, 5), 0}, {applied(0, 5), 100}, {Progress{Shard: "s", Mark: lsn.Mark{Epoch: 2, LSN: 90}, Ends: map[string][]int64{"t": {6}}}, 100}, {applied(0, 6), 90}},
		"another generation":       {{progress("s", 100, 5), 0}, {Applied{View: ViewID{"v", 2}, Topic: "t", Offset: 9}, 0}, {Tracked{ViewID: ViewID{"v", 2}, Topics: []string{"t"}}, 100}},
		"back to a generation":     {{progress("s", 100, 5), 0}, {applied(0, 5), 100}, {Tracked{ViewID: ViewID{"v", 2}, Topics: []string{"t"}}, 0}, {Tracked{ViewID: testView, Topics: []string{"t"}}, 100}},
		"the group lost its offsets": {
			{progress("s", 100, 5), 0}, {applied(0, 5), 100}, {reset(0, 0), 0}, {applied(0, 5), 100},
		},
		// The old life's offset 50 must not cover the new life's end 3.
		"the topic was created again": {
			{progress("s", 100, 50), 0}, {applied(0, 50), 100}, {progress("s", 110, 3), 0}, {reset(0, 0), 0}, {applied(0, 3), 110},
		},
		"created again, projector first": {
			{progress("s", 100, 50), 0}, {applied(0, 50), 100}, {reset(0, 0), 0}, {progress("s", 110, 3), 0}, {applied(0, 3), 110},
		},
	}
	for name, steps := range tests {
		t.Run(name, func(t *testing.T) {
			l := NewLevels(LevelLimits{})
			l.Track(Tracked{ViewID: testView, Topics: []string{"t"}})
			for i, s := range steps {
				switch x := s.feed.(type) {
				case Progress:
					l.Progress(x)
				case Applied:
					l.Applied(x)
				case Tracked:
					l.Track(x)
				}
				if got, _ := l.Level("v", "s"); got.LSN != s.want {
					t.Fatalf("after step %d, %+v: level %s, want %s", i+1, s.feed, got.LSN, s.want)
				}
			}
		})
	}
}

func TestExceptions(t *testing.T) {
	const key, other = `{"id":1}`, `{"id":2}`
	at := func(offset int64, key, shard string, l lsn.LSN) Exception {
		return Exception{View: testView, Topic: "t", Offset: offset, Key: key, Shard: shard, Mark: mark(l)}
	}
	cleared := func(offset int64) Exception {
		return Exception{View: testView, Topic: "t", Offset: offset, Cleared: true}
	}
	tests := map[string]struct {
		feed  []Exception
		token lsn.Token
		key   string
		stale bool
	}{
		"the key":                   {[]Exception{at(3, key, "s", 50)}, lsn.Token{"s": mark(60)}, key, true},
		"at its very mark":          {[]Exception{at(3, key, "s", 50)}, lsn.Token{"s": mark(50)}, key, true},
		"another key":               {[]Exception{at(3, key, "s", 50)}, lsn.Token{"s": mark(60)}, other, false},
		"a scan":                    {[]Exception{at(3, key, "s", 50)}, lsn.Token{"s": mark(60)}, "", true},
		"an older mark":             {[]Exception{at(3, key, "s", 50)}, lsn.Token{"s": mark(40)}, key, false},
		"a mark without an epoch":   {[]Exception{at(3, key, "s", 50)}, lsn.Token{"s": {LSN: 60}}, key, true},
		"older, without an epoch":   {[]Exception{at(3, key, "s", 50)}, lsn.Token{"s": {LSN: 40}}, key, false},
		"too many, without epochs":  {[]Exception{at(1, key, "s", 10), at(2, key, "s", 20), at(3, key, "s", 30)}, lsn.Token{"s": {LSN: 60}}, other, true},
		"another shard's mark":      {[]Exception{at(3, key, "s", 50)}, lsn.Token{"r": mark(60)}, key, false},
		"no mark":                   {[]Exception{at(3, key, "s", 50)}, lsn.Token{}, key, false},
		"an unknown key":            {[]Exception{at(3, "", "s", 50)}, lsn.Token{"s": mark(60)}, other, true},
		"an unknown shard":          {[]Exception{at(3, key, "", 0)}, lsn.Token{"s": mark(60)}, key, true},
		"cleared":                   {[]Exception{at(3, key, "s", 50), cleared(3)}, lsn.Token{"s": mark(60)}, key, false},
		"cleared once, said again":  {[]Exception{cleared(3), at(3, key, "s", 50)}, lsn.Token{"s": mark(60)}, key, true},
		"one of two is cleared":     {[]Exception{at(3, key, "s", 50), at(4, key, "s", 55), cleared(3)}, lsn.Token{"s": mark(60)}, key, true},
		"too many":                  {[]Exception{at(1, key, "s", 10), at(2, key, "s", 20), at(3, key, "s", 30)}, lsn.Token{"s": mark(60)}, other, true},
		"too many, mark before":     {[]Exception{at(1, key, "s", 10), at(2, key, "s", 20), at(3, key, "s", 30)}, lsn.Token{"s": mark(25)}, other, false},
		"too many is not forgotten": {[]Exception{at(1, key, "s", 10), at(2, key, "s", 20), at(3, key, "s", 30), cleared(1), cleared(2)}, lsn.Token{"s": mark(60)}, other, true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			l := NewLevels(LevelLimits{Exceptions: 2})
			l.Track(Tracked{ViewID: testView, Topics: []string{"t"}})
			l.Progress(progress("s", 100, 9))
			l.Progress(progress("r", 100, 9))
			l.Applied(applied(0, 9))
			for _, x := range test.feed {
				l.Exception(x)
			}
			err := l.Wait(t.Context(), "v", test.token, test.key)
			if test.stale != errors.Is(err, ErrDeadLettered) || test.stale != errors.Is(err, ErrStale) {
				t.Errorf("error %v, want a dead letter: %v", err, test.stale)
			}
		})
	}
}

func TestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLevels(LevelLimits{Waiters: 3})
		l.Track(Tracked{ViewID: testView, Topics: []string{"t"}, Shards: []string{"s", "r"}})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		results := make(chan string, 8)
		wait := func(name string, token lsn.Token) {
			go func() { results <- fmt.Sprint(name, " ", l.Wait(ctx, "v", token, "")) }()
			synctest.Wait()
		}
		next := func() string {
			select {
			case r := <-results:
				return r
			default:
				return "nobody"
			}
		}
		expect := func(want string) {
			t.Helper()
			synctest.Wait()
			if got := next(); got != want {
				t.Fatalf("%s, want %s", got, want)
			}
		}
		wait("both", lsn.Token{"s": mark(100), "r": mark(7)})
		wait("early", lsn.Token{"s": mark(90)})
		wait("elsewhere", lsn.Token{"x": mark(1 << 40)})
		expect("elsewhere <nil>") // the view is not fed by that shard
		l.Progress(progress("s", 95, 5))
		expect("nobody")
		l.Applied(applied(0, 5))
		expect("early <nil>")
		l.Progress(progress("s", 100, 5))
		expect("nobody")
		l.Progress(progress("r", 7, 5))
		expect("both <nil>")

		wait("one", lsn.Token{"s": mark(1000)})
		wait("two", lsn.Token{"s": mark(1000)})
		wait("three", lsn.Token{"s": mark(1000)})
		if err := l.Wait(ctx, "v", lsn.Token{"s": mark(1000)}, ""); !errors.Is(err, ErrTooManyWaiters) {
			t.Errorf("a fourth waiter: %v", err)
		}
		time.Sleep(2 * time.Second) // of the bubble's clock
		synctest.Wait()
		for range 3 {
			<-results
		}
		err := l.Wait(ctx, "v", lsn.Token{"s": mark(1000)}, "")
		if !errors.Is(err, ErrStale) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("late: %v", err)
		}
		if l.waits != 0 || len(l.views["v"].waiters) != 0 {
			t.Errorf("%d waiters are left", l.waits)
		}
		if err := l.Wait(ctx, "nobody knows", lsn.Token{"s": mark(1)}, ""); !errors.Is(err, ErrStale) {
			t.Errorf("an unknown view: %v", err)
		}
	})
}

// A view that lags for long does not fill memory, and its level still arrives.
func TestProgressIsThinnedOut(t *testing.T) {
	const limit = 64
	l := NewLevels(LevelLimits{Progress: limit})
	l.Track(Tracked{ViewID: testView, Topics: []string{"t"}})
	const n = 100_000
	for i := range int64(n) {
		l.Progress(progress("s", lsn.LSN(8*(i+1)), i+1))
		if got := len(l.shards["s"].records); got > limit {
			t.Fatalf("%d records are kept, the limit is %d", got, limit)
		}
	}
	last := lsn.LSN(0)
	for i := range int64(n) {
		l.Applied(applied(0, i+1))
		level, _ := l.Level("v", "s")
		if level.LSN > lsn.LSN(8*(i+1)) || level.LSN < last {
			t.Fatalf("level %d after offset %d, before it was %d", level.LSN, i+1, last)
		}
		last = level.LSN
	}
	if last != 8*n {
		t.Errorf("the last level is %d", last)
	}
}

// seed is printed so that a failure can be repeated with SEED=n.
func seed(t *testing.T) *rand.Rand {
	s := rand.Uint64()
	if v := os.Getenv("SEED"); v != "" {
		n, err := strconv.ParseUint(v, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		s = n
	}
	t.Logf("SEED=%d", s)
	return rand.New(rand.NewPCG(s, 1))
}

// The invariant, against a model that knows everything: shards commit and publish to partitions, capture restarts and
// repeats, two views apply with rebalances that go back, and both system topics are heard with any delay between them.
// Level never claims what is not in the store, never goes back, and gets to the end.
func TestLevelsSimulation(t *testing.T) {
	rng := seed(t)
	for round := range 300 {
		simulateLevels(t, rng, 1+rng.IntN(3), 1+rng.IntN(4))
		if t.Failed() {
			t.Fatalf("round %d", round)
		}
	}
}

func simulateLevels(t *testing.T, rng *rand.Rand, shards, parts int) {
	type record struct {
		shard int
		lsn   lsn.LSN
	}
	log := make([][]record, parts)
	name := func(s int) string { return "s" + strconv.Itoa(s) }
	position := make([]lsn.LSN, shards) // last published
	confirmed := make([]lsn.LSN, shards)
	history := make([][]lsn.LSN, shards)
	var progressTopic []Progress
	var levelsTopic []Applied
	heard := [2]int{}
	views := []ViewID{{"a", 1}, {"b", 1}}
	store := map[ViewID][]int64{}     // really applied
	committed := map[ViewID][]int64{} // of the group
	reading := map[ViewID][]int64{}   // where the present worker is
	l := NewLevels(LevelLimits{Progress: 8})
	for _, v := range views {
		store[v], committed[v], reading[v] = make([]int64, parts), make([]int64, parts), make([]int64, parts)
		l.Track(Tracked{ViewID: v, Topics: []string{"t"}})
	}
	ends := func() []int64 {
		e := make([]int64, parts)
		for p := range log {
			e[p] = int64(len(log[p]))
		}
		return e
	}
	publish := func(s int, at lsn.LSN) {
		for range rng.IntN(4) {
			p := rng.IntN(parts)
			log[p] = append(log[p], record{s, at})
		}
		position[s] = at
		if rng.IntN(3) > 0 { // progress records may be skipped, never reordered
			progressTopic = append(progressTopic, Progress{Shard: name(s), Mark: mark(at), Ends: map[string][]int64{"t": ends()}})
		}
	}
	last := map[string]lsn.LSN{}
	check := func() {
		for _, v := range views {
			for s := range shards {
				level, _ := l.Level(v.Name, name(s))
				k := v.Name + name(s)
				if level.LSN < last[k] {
					t.Errorf("%s: level went back from %d to %d", k, last[k], level.LSN)
				}
				last[k] = level.LSN
				for p := range log {
					for o, r := range log[p] {
						// Repetitions are harmless; what counts is the first time that the record was published.
						first := o
						for q := range o {
							if log[p][q] == r {
								first = q
								break
							}
						}
						if r.shard == s && r.lsn <= level.LSN && int64(first) >= store[v][p] {
							t.Errorf("%s: level %d, but %d/%d of %d is not applied", k, level.LSN, p, o, r.lsn)
							return
						}
					}
				}
			}
		}
	}
	for range 150 {
		switch s, v, p := rng.IntN(shards), views[rng.IntN(2)], rng.IntN(parts); rng.IntN(10) {
		case 0, 1, 2: // commit and publish
			at := position[s] + 8
			history[s] = append(history[s], at)
			publish(s, at)
		case 3: // PostgreSQL hears what is durable
			confirmed[s] = position[s]
		case 4: // capture restarts: what was not confirmed comes again
			for _, at := range history[s] {
				if at > confirmed[s] {
					for p := range log {
						for _, r := range log[p][:len(log[p]):len(log[p])] {
							if r == (record{s, at}) {
								log[p] = append(log[p], r)
							}
						}
					}
					progressTopic = append(progressTopic, Progress{Shard: name(s), Mark: mark(at), Ends: map[string][]int64{"t": ends()}})
				}
			}
		case 5, 6, 7: // apply
			if n := int64(len(log[p])); reading[v][p] < n {
				reading[v][p] += 1 + rng.Int64N(n-reading[v][p])
				store[v][p] = max(store[v][p], reading[v][p])
				if rng.IntN(4) > 0 {
					levelsTopic = append(levelsTopic, Applied{View: v, Topic: "t", Partition: p, Offset: reading[v][p]})
				}
				if rng.IntN(3) == 0 {
					committed[v][p] = reading[v][p]
				}
			}
		case 8: // the worker dies; its successor begins at the committed offset and says so
			reading[v][p] = committed[v][p]
			levelsTopic = append(levelsTopic, Applied{View: v, Topic: "t", Partition: p, Offset: committed[v][p]})
		case 9: // the follower hears some of it
			for range rng.IntN(6) {
				if heard[0] < len(progressTopic) && rng.IntN(2) == 0 {
					l.Progress(progressTopic[heard[0]])
					heard[0]++
				} else if heard[1] < len(levelsTopic) {
					l.Applied(levelsTopic[heard[1]])
					heard[1]++
				}
			}
			check()
		}
	}
	for _, p := range progressTopic[heard[0]:] {
		l.Progress(p)
	}
	for s := range shards {
		l.Progress(Progress{Shard: name(s), Mark: mark(position[s] + 8), Ends: map[string][]int64{"t": ends()}})
	}
	for _, v := range views {
		for p := range log {
			store[v][p] = int64(len(log[p]))
			l.Applied(Applied{View: v, Topic: "t", Partition: p, Offset: store[v][p]})
		}
		for s := range shards {
			if level, _ := l.Level(v.Name, name(s)); level != mark(position[s]+8) {
				t.Errorf("%s: the level ends at %d, want %d", v.Name+name(s), level.LSN, position[s]+8)
			}
		}
	}
	check()
}

// Waiting and feeding from many goroutines; for the race detector.
func TestLevelsConcurrently(t *testing.T) {
	l := NewLevels(LevelLimits{})
	l.Track(Tracked{ViewID: testView, Topics: []string{"t"}})
	var wg sync.WaitGroup
	const n = 500
	for i := range 20 {
		wg.Go(func() {
			for j := i; j < n; j += 20 {
				if err := l.Wait(t.Context(), "v", lsn.Token{"s": mark(lsn.LSN(j + 1))}, ""); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Go(func() {
		for i := range n {
			l.Progress(progress("s", lsn.LSN(i+1), int64(i+1)))
		}
	})
	wg.Go(func() {
		for i := range n {
			l.Applied(applied(0, int64(i+1)))
			l.Lags()
		}
	})
	wg.Wait()
}

func TestSystemRecords(t *testing.T) {
	p := Progress{Shard: "s", Mark: lsn.Mark{Epoch: 2, LSN: 0x100000010}, Ends: map[string][]int64{"t": {1, 0, 3}, "u": {}}}
	r := p.record()
	got, err := parseProgress(&r)
	if diff := cmp.Diff(p, got); err != nil || diff != "" {
		t.Error(err, diff)
	}
	for _, want := range []any{
		Applied{View: testView, Topic: "t", Partition: 3, Offset: 1 << 40, Reset: true},
		Exception{View: testView, Topic: "t", Partition: 3, Offset: 7, Key: `{"id":"<\"ä"}`, Shard: "s", Mark: p.Mark},
		Exception{View: testView, Topic: "t", Partition: 3, Offset: unboundedOffset, Cleared: true},
	} {
		var r Record
		switch x := want.(type) {
		case Applied:
			r = x.record()
		case Exception:
			r = x.record()
		}
		got, err := parseLevel(&r)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Error(err, diff)
		}
	}
	for _, bad := range []Record{{}, {Key: []byte(`["applied"]`), Value: []byte("x")}, {Key: []byte(`["other"]`), Value: []byte("{}")}, {Key: []byte("{}")}} {
		if _, err := parseLevel(&bad); err == nil {
			t.Errorf("%s was taken", bad.Key)
		}
	}
}

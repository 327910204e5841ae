// Package bustest holds what every cqrs.Bus must pass: the promises of the interface, and the path from a transaction to
// a session's wait on top of it.
package bustest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tidemarkdb/tidemark/cqrs"
)

// timeout bounds what must happen; on a loaded machine with a real broker that is slow to rebalance.
const timeout = time.Minute

// Run runs the suite. Each call of open returns the same bus, or another client of it.
func Run(t *testing.T, open func(t *testing.T) cqrs.Bus) {
	t.Run("Topics", func(t *testing.T) { testTopics(t, open(t)) })
	t.Run("Records", func(t *testing.T) { testRecords(t, open(t)) })
	t.Run("FetchWaits", func(t *testing.T) { testFetchWaits(t, open(t)) })
	t.Run("TooLarge", func(t *testing.T) { testTooLarge(t, open(t)) })
	t.Run("Members", func(t *testing.T) { testMembers(t, open) })
	t.Run("ClaimFails", func(t *testing.T) { testClaimFails(t, open(t)) })
	t.Run("RoundTrips", func(t *testing.T) { testRoundTrips(t, open) })
	t.Run("DeadLetters", func(t *testing.T) { testDeadLetters(t, open) })
}

var unique atomic.Int64

// name is of a topic or group that no other test of this process uses; brokers of tests are not shared by processes.
func name(kind string) string {
	return kind + "-" + strconv.FormatInt(time.Now().UnixNano(), 36) + "-" + strconv.FormatInt(unique.Add(1), 10)
}

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	t.Cleanup(cancel)
	return ctx
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func ensure(t *testing.T, bus cqrs.Bus, topic cqrs.Topic) string {
	t.Helper()
	must(t, bus.Ensure(within(t), topic))
	return topic.Name
}

func testTopics(t *testing.T, bus cqrs.Bus) {
	ctx := within(t)
	topic := name("topics")
	if _, err := bus.Bounds(ctx, topic); !errors.Is(err, cqrs.ErrNoTopic) {
		t.Errorf("bounds of a topic that does not exist: %v", err)
	}
	must(t, bus.Ensure(ctx, cqrs.Topic{Name: topic, Partitions: 3}, cqrs.Topic{Name: topic + "-c", Partitions: 1, Compacted: true}))
	must(t, bus.Ensure(ctx, cqrs.Topic{Name: topic, Partitions: 5})) // keeps what it has
	got, err := bus.Bounds(ctx, topic)
	must(t, err)
	if diff := cmp.Diff(make([]cqrs.Bounds, 3), got); diff != "" {
		t.Error(diff)
	}
	for i := range 4 {
		base, err := bus.Append(ctx, topic, 1, []cqrs.Record{{Value: []byte("a")}, {Value: []byte("b")}})
		must(t, err)
		if base != int64(2*i) {
			t.Errorf("base offset %d, want %d", base, 2*i)
		}
	}
	got, err = bus.Bounds(ctx, topic)
	must(t, err)
	if diff := cmp.Diff([]cqrs.Bounds{{}, {First: 0, End: 8}, {}}, got); diff != "" {
		t.Error(diff)
	}
	if _, err := bus.Append(ctx, topic, 3, []cqrs.Record{{Value: []byte("a")}}); err == nil {
		t.Error("append to a partition that does not exist succeeded")
	}
}

func testRecords(t *testing.T, bus cqrs.Bus) {
	ctx := within(t)
	topic := ensure(t, bus, cqrs.Topic{Name: name("records"), Partitions: 2})
	want := []cqrs.Record{
		{Key: []byte("k"), Value: []byte("v"), Headers: []cqrs.Header{{Key: "h", Value: []byte("1")}, {Key: "h2", Value: []byte{0, 255}}}},
		{Key: nil, Value: []byte{}},
		{Key: []byte{}, Value: nil},
		{Key: bytes.Repeat([]byte("k"), 300), Value: bytes.Repeat([]byte{0, 1, 2, 255}, 50_000)},
	}
	for i := range 100 {
		want = append(want, cqrs.Record{Value: []byte(strconv.Itoa(i))})
	}
	_, err := bus.Append(ctx, topic, 0, want)
	must(t, err)
	var got []cqrs.Record
	for offset := int64(0); len(got) < len(want); {
		b, err := bus.Fetch(ctx, topic, 0, offset, 1000, time.Second)
		must(t, err)
		if b.End != int64(len(want)) || b.Next <= offset {
			t.Fatalf("end %d, next %d after fetching from %d", b.End, b.Next, offset)
		}
		got = append(got, b.Records...)
		offset = b.Next
	}
	for i := range got {
		if got[i].Offset != int64(i) || got[i].Time.IsZero() {
			t.Errorf("record %d has offset %d and time %s", i, got[i].Offset, got[i].Time)
		}
		got[i].Offset, got[i].Time = 0, time.Time{}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	// From within a batch.
	b, err := bus.Fetch(ctx, topic, 0, 50, 1<<20, time.Second)
	must(t, err)
	if len(b.Records) == 0 || b.Records[0].Offset != 50 {
		t.Errorf("fetch from 50 began elsewhere: %d records", len(b.Records))
	}
	if _, err := bus.Fetch(ctx, topic, 0, int64(len(want))+1, 1000, time.Second); !errors.Is(err, cqrs.ErrOutOfRange) {
		t.Errorf("fetch beyond the end: %v", err)
	}
}

func testFetchWaits(t *testing.T, bus cqrs.Bus) {
	ctx := within(t)
	topic := ensure(t, bus, cqrs.Topic{Name: name("waits"), Partitions: 1})
	b, err := bus.Fetch(ctx, topic, 0, 0, 1000, 50*time.Millisecond)
	must(t, err)
	if diff := cmp.Diff(cqrs.Batch{}, b); diff != "" {
		t.Error(diff)
	}
	got := make(chan cqrs.Batch, 1)
	go func() {
		b, err := bus.Fetch(ctx, topic, 0, 0, 1000, timeout)
		if err != nil {
			t.Error(err)
		}
		got <- b
	}()
	time.Sleep(20 * time.Millisecond) // so that the fetch most likely waits; it must see the record either way
	_, err = bus.Append(ctx, topic, 0, []cqrs.Record{{Value: []byte("x")}})
	must(t, err)
	if b := <-got; len(b.Records) != 1 {
		t.Errorf("the waiting fetch got %d records", len(b.Records))
	}
	cut, cancel := context.WithCancel(ctx)
	time.AfterFunc(20*time.Millisecond, cancel)
	if _, err := bus.Fetch(cut, topic, 0, 1, 1000, timeout); !errors.Is(err, context.Canceled) {
		t.Errorf("a fetch whose context ended: %v", err)
	}
}

func testTooLarge(t *testing.T, bus cqrs.Bus) {
	ctx := within(t)
	topic := ensure(t, bus, cqrs.Topic{Name: name("large"), Partitions: 1})
	large := make([]byte, cqrs.DefaultMaxRecordBytes+1)
	_, err := bus.Append(ctx, topic, 0, []cqrs.Record{{Value: []byte("small")}, {Value: large}})
	if !errors.Is(err, cqrs.ErrTooLarge) || !errors.Is(err, cqrs.ErrPermanent) {
		t.Errorf("error %v", err)
	}
	bounds, err := bus.Bounds(ctx, topic)
	must(t, err)
	if bounds[0].End != 0 {
		t.Error("something was added")
	}
}

// member runs own for its claims until stop is called.
type member struct {
	stop func()
	done chan error
}

func join(t *testing.T, bus cqrs.Bus, group, topic string, own func(context.Context, cqrs.Claim) error) *member {
	ctx, cancel := context.WithCancel(within(t))
	m := &member{done: make(chan error, 1)}
	go func() { m.done <- bus.Join(ctx, group, []string{topic}, own) }()
	m.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-m.done; err != nil {
			t.Errorf("join: %v", err)
		}
	})
	t.Cleanup(m.stop)
	return m
}

// Two members share the partitions, never own one at once, and a successor begins where the last commit left off.
func testMembers(t *testing.T, open func(t *testing.T) cqrs.Bus) {
	const parts = 4
	topic := ensure(t, open(t), cqrs.Topic{Name: name("members"), Partitions: parts})
	group := name("group")
	var mu sync.Mutex
	owners := map[int]string{}
	starts := map[int]int64{}
	changed := make(chan struct{}, 1000)
	own := func(who string) func(context.Context, cqrs.Claim) error {
		return func(ctx context.Context, c cqrs.Claim) error {
			mu.Lock()
			if o := owners[c.Partition]; o != "" {
				t.Errorf("%s got partition %d while %s owns it", who, c.Partition, o)
			}
			if c.Fresh != (starts[c.Partition] == 0) || c.Offset != starts[c.Partition] {
				t.Errorf("%s begins partition %d at %d (fresh: %v), committed was %d", who, c.Partition, c.Offset, c.Fresh, starts[c.Partition])
			}
			owners[c.Partition] = who
			mu.Unlock()
			if err := c.Commit(ctx, c.Offset+1); err == nil { // fails when the claim ends at once
				mu.Lock()
				starts[c.Partition] = c.Offset + 1
				mu.Unlock()
			}
			changed <- struct{}{}
			<-ctx.Done()
			mu.Lock()
			delete(owners, c.Partition)
			mu.Unlock()
			return nil
		}
	}
	await := func(what string, ok func(map[string]int) bool) {
		t.Helper()
		for {
			mu.Lock()
			count := map[string]int{}
			for _, o := range owners {
				count[o]++
			}
			good := ok(count)
			mu.Unlock()
			if good {
				return
			}
			select {
			case <-changed:
			case <-time.After(timeout):
				t.Fatalf("%s: %v", what, count)
			}
		}
	}
	a := join(t, open(t), group, topic, own("a"))
	await("a has all", func(n map[string]int) bool { return n["a"] == parts })
	join(t, open(t), group, topic, own("b"))
	await("a and b share", func(n map[string]int) bool { return n["a"] == parts/2 && n["b"] == parts/2 })
	a.stop()
	await("b has all", func(n map[string]int) bool { return n["b"] == parts })
}

func testClaimFails(t *testing.T, bus cqrs.Bus) {
	topic := ensure(t, bus, cqrs.Topic{Name: name("fails"), Partitions: 2})
	broken := fmt.Errorf("broken")
	err := bus.Join(within(t), name("group"), []string{topic}, func(ctx context.Context, c cqrs.Claim) error {
		if c.Partition == 1 {
			return broken
		}
		<-ctx.Done()
		return ctx.Err()
	})
	if !errors.Is(err, broken) {
		t.Errorf("join returned %v", err)
	}
}

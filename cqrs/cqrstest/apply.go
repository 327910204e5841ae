package cqrstest

import (
	"errors"
	"math/rand/v2"
	"strconv"
	"testing"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/tidemarkdb/tidemark/cqrs"
	"github.com/tidemarkdb/tidemark/internal/lsn"
	"github.com/tidemarkdb/tidemark/replication"
)

func idAndNote() []cqrs.Column {
	return []cqrs.Column{{Name: "id", OID: pgtype.Int8OID, Key: true}, {Name: "note", OID: pgtype.TextOID}}
}

// base is larger than 2^53, where doubles begin to round.
const base lsn.Version = 3<<51 | 1<<40

// Old events and replays change nothing, deletes included.
func testVersions(t *testing.T, s Suite) {
	b := s.bench(t, idAndNote()...)
	b.apply(b.put(base+2, "1", "two"), b.put(base+5, "2", "five"))
	b.apply(b.put(base+1, "1", "one"), b.put(base+2, "1", "again"))
	b.wantAll("1|two", "2|five")

	b.apply(b.del(base+3, "1"))
	b.wantAll("2|five")
	b.apply(b.put(base+2, "1", "two"), b.del(base+4, "2"))
	b.wantAll("2|five") // the tombstone survives the replay; the old delete changes nothing

	b.apply(b.put(base+4, "1", "four"))
	b.wantAll("1|four", "2|five")
	b.apply(b.del(base+3, "1"), b.del(base+9, "3"), b.put(base+8, "3", "deleted before it was seen"))
	b.wantAll("1|four", "2|five")

	// Several states of one key in one batch, and one that says that a later change supersedes it.
	passed := b.put(base+30, "4", "superseded")
	passed.Last = false
	b.apply(b.put(base+20, "4", "a"), b.put(base+21, "4", "b"), b.del(base+22, "4"), b.put(base+23, "4", "d"), passed)
	b.wantAll("1|four", "2|five", "4|d")

	// A new epoch wins over any position.
	b.apply(b.put(4<<51|1, "4", "next epoch"))
	b.apply(b.put(base+1<<20, "4", "old epoch"))
	b.wantAll("1|four", "2|five", "4|next epoch")

	// A column that becomes NULL does not keep its old value.
	b.apply(b.put(4<<51|2, "4", nil))
	b.wantAll("1|four", "2|five", "4|"+null)
}

// Whatever the order, the repetitions and the batches: the highest version of each key remains.
func testShuffled(t *testing.T, s Suite) {
	const seed, keys, versions = 11, 20, 30
	r := rand.New(rand.NewPCG(seed, seed))
	b := s.bench(t, idAndNote()...)
	var events []cqrs.Event
	last := map[int]string{}
	for k := range keys {
		for v := range versions {
			id, note := strconv.Itoa(k), "v"+strconv.Itoa(v)
			e := b.put(base+lsn.Version(v*3+k%3), id, note)
			if last[k] = id + "|" + note; r.IntN(4) == 0 {
				e = b.del(e.Version, id)
				delete(last, k)
			}
			for range 1 + r.IntN(2) {
				events = append(events, e)
			}
		}
	}
	r.Shuffle(len(events), func(i, j int) { events[i], events[j] = events[j], events[i] })
	for len(events) > 0 {
		n := min(1+r.IntN(200), len(events))
		b.apply(events[:n]...)
		events = events[n:]
	}
	var want []string
	for k := range keys {
		if row, ok := last[k]; ok {
			want = append(want, row)
		}
	}
	b.wantAll(want...)
}

// A change that commits exactly at the snapshot's point wins over the snapshot's row, whichever comes first.
func testSnapshot(t *testing.T, s Suite) {
	b := s.bench(t, idAndNote()...)
	snap := func(id, note string) cqrs.Event { return b.event(replication.Snapshot, base, "s1", id, note) }
	b.apply(snap("1", "snapshot"), b.put(base, "1", "streamed"), b.put(base, "2", "streamed"), snap("2", "snapshot"), snap("3", "snapshot"))
	b.wantAll("1|streamed", "2|streamed", "3|snapshot")
	b.apply(b.event(replication.Truncate, base, "s1"))
	b.wantAll("1|streamed", "2|streamed")
	b.apply(snap("3", "snapshot"))
	b.wantAll("1|streamed", "2|streamed")
}

// A repeated snapshot brings what is there, and its end takes away what it did not bring: rows of before, of its own shard and
// partition. What other partitions still hold is left to their own end.
func testSweep(t *testing.T, s Suite) {
	const next = base + 4<<40
	b := s.bench(t, idAndNote()...)
	elsewhere := b.put(base+2, "4", "other partition")
	elsewhere.Partition = 1
	b.apply(b.put(base+1, "1", "kept"), b.put(base+2, "2", "deleted unseen"), b.event(replication.Create, base+3, "s2", "3", "other shard"), elsewhere)

	snap := b.event(replication.Snapshot, next, "s1", "1", "read again")
	sweep := b.event(replication.Sweep, next, "s1")
	b.apply(snap, b.put(next, "5", "streamed at its point"), sweep)
	want := []string{"1|read again", "3|other shard", "4|other partition", "5|streamed at its point"}
	b.wantAll(want...)
	b.apply(b.put(base+2, "2", "late"), b.del(base+5, "1"), snap, sweep) // repetitions
	b.wantAll(want...)

	sweep.Partition = 1
	b.apply(sweep)
	b.wantAll("1|read again", "3|other shard", "5|streamed at its point")
}

// What was remembered is known to every process with the same store, to no other store, and no row to anybody.
func testRemember(t *testing.T, s Suite) {
	b := s.bench(t, idAndNote()...)
	known := func(store Store, partition string) bool {
		t.Helper()
		ok, err := store.Knows(b.ctx, partition)
		if err != nil {
			t.Fatal(err)
		}
		return ok
	}
	const one, two = "shop.public.t/0", "shop.public.t/1"
	if known(b, one) {
		t.Error("an empty store knows a partition")
	}
	for range 2 {
		if err := b.Remember(b.ctx, one); err != nil {
			t.Fatal(err)
		}
	}
	b.visible()
	b.wantAll()
	b.apply(b.put(base, "1", "row"), b.event(replication.Truncate, base+1, "s1"))
	b.wantAll()
	again := s.Open(t, b.Name(), b.cols, s.Addr)
	other := s.Open(t, b.Name()+"-other", b.cols, s.Addr)
	for _, store := range []Store{again, other} {
		t.Cleanup(func() {
			if err := store.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	if !known(again, one) || known(again, two) || known(other, one) {
		t.Errorf("known: %v, another partition %v, in another store %v", known(again, one), known(again, two), known(other, one))
	}
}

func testTruncate(t *testing.T, s Suite) {
	b := s.bench(t, idAndNote()...)
	truncate := b.event(replication.Truncate, base+10, "s1")
	other := b.event(replication.Create, base+1, "s2", "50", "other shard")
	b.apply(b.put(base+1, "1", "a"), b.put(base+12, "2", "newer"), other, b.del(base+3, "4"))
	// In one batch: rows before it go; what the same transaction inserts after it stays.
	b.apply(b.put(base+2, "3", "b"), truncate, b.put(base+10, "1", "same transaction"), b.put(base+10, "5", "same transaction"))
	b.wantAll("1|same transaction", "2|newer", "5|same transaction", "50|other shard")
	// Replays of what was before it, also of rows that the store never had, and of the truncate itself.
	b.apply(b.put(base+1, "1", "a"), b.put(base+2, "3", "b"), b.put(base+4, "6", "late"), b.event(replication.Snapshot, base+10, "s1", "7", "late"))
	b.apply(truncate)
	b.wantAll("1|same transaction", "2|newer", "5|same transaction", "50|other shard")
	b.apply(b.put(base+11, "6", "after"))
	b.wantAll("1|same transaction", "2|newer", "5|same transaction", "6|after", "50|other shard")

	// Another process with the same read model knows the floor.
	again := *b
	again.Store = s.Open(t, b.Name(), b.cols, s.Addr)
	t.Cleanup(func() {
		if err := again.Close(); err != nil {
			t.Error(err)
		}
	})
	again.apply(again.put(base+4, "8", "late"))
	again.wantAll("1|same transaction", "2|newer", "5|same transaction", "6|after", "50|other shard")

	// Many rows.
	var many []cqrs.Event
	for i := range 3000 {
		many = append(many, b.put(base+20, strconv.Itoa(1000+i), "x"))
	}
	b.apply(many...)
	b.apply(b.event(replication.Truncate, base+30, "s1"))
	b.wantAll("50|other shard")
}

// An event that cannot be applied fails alone, for good.
func testPoison(t *testing.T, s Suite) {
	b := s.bench(t, idAndNote()...)
	badValue := b.put(base+1, "2", "x")
	badValue.After[0].Value = []byte(`"not a number"`)
	badValue.Key = b.put(base+1, "2", "x").Key
	noKey := b.put(base+1, "3", "x")
	noKey.Key = nil
	noRow := b.put(base+1, "4", "x")
	noRow.After = nil
	events := []cqrs.Event{b.put(base+1, "1", "good"), badValue, noKey, noRow, b.put(base+1, "5", "good")}
	errs := b.Apply(b.ctx, events)
	if len(errs) != len(events) {
		t.Fatalf("%d errors for %d events", len(errs), len(events))
	}
	for i, err := range errs {
		good := i == 0 || i == len(events)-1
		if good && err != nil || !good && !errors.Is(err, cqrs.ErrPermanent) {
			t.Errorf("event %d: %v", i, err)
		}
	}
	b.visible()
	b.wantAll("1|good", "5|good")
}

package cqrs

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgtype"
)

// FuzzRecord: what lies in Tidemark's own topics is read, or refused; and what is read is written and read alike.
func FuzzRecord(f *testing.F) {
	p := Progress{Shard: "s1", Ends: map[string][]int64{"t": {1, 2}}}
	a := Applied{View: ViewID{Name: "v", Generation: 2}, Topic: "t", Partition: 1, Offset: 7}
	x := Exception{View: ViewID{Name: "v"}, Topic: "t", Offset: 3, Key: "k", Shard: "s1"}
	d := DeadLetter{Topic: "t", Offset: 3}
	for _, r := range []Record{p.record(), a.record(), x.record(), d.record()} {
		f.Add(r.Key, r.Value)
	}
	f.Add([]byte(`["applied",null,-1,{},1e99]`), []byte(`{"lsn":"x"}`))
	f.Fuzz(func(t *testing.T, key, value []byte) {
		r := &Record{Key: key, Value: value}
		if p, err := parseProgress(r); err == nil {
			again := p.record()
			if q, err := parseProgress(&again); err != nil || !cmp.Equal(p, q) {
				t.Fatalf("%s: %v, then %v, %v", value, p, q, err)
			}
		}
		level, err := parseLevel(r)
		if err != nil {
			return
		}
		var again Record
		switch x := level.(type) {
		case Applied:
			again = x.record()
		case Exception:
			again = x.record()
		}
		if q, err := parseLevel(&again); err != nil || !cmp.Equal(level, q) {
			t.Fatalf("%s %s: %v, then %v, %v", key, value, level, q, err)
		}
	})
}

// FuzzSortKey: values that a column takes have the same canonical text exactly when they are equal.
func FuzzSortKey(f *testing.F) {
	oids := []uint32{
		pgtype.BoolOID, pgtype.Int2OID, pgtype.Int4OID, pgtype.Int8OID, pgtype.OIDOID, pgtype.Float4OID, pgtype.Float8OID, pgtype.DateOID, pgtype.TimeOID,
		pgtype.TimestampOID, pgtype.TimestamptzOID, pgtype.NumericOID, pgtype.UUIDOID, pgtype.ByteaOID, pgtype.BPCharOID, pgtype.TextOID,
	}
	for i := range oids {
		for _, s := range [][2]string{
			{"t", "true"},
			{"-7", "-07"},
			{"1.50", "1.5"},
			{"1e400", "10e399"},
			{"-0", "0"},
			{"NaN", "nan"},
			{"Infinity", "inf"},
			{"2024-02-29", "2024-02-29 00:00:00"},
			{"0044-03-15 12:00:00 BC", "0045-03-15 12:00:00 BC"},
			{"2024-02-29 12:00:00.5+05:30", "2024-02-29 06:30:00.5+00"},
			{"24:00:00", "00:00:00"},
			{`\x00FF`, `\x00ff`},
			{"A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "a0eebc999c0b4ef8bb6d6bb9bd380a11"},
			{"a ", "a"},
		} {
			f.Add(i, s[0], s[1])
		}
	}
	f.Fuzz(func(t *testing.T, i int, a, b string) {
		c := Column{Name: "c", OID: oids[uint(i)%uint(len(oids))]}
		ka, errA := c.SortKey(a)
		kb, errB := c.SortKey(b)
		if errA != nil || errB != nil {
			return
		}
		ca, errA := c.Canonical(a)
		cb, errB := c.Canonical(b)
		if errA != nil || errB != nil || (ka.Compare(kb) == 0) != (ca == cb) {
			t.Fatalf("oid %d: %q is %v, %q, %v; %q is %v, %q, %v", c.OID, a, ka, ca, errA, b, kb, cb, errB)
		}
	})
}

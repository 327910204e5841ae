package engine

import (
	"bytes"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/tidemarkdb/tidemark/internal/wire"
	"github.com/tidemarkdb/tidemark/router"
	"github.com/tidemarkdb/tidemark/sharding"
)

// FuzzEncodeColumn: no text from a read model makes an encoder panic, write ahead of what was there, or leave anything behind
// an error.
func FuzzEncodeColumn(f *testing.F) {
	oids := []uint32{
		pgtype.BoolOID, pgtype.Int2OID, pgtype.Int4OID, pgtype.Int8OID, pgtype.OIDOID, pgtype.Float4OID, pgtype.Float8OID, pgtype.NumericOID,
		pgtype.TextOID, pgtype.ByteaOID, pgtype.UUIDOID, pgtype.DateOID, pgtype.TimeOID, pgtype.TimetzOID, pgtype.TimestampOID, pgtype.TimestamptzOID,
		pgtype.IntervalOID, pgtype.JSONBOID, pgtype.InetOID, pgtype.CIDROID, pgtype.MacaddrOID, pgtype.BitOID, pgtype.VarbitOID, pgtype.PointOID,
		pgtype.Int4ArrayOID, pgtype.TextArrayOID, pgtype.NumericArrayOID, pgtype.TimestamptzArrayOID, pgtype.ByteaArrayOID,
		pgtype.Int4rangeOID, pgtype.NumrangeOID, pgtype.TstzrangeOID, pgtype.DaterangeOID, pgtype.Int4multirangeOID, pgtype.NummultirangeOID,
	}
	for i, s := range []string{
		"t", "-32768", "{1,NULL}", `{"a\"b",c}`, "[0:1]={1,2}", "{{1},{2}}", "[1,10)", "empty", "(,)", "{[1,2),[3,4]}", "12345678901234567890.5", "NaN", "1e-1000", "0.00012",
		"2024-02-29 12:00:00.5+05:30", "0044-03-15 BC", "infinity", "24:00:00", "1 year -2 mons +3 days 04:05:06.7", `\x00ff`, "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "1.2.3.4/24", "10110", "(1,2)", `{"a":1}`,
	} {
		for oid := range oids {
			if oid%7 == i%7 {
				f.Add(oid, []byte(s))
			}
		}
	}
	f.Fuzz(func(t *testing.T, i int, text []byte) {
		oid := oids[uint(i)%uint(len(oids))]
		dst, err := EncodeColumn(oid, 1, text, []byte("kept"))
		if !bytes.HasPrefix(dst, []byte("kept")) || err != nil && len(dst) != len("kept") {
			t.Fatalf("oid %d, %q: %q, %v", oid, text, dst, err)
		}
	})
}

// FuzzCopySplit: however a client cuts its copy data, and from whatever length on lines are not gathered, the same lines reach
// the same shards, or the same error ends it.
func FuzzCopySplit(f *testing.F) {
	m, err := sharding.New(sharding.Definition{
		Shards: []sharding.Shard{{Name: "a", Buckets: []sharding.Range{{First: 0, Last: 2047}}}, {Name: "b", Buckets: []sharding.Range{{First: 2048, Last: 4095}}}},
		Tables: []sharding.Table{{Name: "t", Kind: sharding.Sharded, Column: "k", Type: sharding.Text}},
	})
	if err != nil {
		f.Fatal(err)
	}
	r, err := router.New(router.Config{Map: m})
	if err != nil {
		f.Fatal(err)
	}
	session, err := router.NewSession("u", "", "UTF8", true)
	if err != nil {
		f.Fatal(err)
	}
	var plans []*router.Copy
	for _, q := range []string{"COPY t (k) FROM STDIN", "COPY t (v, k) FROM STDIN", "COPY t (v, k) FROM STDIN (DELIMITER ',', NULL 'none')"} {
		p := r.Plan(new(router.Scratch), session, []byte(q))[0].Plan
		if p.Copy == nil {
			f.Fatalf("%s: %s", q, p)
		}
		plans = append(plans, p.Copy)
	}
	for _, s := range []string{"a\nb\n", "a\\\nb\tc\nd\te\n", "x,none\n", "\\N\n", "a\tb\\x41\\101\\n\r\nc\td\n\\.\nrest", "\\\\\n\\\\\\\n\n", "no end", "\r\r\n", "\\", "key\tvery long\\\nindeed\r\nk2\tx\\", "very,k\\,ey,long,\r"} {
		f.Add([]byte(s), 1, uint16(2))
		f.Add([]byte(s), 2, uint16(3))
		f.Add([]byte(s), 0, uint16(0))
	}
	f.Fuzz(func(t *testing.T, data []byte, plan int, cuts uint16) {
		c := plans[uint(plan)%uint(len(plans))]
		split := func(pieces [][]byte, long int) (data [2]string, err error) {
			links := []*Link{{}, {}}
			s := splitter{c: c, links: links, linkOf: links, long: long}
			for _, p := range pieces {
				if err = s.lines(p); err != nil {
					break
				}
			}
			if err == nil {
				err = s.last()
			}
			if err != nil {
				return data, err // what has been sent by then is of no consequence
			}
			for i, l := range links {
				for out := l.out; len(out) > 0; {
					f, need, err := wire.Next(out, wire.Frontend, 0)
					if err != nil || need != 0 || f.Type != wire.MsgCopyData {
						t.Fatalf("%q was sent for %q", l.out, data)
					}
					data[i] += string(f.Body)
					out = out[f.Len:]
				}
			}
			return data, nil
		}
		var pieces [][]byte
		for rest := data; len(rest) > 0; {
			n := min(len(rest), 1+int(cuts)%5)
			cuts = cuts>>2 | cuts<<14
			pieces, rest = append(pieces, rest[:n]), rest[n:]
		}
		want, wantErr := split([][]byte{slices.Clone(data)}, longLine)
		for _, long := range []int{longLine, 1, 6} {
			got, err := split(pieces, long)
			if got != want || (err == nil) != (wantErr == nil) {
				t.Fatalf("%q in pieces %q, long from %d: %q, %v; whole %q, %v", data, pieces, long, got, err, want, wantErr)
			}
		}
	})
}

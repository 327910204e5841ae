package replication

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tidemarkdb/tidemark/internal/lsn"
)

// Messages of pgoutput, built as the manual describes them.

func relationBody(oid uint32, schema, name string, cols ...string) []byte {
	b := binary.BigEndian.AppendUint32(nil, oid)
	b = append(append(b, schema...), 0)
	b = append(append(b, name...), 0, 'f')
	b = binary.BigEndian.AppendUint16(b, uint16(len(cols)))
	for _, c := range cols {
		b = append(append(append(b, 1), c...), 0)
		b = binary.BigEndian.AppendUint32(b, 25)
		b = binary.BigEndian.AppendUint32(b, ^uint32(0))
	}
	return b
}

// tupleBody makes a tuple: "-" is NULL, "~" an unchanged value.
func tupleBody(kind byte, vals ...string) []byte {
	b := binary.BigEndian.AppendUint16([]byte{kind}, uint16(len(vals)))
	for _, v := range vals {
		switch v {
		case "-":
			b = append(b, 'n')
		case "~":
			b = append(b, 'u')
		default:
			b = append(b, 't')
			b = binary.BigEndian.AppendUint32(b, uint32(len(v)))
			b = append(b, v...)
		}
	}
	return b
}

func rowBody(oid uint32, tuples ...[]byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, oid), bytes.Join(tuples, nil)...)
}

func truncateBody(oids ...uint32) []byte {
	b := append(binary.BigEndian.AppendUint32(nil, uint32(len(oids))), 0)
	for _, o := range oids {
		b = binary.BigEndian.AppendUint32(b, o)
	}
	return b
}

// firstColumnIsKey stands for the catalog.
func firstColumnIsKey(_ context.Context, m relationMsg, _ *Relation) (*Relation, error) {
	rel := &Relation{OID: m.oid, Schema: m.schema, Name: m.name, Columns: m.columns}
	if len(rel.Columns) > 0 {
		rel.Columns[0].Key = true
	}
	return rel, nil
}

// The same transaction decodes alike in memory and spilled, whole and in parts.
func TestAssembleAlike(t *testing.T) {
	type msg struct {
		xid  uint32
		kind byte
		body []byte
	}
	msgs := []msg{
		{1, msgRelation, relationBody(7, "public", "item", "id", "v", "big")},
		{1, msgInsert, rowBody(7, tupleBody('N', "1", "a", "B"))},
		{1, msgUpdate, rowBody(7, tupleBody('O', "1", "a", "B"), tupleBody('N', "1", "-", "~"))},
		{2, msgInsert, rowBody(7, tupleBody('N', "2", "aborted", "-"))},
		{1, msgUpdate, rowBody(7, tupleBody('O', "1", "-", "B"), tupleBody('N', "3", "", "~"))},
		{1, msgRelation, relationBody(8, "public", "other", "id")},
		{1, msgInsert, rowBody(8, tupleBody('N', "1"))},
		{2, msgRelation, relationBody(7, "public", "item", "aborted")},
		{1, msgRelation, relationBody(7, "public", "item", "id", "v")},
		{1, msgDelete, rowBody(7, tupleBody('K', "9", "-"))},
		{1, msgTruncate, truncateBody(8, 7)},
		{1, msgInsert, rowBody(7, tupleBody('N', "1", "back"))},
		{1, msgUpdate, rowBody(7, tupleBody('N', "1", "~"))},
		{1, msgRelation, relationBody(9, "tidemark", "epoch", "epoch", "reason")},
		{1, msgInsert, rowBody(9, tupleBody('N', "5", "x"))},
	}
	want := []string{
		"item 0 c  1,a,B superseded", "item 1 u 1,a,B 1,<null>,B superseded", "item 2 d 1,<null>,B  superseded", "item 3 c  3,,B superseded",
		"other 4 c  1 superseded", "item 5 d 9,<null>  superseded", "other 6 t  ", "item 7 t  ", "item 8 c  1,back superseded", "item 9 u  1,<unchanged>",
	}
	for _, limit := range []int{1 << 20, 1, 60} { // bytes in memory: all, nothing, some
		for _, part := range []partLimit{{1000, 1 << 20}, {3, 1 << 20}, {1000, 1}} {
			name := fmt.Sprintf("memory %d part %+v", limit, part)
			s := newSpools(t.TempDir(), limit)
			sp := s.begin(1)
			for _, m := range msgs {
				if err := s.add(sp, m.xid, m.kind, m.body); err != nil {
					t.Fatal(err)
				}
			}
			if err := s.abort(1, 2); err != nil {
				t.Fatal(err)
			}
			a := newAssembler(firstColumnIsKey, 3)
			var got []string
			kept := [][]Change{}
			mores := 0
			err := a.transaction(t.Context(), s.take(1), part, func(cs []Change, more bool) error {
				kept = append(kept, cs)
				if more {
					mores++
				}
				return nil
			})
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			for _, cs := range kept { // all at the end: a part must stay whole while later ones are decoded
				for i, s := range brief(cs) {
					got = append(got, cs[i].Relation.Name+" "+s)
				}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", name, diff)
			}
			if mores != len(kept)-1 || part.changes == 3 && mores < 2 {
				t.Errorf("%s: %d parts, %d of them with more to come", name, len(kept), mores)
			}
			if a.epoch != 5 {
				t.Errorf("%s: epoch %d, want 5", name, a.epoch)
			}
			if s.used != 0 || len(s.open) != 0 {
				t.Errorf("%s: %d bytes in %d transactions are left", name, s.used, len(s.open))
			}
			if err := sp.close(); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestMalformedMessages(t *testing.T) {
	rel := record{kind: msgRelation, body: relationBody(7, "public", "item", "id", "v")}
	for _, c := range []struct {
		name string
		recs []record
	}{
		{"unknown relation", []record{{kind: msgInsert, body: rowBody(7, tupleBody('N', "1", "a"))}}},
		{"too few columns", []record{rel, {kind: msgInsert, body: rowBody(7, tupleBody('N', "1"))}}},
		{"short", []record{rel, {kind: msgInsert, body: rowBody(7, tupleBody('N', "1", "a"))[:12]}}},
		{"insert of an old row", []record{rel, {kind: msgInsert, body: rowBody(7, tupleBody('O', "1", "a"))}}},
		{"delete of a new row", []record{rel, {kind: msgDelete, body: rowBody(7, tupleBody('N', "1", "a"))}}},
		{"negative length", []record{rel, {kind: msgInsert, body: append(rowBody(7), 'N', 0, 2, 't', 255, 255, 255, 255)}}},
		{"binary value", []record{rel, {kind: msgInsert, body: append(rowBody(7), 'N', 0, 2, 'n', 'b', 0, 0, 0, 0)}}},
		{"truncate of unknown", []record{{kind: msgTruncate, body: truncateBody(7)}}},
		{"truncate without tables", []record{{kind: msgTruncate, body: []byte{255, 255, 255, 255, 0}}}},
		{"relation with too many columns", []record{{kind: msgRelation, body: append(relationBody(7, "a", "b")[:9], 255, 255)}}},
	} {
		a := newAssembler(firstColumnIsKey, 1)
		var err error
		for _, r := range c.recs {
			if err = a.apply(t.Context(), r); err != nil {
				break
			}
		}
		if !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: error %v, want ErrProtocol", c.name, err)
		}
	}
}

// FuzzStream feeds arbitrary streams, each message as kind, two bytes of length and body, through everything between the socket
// and the sink.
func FuzzStream(f *testing.F) {
	seed := func(msgs ...[]byte) {
		var b []byte
		for _, m := range msgs {
			b = binary.BigEndian.AppendUint16(append(b, m[0]), uint16(len(m)-1))
			b = append(b, m[1:]...)
		}
		f.Add(b)
	}
	m := func(kind byte, body ...[]byte) []byte { return append([]byte{kind}, bytes.Join(body, nil)...) }
	u32 := func(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }
	commit := append([]byte{0}, make([]byte, 24)...)
	begin := append(make([]byte, 16), 0, 0, 0, 1)
	rel := relationBody(7, "public", "item", "id", "v")
	row := rowBody(7, tupleBody('N', "1", "a"))
	seed(m('B', begin), m('R', rel), m('I', row), m('C', commit))
	seed(m('B', begin), m('R', rel), m('U', rowBody(7, tupleBody('O', "1", "a"), tupleBody('N', "2", "~"))), m('D', rowBody(7, tupleBody('K', "1", "-"))), m('T', truncateBody(7)), m('C', commit))
	seed(m('S', u32(1), []byte{1}), m('R', u32(1), rel), m('I', u32(1), row), m('E'), m('S', u32(1), []byte{0}), m('I', u32(2), row), m('E'), m('A', u32(1), u32(2)), m('c', u32(1), commit))
	seed(m('S', u32(1), []byte{1}), m('E'), m('A', u32(1), u32(1)), m('B', begin), m('O'), m('Y'), m('M'), m('C', commit))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, in []byte) {
		c, err := New(Config{Shard: "s", ConnString: "host=x", Tables: []string{"t"}, TempDir: dir}, discard)
		if err != nil {
			t.Fatal(err)
		}
		c.histories = []history{{epoch: 1, seen: true}}
		l := newLedger()
		s := &stream{
			c: c, sink: l, replies: make(chan struct{}, 1), commits: make(chan struct{}, 1),
			asm: newAssembler(firstColumnIsKey, 1), spools: newSpools(c.cfg.TempDir, 200),
		}
		defer func() {
			if err := s.spools.close(); err != nil {
				t.Error(err)
			}
		}()
		for len(in) >= 3 {
			kind, n := in[0], min(int(binary.BigEndian.Uint16(in[1:])), len(in)-3)
			if err := s.message(t.Context(), kind, in[3:3+n]); err != nil {
				return
			}
			in = in[3+n:]
		}
		for _, tx := range l.txs {
			for i, ch := range tx.Changes {
				if ch.Relation == nil || !tx.More && ch.Ordinal > 1<<20 || ch.Op != Truncate && ch.Old == nil && ch.New == nil {
					t.Fatalf("change %d is %+v", i, ch)
				}
			}
		}
	})
}

// FuzzFrames feeds arbitrary bytes as a server's.
func FuzzFrames(f *testing.F) {
	f.Add([]byte{'d', 0, 0, 0, 22, 'k', 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 1})
	f.Add([]byte{'d', 0, 0, 0, 30, 'w', 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 'B'})
	f.Add([]byte{'E', 0, 0, 0, 12, 'S', 'x', 0, 'C', 'y', 0, 0, 0})
	f.Add([]byte{'N', 0, 0, 0, 5, 0, 'd', 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, in []byte) {
		a, b := net.Pipe()
		defer func() { _ = a.Close() }()
		go func() {
			_, _ = b.Write(in) // the reader may have left
			_ = b.Close()
		}()
		cfg := Config{ServerTimeout: time.Minute}
		w := &walsender{cfg: &cfg, nc: a, in: bufio.NewReaderSize(a, 4096)}
		for {
			if _, err := w.next(); err != nil {
				return
			}
		}
	})
}

// FuzzValues: no text crashes the conversion, and what it makes is JSON that turns back into the same text.
func FuzzValues(f *testing.F) {
	for _, c := range valueCases {
		for _, v := range c.values {
			f.Add(uint32(25), []byte(v[0]))
			f.Add(uint32(1009), []byte(v[0]))
			f.Add(uint32(oidTimestamptz), []byte(v[0]))
			f.Add(uint32(1022), []byte(v[0]))
		}
	}
	f.Fuzz(func(t *testing.T, oid uint32, text []byte) {
		col := Column{TypeOID: oid}
		j, err := JSON(col, Value{Bytes: text})
		if err != nil || oid == oidJSON || oid == oidJSONB || arrayElem[oid] == oidJSON || arrayElem[oid] == oidJSONB {
			return
		}
		if _, err := TextColumn(col, j); err != nil && !strings.Contains(err.Error(), "is not") {
			t.Fatalf("%q became %s: %v", text, j, err)
		}
		if oid == 25 {
			if back, err := TextColumn(col, j); err != nil || !bytes.Equal(back, text) && len(text) > 0 {
				t.Fatalf("%q became %s and then %q (%v)", text, j, back, err)
			}
		}
	})
}

func TestCopyRow(t *testing.T) {
	for _, c := range []struct {
		in   string
		want []string
	}{
		{"", []string{""}},
		{`\N`, []string{"<null>"}},
		{"a\t\tb", []string{"a", "", "b"}},
		{`a\tb\n\\N\r\b\f\v` + "\t" + `\\`, []string{"a\tb\n\\N\r\b\f\v", `\`}},
	} {
		var got []string
		for _, v := range copyRow(nil, []byte(c.in)) {
			got = append(got, strings.TrimSuffix(rowText([]Value{v}), "\x1f"))
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%q (-want +got):\n%s", c.in, diff)
		}
	}
}

// A sink that acknowledges what it was not given, or not in order, confirms nothing of it.
func TestAckedIsClamped(t *testing.T) {
	c, err := New(Config{Shard: "s", ConnString: "host=x", Tables: []string{"t"}}, discard)
	if err != nil {
		t.Fatal(err)
	}
	c.histories = []history{{epoch: 1, seen: true}}
	c.hand(100)
	for _, s := range []struct{ ack, want lsn.LSN }{{50, 50}, {40, 50}, {1000, 100}} {
		c.Acked(s.ack)
		if got := c.Level().LSN; got != s.want {
			t.Errorf("level after %d is %d, want %d", s.ack, got, s.want)
		}
	}
}

// BenchmarkAssemble decodes transactions of one and of a thousand rows.
func BenchmarkAssemble(b *testing.B) {
	for _, rows := range []int{1, 1000} {
		b.Run(fmt.Sprintf("rows=%d", rows), func(b *testing.B) {
			a := newAssembler(firstColumnIsKey, 1)
			if err := a.apply(b.Context(), record{kind: msgRelation, body: relationBody(7, "public", "item", "id", "v", "w")}); err != nil {
				b.Fatal(err)
			}
			s := newSpools(b.TempDir(), 64<<20)
			bodies := make([][]byte, rows)
			for i := range bodies {
				bodies[i] = rowBody(7, tupleBody('N', fmt.Sprint(i), "some text", "more text of a row"))
			}
			b.ReportAllocs()
			for b.Loop() {
				sp := s.begin(1)
				for _, body := range bodies {
					if err := s.add(sp, 1, msgInsert, body); err != nil {
						b.Fatal(err)
					}
				}
				if err := a.transaction(b.Context(), s.take(1), partLimit{10_000, 4 << 20}, func([]Change, bool) error { return nil }); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*rows), "ns/row")
		})
	}
}

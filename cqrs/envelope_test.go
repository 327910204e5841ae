package cqrs

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tidemarkdb/tidemark/internal/lsn"
	"github.com/tidemarkdb/tidemark/replication"
)

func raw(s string) json.RawMessage { return json.RawMessage(s) }

func sampleEvent() Event {
	v, err := lsn.Pack(3, 0x16B374D848)
	if err != nil {
		panic(err)
	}
	return Event{
		Op: replication.Update, Schema: "public", Table: "orders",
		Key:    Row{{"customer_id", raw("7")}, {"id", raw("42")}},
		Before: Row{{"customer_id", raw("7")}, {"id", raw("42")}, {"note", raw("null")}},
		After:  Row{{"customer_id", raw("7")}, {"id", raw("42")}, {"note", raw(`"a \"b\" é \u0001"`)}, {"tags", raw(`["x",null,{"y":[1,2]}]`)}},
		Source: Source{
			Shard: "s1", Epoch: 3, Commit: 0x16B374D848, Ordinal: 5, XID: 4294967295,
			CommitTime: time.Date(2026, 11, 23, 23, 42, 10, 123456000, time.UTC),
		},
		Version: v, Last: true,
	}
}

// The documented form, byte for byte: consumers in other languages are written against it.
func TestEnvelopeGolden(t *testing.T) {
	e := sampleEvent()
	want := `{"op":"u","schema":"public","table":"orders","key":{"customer_id":7,"id":42},` +
		`"before":{"customer_id":7,"id":42,"note":null},` +
		`"after":{"customer_id":7,"id":42,"note":"a \"b\" é \u0001","tags":["x",null,{"y":[1,2]}]},` +
		`"source":{"shard":"s1","epoch":3,"lsn":"16/B374D848","ordinal":5,"xid":4294967295,"commit_time":"2026-11-23T23:42:10.123456Z"},` +
		`"version":"0006755411628563209","last":true}`
	r := NewRecord(&e)
	if diff := cmp.Diff(want, string(r.Value)); diff != "" {
		t.Error(diff)
	}
	headers := map[string]string{}
	for _, h := range r.Headers {
		headers[h.Key] = string(h.Value)
	}
	wantHeaders := map[string]string{"op": "u", "shard": "s1", "epoch": "3", "lsn": "16/B374D848", "xid": "4294967295", "version": e.Version.Digits()}
	if diff := cmp.Diff(wantHeaders, headers); diff != "" {
		t.Error(diff)
	}
	if got := string(r.Key); got != `{"customer_id":7,"id":42}` {
		t.Errorf("key %s", got)
	}
}

func TestEnvelopeRoundTrip(t *testing.T) {
	base := sampleEvent()
	edit := func(f func(*Event)) Event {
		e := base
		f(&e)
		return e
	}
	events := map[string]Event{
		"update": base,
		"delete": edit(func(e *Event) { e.Op, e.After, e.Last = replication.Delete, nil, false }),
		"snapshot": edit(func(e *Event) {
			e.Op, e.Before, e.Source.XID, e.Source.CommitTime = replication.Snapshot, nil, 0, time.Time{}
		}),
		"sweep":      edit(func(e *Event) { e.Op, e.Key, e.Before, e.After = replication.Sweep, nil, nil, nil }),
		"truncate":   edit(func(e *Event) { e.Op, e.Key, e.Before, e.After = replication.Truncate, nil, nil, nil }),
		"odd names":  edit(func(e *Event) { e.Schema, e.Table = "sch\"ema\\", "täble\n\u2028<&>" }),
		"odd column": edit(func(e *Event) { e.After = Row{{"\"\t", raw(`{"a":"}]\\\""}`)}, {"", raw("-1.5e3")}} }),
		"empty row":  edit(func(e *Event) { e.After = Row{} }),
		"extremes":   edit(func(e *Event) { e.Source.Epoch, e.Source.Commit, e.Version = lsn.MaxEpoch, 1<<54-8, 1<<63-1 }),
		"zero lsn":   edit(func(e *Event) { e.Source.Commit = 0 }),
	}
	for name, want := range events {
		t.Run(name, func(t *testing.T) {
			r := NewRecord(&want)
			if !json.Valid(r.Value) {
				t.Fatalf("not JSON: %s", r.Value)
			}
			got, err := DecodeEvent(r.Value)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
			if (r.Key == nil) != want.Op.WholeTable() {
				t.Errorf("key %s", r.Key)
			}
		})
	}
}

func TestDecodeEventRefuses(t *testing.T) {
	e := sampleEvent()
	good := string(AppendEvent(nil, &e))
	replace := func(old, new string) string {
		s := string(bytes.Replace([]byte(good), []byte(old), []byte(new), 1))
		if s == good {
			t.Fatalf("%q is not in the sample", old)
		}
		return s
	}
	bad := map[string]string{
		"empty":           "",
		"not JSON":        good[:len(good)-1],
		"behind the end":  good + "{}",
		"not an object":   `[1]`,
		"unknown op":      replace(`"op":"u"`, `"op":"x"`),
		"op is a number":  replace(`"op":"u"`, `"op":1`),
		"no table":        replace(`"table"`, `"tabel"`),
		"no shard":        replace(`"shard"`, `"shrad"`),
		"key is a list":   replace(`{"customer_id":7,"id":42},"before"`, `[7],"before"`),
		"empty key":       replace(`{"customer_id":7,"id":42},"before"`, `{},"before"`),
		"version":         replace(`"version":"0006755411628563209"`, `"version":"x"`),
		"version number":  replace(`"version":"0006755411628563209"`, `"version":12`),
		"epoch too large": replace(`"epoch":3`, `"epoch":4096`),
		"lsn":             replace(`16/B374D848`, `16-B374D848`),
		"time":            replace(`2026-11-23T`, `yesterday`),
		"last":            replace(`"last":true`, `"last":1`),
		"xid":             replace(`4294967295`, `4294967296`),
		"no after":        replace(`"after":{`, `"aftre":{`),
	}
	for name, s := range bad {
		if _, err := DecodeEvent([]byte(s)); !errors.Is(err, ErrPermanent) {
			t.Errorf("%s: error %v, want one that wraps ErrPermanent", name, err)
		}
	}
	if _, err := DecodeEvent([]byte(replace(`{"op"`, ` { "future" : {"a":[1,{"b":"]}"}]} , "op"`))); err != nil {
		t.Errorf("an unknown field: %v", err)
	}
}

// What decodes at all encodes to something that decodes to the same.
func FuzzDecodeEvent(f *testing.F) {
	e := sampleEvent()
	f.Add(AppendEvent(nil, &e))
	e.Op, e.Key, e.Before, e.After = replication.Truncate, nil, nil, nil
	f.Add(AppendEvent(nil, &e))
	f.Add([]byte(`{"op":"d","schema":"","table":"\ud800","key":{"":[]},"source":{"shard":"","epoch":0,"lsn":"0/0","commit_time":"0001-01-01T00:00:00Z"},"version":"0"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		first, err := DecodeEvent(b)
		if err != nil {
			if !errors.Is(err, ErrPermanent) {
				t.Fatal(err)
			}
			return
		}
		again, err := DecodeEvent(AppendEvent(nil, &first))
		if err != nil {
			t.Fatalf("%v\n%s\n%s", err, b, AppendEvent(nil, &first))
		}
		// Times may carry another zone or more digits than PostgreSQL has.
		first.Source.CommitTime = first.Source.CommitTime.Truncate(time.Microsecond)
		if diff := cmp.Diff(first, again); diff != "" {
			t.Fatal(diff)
		}
	})
}

// Values of Utils.murmur2 in Kafka's own UtilsTest.
func TestPartitionIsKafkas(t *testing.T) {
	for key, want := range map[string]int32{
		"21": -973932308, "foobar": -790332482, "a-little-bit-long-string": -985981536,
		"a-little-bit-longer-string": -1486304829, "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971, "abc": 479470107,
	} {
		if got := int32(murmur2([]byte(key))); got != want {
			t.Errorf("murmur2(%q) = %d, want %d", key, got, want)
		}
	}
	if got := Partition([]byte("21"), 6); got != int(uint32(0x100000000-973932308)&0x7fffffff)%6 {
		t.Errorf("partition %d", got)
	}
}

func TestNames(t *testing.T) {
	n := Names{Database: "shop"}
	for table, want := range map[Table]string{
		{"public", "orders"}: "tidemark.shop.public.orders",
		{"a.b", "c"}:         "tidemark.shop.a-2Eb.c",
		{"a", "b.c"}:         "tidemark.shop.a.b-2Ec",
		{"x-y", "Tabelle ä"}: "tidemark.shop.x-2Dy.Tabelle-20-C3-A4",
	} {
		if got := n.Table(table.Schema, table.Name); got != want {
			t.Errorf("%v: %s, want %s", table, got, want)
		}
	}
}

func BenchmarkNewRecord(b *testing.B) {
	e := sampleEvent()
	b.ReportAllocs()
	for b.Loop() {
		NewRecord(&e)
	}
}

func BenchmarkDecodeEvent(b *testing.B) {
	e := sampleEvent()
	in := AppendEvent(nil, &e)
	b.ReportAllocs()
	b.SetBytes(int64(len(in)))
	for b.Loop() {
		if _, err := DecodeEvent(in); err != nil {
			b.Fatal(err)
		}
	}
}

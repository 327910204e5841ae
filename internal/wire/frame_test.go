package wire

import (
	"bytes"
	"encoding/binary"
	"testing"
)

func frame(typ byte, size uint32, body string) []byte {
	b := binary.BigEndian.AppendUint32([]byte{typ}, size)
	return append(b, body...)
}

func TestNext(t *testing.T) {
	for _, tt := range []struct {
		name  string
		in    []byte
		from  Sender
		limit int

		body     string
		len      int
		need     int
		sqlstate string
	}{
		{name: "nothing", need: 5},
		{name: "type only", in: []byte("Q"), need: 5},
		{name: "unknown type at once", in: []byte("!"), sqlstate: ProtocolViolation},
		{name: "header only", in: frame('Q', 6, ""), len: 7, need: 7},
		{name: "whole", in: frame('Q', 6, "x\x00"), body: "x\x00", len: 7},
		{name: "whole and more", in: frame('Q', 6, "x\x00rest"), body: "x\x00", len: 7},
		{name: "no body", in: frame('S', 4, "X"), len: 5},
		{name: "length below its own", in: frame('Q', 3, ""), sqlstate: ProtocolViolation},
		{name: "length of zero", in: frame('Q', 0, ""), sqlstate: ProtocolViolation},
		{name: "length of -1", in: frame('Q', 0xffffffff, ""), sqlstate: ProtocolViolation},
		{name: "length of 2 GB", in: frame('Q', 0x7fffffff, ""), sqlstate: ProtocolViolation},
		{name: "large where large is allowed", in: frame('B', LargeMessageLimit, ""), len: LargeMessageLimit + 1, need: LargeMessageLimit + 1},
		{name: "large where small is due", in: frame('S', SmallMessageLimit+1, ""), sqlstate: ProtocolViolation},
		{name: "long password", in: frame('p', AuthMessageLimit+1, ""), sqlstate: ProtocolViolation},
		{name: "over the caller's limit", in: frame('Q', 100, ""), limit: 100, sqlstate: ProtocolViolation},
		{name: "at the caller's limit", in: frame('Q', 99, ""), limit: 100, len: 100, need: 100},
		{name: "of the other side", in: frame('Z', 5, "I"), sqlstate: ProtocolViolation},
		{name: "from a server", in: frame('Z', 5, "I"), from: Backend, body: "I", len: 6},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, need, err := Next(tt.in, tt.from, tt.limit)
			if got := SQLSTATE(err); got != tt.sqlstate {
				t.Fatalf("error %v, want SQLSTATE %q", err, tt.sqlstate)
			}
			if string(f.Body) != tt.body || f.Len != tt.len || need != tt.need {
				t.Errorf("body %q, len %d, need %d; want %q, %d, %d", f.Body, f.Len, need, tt.body, tt.len, tt.need)
			}
		})
	}
}

// A frame's body must not reach into the next message, whatever its holder appends.
func TestNextBodyIsBounded(t *testing.T) {
	b := append(frame('Q', 6, "x\x00"), frame('S', 4, "")...)
	f, _, err := Next(b, Frontend, 0)
	if err != nil {
		t.Fatal(err)
	}
	_ = append(f.Body, "overwritten"...)
	if !bytes.Equal(b[f.Len:], frame('S', 4, "")) {
		t.Errorf("the next message is %q now", b[f.Len:])
	}
}

// The hot path must not allocate: frames, steering messages, builders into a buffer that is large enough.
func TestNoAllocations(t *testing.T) {
	stream := AppendBind(nil, "", "stmt", []int16{1}, [][]byte{[]byte("12345678"), nil}, []int16{1})
	stream = AppendParse(stream, "stmt", "select $1::int8", []uint32{20})
	stream = AppendDescribe(stream, KindPortal, "")
	stream = AppendExecute(stream, "", 0)
	stream = AppendQuery(stream, "select 1")
	answer := AppendDataRow(nil, []byte("1"), nil)
	answer = AppendParameterStatus(answer, "TimeZone", "UTC")
	answer = AppendReadyForQuery(AppendCommandComplete(answer, "SELECT 1"), TxIdle)
	dst := make([]byte, 0, 4096)
	name := []byte("tidemark_1")
	allocs := testing.AllocsPerRun(100, func() {
		for b := stream; len(b) > 0; {
			f, _, err := Next(b, Frontend, 0)
			if err != nil {
				t.Fatal(err)
			}
			switch f.Type {
			case MsgBind:
				m, err := DecodeBind(f.Body)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := m.Param(1); err != nil {
					t.Fatal(err)
				}
			case MsgParse:
				if _, err := DecodeParse(f.Body); err != nil {
					t.Fatal(err)
				}
			case MsgDescribe:
				if _, err := DecodeDescribe(f.Body); err != nil {
					t.Fatal(err)
				}
			case MsgExecute:
				if _, err := DecodeExecute(f.Body); err != nil {
					t.Fatal(err)
				}
			case MsgQuery:
				if _, err := DecodeQuery(f.Body); err != nil {
					t.Fatal(err)
				}
			}
			if f.Type == MsgBind || f.Type == MsgParse {
				if dst, err = AppendRenamed(dst[:0], b[:f.Len], name); err != nil {
					t.Fatal(err)
				}
			}
			b = b[f.Len:]
		}
		for b := answer; len(b) > 0; {
			f, _, err := Next(b, Backend, 0)
			if err != nil {
				t.Fatal(err)
			}
			switch f.Type {
			case MsgDataRow:
				c := DataRow(f.Body)
				for c.Next() {
					_ = c.Value()
				}
			case MsgParameterStatus:
				if _, _, err := DecodeParameterStatus(f.Body); err != nil {
					t.Fatal(err)
				}
			case MsgCommandComplete:
				tag, err := DecodeCommandComplete(f.Body)
				if err != nil {
					t.Fatal(err)
				}
				TagRows(tag)
			case MsgReadyForQuery:
				if _, err := DecodeReadyForQuery(f.Body); err != nil {
					t.Fatal(err)
				}
			}
			b = b[f.Len:]
		}
		dst = AppendParse(dst[:0], name, "select 1", nil)
		dst = AppendBind(dst, "", name, nil, nil, nil)
		dst = AppendSync(AppendExecute(AppendDescribe(dst, KindPortal, ""), "", 0))
	})
	if allocs != 0 {
		t.Errorf("%v allocations per round, want none", allocs)
	}
}

func BenchmarkNext(b *testing.B) {
	var stream []byte
	for range 64 {
		stream = AppendDataRow(stream, []byte("0123456789"), []byte("abc"))
	}
	b.SetBytes(int64(len(stream)))
	b.ReportAllocs()
	for b.Loop() {
		for rest := stream; len(rest) > 0; {
			f, _, err := Next(rest, Backend, 0)
			if err != nil {
				b.Fatal(err)
			}
			rest = rest[f.Len:]
		}
	}
}

package wire

import (
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func packet(code uint32, body string) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(8+len(body)))
	return append(binary.BigEndian.AppendUint32(b, code), body...)
}

func TestNextStartup(t *testing.T) {
	for _, tt := range []struct {
		name     string
		in       []byte
		want     Startup
		need     int
		sqlstate string
		hangsUp  bool
	}{
		{name: "nothing", need: 4},
		{name: "length only", in: packet(Protocol30, "user\x00ann\x00\x00")[:4], need: 18},
		{name: "part", in: packet(Protocol30, "user\x00ann\x00\x00")[:12], need: 18},
		{name: "3.0", in: packet(Protocol30, "user\x00ann\x00\x00"), want: Startup{Version: Protocol30, Params: []Parameter{{"user", "ann"}}}},
		{name: "3.2 and more behind", in: append(packet(Protocol32, "user\x00ann\x00database\x00shop\x00\x00"), 'p'), want: Startup{Version: Protocol32, Params: []Parameter{{"user", "ann"}, {"database", "shop"}}}},
		{name: "empty value", in: packet(Protocol30, "user\x00ann\x00options\x00\x00\x00"), want: Startup{Version: Protocol30, Params: []Parameter{{"user", "ann"}, {"options", ""}}}},
		{name: "SSLRequest", in: AppendSSLRequest(nil), want: Startup{Kind: SSLRequest}},
		{name: "GSSENCRequest", in: AppendGSSENCRequest(nil), want: Startup{Kind: GSSENCRequest}},
		{name: "CancelRequest", in: AppendCancelRequest(nil, 77, []byte("abcd")), want: Startup{Kind: CancelRequest, PID: 77, Key: []byte("abcd")}},
		{name: "CancelRequest with a long key", in: AppendCancelRequest(nil, 77, make([]byte, 256)), want: Startup{Kind: CancelRequest, PID: 77, Key: make([]byte, 256)}},

		{name: "CancelRequest with a longer key", in: AppendCancelRequest(nil, 77, make([]byte, 257)), hangsUp: true},
		{name: "CancelRequest without a key", in: AppendCancelRequest(nil, 77, nil), hangsUp: true},
		{name: "SSLRequest with a body", in: packet(codeSSLRequest, "x"), hangsUp: true},
		{name: "short", in: []byte{0, 0, 0, 7}, hangsUp: true},
		{name: "long", in: []byte{0, 0, 39, 17}, hangsUp: true},
		{name: "2 GB", in: []byte{0x7f, 0xff, 0xff, 0xff}, hangsUp: true},
		{name: "-1", in: []byte{0xff, 0xff, 0xff, 0xff}, hangsUp: true},
		{name: "TLS at once", in: []byte{TLSHandshake, 3, 1, 0}, hangsUp: true},
		{name: "HTTP", in: []byte("GET / HTTP/1.1\r\n"), hangsUp: true},
		{name: "protocol 2", in: packet(2<<16, "user\x00ann\x00\x00"), want: Startup{Version: 2 << 16}, sqlstate: FeatureNotSupported},
		{name: "protocol 4", in: packet(4<<16, ""), want: Startup{Version: 4 << 16}, sqlstate: FeatureNotSupported},
		{name: "no terminator", in: packet(Protocol30, "user\x00ann\x00"), sqlstate: ProtocolViolation},
		{name: "bytes behind the terminator", in: packet(Protocol30, "user\x00ann\x00\x00x"), sqlstate: ProtocolViolation},
		{name: "name without value", in: packet(Protocol30, "user\x00"), sqlstate: ProtocolViolation},
		{name: "no user", in: packet(Protocol30, "database\x00shop\x00\x00"), sqlstate: InvalidAuthorizationSpecification},
		{name: "empty user", in: packet(Protocol30, "user\x00\x00\x00"), sqlstate: InvalidAuthorizationSpecification},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, n, need, err := NextStartup(tt.in)
			if SQLSTATE(err) != tt.sqlstate || (err != nil) != (tt.hangsUp || tt.sqlstate != "") || need != tt.need {
				t.Fatalf("need %d, error %v; want %d, SQLSTATE %q", need, err, tt.need, tt.sqlstate)
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Error(d)
			}
			if done := err == nil && need == 0; done != (n > 0) || n > len(tt.in) {
				t.Errorf("%d bytes used of %d", n, len(tt.in))
			}
		})
	}
}

func TestNegotiate(t *testing.T) {
	for _, tt := range []struct {
		version uint32
		params  []Parameter
		minor   uint16
		unknown []string
		needed  bool
	}{
		{version: Protocol30},
		{version: Protocol32, minor: 2},
		{version: 3<<16 | 1, minor: 1},
		{version: 3<<16 | 9999, minor: 2, needed: true},
		{version: Protocol30, params: []Parameter{{"_pq_.new", "1"}, {"user", "u"}}, unknown: []string{"_pq_.new"}, needed: true},
	} {
		s := Startup{Version: tt.version, Params: tt.params}
		minor, unknown, needed := s.Negotiate()
		if minor != tt.minor || needed != tt.needed || !cmp.Equal(unknown, tt.unknown) {
			t.Errorf("%d.%d: got %d %q %t, want %d %q %t", tt.version>>16, tt.version&0xffff, minor, unknown, needed, tt.minor, tt.unknown, tt.needed)
		}
	}
	b := AppendNegotiateProtocolVersion(nil, 2, []string{"_pq_.new"})
	minor, unknown, err := DecodeNegotiateProtocolVersion(b[5:])
	if err != nil || minor != 2 || !cmp.Equal(unknown, []string{"_pq_.new"}) {
		t.Errorf("decoded %d %q %v", minor, unknown, err)
	}
}

// The last value of a parameter counts, as in PostgreSQL.
func TestStartupGet(t *testing.T) {
	s := Startup{Params: []Parameter{{"user", "a"}, {"user", "b"}}}
	if s.User() != "b" || s.Database() != "b" {
		t.Errorf("user %q, database %q, want b and b", s.User(), s.Database())
	}
}

func TestRename(t *testing.T) {
	for _, tt := range []struct {
		name     string
		in, want []byte
	}{
		{"Parse", AppendParse(nil, "a", "select $1", []uint32{23}), AppendParse(nil, "tidemark_1", "select $1", []uint32{23})},
		{"unnamed Parse", AppendParse(nil, "", "select 1", nil), AppendParse(nil, "tidemark_1", "select 1", nil)},
		{"Bind", AppendBind(nil, "portal", "a", nil, [][]byte{[]byte("v")}, nil), AppendBind(nil, "portal", "tidemark_1", nil, [][]byte{[]byte("v")}, nil)},
		{"longer name before", AppendBind(nil, "", strings.Repeat("x", 40), nil, nil, nil), AppendBind(nil, "", "tidemark_1", nil, nil, nil)},
		{"Describe", AppendDescribe(nil, KindStatement, "a"), AppendDescribe(nil, KindStatement, "tidemark_1")},
		{"Describe of a portal", AppendDescribe(nil, KindPortal, "a"), AppendDescribe(nil, KindPortal, "a")},
		{"Close", AppendClose(nil, KindStatement, "a"), AppendClose(nil, KindStatement, "tidemark_1")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := AppendRenamed([]byte("before"), tt.in, "tidemark_1")
			if err != nil || string(got) != "before"+string(tt.want) {
				t.Errorf("got %q, %v, want %q", got, err, tt.want)
			}
			// With only the front at hand, the rest being streamed.
			for n := range tt.in {
				front, used, err := Rename(nil, tt.in[:n], len(tt.in), "tidemark_1")
				if errors.Is(err, ErrIncomplete) {
					continue
				}
				if err != nil || string(front)+string(tt.in[used:]) != string(tt.want) {
					t.Errorf("from %d bytes: %q + %q, %v, want %q", n, front, tt.in[used:], err, tt.want)
				}
			}
		})
	}
	if _, err := AppendRenamed(nil, AppendQuery(nil, "select 1"), "x"); SQLSTATE(err) != InternalError {
		t.Errorf("rename of a Query: %v", err)
	}
	if _, err := AppendRenamed(nil, []byte("P\x00\x00\x00\x05a"), "x"); SQLSTATE(err) != ProtocolViolation {
		t.Errorf("rename of a name without end: %v", err)
	}
}

package wire

import (
	"testing"
)

func TestTrace(t *testing.T) {
	for _, tt := range []struct {
		from Sender
		msg  []byte
		want string
	}{
		{Frontend, AppendQuery(nil, "select 1"), `F 13 Query "select 1"`},
		{Frontend, AppendParse(nil, "s", "select $1", []uint32{20}), `F 22 Parse "s" "select $1" 1 20`},
		{Frontend, AppendBind(nil, "", "s", []int16{1}, [][]byte{{0, 'a'}, nil}, []int16{0}), `F 27 Bind "" "s" 1 1 2 2 '\x00a' -1 1 0`},
		{Frontend, AppendDescribe(nil, KindPortal, ""), `F 6 Describe P ""`},
		{Frontend, AppendExecute(nil, "", 0), `F 9 Execute "" 0`},
		{Frontend, AppendSync(nil), `F 4 Sync`},
		{Frontend, AppendPassword(nil, "pencil"), `F 11 Password`},
		{Frontend, AppendCopyData(nil, []byte("1\t2\n")), `F 8 CopyData '1\x092\x0a'`},
		{Backend, AppendReadyForQuery(nil, TxIdle), `B 5 ReadyForQuery I`},
		{Backend, AppendRowDescription(nil, []Field{{Name: []byte("a"), TableOID: 16384, Attr: 1, TypeOID: 20, TypeLen: 8, TypeMod: -1}}), `B 26 RowDescription 1 "a" NNNN 1 20 8 -1 0`},
		{Backend, AppendDataRow(nil, []byte("1"), nil), `B 15 DataRow 2 1 '1' -1`},
		{Backend, AppendCommandComplete(nil, "SELECT 1"), `B 13 CommandComplete "SELECT 1"`},
		{Backend, AppendErrorResponse(nil, &Error{Code: "42601", Message: `near "x"`, File: "scan.l", Line: 1}), `B 47 ErrorResponse S "ERROR" V "ERROR" C "42601" M "near \"x\""`},
		{Backend, AppendBackendKeyData(nil, 77, []byte("abcd")), `B 12 BackendKeyData NNNN NNNN`},
		{Backend, AppendAuthenticationSASL(nil, MechanismSCRAM), `B 23 AuthenticationSASL "SCRAM-SHA-256"`},
		{Backend, AppendNegotiateProtocolVersion(nil, 2, []string{"_pq_.x"}), `B 19 NegotiateProtocolVersion 3 2 1 "_pq_.x"`},
		{Backend, []byte("Z\x00\x00\x00\x06Ix"), `B 6 malformed 'Z' "Ix"`},
		{Backend, []byte("D\x00\x00\x00\x06\x00\x01"), `B 6 malformed 'D' "\x00\x01"`},
	} {
		f, need, err := Next(tt.msg, tt.from, 0)
		if err != nil || need > 0 {
			t.Fatalf("%q: %d, %v", tt.msg, need, err)
		}
		if got := string(AppendTrace(nil, tt.from, f)); got != tt.want {
			t.Errorf("got  %s\nwant %s", got, tt.want)
		}
	}
	b := AppendStartupMessage(nil, Protocol30, []Parameter{{"user", "ann"}})
	s, n, _, err := NextStartup(b)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(AppendStartupTrace(nil, n, s)), `F 18 StartupMessage 3 0 "user" "ann"`; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

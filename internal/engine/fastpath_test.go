package engine

import (
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
)

// Only a whole answer of a request that has succeeded is passed on without being looked through.
func TestWhole(t *testing.T) {
	answer := func(messages ...pgproto3.BackendMessage) (b []byte) {
		for _, m := range messages {
			b, _ = m.Encode(b)
		}
		return b
	}
	row, tag, ready := &pgproto3.DataRow{Values: [][]byte{[]byte("5")}}, &pgproto3.CommandComplete{CommandTag: []byte("SELECT 1")}, &pgproto3.ReadyForQuery{TxStatus: 'I'}
	desc := &pgproto3.RowDescription{Fields: []pgproto3.FieldDescription{{Name: []byte("a")}}}
	for name, test := range map[string]struct {
		b    []byte
		want byte
	}{
		"a query's":      {answer(desc, row, row, tag, ready), 'I'},
		"a batch's":      {answer(&pgproto3.ParseComplete{}, &pgproto3.BindComplete{}, desc, row, tag, ready), 'I'},
		"without rows":   {answer(&pgproto3.ParseComplete{}, &pgproto3.BindComplete{}, &pgproto3.NoData{}, tag, ready), 'I'},
		"nothing":        {nil, 0},
		"an error":       {answer(&pgproto3.ErrorResponse{Severity: "ERROR", Code: "42P01", Message: "no"}, ready), 0},
		"a notice":       {answer(desc, &pgproto3.NoticeResponse{Severity: "NOTICE", Code: "00000", Message: "so"}, tag, ready), 0},
		"a setting":      {answer(tag, &pgproto3.ParameterStatus{Name: "a", Value: "b"}, ready), 0},
		"a notification": {answer(tag, &pgproto3.NotificationResponse{PID: 1, Channel: "a"}, ready), 0},
		"a transaction":  {answer(desc, row, tag, &pgproto3.ReadyForQuery{TxStatus: 'T'}), 'T'},
		"a failed one":   {answer(tag, &pgproto3.ReadyForQuery{TxStatus: 'E'}), 0},
		"no text":        {answer(&pgproto3.EmptyQueryResponse{}, ready), 0},
		"suspended":      {answer(row, &pgproto3.PortalSuspended{}, ready), 0},
		"a copy":         {answer(&pgproto3.CopyOutResponse{}, &pgproto3.CopyData{Data: []byte("1\n")}, &pgproto3.CopyDone{}, tag, ready), 0},
		"two":            {answer(tag, ready, tag, ready), 0},
	} {
		if got := whole(test.b); got != test.want {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
		for n := range len(test.b) {
			if whole(test.b[:n]) != 0 && !(name == "two" && n == len(test.b)/2) {
				t.Errorf("%s: taken for whole: the first %d of %d bytes", name, n, len(test.b))
			}
		}
	}
}

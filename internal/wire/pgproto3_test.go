package wire

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgproto3/v2"
)

// gen makes random message parts from a seed.
type gen struct{ *rand.Rand }

func (g gen) text() string {
	b := make([]byte, g.IntN(20))
	for i := range b {
		b[i] = byte(1 + g.IntN(255))
	}
	return string(b)
}

func (g gen) value() []byte {
	switch g.IntN(4) {
	case 0:
		return nil
	case 1:
		return []byte{}
	}
	b := make([]byte, g.IntN(40))
	for i := range b {
		b[i] = byte(g.IntN(256))
	}
	return b
}

func list[T any](g gen, n int, f func() T) []T {
	l := make([]T, 0, n)
	for range n {
		l = append(l, f())
	}
	return l
}

func (g gen) format() int16 { return int16(g.IntN(2)) }

func rounds(t *testing.T, f func(t *testing.T, g gen)) {
	for seed := range uint64(300) {
		f(t, gen{rand.New(rand.NewPCG(seed, 3))})
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// theirs is the message as pgproto3 builds it.
func theirs(t *testing.T, msg pgproto3.Message) []byte {
	t.Helper()
	b, err := msg.Encode(nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// same compares a built message with pgproto3's and returns its frame.
func same(t *testing.T, from Sender, got []byte, msg pgproto3.Message) Frame {
	t.Helper()
	if want := theirs(t, msg); !bytes.Equal(got, want) {
		t.Errorf("%T %+v:\n got %q\nwant %q", msg, msg, got, want)
	}
	f, need, err := Next(got, from, 0)
	if err != nil || need != 0 || f.Len != len(got) {
		t.Errorf("%T: frame of %d bytes (need %d, %v) in %d", msg, f.Len, need, err, len(got))
	}
	return f
}

func check(t *testing.T, err error, got, want any) {
	t.Helper()
	if err != nil {
		t.Error(err)
		return
	}
	if d := cmp.Diff(want, got, cmp.Transformer("view", func(b []byte) string { return fmt.Sprintf("%q/%t", b, b == nil) })); d != "" {
		t.Error(d)
	}
}

func TestFrontendAgainstPgproto3(t *testing.T) {
	rounds(t, func(t *testing.T, g gen) {
		name, sql, portal := g.text(), g.text(), g.text()

		f := same(t, Frontend, AppendQuery(nil, sql), &pgproto3.Query{String: sql})
		text, err := DecodeQuery(f.Body)
		check(t, err, string(text), sql)

		oids := list(g, g.IntN(5), g.Uint32)
		f = same(t, Frontend, AppendParse(nil, name, []byte(sql), oids), &pgproto3.Parse{Name: name, Query: sql, ParameterOIDs: oids})
		p, err := DecodeParse(f.Body)
		check(t, err, string(p.Name)+"|"+string(p.SQL), name+"|"+sql)
		check(t, err, p.AppendOIDs([]uint32{}), oids)

		values := list(g, g.IntN(6), g.value)
		formats := list(g, []int{0, 1, len(values)}[g.IntN(3)], g.format)
		results := list(g, g.IntN(3), g.format)
		f = same(t, Frontend, AppendBind(nil, portal, name, formats, values, results), &pgproto3.Bind{
			DestinationPortal: portal, PreparedStatement: name, ParameterFormatCodes: formats, Parameters: values, ResultFormatCodes: results,
		})
		checkBind(t, f, portal, name, formats, values, results)

		for _, kind := range []byte{KindPortal, KindStatement} {
			f = same(t, Frontend, AppendDescribe(nil, kind, name), &pgproto3.Describe{ObjectType: kind, Name: name})
			d, err := DecodeDescribe(f.Body)
			check(t, err, d, Target{kind, []byte(name)})
			f = same(t, Frontend, AppendClose(nil, kind, name), &pgproto3.Close{ObjectType: kind, Name: name})
			d, err = DecodeClose(f.Body)
			check(t, err, d, Target{kind, []byte(name)})
		}

		n := g.Int32()
		f = same(t, Frontend, AppendExecute(nil, portal, n), &pgproto3.Execute{Portal: portal, MaxRows: uint32(n)})
		e, err := DecodeExecute(f.Body)
		check(t, err, e, Execute{[]byte(portal), n})

		same(t, Frontend, AppendSync(nil), &pgproto3.Sync{})
		same(t, Frontend, AppendFlush(nil), &pgproto3.Flush{})
		same(t, Frontend, AppendTerminate(nil), &pgproto3.Terminate{})
		same(t, Frontend, AppendCopyDone(nil), &pgproto3.CopyDone{})
		data := g.value()
		same(t, Frontend, AppendCopyData(nil, data), &pgproto3.CopyData{Data: data})
		f = same(t, Frontend, AppendCopyFail(nil, sql), &pgproto3.CopyFail{Message: sql})
		reason, err := DecodeCopyFail(f.Body)
		check(t, err, string(reason), sql)
		f = same(t, Frontend, AppendPassword(nil, name), &pgproto3.PasswordMessage{Password: name})
		pw, err := DecodePassword(f.Body)
		check(t, err, string(pw), name)
		same(t, Frontend, AppendSASLResponse(nil, data), &pgproto3.SASLResponse{Data: data})
		if len(data) > 0 {
			f = same(t, Frontend, AppendSASLInitial(nil, name, data), &pgproto3.SASLInitialResponse{AuthMechanism: name, Data: data})
			s, err := DecodeSASLInitial(f.Body)
			check(t, err, s, SASLInitial{[]byte(name), data})
		}
	})
}

func checkBind(t *testing.T, f Frame, portal, name string, formats []int16, values [][]byte, results []int16) {
	t.Helper()
	b, err := DecodeBind(f.Body)
	check(t, err, []string{string(b.Portal), string(b.Statement)}, []string{portal, name})
	if err != nil {
		return
	}
	check(t, nil, b.Params([][]byte{}), values)
	check(t, nil, b.NumResultFormats(), len(results))
	for i, v := range values {
		got, err := b.Param(i)
		check(t, err, got, v)
		want := FormatText
		switch {
		case len(formats) == 1:
			want = formats[0]
		case len(formats) > 1:
			want = formats[i]
		}
		check(t, nil, b.ParamFormat(i), want)
	}
	if _, err := b.Param(len(values)); SQLSTATE(err) != ProtocolViolation {
		t.Errorf("a parameter too many: %v", err)
	}
	// From every prefix: a value is known exactly when all of it is there.
	for n := range len(f.Body) {
		part, err := DecodeBindPart(f.Body[:n:n])
		if err != nil {
			check(t, nil, errors.Is(err, ErrIncomplete), true)
			continue
		}
		for i, v := range values {
			got, err := part.Param(i)
			if err == nil {
				check(t, nil, got, v)
			} else if !errors.Is(err, ErrIncomplete) {
				t.Errorf("%d of %d bytes, parameter %d: %v", n, len(f.Body), i, err)
			}
		}
	}
}

func TestBackendAgainstPgproto3(t *testing.T) {
	rounds(t, func(t *testing.T, g gen) {
		name, text := g.text(), g.text()
		same(t, Backend, AppendAuthenticationOK(nil), &pgproto3.AuthenticationOk{})
		same(t, Backend, AppendAuthenticationCleartextPassword(nil), &pgproto3.AuthenticationCleartextPassword{})
		same(t, Backend, AppendAuthenticationMD5Password(nil, [4]byte{1, 2, 3, 4}), &pgproto3.AuthenticationMD5Password{Salt: [4]byte{1, 2, 3, 4}})
		same(t, Backend, AppendAuthenticationSASL(nil, "a", "b"), &pgproto3.AuthenticationSASL{AuthMechanisms: []string{"a", "b"}})
		same(t, Backend, AppendAuthenticationSASLContinue(nil, []byte(text)), &pgproto3.AuthenticationSASLContinue{Data: []byte(text)})
		f := same(t, Backend, AppendAuthenticationSASLFinal(nil, []byte(text)), &pgproto3.AuthenticationSASLFinal{Data: []byte(text)})
		code, data, err := DecodeAuthentication(f.Body)
		check(t, err, fmt.Sprint(code, string(data)), fmt.Sprint(AuthSASLFinal, text))

		f = same(t, Backend, AppendBackendKeyData(nil, 7, []byte{0, 0, 1, 2}), &pgproto3.BackendKeyData{ProcessID: 7, SecretKey: 258})
		pid, key, err := DecodeBackendKeyData(f.Body)
		check(t, err, fmt.Sprint(pid, key), "7 [0 0 1 2]")

		f = same(t, Backend, AppendParameterStatus(nil, name, text), &pgproto3.ParameterStatus{Name: name, Value: text})
		k, v, err := DecodeParameterStatus(f.Body)
		check(t, err, string(k)+"|"+string(v), name+"|"+text)

		for _, status := range []byte{TxIdle, TxOpen, TxAborted} {
			f = same(t, Backend, AppendReadyForQuery(nil, status), &pgproto3.ReadyForQuery{TxStatus: status})
			got, err := DecodeReadyForQuery(f.Body)
			check(t, err, got, status)
		}

		fields := list(g, g.IntN(5), func() Field {
			return Field{[]byte(g.text()), g.Uint32(), int16(g.Uint32()), g.Uint32(), int16(g.Uint32()), g.Int32(), g.format()}
		})
		their := make([]pgproto3.FieldDescription, 0, len(fields))
		for _, f := range fields {
			their = append(their, pgproto3.FieldDescription{
				Name: f.Name, TableOID: f.TableOID, TableAttributeNumber: uint16(f.Attr), DataTypeOID: f.TypeOID,
				DataTypeSize: f.TypeLen, TypeModifier: f.TypeMod, Format: f.Format,
			})
		}
		f = same(t, Backend, AppendRowDescription(nil, fields), &pgproto3.RowDescription{Fields: their})
		got, err := AppendFields([]Field{}, f.Body)
		check(t, err, got, fields)

		row := list(g, g.IntN(6), g.value)
		f = same(t, Backend, AppendDataRow(nil, row...), &pgproto3.DataRow{Values: row})
		values := [][]byte{}
		c := DataRow(f.Body)
		for c.Next() {
			values = append(values, c.Value())
		}
		check(t, c.Err(), values, row)

		f = same(t, Backend, AppendCommandComplete(nil, text), &pgproto3.CommandComplete{CommandTag: []byte(text)})
		tag, err := DecodeCommandComplete(f.Body)
		check(t, err, string(tag), text)

		oids := list(g, g.IntN(5), g.Uint32)
		f = same(t, Backend, AppendParameterDescription(nil, oids), &pgproto3.ParameterDescription{ParameterOIDs: oids})
		gotOIDs, err := AppendParameterOIDs([]uint32{}, f.Body)
		check(t, err, gotOIDs, oids)

		same(t, Backend, AppendParseComplete(nil), &pgproto3.ParseComplete{})
		same(t, Backend, AppendBindComplete(nil), &pgproto3.BindComplete{})
		same(t, Backend, AppendCloseComplete(nil), &pgproto3.CloseComplete{})
		same(t, Backend, AppendNoData(nil), &pgproto3.NoData{})
		same(t, Backend, AppendPortalSuspended(nil), &pgproto3.PortalSuspended{})
		same(t, Backend, AppendEmptyQueryResponse(nil), &pgproto3.EmptyQueryResponse{})

		formats := list(g, g.IntN(4), func() uint16 { return uint16(g.IntN(2)) })
		ours := make([]int16, 0, len(formats))
		for _, f := range formats {
			ours = append(ours, int16(f))
		}
		f = same(t, Backend, AppendCopyInResponse(nil, 1, ours), &pgproto3.CopyInResponse{OverallFormat: 1, ColumnFormatCodes: formats})
		cr, err := DecodeCopyResponse(f.Body)
		check(t, err, fmt.Sprint(cr.Format, cr.NumColumns()), fmt.Sprint(1, len(ours)))
		for i, want := range ours {
			check(t, nil, cr.ColumnFormat(i), want)
		}
		same(t, Backend, AppendCopyOutResponse(nil, 0, ours), &pgproto3.CopyOutResponse{ColumnFormatCodes: formats})

		f = same(t, Backend, AppendNotification(nil, 9, name, text), &pgproto3.NotificationResponse{PID: 9, Channel: name, Payload: text})
		nt, err := DecodeNotification(f.Body)
		check(t, err, nt, Notification{9, []byte(name), []byte(text)})
	})
}

func TestStartupAgainstPgproto3(t *testing.T) {
	ours := AppendStartupMessage(nil, Protocol30, []Parameter{{"user", "ann"}})
	want := theirs(t, &pgproto3.StartupMessage{ProtocolVersion: pgproto3.ProtocolVersionNumber, Parameters: map[string]string{"user": "ann"}})
	if !bytes.Equal(ours, want) {
		t.Errorf("startup:\n got %q\nwant %q", ours, want)
	}
	if got, want := AppendSSLRequest(nil), theirs(t, &pgproto3.SSLRequest{}); !bytes.Equal(got, want) {
		t.Errorf("SSLRequest: got %q, want %q", got, want)
	}
	if got, want := AppendGSSENCRequest(nil), theirs(t, &pgproto3.GSSEncRequest{}); !bytes.Equal(got, want) {
		t.Errorf("GSSENCRequest: got %q, want %q", got, want)
	}
	if got, want := AppendCancelRequest(nil, 5, []byte{0, 0, 0, 6}), theirs(t, &pgproto3.CancelRequest{ProcessID: 5, SecretKey: 6}); !bytes.Equal(got, want) {
		t.Errorf("CancelRequest: got %q, want %q", got, want)
	}
}

func TestErrorAgainstPgproto3(t *testing.T) {
	want := &Error{
		Severity: "ERROR", SeverityLocalized: "FEHLER", Code: "42601", Message: "m", Detail: "d", Hint: "h", Position: 3, InternalPosition: 4,
		InternalQuery: "q", Where: "w", Schema: "s", Table: "t", Column: "c", DataType: "dt", Constraint: "n", File: "f.c", Line: 12, Routine: "r",
	}
	their := pgproto3.ErrorResponse{
		Severity: "FEHLER", SeverityUnlocalized: "ERROR", Code: "42601", Message: "m", Detail: "d", Hint: "h", Position: 3, InternalPosition: 4,
		InternalQuery: "q", Where: "w", SchemaName: "s", TableName: "t", ColumnName: "c", DataTypeName: "dt", ConstraintName: "n", File: "f.c", Line: 12, Routine: "r",
	}
	b := theirs(t, &their)
	got, err := DecodeError(b[5:])
	check(t, err, fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", want))

	var back pgproto3.ErrorResponse
	if err := back.Decode(AppendErrorResponse(nil, want)[5:]); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(their, back); d != "" {
		t.Error(d)
	}
}

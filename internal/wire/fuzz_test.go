package wire

import (
	"bytes"
	"errors"
	"testing"
)

// FuzzFrontend decodes anything that a client may send. What decodes must say the same when it is built again.
func FuzzFrontend(f *testing.F) {
	seed := AppendParse(nil, "s", "select $1", []uint32{20})
	seed = AppendBind(seed, "p", "s", []int16{1}, [][]byte{nil, {}, []byte("x")}, []int16{0, 1})
	seed = AppendExecute(AppendClose(AppendDescribe(seed, KindStatement, "s"), KindPortal, "p"), "p", 10)
	seed = AppendSASLInitial(AppendCopyFail(AppendQuery(AppendPassword(AppendSync(seed), "x"), "select 1"), "no"), "SCRAM-SHA-256", []byte("n,,n=,r=x"))
	f.Add(seed)
	f.Fuzz(func(t *testing.T, b []byte) {
		for len(b) > 0 {
			fr, need, err := Next(b, Frontend, 0)
			if err != nil || need > 0 {
				return
			}
			whole := b[:fr.Len]
			AppendTrace(nil, Frontend, fr)
			again, canonical := rebuild(t, fr)
			if canonical && !bytes.Equal(again, whole) {
				t.Fatalf("%q became %q", whole, again)
			}
			if renamed, err := AppendRenamed(nil, whole, "tidemark_1"); err == nil {
				if g, need, err := Next(renamed, Frontend, 0); err != nil || need != 0 || g.Len != len(renamed) {
					t.Fatalf("%q renamed is no frame: %q", whole, renamed)
				}
			}
			b = b[fr.Len:]
		}
	})
}

// rebuild decodes a message and builds it again; canonical is false when it did not decode or there is no builder.
func rebuild(t *testing.T, fr Frame) (b []byte, canonical bool) {
	switch fr.Type {
	case MsgQuery:
		sql, err := DecodeQuery(fr.Body)
		return AppendQuery(nil, sql), err == nil
	case MsgParse:
		p, err := DecodeParse(fr.Body)
		if err != nil {
			return nil, false
		}
		return AppendParse(nil, p.Name, p.SQL, p.AppendOIDs(nil)), true
	case MsgBind:
		m, err := DecodeBind(fr.Body)
		if err != nil {
			return nil, false
		}
		for i, want := range m.Params(nil) {
			m.ParamFormat(i)
			if v, err := m.Param(i); err != nil || !bytes.Equal(v, want) || (v == nil) != (want == nil) {
				t.Fatalf("parameter %d is %q, %v, and %q in the list", i, v, err, want)
			}
		}
		formats := make([]int16, len(m.formats)/2)
		for i := range formats {
			formats[i] = format(m.formats, i)
		}
		results := make([]int16, m.NumResultFormats())
		for i := range results {
			results[i] = m.ResultFormat(i)
		}
		return AppendBind(nil, m.Portal, m.Statement, formats, m.Params(nil), results), true
	case MsgDescribe:
		d, err := DecodeDescribe(fr.Body)
		return AppendDescribe(nil, d.Kind, d.Name), err == nil
	case MsgClose:
		d, err := DecodeClose(fr.Body)
		return AppendClose(nil, d.Kind, d.Name), err == nil
	case MsgExecute:
		e, err := DecodeExecute(fr.Body)
		return AppendExecute(nil, e.Portal, e.MaxRows), err == nil
	case MsgCopyFail:
		s, err := DecodeCopyFail(fr.Body)
		return AppendCopyFail(nil, s), err == nil
	case MsgPassword:
		if s, err := DecodeSASLInitial(fr.Body); err == nil && s.Response != nil {
			return AppendSASLInitial(nil, s.Mechanism, s.Response), true
		}
		p, err := DecodePassword(fr.Body)
		return AppendPassword(nil, p), err == nil
	}
	return nil, false
}

// FuzzBindPart checks that the beginning of a Bind never says something else than the whole.
func FuzzBindPart(f *testing.F) {
	f.Add(AppendBind(nil, "p", "s", []int16{1}, [][]byte{nil, {}, []byte("x")}, []int16{0, 1})[5:], 12)
	f.Fuzz(func(t *testing.T, body []byte, n int) {
		whole, err := DecodeBind(body)
		if err != nil || n < 0 || n > len(body) {
			return
		}
		part, err := DecodeBindPart(body[:n])
		if err != nil {
			if !errors.Is(err, ErrIncomplete) {
				t.Fatalf("%d of %d bytes: %v", n, len(body), err)
			}
			return
		}
		for i, want := range whole.Params(nil) {
			got, err := part.Param(i)
			if errors.Is(err, ErrIncomplete) {
				continue
			}
			if err != nil || !bytes.Equal(got, want) || (got == nil) != (want == nil) {
				t.Fatalf("parameter %d from %d bytes: %q, %v, want %q", i, n, got, err, want)
			}
		}
	})
}

// FuzzBackend decodes anything that a server may send.
func FuzzBackend(f *testing.F) {
	seed := AppendRowDescription(nil, []Field{{Name: []byte("a"), TypeOID: 20}})
	seed = AppendCommandComplete(AppendDataRow(seed, []byte("1"), nil, []byte{}), "SELECT 1")
	seed = AppendErrorResponse(seed, Errorf(SyntaxError, "x").WithHint("y"))
	seed = AppendCopyInResponse(AppendParameterStatus(AppendReadyForQuery(seed, TxIdle), "a", "b"), 0, []int16{0})
	seed = AppendNotification(AppendParameterDescription(AppendBackendKeyData(seed, 1, make([]byte, 32)), []uint32{20}), 1, "c", "p")
	seed = AppendNegotiateProtocolVersion(AppendAuthenticationSASL(AppendAuthenticationMD5Password(seed, [4]byte{1}), "SCRAM-SHA-256"), 2, []string{"_pq_.x"})
	f.Add(seed)
	f.Fuzz(func(t *testing.T, b []byte) {
		for len(b) > 0 {
			fr, need, err := Next(b, Backend, 0)
			if err != nil || need > 0 {
				return
			}
			AppendTrace(nil, Backend, fr)
			decodeBackend(t, fr)
			b = b[fr.Len:]
		}
	})
}

func decodeBackend(t *testing.T, fr Frame) {
	body := fr.Body
	var again []byte
	var err error
	switch fr.Type {
	case MsgReadyForQuery:
		var status byte
		status, err = DecodeReadyForQuery(body)
		again = AppendReadyForQuery(nil, status)
	case MsgParameterStatus:
		var name, value []byte
		name, value, err = DecodeParameterStatus(body)
		again = AppendParameterStatus(nil, name, value)
	case MsgBackendKeyData:
		var pid uint32
		var key []byte
		pid, key, err = DecodeBackendKeyData(body)
		again = AppendBackendKeyData(nil, pid, key)
	case MsgCommandComplete:
		var tag []byte
		tag, err = DecodeCommandComplete(body)
		TagRows(tag)
		again = AppendCommandComplete(nil, tag)
	case MsgRowDescription:
		var fields []Field
		fields, err = AppendFields(nil, body)
		again = AppendRowDescription(nil, fields)
	case MsgDataRow:
		var values [][]byte
		c := DataRow(body)
		for c.Next() {
			values = append(values, c.Value())
		}
		err = c.Err()
		again = AppendDataRow(nil, values...)
	case MsgParameterDescription:
		var oids []uint32
		oids, err = AppendParameterOIDs(nil, body)
		again = AppendParameterDescription(nil, oids)
	case MsgCopyInResponse:
		var c CopyResponse
		c, err = DecodeCopyResponse(body)
		var columns []int16
		for i := range c.NumColumns() {
			columns = append(columns, c.ColumnFormat(i))
		}
		again = AppendCopyInResponse(nil, c.Format, columns)
	case MsgNotificationResponse:
		var n Notification
		n, err = DecodeNotification(body)
		again = AppendNotification(nil, n.PID, n.Channel, n.Payload)
	case MsgErrorResponse:
		var e *Error
		if e, err = DecodeError(body); err != nil {
			return
		}
		if _, err := DecodeError(AppendErrorResponse(nil, e)[HeaderLen:]); err != nil {
			t.Fatalf("%q does not decode when built again: %v", body, err)
		}
		return
	case MsgNegotiateProtocolVersion:
		_, _, _ = DecodeNegotiateProtocolVersion(body)
		return
	case MsgAuthentication:
		_, _, _ = DecodeAuthentication(body)
		return
	default:
		return
	}
	if err == nil && !bytes.Equal(again[HeaderLen:], body) {
		t.Fatalf("%q %q became %q", fr.Type, body, again[HeaderLen:])
	}
}

// FuzzStartup decodes the first packet of a connection.
func FuzzStartup(f *testing.F) {
	f.Add(AppendStartupMessage(nil, Protocol32, []Parameter{{"user", "ann"}, {"database", "shop"}, {"_pq_.x", "1"}}))
	f.Add(AppendSSLRequest(nil))
	f.Add(AppendCancelRequest(nil, 1, []byte("abcd")))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, n, need, err := NextStartup(b)
		switch {
		case err != nil:
			if SQLSTATE(err) == "" && !errors.Is(err, errStartupLength) && !errors.Is(err, errCancelLength) {
				t.Fatalf("error without SQLSTATE: %v", err)
			}
		case need > 0:
			if need <= len(b) || need > MaxStartupLen || n != 0 {
				t.Fatalf("%d bytes are needed of %d, %d used", need, len(b), n)
			}
		case s.Kind == StartupMessage:
			AppendStartupTrace(nil, n, s)
			s.Negotiate()
			if again := AppendStartupMessage(nil, s.Version, s.Params); !bytes.Equal(again, b[:n]) {
				t.Fatalf("%q became %q", b[:n], again)
			}
		}
	})
}

// FuzzSCRAM plays both client messages of a login; nothing may get in.
func FuzzSCRAM(f *testing.F) {
	v := MockVerifier([]byte("secret"), "ann")
	f.Add([]byte("n,,n=,r=nonce"), []byte("c=biws,r=nonce,p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="))
	f.Add([]byte("y,a=x,n=u,r=nonce"), []byte("c=eSws,r=nonce,p="))
	f.Fuzz(func(t *testing.T, first, final []byte) {
		s, err := NewSCRAM(v)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.First(SASLInitial{Mechanism: []byte(MechanismSCRAM), Response: first}); err != nil {
			return
		}
		if _, err := s.Final(final); err == nil || s.Done() {
			t.Fatal("somebody got in")
		}
	})
}

// FuzzVerifier parses stored passwords.
func FuzzVerifier(f *testing.F) {
	f.Add(MockVerifier([]byte("s"), "u").Reveal())
	f.Fuzz(func(t *testing.T, s string) {
		v, err := ParseVerifier(s)
		if err != nil {
			return
		}
		if _, err := ParseVerifier(v.Reveal()); err != nil {
			t.Fatalf("%q does not parse when written again: %v", s, err)
		}
	})
}

// FuzzSCRAMClient plays a server's messages to a client; none may pass for one that knows the verifier.
func FuzzSCRAMClient(f *testing.F) {
	f.Add([]byte("s=c2FsdA==,i=1"), []byte("v=AAAA"))
	f.Add([]byte("s=c2FsdA==,i=0"), []byte("e=other-error"))
	f.Fuzz(func(t *testing.T, rest, final []byte) {
		c, err := NewSCRAMClient("u", "", &ClientKeys{ClientKey: make([]byte, 32), ServerKey: []byte("a key of 32 bytes, which no one k")[:32]})
		if err != nil {
			t.Fatal(err)
		}
		first := c.First()
		nonce := string(first[len("n,,n=u,r="):])
		_, err = c.Final([]byte("r=" + nonce + "x," + string(rest)))
		if verr := c.Verify(final); verr == nil || c.Done() {
			t.Errorf("believed: %v", err)
		}
	})
}

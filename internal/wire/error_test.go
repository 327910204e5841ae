package wire

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestErrorf(t *testing.T) {
	e := Errorf(TooManyConnections, "pool of %q: %w", "s1", io.EOF).WithDetail("All %d are busy.", 3).WithHint("Wait.").Fatal().At(7)
	if !errors.Is(e, io.EOF) {
		t.Error("the wrapped error is lost")
	}
	if got := SQLSTATE(fmt.Errorf("outer: %w", e)); got != TooManyConnections {
		t.Errorf("SQLSTATE %q", got)
	}
	want := `FATAL: pool of "s1": EOF (SQLSTATE 53300) DETAIL: All 3 are busy.`
	if e.Error() != want {
		t.Errorf("got %q, want %q", e.Error(), want)
	}
	if !e.EndsSession() {
		t.Error("a FATAL error ends the session")
	}
	back, err := DecodeError(AppendErrorResponse(nil, e)[5:])
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(e, back, cmpopts.IgnoreUnexported(Error{})); d != "" {
		t.Error(d)
	}
}

func TestAsError(t *testing.T) {
	e := Errorf(UniqueViolation, "twice")
	if AsError(fmt.Errorf("x: %w", e)) != e {
		t.Error("an Error in the chain must be found")
	}
	if got := AsError(io.EOF); got.Code != InternalError || got.Message != "EOF" || !errors.Is(got, io.EOF) {
		t.Errorf("got %v", got)
	}
}

// A zero byte in a text must not be able to add fields to a message.
func TestTextsEndAtZero(t *testing.T) {
	e := Errorf(SyntaxError, "near %q", "x")
	e.Message, e.Hint = "bad\x00Cevil", "\x00"
	back, err := DecodeError(AppendErrorResponse(nil, e)[5:])
	if err != nil || back.Message != "bad" || back.Code != SyntaxError {
		t.Errorf("got %+v, %v", back, err)
	}
	if b := AppendParameterStatus(nil, "a\x00b", "c"); !strings.HasSuffix(string(b), "a\x00c\x00") {
		t.Errorf("got %q", b)
	}
}

func TestDecodeError(t *testing.T) {
	for _, tt := range []struct {
		name, body string
		want       *Error
		sqlstate   string
	}{
		{name: "unknown field", body: "SERROR\x00C00000\x00Zwhat\x00Mm\x00\x00", want: &Error{Severity: "ERROR", Code: "00000", Message: "m"}},
		{name: "no severity V", body: "SFEHLER\x00Mm\x00\x00", want: &Error{Severity: "FEHLER", Message: "m"}},
		{name: "nothing", body: "", sqlstate: ProtocolViolation},
		{name: "no end", body: "SERROR\x00", sqlstate: ProtocolViolation},
		{name: "field without end", body: "SERR", sqlstate: ProtocolViolation},
		{name: "left over", body: "\x00x", sqlstate: ProtocolViolation},
		{name: "strange position", body: "Pabc\x00\x00", want: &Error{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := DecodeError([]byte(tt.body))
			if SQLSTATE(err) != tt.sqlstate {
				t.Fatalf("error %v, want SQLSTATE %q", err, tt.sqlstate)
			}
			if d := cmp.Diff(tt.want, got, cmpopts.IgnoreUnexported(Error{})); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestTagRows(t *testing.T) {
	for _, tt := range []struct {
		tag, head string
		rows      uint64
		ok        bool
	}{
		{"SELECT 5", "SELECT ", 5, true},
		{"INSERT 0 12", "INSERT 0 ", 12, true},
		{"COPY 18446744073709551616", "COPY 18446744073709551616", 0, false},
		{"BEGIN", "BEGIN", 0, false},
		{"CREATE TABLE", "CREATE TABLE", 0, false},
		{"", "", 0, false},
		{"12", "12", 0, false},
		{"SELECT ", "SELECT ", 0, false},
	} {
		head, rows, ok := TagRows([]byte(tt.tag))
		if string(head) != tt.head || rows != tt.rows || ok != tt.ok {
			t.Errorf("%q: %q %d %t", tt.tag, head, rows, ok)
		}
	}
}

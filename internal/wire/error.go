package wire

import (
	"errors"
	"fmt"
	"strconv"
)

// Severities of an Error, in their non-localised form (field V).
const (
	SeverityError   = "ERROR"   // the statement failed
	SeverityFatal   = "FATAL"   // the session ends
	SeverityPanic   = "PANIC"   // every session ends
	SeverityWarning = "WARNING" // severities of notices from here
	SeverityNotice  = "NOTICE"
	SeverityInfo    = "INFO"
)

// Error is an ErrorResponse or NoticeResponse. Source: PostgreSQL manual, "Error and Notice Message Fields". Empty fields
// are absent from the message; Positions count characters from 1, and 0 is absent.
type Error struct {
	Severity          string // V, never translated
	SeverityLocalized string // S; Severity when empty
	Code              string // C, the SQLSTATE: five characters, see the constants of this package
	Message           string // M
	Detail            string // D
	Hint              string // H
	Position          int    // P
	InternalPosition  int    // p
	InternalQuery     string // q
	Where             string // W
	Schema            string // s
	Table             string // t
	Column            string // c
	DataType          string // d
	Constraint        string // n
	File              string // F
	Line              int    // L
	Routine           string // R

	cause error
}

// Errorf makes an Error of severity ERROR. Message style is PostgreSQL's: lower case, no full stop. A %w operand is what
// errors.Is and errors.As find.
func Errorf(code, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Severity: SeverityError, Code: code, Message: err.Error(), cause: errors.Unwrap(err)}
}

// Aborted is the error of a command in a transaction that has failed.
func Aborted() *Error {
	return Errorf(InFailedSQLTransaction, "current transaction is aborted, commands ignored until end of transaction block")
}

// Noticef makes a notice of the given severity and SQLSTATE.
func Noticef(severity, code, format string, args ...any) *Error {
	return &Error{Severity: severity, Code: code, Message: fmt.Sprintf(format, args...)}
}

// WithHint sets the hint, a whole sentence. As WithDetail, At and Fatal it changes the error that was just made and
// returns it; it is not for errors that others hold already.
func (e *Error) WithHint(format string, args ...any) *Error {
	e.Hint = fmt.Sprintf(format, args...)
	return e
}

// WithDetail sets the detail, a whole sentence.
func (e *Error) WithDetail(format string, args ...any) *Error {
	e.Detail = fmt.Sprintf(format, args...)
	return e
}

// At sets the cursor position in the statement, in characters from 1.
func (e *Error) At(position int) *Error {
	e.Position = position
	return e
}

// Fatal makes the error one that ends the session.
func (e *Error) Fatal() *Error {
	e.Severity = SeverityFatal
	return e
}

// Error is the message with its severity and SQLSTATE, as psql prints with VERBOSITY verbose.
func (e *Error) Error() string {
	s := e.Severity + ": " + e.Message + " (SQLSTATE " + e.Code + ")"
	if e.Detail != "" {
		s += " DETAIL: " + e.Detail
	}
	return s
}

// Unwrap is what the message was made from with %w.
func (e *Error) Unwrap() error { return e.cause }

// EndsSession says whether the sender closes the connection behind this error.
func (e *Error) EndsSession() bool {
	return e.Severity == SeverityFatal || e.Severity == SeverityPanic
}

// SQLSTATE is the code of the *Error in err's chain, or "" when there is none.
func SQLSTATE(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// AsError is err itself when it is a *Error or wraps one, and otherwise an internal error (XX000) with its text: what a
// client is told about a failure that nobody gave a SQLSTATE.
func AsError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return Errorf(InternalError, "%w", err)
}

// DecodeError decodes the body of an ErrorResponse or NoticeResponse. Its strings are copies. Unknown fields are
// dropped, as the protocol asks.
func DecodeError(body []byte) (*Error, error) {
	e := new(Error)
	r := reader{b: body}
	for {
		k := r.byte()
		if k == 0 || r.bad {
			break
		}
		v := string(r.cstring())
		switch k {
		case 'S':
			e.SeverityLocalized = v
		case 'P':
			e.Position = atoi(v)
		case 'p':
			e.InternalPosition = atoi(v)
		case 'L':
			e.Line = atoi(v)
		default:
			if p := e.text(k); p != nil {
				*p = v
			}
		}
	}
	if err := r.end("ErrorResponse"); err != nil {
		return nil, err
	}
	if e.Severity == "" { // servers before 9.6 send the translated one only
		e.Severity = e.SeverityLocalized
	}
	if e.SeverityLocalized == e.Severity {
		e.SeverityLocalized = ""
	}
	return e, nil
}

// text is where the field of that code lives, or nil.
func (e *Error) text(code byte) *string {
	switch code {
	case 'V':
		return &e.Severity
	case 'C':
		return &e.Code
	case 'M':
		return &e.Message
	case 'D':
		return &e.Detail
	case 'H':
		return &e.Hint
	case 'q':
		return &e.InternalQuery
	case 'W':
		return &e.Where
	case 's':
		return &e.Schema
	case 't':
		return &e.Table
	case 'c':
		return &e.Column
	case 'd':
		return &e.DataType
	case 'n':
		return &e.Constraint
	case 'F':
		return &e.File
	case 'R':
		return &e.Routine
	}
	return nil
}

// AppendErrorResponse appends e as an ErrorResponse.
func AppendErrorResponse(dst []byte, e *Error) []byte { return appendError(dst, MsgErrorResponse, e) }

// AppendOldError appends the error that refuses a client which speaks protocol 1.0 or 2.0, as it reads it (send_message_to_frontend).
func AppendOldError(dst []byte, e *Error) []byte {
	return append(append(append(dst, MsgErrorResponse), "FATAL:  "+e.Message+"\n"...), 0)
}

// AppendNoticeResponse appends e as a NoticeResponse.
func AppendNoticeResponse(dst []byte, e *Error) []byte { return appendError(dst, MsgNoticeResponse, e) }

func appendError(dst []byte, typ byte, e *Error) []byte {
	dst, at := begin(dst, typ)
	severity := e.Severity
	if severity == "" {
		severity = SeverityError
	}
	localized := e.SeverityLocalized
	if localized == "" {
		localized = severity
	}
	dst = appendField(dst, 'S', localized)
	dst = appendField(dst, 'V', severity)
	for _, k := range [...]byte{'C', 'M', 'D', 'H'} {
		dst = appendField(dst, k, *e.text(k))
	}
	dst = appendNumber(dst, 'P', e.Position)
	dst = appendNumber(dst, 'p', e.InternalPosition)
	for _, k := range [...]byte{'q', 'W', 's', 't', 'c', 'd', 'n', 'F'} {
		dst = appendField(dst, k, *e.text(k))
	}
	dst = appendNumber(dst, 'L', e.Line)
	dst = appendField(dst, 'R', e.Routine)
	return finish(append(dst, 0), at)
}

// appendField leaves an empty field out. A zero byte would end the field early and let what follows pass for another
// field, so the text is cut there.
func appendField(dst []byte, code byte, s string) []byte {
	if s == "" {
		return dst
	}
	return appendCString(append(dst, code), s)
}

func appendNumber(dst []byte, code byte, n int) []byte {
	if n == 0 {
		return dst
	}
	return append(strconv.AppendInt(append(dst, code), int64(n), 10), 0)
}

func atoi(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0 // positions are for people; a strange one is worth less than the error that carries it
	}
	return n
}

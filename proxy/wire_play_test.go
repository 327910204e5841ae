package proxy_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// wireClient is a connection that a transcript is played on.
type wireClient struct {
	dsn  string
	conn net.Conn
	fe   *pgproto3.Frontend
	pid  uint32

	reported, knows map[string]string // by ParameterStatus: so far, and at the last ReadyForQuery
}

// dialWire logs in with pgconn and takes the connection over.
func dialWire(t *testing.T, dsn string, settings ...string) *wireClient {
	t.Helper()
	w, err := wireTo(t.Context(), t, dsn, settings...)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// wireTo is dialWire, and may fail.
func wireTo(ctx context.Context, t *testing.T, dsn string, settings ...string) (*wireClient, error) {
	cfg, err := pgconn.ParseConfig(dsn)
	if err != nil {
		return nil, err
	}
	for _, line := range settings {
		if name, value, ok := strings.Cut(line, " "); ok {
			cfg.RuntimeParams[name] = value
		}
	}
	pc, err := pgconn.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, err
	}
	if err := pc.SyncConn(ctx); err != nil {
		return nil, err
	}
	h, err := pc.Hijack()
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { _ = h.Conn.Close() })
	w := &wireClient{dsn: dsn, conn: h.Conn, fe: pgproto3.NewFrontend(h.Conn, h.Conn), pid: h.PID}
	w.reported, w.knows = h.ParameterStatuses, maps.Clone(h.ParameterStatuses)
	return w, nil
}

// wirePatience is how long an answer may take, on a busy machine too.
const wirePatience = 20 * time.Second

var frontendMessages = map[string]func() pgproto3.FrontendMessage{
	"Query":        func() pgproto3.FrontendMessage { return &pgproto3.Query{} },
	"Parse":        func() pgproto3.FrontendMessage { return &pgproto3.Parse{} },
	"Bind":         func() pgproto3.FrontendMessage { return &pgproto3.Bind{} },
	"Describe":     func() pgproto3.FrontendMessage { return &pgproto3.Describe{} },
	"Execute":      func() pgproto3.FrontendMessage { return &pgproto3.Execute{} },
	"Close":        func() pgproto3.FrontendMessage { return &pgproto3.Close{} },
	"Sync":         func() pgproto3.FrontendMessage { return &pgproto3.Sync{} },
	"Flush":        func() pgproto3.FrontendMessage { return &pgproto3.Flush{} },
	"CopyData":     func() pgproto3.FrontendMessage { return &pgproto3.CopyData{} },
	"CopyDone":     func() pgproto3.FrontendMessage { return &pgproto3.CopyDone{} },
	"CopyFail":     func() pgproto3.FrontendMessage { return &pgproto3.CopyFail{} },
	"FunctionCall": func() pgproto3.FrontendMessage { return &pgproto3.FunctionCall{} },
	"Terminate":    func() pgproto3.FrontendMessage { return &pgproto3.Terminate{} },
}

// run does one command of a transcript.
func (c *wireClient) run(t *testing.T, d *datadriven.TestData) string {
	t.Helper()
	switch d.Cmd {
	case "dial":
		_ = c.conn.Close() // the server may have done so
		*c = *dialWire(t, c.dsn, strings.Split(d.Input, "\n")...)
		return ""
	case "send":
		return c.play(t, d)
	}
	d.Fatalf(t, "unknown command %s", d.Cmd)
	return ""
}

func (c *wireClient) play(t *testing.T, d *datadriven.TestData) string {
	t.Helper()
	until := ""
	d.MaybeScanArgs(t, "until", &until)
	ready := 0
	for _, line := range strings.Split(d.Input, "\n") {
		name, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		if name == "" {
			continue
		}
		mk := frontendMessages[name]
		if name == "Raw" {
			raw := &rawMessage{typ: rest[0]}
			if err := json.Unmarshal([]byte(rest[1:]), &raw.body); err != nil {
				d.Fatalf(t, "%s: %v", line, err)
			}
			if raw.typ == 'Q' || raw.typ == 'F' || raw.typ == 'S' {
				ready++
			}
			c.fe.Send(raw)
			continue
		}
		if mk == nil {
			d.Fatalf(t, "unknown message %q", name)
		}
		m := mk()
		switch x := m.(type) {
		case *pgproto3.Query:
			x.String = rest
		case *pgproto3.CopyData:
			var s string
			if err := json.Unmarshal([]byte(rest), &s); err != nil {
				d.Fatalf(t, "%s: %v", line, err)
			}
			x.Data = latin1(s)
		default:
			if rest != "" {
				if err := json.Unmarshal([]byte(fields(name, rest)), m); err != nil {
					d.Fatalf(t, "%s: %v", line, err)
				}
			}
		}
		if name == "Query" || name == "Sync" || name == "FunctionCall" {
			ready++
		}
		c.fe.Send(m)
	}
	d.MaybeScanArgs(t, "ready", &ready)
	if err := c.conn.SetDeadline(time.Now().Add(wirePatience)); err != nil {
		t.Fatal(err)
	}
	if err := c.fe.Flush(); err != nil {
		return "(closed)\n"
	}
	var out strings.Builder
	others := "" // notifications of others
	for ready > 0 || until != "" {
		m, err := c.fe.Receive()
		if err != nil {
			var late net.Error
			if errors.As(err, &late) && late.Timeout() {
				return out.String() + "(nothing more)\n"
			}
			return out.String() + "(closed)\n"
		}
		name := reflect.TypeOf(m).Elem().Name()
		switch x := m.(type) {
		case *pgproto3.ParameterStatus:
			c.reported[x.Name] = x.Value
			continue
		case *pgproto3.ErrorResponse:
			fmt.Fprintf(&out, "%s %s %s %s\n", name, x.Severity, x.Code, x.Message)
			if d.HasArg("fields") {
				out.WriteString(otherFields(x))
			}
		case *pgproto3.NoticeResponse:
			fmt.Fprintf(&out, "%s %s %s %s\n", name, x.Severity, x.Code, x.Message)
			if d.HasArg("fields") {
				out.WriteString(otherFields((*pgproto3.ErrorResponse)(x)))
			}
		case *pgproto3.RowDescription:
			var cols []string
			for _, f := range x.Fields {
				cols = append(cols, fmt.Sprintf("%s:%d/%d", f.Name, f.DataTypeOID, f.Format))
			}
			fmt.Fprintf(&out, "%s %s\n", name, strings.Join(cols, " "))
		case *pgproto3.DataRow:
			var vals []string
			for _, v := range x.Values {
				if v == nil {
					vals = append(vals, "NULL")
				} else if len(v) > 100 {
					vals = append(vals, fmt.Sprintf("(%d bytes)", len(v)))
				} else {
					vals = append(vals, fmt.Sprintf("%q", v))
				}
			}
			fmt.Fprintf(&out, "%s %s\n", name, strings.Join(vals, " "))
		case *pgproto3.CommandComplete:
			fmt.Fprintf(&out, "%s %s\n", name, x.CommandTag)
		case *pgproto3.ReadyForQuery:
			for _, name := range slices.Sorted(maps.Keys(c.reported)) {
				if v := c.reported[name]; d.HasArg("status") && c.knows[name] != v && name != "tidemark.token" {
					fmt.Fprintf(&out, "ParameterStatus %s=%s\n", name, v)
				}
				c.knows[name] = c.reported[name]
			}
			fmt.Fprintf(&out, "%s%s %c\n", others, name, x.TxStatus)
			others = ""
			ready--
		case *pgproto3.ParameterDescription:
			fmt.Fprintf(&out, "%s %v\n", name, x.ParameterOIDs)
		case *pgproto3.CopyData:
			fmt.Fprintf(&out, "%s %q\n", name, x.Data)
		case *pgproto3.CopyInResponse:
			fmt.Fprintf(&out, "%s %d %d\n", name, x.OverallFormat, x.ColumnFormatCodes)
		case *pgproto3.CopyOutResponse:
			fmt.Fprintf(&out, "%s %d %d\n", name, x.OverallFormat, x.ColumnFormatCodes)
		case *pgproto3.FunctionCallResponse:
			if x.Result == nil {
				fmt.Fprintf(&out, "%s NULL\n", name)
			} else {
				fmt.Fprintf(&out, "%s %q\n", name, x.Result)
			}
		case *pgproto3.NotificationResponse:
			if len(x.Payload) > 100 {
				x.Payload = fmt.Sprintf("(%d bytes)", len(x.Payload))
			}
			if x.PID != c.pid {
				others += fmt.Sprintf("%s %q %q other\n", name, x.Channel, x.Payload)
				continue
			}
			fmt.Fprintf(&out, "%s%s %q %q own\n", others, name, x.Channel, x.Payload)
			others = ""
		default:
			fmt.Fprintf(&out, "%s\n", name)
		}
		if name == until {
			break
		}
	}
	return out.String()
}

// otherFields are those of an error or notice that its first line does not show, one a line.
func otherFields(e *pgproto3.ErrorResponse) string {
	var out strings.Builder
	for _, f := range []struct {
		name  string
		value any
	}{
		{"unlocalized", e.SeverityUnlocalized},
		{"detail", e.Detail},
		{"hint", e.Hint},
		{"position", e.Position},
		{"internal position", e.InternalPosition},
		{"internal query", e.InternalQuery},
		{"where", e.Where},
		{"schema", e.SchemaName},
		{"table", e.TableName},
		{"column", e.ColumnName},
		{"type", e.DataTypeName},
		{"constraint", e.ConstraintName},
	} {
		if !reflect.ValueOf(f.value).IsZero() {
			fmt.Fprintf(&out, "  %s: %s\n", f.name, strings.ReplaceAll(fmt.Sprint(f.value), "\n", "\n    "))
		}
	}
	return out.String()
}

// rawMessage is well framed; its body is whatever the transcript says, each character below U+0100 a byte.
type rawMessage struct {
	typ  byte
	body string
}

func (*rawMessage) Frontend()           {}
func (*rawMessage) Decode([]byte) error { return nil }

func (m *rawMessage) Encode(dst []byte) ([]byte, error) {
	body := latin1(m.body)
	dst = binary.BigEndian.AppendUint32(append(dst, m.typ), uint32(4+len(body)))
	return append(dst, body...), nil
}

// latin1 are the bytes of a string, each character below U+0100 one.
func latin1(s string) []byte {
	b := make([]byte, 0, len(s))
	for _, r := range s {
		b = append(b, byte(r))
	}
	return b
}

// fields makes JSON that pgproto3 reads: an object as it is, but with the letters that say what is described or closed,
// and text parameters, in short form. Arguments of functions are strings of bytes below U+0100.
func fields(name, rest string) string {
	if !strings.HasPrefix(rest, "{") {
		rest = "{" + rest + "}"
	}
	var m map[string]any
	if json.Unmarshal([]byte(rest), &m) != nil {
		return rest
	}
	switch name {
	case "FunctionCall":
		if args, ok := m["Arguments"].([]any); ok {
			for i, a := range args {
				if s, ok := a.(string); ok {
					args[i] = latin1(s) // which goes into JSON as base64, as a slice of bytes does
				}
			}
		}
	case "Bind":
		if ps, ok := m["Parameters"].([]any); ok {
			for i, p := range ps {
				if s, ok := p.(string); ok {
					ps[i] = map[string]string{"text": s}
				}
			}
		}
	}
	b, err := json.Marshal(m)
	if err != nil {
		return rest
	}
	return string(b)
}

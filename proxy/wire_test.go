package proxy_test

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// TestWire plays the transcripts under testdata/wire against PostgreSQL itself and against Tidemark on both engines: the
// same messages must be answered alike. With -rewrite the answers recorded are PostgreSQL's.
//
//	send [until=CopyInResponse]      messages, one a line: type, then a JSON object of its fields, or plain SQL for Query;
//	                                 Raw: its type and its body as a JSON string
//	----
//	what was received, up to as many ReadyForQuery as were asked for, or to the message named
//
// Parameter status messages are left out, and of errors all but severity, code and message.
func TestWire(t *testing.T) {
	f := newFixture(t, fixtureSpec{shards: 1})
	targets := []struct{ name, dsn string }{{"postgres", f.direct(0)}}
	if !rewriting() {
		targets = append(targets, struct{ name, dsn string }{"epoll", f.start(t, "epoll")}, struct{ name, dsn string }{"goroutines", f.start(t, "goroutines")})
	}
	files, err := filepath.Glob("testdata/wire/*")
	if err != nil || len(files) == 0 {
		t.Fatal("no transcripts", err)
	}
	for _, target := range targets {
		for _, file := range files {
			t.Run(target.name+"/"+filepath.Base(file), func(t *testing.T) {
				c := dialWire(t, target.dsn)
				datadriven.RunTest(t, file, func(t *testing.T, d *datadriven.TestData) string {
					if d.Cmd != "send" {
						d.Fatalf(t, "unknown command %s", d.Cmd)
					}
					until := ""
					d.MaybeScanArgs(t, "until", &until)
					return c.play(t, d, until)
				})
			})
		}
	}
}

// TestShardedWire plays the transcripts under testdata/sharded against Tidemark alone: PostgreSQL is no judge of what only a
// sharded database refuses. Both engines must give the same answers.
func TestShardedWire(t *testing.T) {
	files, err := filepath.Glob("testdata/sharded/*")
	if err != nil || len(files) == 0 {
		t.Fatal("no transcripts", err)
	}
	engines(t, func(t *testing.T, engineName string) {
		_, dsn := shop(t, engineName, fixtureSpec{})
		for _, file := range files {
			c := dialWire(t, dsn)
			datadriven.RunTest(t, file, func(t *testing.T, d *datadriven.TestData) string {
				until := ""
				d.MaybeScanArgs(t, "until", &until)
				return c.play(t, d, until)
			})
		}
	})
}

func rewriting() bool {
	f := lookupFlag("rewrite")
	return f == "true"
}

type wireClient struct {
	conn net.Conn
	fe   *pgproto3.Frontend
}

// dialWire logs in with pgconn and takes the connection over.
func dialWire(t *testing.T, dsn string) *wireClient {
	t.Helper()
	pc, err := pgconn.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	if err := pc.SyncConn(t.Context()); err != nil {
		t.Fatal(err)
	}
	h, err := pc.Hijack()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Conn.Close() })
	return &wireClient{conn: h.Conn, fe: pgproto3.NewFrontend(h.Conn, h.Conn)}
}

var frontendMessages = map[string]func() pgproto3.FrontendMessage{
	"Query":    func() pgproto3.FrontendMessage { return &pgproto3.Query{} },
	"Parse":    func() pgproto3.FrontendMessage { return &pgproto3.Parse{} },
	"Bind":     func() pgproto3.FrontendMessage { return &pgproto3.Bind{} },
	"Describe": func() pgproto3.FrontendMessage { return &pgproto3.Describe{} },
	"Execute":  func() pgproto3.FrontendMessage { return &pgproto3.Execute{} },
	"Close":    func() pgproto3.FrontendMessage { return &pgproto3.Close{} },
	"Sync":     func() pgproto3.FrontendMessage { return &pgproto3.Sync{} },
	"Flush":    func() pgproto3.FrontendMessage { return &pgproto3.Flush{} },
	"CopyData": func() pgproto3.FrontendMessage { return &pgproto3.CopyData{} },
	"CopyDone": func() pgproto3.FrontendMessage { return &pgproto3.CopyDone{} },
	"CopyFail": func() pgproto3.FrontendMessage { return &pgproto3.CopyFail{} },
}

func (c *wireClient) play(t *testing.T, d *datadriven.TestData, until string) string {
	t.Helper()
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
			x.Data = []byte(s)
		default:
			if rest != "" {
				if err := json.Unmarshal([]byte(fields(name, rest)), m); err != nil {
					d.Fatalf(t, "%s: %v", line, err)
				}
			}
		}
		if name == "Query" || name == "Sync" {
			ready++
		}
		c.fe.Send(m)
	}
	if err := c.conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if err := c.fe.Flush(); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for {
		m, err := c.fe.Receive()
		if err != nil {
			fmt.Fprintf(&out, "(connection: %v)\n", err)
			return out.String()
		}
		name := reflect.TypeOf(m).Elem().Name()
		switch x := m.(type) {
		case *pgproto3.ParameterStatus:
			continue
		case *pgproto3.ErrorResponse:
			fmt.Fprintf(&out, "%s %s %s %s\n", name, x.Severity, x.Code, x.Message)
		case *pgproto3.NoticeResponse:
			fmt.Fprintf(&out, "%s %s %s %s\n", name, x.Severity, x.Code, x.Message)
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
			fmt.Fprintf(&out, "%s %c\n", name, x.TxStatus)
			ready--
		case *pgproto3.ParameterDescription:
			fmt.Fprintf(&out, "%s %v\n", name, x.ParameterOIDs)
		case *pgproto3.CopyData:
			fmt.Fprintf(&out, "%s %q\n", name, x.Data)
		default:
			fmt.Fprintf(&out, "%s\n", name)
		}
		if name == until || until == "" && ready == 0 {
			return out.String()
		}
	}
}

// rawMessage is well framed; its body is whatever the transcript says, each character below U+0100 a byte.
type rawMessage struct {
	typ  byte
	body string
}

func (*rawMessage) Frontend()           {}
func (*rawMessage) Decode([]byte) error { return nil }

func (m *rawMessage) Encode(dst []byte) ([]byte, error) {
	var body []byte
	for _, r := range m.body {
		body = append(body, byte(r))
	}
	dst = binary.BigEndian.AppendUint32(append(dst, m.typ), uint32(4+len(body)))
	return append(dst, body...), nil
}

// fields makes JSON that pgproto3 reads: an object as it is, but with the letters that say what is described or closed,
// and text parameters, in short form.
func fields(name, rest string) string {
	if !strings.HasPrefix(rest, "{") {
		rest = "{" + rest + "}"
	}
	var m map[string]any
	if json.Unmarshal([]byte(rest), &m) != nil {
		return rest
	}
	if name == "Bind" {
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

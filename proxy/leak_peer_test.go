package proxy_test

import (
	"context"
	"fmt"
	"maps"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// action is one request of a client: some messages, and as many ReadyForQuery as they ask for.
type action struct {
	text     string // for people
	messages []pgproto3.FrontendMessage
	ready    int
	paced    int  // so many of the messages are sent batch by batch
	leaves   bool // the connection ends behind it, without a word if there is no Terminate among the messages
	hears    int  // ... when so many messages of the answer have come
	cancels  cancelling
}

// cancelling is whether and when the client asks to have its request cancelled.
type cancelling byte

const (
	cancelsNot    cancelling = iota
	cancelsInTime            // again and again, until it is
	cancelsLate              // when it has its answer
)

func simpleAction(sql string) action {
	return action{text: sql, messages: []pgproto3.FrontendMessage{&pgproto3.Query{String: sql}}, ready: 1}
}

// peer is one end of a connection, with what the server has told it.
type peer struct {
	conn   net.Conn
	pid    uint32
	key    []byte // for cancel requests
	fe     *pgproto3.Frontend
	params map[string]string
	status byte
	number uint64
}

var peers atomic.Uint64 // how many there have been

// newPeer logs in with pgconn and takes the connection over.
func newPeer(ctx context.Context, dsn string, options map[string]string) (*peer, error) {
	cfg, err := pgconn.ParseConfig(dsn)
	if err != nil {
		return nil, err
	}
	maps.Copy(cfg.RuntimeParams, options)
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
	return &peer{conn: h.Conn, pid: h.PID, key: h.SecretKey, fe: pgproto3.NewFrontend(h.Conn, h.Conn), params: h.ParameterStatuses, status: 'I', number: peers.Add(1)}, nil
}

// play sends the messages and returns the answer, a line for each message. Notifications are left out: when they come is
// anybody's guess.
func (p *peer) play(a action) string {
	if err := p.conn.SetDeadline(time.Now().Add(leakTimeout)); err != nil {
		return err.Error()
	}
	for _, m := range a.messages {
		p.fe.Send(p.own(m))
	}
	if err := p.fe.Flush(); err != nil && !a.leaves {
		return err.Error()
	}
	over := p.cancelling(a)
	defer over()
	if a.leaves {
		for range a.hears {
			m, err := p.fe.Receive()
			if _, ready := m.(*pgproto3.ReadyForQuery); ready || err != nil {
				break
			}
		}
		over()
		_ = p.conn.Close() // the test is what the other side makes of it
		return ""
	}
	var out strings.Builder
	for ready := a.ready; ready > 0; {
		m, err := p.receive(&out)
		if err != nil {
			break
		}
		if _, ok := m.(*pgproto3.ReadyForQuery); ok {
			ready--
		}
	}
	return out.String()
}

// gid is what stands in requests and answers for the identifier of a transaction in two phases: all databases of a server have those together.
const gid = "GID"

func (p *peer) gid() string { return fmt.Sprintf("leak %d %d", os.Getpid(), p.number) }

// own is the message with the peer's own identifier in it.
func (p *peer) own(m pgproto3.FrontendMessage) pgproto3.FrontendMessage {
	switch x := m.(type) {
	case *pgproto3.Query:
		return &pgproto3.Query{String: strings.ReplaceAll(x.String, gid, p.gid())}
	case *pgproto3.Parse:
		y := *x
		y.Query = strings.ReplaceAll(x.Query, gid, p.gid())
		return &y
	}
	return m
}

// cancelling begins to cancel the request if that is to be, and returns what to call when it is answered.
func (p *peer) cancelling(a action) (answered func()) {
	switch a.cancels {
	case cancelsLate:
		return p.cancel
	case cancelsInTime:
		stop, done := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(done)
			for wait := time.Millisecond; ; wait = 50 * time.Millisecond {
				select {
				case <-stop:
					return
				case <-time.After(wait):
					p.cancel()
				}
			}
		}()
		return sync.OnceFunc(func() { close(stop); <-done })
	}
	return func() {}
}

// cancel asks, and returns when that is over.
func (p *peer) cancel() {
	c, err := net.Dial("tcp", p.conn.RemoteAddr().String())
	if err != nil {
		return
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(leakTimeout))
	if b, err := (&pgproto3.CancelRequest{ProcessID: p.pid, SecretKey: p.key}).Encode(nil); err == nil {
		_, _ = c.Write(b)
		_, _ = c.Read(make([]byte, 1))
	}
}

// playUntil sends the messages and returns the answer up to the ReadyForQuery behind a row that begins with end: of what an error skips
// no other end is known.
func (p *peer) playUntil(a action, end string) string {
	if err := p.conn.SetDeadline(time.Now().Add(leakTimeout)); err != nil {
		return err.Error()
	}
	for i, m := range a.messages {
		p.fe.Send(m)
		if i >= a.paced || !endsBatch(m) {
			continue
		}
		if err := p.fe.Flush(); err != nil {
			return "(connection: " + err.Error()
		}
		time.Sleep(2 * time.Millisecond) // what has not been answered by then is another test
	}
	if err := p.fe.Flush(); err != nil {
		return "(connection: " + err.Error()
	}
	var out strings.Builder
	for ended := false; ; {
		m, err := p.receive(&out)
		if err != nil {
			return out.String()
		}
		switch x := m.(type) {
		case *pgproto3.DataRow:
			ended = ended || len(x.Values) > 0 && string(x.Values[0]) == end
		case *pgproto3.ReadyForQuery:
			if ended {
				return out.String()
			}
		}
	}
}

// endsBatch says whether a client may wait for an answer behind the message.
func endsBatch(m pgproto3.FrontendMessage) bool {
	switch m.(type) {
	case *pgproto3.Sync, *pgproto3.Query:
		return true
	}
	return false
}

// receive takes one message of the answer and writes its line.
func (p *peer) receive(out *strings.Builder) (pgproto3.BackendMessage, error) {
	m, err := p.fe.Receive()
	if err != nil {
		fmt.Fprintf(out, "  (connection: %v)\n", err)
		return nil, err
	}
	switch x := m.(type) {
	case *pgproto3.ParameterStatus:
		p.params[x.Name] = x.Value
	case *pgproto3.NotificationResponse:
	case *pgproto3.ErrorResponse:
		fmt.Fprintf(out, "  %s %s %s", x.Severity, x.Code, strings.ReplaceAll(x.Message, p.gid(), gid))
		for _, more := range []string{x.Detail, x.Hint} {
			if more != "" {
				fmt.Fprintf(out, "; %s", more)
			}
		}
		if x.Position != 0 {
			fmt.Fprintf(out, "; at %d", x.Position)
		}
		out.WriteString("\n")
	case *pgproto3.NoticeResponse:
		fmt.Fprintf(out, "  %s %s %s\n", x.Severity, x.Code, x.Message)
	case *pgproto3.RowDescription:
		out.WriteString("  columns")
		for _, f := range x.Fields {
			fmt.Fprintf(out, " %s:%d", f.Name, f.DataTypeOID)
		}
		out.WriteString("\n")
	case *pgproto3.DataRow:
		out.WriteString(" ")
		for _, v := range x.Values {
			if v == nil {
				out.WriteString(" NULL")
			} else {
				fmt.Fprintf(out, " %q", v)
			}
		}
		out.WriteString("\n")
	case *pgproto3.CommandComplete:
		fmt.Fprintf(out, "  %s\n", x.CommandTag)
	case *pgproto3.ReadyForQuery:
		p.status = x.TxStatus
		fmt.Fprintf(out, "  ready %c\n", x.TxStatus)
	case *pgproto3.ParameterDescription:
		fmt.Fprintf(out, "  parameters %v\n", x.ParameterOIDs)
	case *pgproto3.CopyData:
		fmt.Fprintf(out, "  copied %q\n", x.Data)
	default:
		fmt.Fprintf(out, "  %T\n", m)
	}
	return m, nil
}

package proxy

import (
	"bytes"
	"context"
	"math/rand/v2"
	"net"
	"strings"
	"time"

	"github.com/tidemarkdb/tidemark/internal/loop"
	"github.com/tidemarkdb/tidemark/internal/sql"
	"github.com/tidemarkdb/tidemark/router"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
)

// Tracing is where spans go and whose are made unasked. The spans, with the names and attributes of OpenTelemetry's
// conventions for databases:
//
//	TRANSACTION shop           from BEGIN to its end
//	  SELECT shop              a request: a query string, or a batch of the extended protocol; outside of a transaction the root
//	    plan                   reading and routing its first statement
//	    acquire                a server connection, waiting for it included
//	    SELECT 127.0.0.1:5432  what a server was asked, from the first byte sent to its last answer
//	    level                  waiting until a read model has what the session wrote
//	    scan                   reading a read model
type Tracing struct {
	Tracer trace.Tracer
	// Sample is the share of transactions, and of requests outside of one, that are traced without being asked for.
	Sample float64
	// QueryText has spans carry the statement, without its literals.
	QueryText bool
}

// traced is the trace that a session has under way. It is nil for all others, which is all that tracing costs them.
//
// Who asks for one: the client, by a traceparent with the sampled flag, in the comment behind a statement or in
// tidemark.traceparent; an administrator, by TRACE; or chance, by Tracing.Sample, where there is no traceparent.
type traced struct {
	*Tracing
	s    *session
	wall time.Time     // the same moment as
	mono time.Duration // this one of loop.Clock

	tx      trace.Span      // of the transaction under way; nil: it has none
	inTx    context.Context // its children's
	request trace.Span      // nil: its plan is not known yet
	in      context.Context // the request's parent, then its children's
	began   time.Duration   // of the request; 0: none is under way
	batch   bool            // it is extended, and its Sync is still to come
	text    []byte          // of its first statement, without literals
	word    string          // that it begins with
	plans   int             // statements in it
	command string          // of the first one
	failed  bool            // it, or another one of the transaction
}

// trace begins the trace of a request whose first statement has this text, if somebody wants one; a batch goes on until Sync.
func (s *session) trace(text []byte, batch bool) {
	if t := s.p.live.Load().Tracing; t != nil {
		s.traceWith(t, text, batch)
	}
}

func (s *session) traceWith(t *Tracing, text []byte, batch bool) {
	x := s.traced
	if x != nil && x.began != 0 { // pipelined requests share a trace until all are answered
		x.batch = x.batch || batch
		return
	}
	ctx, asked := context.Background(), false
	parent := commented(text)
	inTx := x != nil && x.tx != nil
	if parent == "" && !inTx {
		parent = s.own.traceparent
	}
	if parent != "" {
		ctx = parentOf(parent)
		asked = trace.SpanContextFromContext(ctx).IsSampled()
	} else if s.tx.state == txNone && t.Sample > 0 && !s.drawn {
		s.drawn = batch // once for all of it
		asked = rand.Float64() < t.Sample
	}
	until := time.Duration(s.client.tracedUntil.Load())
	if !asked && !inTx && (until == 0 || loop.Clock() > until) {
		return
	}
	if inTx && !asked {
		ctx = x.inTx
	}
	if x == nil {
		x = &traced{s: s}
		s.traced = x
	}
	x.Tracing, x.in, x.batch, x.word = t, ctx, batch, leading(text)
	if batch {
		x.command = "PREPARE" // unless a Bind comes
	}
	x.wall, x.mono = time.Now(), loop.Clock()
	x.began = x.mono
	if t.QueryText {
		x.text = sql.Redact(text)
		x.text = x.text[:min(len(x.text), tracedText)]
	}
	if s.link != nil {
		s.link.Code = ""
	}
}

// tracedText bounds the text of a statement in a span, in bytes.
const tracedText = 2048

// commented is the traceparent in the comment at the end of a statement, as sqlcommenter writes it:
//
//	SELECT … /*action='buy',traceparent='00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'*/
//
// A statement that ends so ends in a comment: every quote would have to end otherwise.
func commented(text []byte) string {
	text = bytes.TrimRight(text, "; \t\r\n")
	if len(text) < 4 || string(text[len(text)-2:]) != "*/" {
		return ""
	}
	text = text[max(0, len(text)-maxComment):]
	text = text[bytes.LastIndex(text, []byte("/*"))+1:]
	_, value, found := bytes.Cut(text, []byte("traceparent='"))
	if value, _, ended := bytes.Cut(value, []byte("'")); found && ended && validParent(string(value)) {
		return string(value)
	}
	return ""
}

// maxComment bounds how far from its end a statement is searched, in bytes.
const maxComment = 2048

// parentOf reads a traceparent as https://www.w3.org/TR/trace-context has it.
func parentOf(traceparent string) context.Context {
	return propagation.TraceContext{}.Extract(context.Background(), propagation.MapCarrier{"traceparent": traceparent})
}

func validParent(traceparent string) bool {
	return trace.SpanContextFromContext(parentOf(traceparent)).IsValid()
}

// planned notes the plan of a statement of the request. That of a setting of the proxy's own, as of traceparent, is no news.
func (x *traced) planned(p *router.Plan) {
	now := loop.Clock()
	if x.plans++; x.plans > 1 || x.began == 0 {
		return
	}
	if p.Kind == router.Setting && p.Setting.Own && x.request == nil {
		x.began = 0
		return
	}
	if p.Kind == router.Tx && p.Tx.Op == router.Begin && x.tx == nil && x.request == nil && x.s.tx.state == txNone {
		x.inTx, x.tx = x.begin(x.in, "TRANSACTION", trace.SpanKindServer)
		x.in = x.inTx
	}
	x.describe(p)
	x.span("plan", x.began, now, nil)
}

// describe has the request's span tell its plan.
func (x *traced) describe(p *router.Plan) {
	if x.began == 0 {
		return
	}
	x.command = x.operation(p)
	x.start()
	x.request.SetName(x.called(x.s.p.cfg().Database))
	x.request.SetAttributes(attribute.String("tidemark.plan", strings.ToLower(p.Kind.String())))
	if x.command != "" {
		x.request.SetAttributes(semconv.DBOperationName(x.command))
	}
	if p.Reason != "" {
		x.request.SetAttributes(attribute.String("tidemark.reason", p.Reason))
	}
}

// operation is a plan's statement, as db.operation.name.
func (x *traced) operation(p *router.Plan) string {
	switch {
	case p.Tag != "":
		return p.Tag
	case p.Command == sql.DDL, p.Command == sql.Utility:
		return x.word
	case p.Command == sql.Unknown, p.Command == sql.Empty:
		return ""
	}
	return strings.ToUpper(p.Command.String())
}

// leading is a statement's first word; empty when it begins otherwise.
func leading(text []byte) string {
	text = bytes.TrimLeft(text, " \t\r\n")
	n := 0
	for n < len(text) && n < 20 && (text[n]|0x20 >= 'a' && text[n]|0x20 <= 'z') {
		n++
	}
	return strings.ToUpper(string(text[:n]))
}

func host(a net.Addr) string {
	if h, _, err := net.SplitHostPort(hostPort(a)); err == nil {
		return h
	}
	return hostPort(a)
}

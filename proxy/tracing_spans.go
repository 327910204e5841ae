package proxy

import (
	"context"
	"strings"
	"time"

	"github.com/tidemarkdb/tidemark/internal/engine"
	"github.com/tidemarkdb/tidemark/internal/loop"
	"github.com/tidemarkdb/tidemark/internal/wire"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
)

// at is a moment of loop.Clock as spans have it.
func (x *traced) at(t time.Duration) trace.SpanEventOption {
	return trace.WithTimestamp(x.wall.Add(t - x.mono))
}

// start begins the request's span.
func (x *traced) start() {
	if x.request != nil {
		return
	}
	kind := trace.SpanKindServer
	if x.tx != nil && x.in == x.inTx {
		kind = trace.SpanKindInternal
	}
	x.in, x.request = x.begin(x.in, x.command, kind)
	if len(x.text) > 0 {
		x.request.SetAttributes(semconv.DBQueryText(strings.ToValidUTF8(string(x.text), "")))
	}
}

// begin makes a span that begins with the request and says whose it is.
func (x *traced) begin(in context.Context, what string, kind trace.SpanKind) (context.Context, trace.Span) {
	database := x.s.p.cfg().Database
	return x.Tracer.Start(in, strings.TrimSpace(what+" "+database), x.at(x.began), trace.WithSpanKind(kind), trace.WithAttributes(
		semconv.DBSystemNamePostgreSQL, semconv.DBNamespace(database), semconv.UserName(x.s.client.user), semconv.ClientAddress(host(x.s.client.addr)),
		attribute.Int64("tidemark.client_id", int64(x.s.client.pid)),
	))
}

// called is the name of a span about what the statement does to target.
func (x *traced) called(target string) string { return strings.TrimSpace(x.command + " " + target) }

// span adds a part of the request to its trace. x may be nil.
func (x *traced) span(name string, from, to time.Duration, err error, attrs ...attribute.KeyValue) {
	if x == nil || x.began == 0 {
		return
	}
	x.start()
	_, span := x.Tracer.Start(x.in, name, x.at(from), trace.WithAttributes(attrs...))
	if err != nil {
		fail(span, wire.AsError(err).Code)
	}
	span.End(x.at(to))
}

// acquired adds the wait for a server connection.
func (x *traced) acquired(shard string, l *engine.Link, from time.Duration, err error) {
	attrs := []attribute.KeyValue{attribute.String("tidemark.shard", shard)}
	if l != nil {
		l.Code = ""
		attrs = append(attrs, attribute.String("tidemark.role", l.Conn.Endpoint().Role().String()))
	}
	x.span("acquire", from, loop.Clock(), err, attrs...)
}

// served adds what a server has answered, or not.
func (x *traced) served(l *engine.Link, now time.Duration) {
	if x.began == 0 || l.Since == 0 {
		return
	}
	x.start()
	e := l.Conn.Endpoint()
	_, span := x.Tracer.Start(x.in, x.called(e.Name()), x.at(l.Since), trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(
		semconv.DBSystemNamePostgreSQL, semconv.DBNamespace(e.Database()), semconv.ServerAddress(e.Host()), semconv.ServerPort(e.Port()),
		attribute.String("tidemark.shard", l.Shard), attribute.String("tidemark.role", e.Role().String()), attribute.Int64("tidemark.server_pid", int64(l.Conn.PID())),
	))
	code := l.Code
	if l.Err != nil {
		code = l.Err.Code
	}
	if l.Code = ""; code != "" {
		fail(span, code)
		x.fail(code)
	}
	span.End(x.at(now))
}

// fail has the request's span tell an error by its SQLSTATE: the message may hold data.
func (x *traced) fail(code string) {
	if x.began == 0 {
		return
	}
	x.start()
	fail(x.request, code)
	x.failed = true
}

// fail tells an error by its SQLSTATE, or by a word of ours where no server or client hears of one.
func fail(span trace.Span, code string) {
	span.SetStatus(codes.Error, "")
	span.SetAttributes(semconv.ErrorTypeKey.String(code))
	if len(code) == 5 {
		span.SetAttributes(semconv.DBResponseStatusCode(code))
	}
}

// answered ends the request's span if all of it is answered, and the transaction's if that is over.
func (x *traced) answered() {
	s := x.s
	if x.batch || s.batch.sent || s.after.active || s.link != nil && !s.link.Idle() {
		return
	}
	x.close(loop.Clock())
	if s.tx.state != txNone && x.tx != nil {
		return
	}
	x.closeTx(loop.Clock())
	s.traced = nil
}

func (x *traced) close(now time.Duration) {
	if x.began == 0 {
		return
	}
	x.start()
	if x.plans > 1 {
		x.request.SetAttributes(semconv.DBOperationBatchSize(x.plans))
	}
	x.request.End(x.at(now))
	x.request, x.in, x.began, x.plans, x.text, x.command, x.batch = nil, nil, 0, 0, nil, "", false
}

func (x *traced) closeTx(now time.Duration) {
	if x.tx == nil {
		return
	}
	if x.failed {
		x.tx.SetStatus(codes.Error, "")
	}
	x.tx.End(x.at(now))
	x.tx = nil
}

// abandon ends the trace of a session that ends.
func (x *traced) abandon() {
	if x == nil {
		return
	}
	now := loop.Clock()
	if x.began != 0 {
		x.fail("client_left")
	}
	x.close(now)
	x.closeTx(now)
}

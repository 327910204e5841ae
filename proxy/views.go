package proxy

import (
	"context"
	"errors"
	"strconv"
	"time"

	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

	"github.com/tidemarkdb/tidemark/cqrs"
	"github.com/tidemarkdb/tidemark/internal/engine"
	"github.com/tidemarkdb/tidemark/internal/loop"
	"github.com/tidemarkdb/tidemark/internal/wire"
	"github.com/tidemarkdb/tidemark/router"
)

// scanTimeout bounds the reading of one read model, beside statement_timeout of the session.
const scanTimeout = 5 * time.Minute

// scanView answers a SELECT from a read model: it waits until the view has what the session wrote, then streams rows.
func (s *session) scanView(p *router.Plan, bound *wire.Bind) error {
	v := s.p.views[p.Scan.View]
	if v == nil {
		return wire.Errorf(wire.UndefinedTable, "read model %q does not exist", p.Scan.View)
	}
	q := queryOf(p.Scan)
	if err := s.checkZones(v, q.Where); err != nil {
		return err
	}
	formats := make([]int16, len(p.Scan.Columns))
	if bound != nil {
		for i := range formats {
			formats[i] = bound.ResultFormat(i)
		}
	} else {
		s.SetOut(s.appendFields(s.Out(), p, nil))
	}
	ctx, stop := context.WithTimeout(context.Background(), scanTimeout)
	defer stop()
	s.client.interruptible(stop)
	defer s.client.interruptible(nil)
	if err := s.catchUp(ctx, v, q); err != nil {
		return err
	}
	from := loop.Clock()
	rows, err := s.Feed(ctx, func(ctx context.Context, row func([]byte) error) error {
		var buf []byte
		return v.Scan(ctx, q, func(values [][]byte) error {
			var err error
			if buf, err = appendRow(buf[:0], p.Scan.Columns, formats, values); err != nil {
				return err
			}
			return row(buf)
		})
	})
	s.traced.span("scan", from, loop.Clock(), err, semconv.DBCollectionName(p.Scan.View))
	if err != nil {
		return viewError(ctx, readModel(p.Scan.View), err)
	}
	s.SetOut(wire.AppendCommandComplete(s.Out(), "SELECT "+strconv.FormatUint(rows, 10)))
	return nil
}

// appendRow appends one DataRow.
func appendRow(dst []byte, columns []router.ScanColumn, formats []int16, values [][]byte) ([]byte, error) {
	dst = append(dst, wire.MsgDataRow, 0, 0, 0, 0, byte(len(values)>>8), byte(len(values)))
	for i, v := range values {
		if v == nil {
			dst = append(dst, 0xff, 0xff, 0xff, 0xff)
			continue
		}
		at := len(dst)
		dst = append(dst, 0, 0, 0, 0)
		var err error
		if dst, err = engine.EncodeColumn(columns[i].OID, formats[i], v, dst); err != nil {
			return dst, err
		}
		putLen(dst[at:], len(dst)-at-4)
	}
	putLen(dst[1:], len(dst)-1)
	return dst, nil
}

func putLen(b []byte, n int) {
	b[0], b[1], b[2], b[3] = byte(n>>24), byte(n>>16), byte(n>>8), byte(n)
}

// catchUp waits until the view has what the session's token asks for.
func (s *session) catchUp(ctx context.Context, v cqrs.View, q cqrs.Query) error {
	if s.own.eventual || s.p.levels == nil || isOwn(v.Name()) {
		return nil // what Tidemark knows of itself is never behind
	}
	if s.tx.state == txOpen && s.tx.wrote || s.batch.sent && s.batch.wrote {
		return s.uncommitted(v.Name())
	}
	if s.link == nil { // within a transaction nothing new is committed
		if err := s.ascertain(); err != nil {
			return err
		}
	}
	if len(s.token) == 0 {
		return nil
	}
	name := v.Name()
	_, lookup := cqrs.LookupIDs(v.Columns(), q.Where)
	key := cqrs.LookupKey(v.Columns(), q.Where) // dead letters of other keys do not concern a lookup
	covered, err := s.p.levels.Covers(name, s.token, key)
	if err == nil && covered && lookup {
		return nil
	}
	token, from := s.token, loop.Clock()
	s.Task.Await(func() {
		if !covered && err == nil {
			wait, stop := context.WithTimeout(ctx, s.own.waitTimeout)
			defer stop()
			err = s.p.levels.Wait(wait, name, token, key)
		}
		if err == nil && !lookup {
			err = v.Refresh(ctx)
		}
	})
	s.traced.span("level", from, loop.Clock(), err, semconv.DBCollectionName(name))
	switch {
	case err == nil:
		return nil
	case errors.Is(err, cqrs.ErrStale) && ctx.Err() == nil && onTimeouts[s.own.onTimeout] == OnTimeoutStale:
		s.SetOut(wire.AppendNoticeResponse(s.Out(), wire.Noticef(wire.SeverityWarning, wire.Warning, "the answer may be older than this session's writes: %v", err)))
		return nil
	}
	return viewError(ctx, readModel(name), err)
}

// uncommitted answers the wish to read a read model in a transaction, or a pipeline before its Sync, that may have changed what it is made from.
func (s *session) uncommitted(name string) error {
	if onTimeouts[s.own.onTimeout] == OnTimeoutStale {
		s.SetOut(wire.AppendNoticeResponse(s.Out(), wire.Noticef(wire.SeverityWarning, wire.Warning, "the answer may be older than this session's writes, which are not committed yet")))
		return nil
	}
	return wire.Errorf(wire.FeatureNotSupported, "reading read model %q in a transaction that has written is not supported", name).
		WithDetail("It cannot have what is not committed, and would show the state of before.").
		WithHint("Commit first. With tidemark.on_timeout = 'stale' or tidemark.consistency = 'eventual' the old state is shown.")
}

func readModel(name string) string { return "read model " + strconv.Quote(name) }

// viewError gives an error of what is scanned its SQLSTATE. ctx is the scan's: a store's own timeouts are not the statement's.
func viewError(ctx context.Context, what string, err error) error {
	var e *wire.Error
	switch {
	case errors.As(err, &e), errors.Is(err, engine.ErrClientGone), errors.Is(err, engine.ErrClosing):
		return err
	case errors.Is(ctx.Err(), context.Canceled):
		return errCancelled()
	case errors.Is(err, cqrs.ErrUnsupported):
		return wire.Errorf(wire.FeatureNotSupported, "%s: %w", what, err)
	case errors.Is(err, cqrs.ErrStale):
		return wire.Errorf(wire.ObjectNotInPrerequisiteState, "%s: %w", what, err).
			WithHint("Raise tidemark.wait_timeout, set tidemark.on_timeout to 'stale', or look at the projector and its dead-letter queue.")
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return wire.Errorf(wire.QueryCanceled, "reading %s took too long: %w", what, err)
	}
	return wire.Errorf(wire.SystemError, "%s cannot be read now: %w", what, err)
}

// queryOf is a scan as views take it.
func queryOf(x *router.Scan) cqrs.Query {
	q := cqrs.Query{Limit: x.Limit, Offset: x.Offset, Count: x.Count}
	for _, c := range x.Columns {
		if c.Column != "" {
			q.Columns = append(q.Columns, c.Column)
		}
	}
	for _, w := range x.Where {
		q.Where = append(q.Where, cqrs.Predicate{Column: w.Column, Op: cqrs.Compare(w.Op), Values: w.Values})
	}
	for _, o := range x.Order {
		q.Order = append(q.Order, cqrs.Order{Column: o.Column, Desc: o.Desc, NullsFirst: o.NullsFirst})
	}
	return q
}

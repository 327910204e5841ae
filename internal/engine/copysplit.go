package engine

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/tidemarkdb/tidemark/internal/wire"
	"github.com/tidemarkdb/tidemark/router"
)

// maxLine bounds, in bytes, what is gathered of one line of a split COPY: up to where its key ends.
const maxLine = 64 << 20

// CopySplit runs COPY table FROM STDIN in text format over several links: each of the client's lines goes to the link of
// its shard, or to all of them for a reference table. linkOf maps a shard's index in the shard map to its link. All
// links do it inside a transaction, committed when all have succeeded.
//
// After an error the client's remaining copy messages are left to the caller, who drops them as PostgreSQL does.
func (r *Relay) CopySplit(links []*Link, linkOf []*Link, sql string, c *router.Copy) (rows uint64, err error) {
	replies := make([]Reply, len(links))
	for i, l := range links {
		if _, err := r.Ask(l, "BEGIN", MuteAll); err != nil {
			return 0, err
		}
		l.SetOut(wire.AppendQuery(l.Out(), sql))
		l.Expect(Expect{Kind: Query, Mute: MuteAll, Reply: &replies[i]})
		for !replies[i].CopyIn && !l.Idle() && l.Err == nil {
			if err := r.Serve(); err != nil {
				return 0, err
			}
		}
		if err := firstError(links[:i+1], replies); err != nil {
			return 0, err
		}
	}
	format, err := wire.DecodeCopyResponse(replies[0].Desc)
	if err != nil {
		return 0, err
	}
	r.SetOut(wire.AppendCopyInResponse(r.Out(), 0, make([]int16, format.NumColumns())))

	s := splitter{r: r, c: c, links: links, linkOf: linkOf, long: longLine}
	if err := s.run(func() error { return firstError(links, replies) }); err != nil {
		return 0, err
	}
	for _, l := range links {
		l.SetOut(wire.AppendCopyDone(l.Out()))
	}
	for i, l := range links {
		if err := r.Await(l); err != nil {
			return 0, err
		}
		if err := firstError(links[i:i+1], replies[i:]); err != nil {
			return 0, err
		}
		_, n, _ := wire.TagRows([]byte(replies[i].Tag))
		if c.Key >= 0 {
			rows += n
		} else {
			rows = n
		}
	}
	return rows, r.CommitAll(links)
}

func firstError(links []*Link, replies []Reply) error {
	for i, l := range links {
		switch {
		case l.Err != nil:
			return l.Err
		case replies[i].Err != nil:
			return replies[i].Err
		}
	}
	return nil
}

// splitter cuts the client's copy data into lines and deals them out.
type splitter struct {
	r      *Relay
	c      *router.Copy
	links  []*Link
	linkOf []*Link
	part   []byte // a line whose end has not come
	line   int    // number of the line in hand, from 1
	ended  bool   // the end marker has come: the rest is ignored
	long   int    // longLine, or less in tests
	into   *Link  // where the rest of a long line goes; nil: none is under way
	look   int    // bytes that part must have before its key is looked for again
}

// run reads the client's messages up to CopyDone. failed reports what a link has answered meanwhile.
func (s *splitter) run(failed func() error) error {
	for {
		typ, size, err := s.r.Header()
		if err != nil {
			return err
		}
		if size == 0 {
			if err := s.r.Serve(); err != nil {
				return err
			}
			if err := failed(); err != nil { // the client hears of it at once: it may wait for that
				return err
			}
			continue
		}
		switch typ {
		case wire.MsgCopyData:
			s.r.Consume(wire.HeaderLen)
			if err := s.data(size-wire.HeaderLen, failed); err != nil {
				return err
			}
		case wire.MsgCopyDone:
			s.r.Consume(size)
			return s.last()
		case wire.MsgCopyFail:
			frame, err := s.r.Frame(wire.SmallMessageLimit)
			if err != nil {
				return err
			}
			reason, err := wire.DecodeCopyFail(frame[wire.HeaderLen:])
			if err != nil {
				return err
			}
			e := wire.Errorf(wire.QueryCanceled, "COPY from stdin failed: %s", reason)
			s.r.Consume(size)
			return e
		case wire.MsgFlush, wire.MsgSync: // PostgreSQL ignores both while it reads copy data
			s.r.Consume(size)
		default:
			return wire.Errorf(wire.ProtocolViolation, "unexpected message type 0x%02X during COPY from stdin", typ).Fatal()
		}
	}
}

// data takes the n bytes of one CopyData as they arrive. Lines may begin and end anywhere in it.
func (s *splitter) data(n int, failed func() error) error {
	for size := n; n > 0; {
		b := s.r.Input()
		if len(b) == 0 {
			if err := s.r.MoreOf(size); err != nil {
				return err
			}
			continue
		}
		b = b[:min(len(b), n)]
		if err := s.lines(b); err != nil {
			s.r.Consume(len(b))
			if serr := s.r.Skip(n - len(b)); serr != nil {
				return serr
			}
			return err
		}
		n -= len(b)
		s.r.Consume(len(b))
		for _, l := range s.links {
			if err := s.r.awaitRoom(l); err != nil {
				return err
			}
		}
		if err := failed(); err != nil {
			if serr := s.r.Skip(n); serr != nil {
				return serr
			}
			return err
		}
	}
	return nil
}

// lines deals out the whole rows in b, together with what was left before, and keeps the rest.
func (s *splitter) lines(b []byte) error {
	if s.c.Key < 0 {
		for _, l := range s.links {
			l.SetOut(wire.AppendCopyData(l.Out(), b))
		}
		return nil
	}
	if s.ended {
		return nil
	}
	if s.into != nil {
		s.part = append(s.part, b...)
		if err := s.passOn(); err != nil || s.into != nil {
			return err
		}
		b = s.part
	} else if len(s.part) > 0 {
		if len(s.part)+len(b) > maxLine {
			return wire.Errorf(wire.ProgramLimitExceeded, "the key of line %d of COPY has not come within %d bytes", s.line+1, maxLine).
				WithHint("Name the key before the columns that are so large.")
		}
		whole := bytes.IndexByte(b, '\n') >= 0 // a long row is not looked at again for each piece of it
		s.part = append(s.part, b...)
		if !whole {
			return s.stream()
		}
		b = s.part
	}
	for !s.ended {
		n := s.c.Row(b)
		if n == 0 {
			break
		}
		if err := s.deal(b[:n-1]); err != nil {
			return err
		}
		b = b[n:]
	}
	s.part = append(s.part[:0], b...)
	return s.stream()
}

// last deals with the last line, which need not end with a newline.
func (s *splitter) last() error {
	switch {
	case s.c.Key < 0 || s.ended:
	case s.into != nil:
		row := bytes.TrimSuffix(s.part, []byte("\r"))
		if bytes.IndexByte(row, '\r') >= 0 {
			return where(errCarriageReturn(), s.c, s.line)
		}
		appendLine(s.into, row)
	case len(s.part) > 0:
		return s.deal(s.part)
	}
	return nil
}

// deal sends one line where it belongs.
func (s *splitter) deal(line []byte) error {
	s.line++
	s.look = 0
	row := bytes.TrimSuffix(line, []byte("\r"))
	if len(row) == 2 && row[0] == '\\' && row[1] == '.' {
		s.ended = true
		return nil
	}
	if bytes.IndexByte(row, '\r') >= 0 {
		return errCarriageReturn()
	}
	shard, err := s.c.Place(row)
	if err != nil {
		return where(err, s.c, s.line)
	}
	appendLine(s.linkOf[shard], row)
	return nil
}

func errCarriageReturn() *wire.Error {
	return wire.Errorf(wire.BadCopyFileFormat, "literal carriage return found in data").
		WithHint(`Use "\r" to represent carriage return, and end lines with a newline.`)
}

// appendLine queues one line as a CopyData message of its own.
func appendLine(l *Link, row []byte) {
	out := append(l.out, wire.MsgCopyData, 0, 0, 0, 0)
	binary.BigEndian.PutUint32(out[len(out)-4:], uint32(4+len(row)+1))
	out = append(out, row...)
	l.out = append(out, '\n')
}

// where says in which line of the COPY an error lies.
func where(err error, c *router.Copy, line int) error {
	var e *wire.Error
	var r *router.Refusal
	if errors.As(err, &r) {
		e = wire.Errorf(r.Code, "%s", r.Message)
		e.Detail, e.Hint = r.Detail, r.Hint
	} else {
		copied := *wire.AsError(err)
		e = &copied
	}
	e.Where = fmt.Sprintf("COPY %s, line %d", c.Table, line)
	return e
}

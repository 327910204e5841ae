package engine

import (
	"bytes"

	"github.com/tidemarkdb/tidemark/internal/wire"
)

// longLine is the size in bytes from which a line of a split COPY is not gathered any more: it goes to its shard as it comes,
// once its key is known.
const longLine = 1 << 20

// stream begins to pass on the line whose first part is in hand, if that is long enough and has the key; it may have to wait
// for that up to maxLine.
func (s *splitter) stream() error {
	if s.into != nil || len(s.part) < max(s.long, s.look) {
		return nil
	}
	if !s.c.HasKey(s.part) {
		s.look = 2 * len(s.part) // not at each piece again
		return nil
	}
	shard, err := s.c.Place(s.part)
	if err != nil {
		s.line++
		return where(err, s.c, s.line)
	}
	s.line++
	s.into = s.linkOf[shard]
	return s.passOn()
}

// passOn passes on what is in hand of a long line, and ends that where its newline has come. What may yet turn out to be
// its end is kept: a carriage return, and a backslash that decides about what follows.
func (s *splitter) passOn() error {
	end := s.c.Row(s.part)
	n := end - 1
	if end == 0 {
		n = len(s.part)
	}
	n -= len(s.part[:n]) - len(bytes.TrimSuffix(s.part[:n], []byte("\r")))
	if end == 0 {
		slashes := 0
		for slashes < n && s.part[n-1-slashes] == '\\' {
			slashes++
		}
		n -= slashes % 2
	}
	if bytes.IndexByte(s.part[:n], '\r') >= 0 {
		return where(errCarriageReturn(), s.c, s.line)
	}
	if end > 0 {
		appendLine(s.into, s.part[:n])
		s.into, s.look = nil, 0
		s.part = append(s.part[:0], s.part[end:]...)
		return nil
	}
	if n > 0 {
		s.into.SetOut(wire.AppendCopyData(s.into.Out(), s.part[:n]))
		s.part = append(s.part[:0], s.part[n:]...)
	}
	return nil
}

package engine

import (
	"encoding/binary"
	"errors"

	"github.com/tidemarkdb/tidemark/internal/backend"
	"github.com/tidemarkdb/tidemark/internal/loop"
	"github.com/tidemarkdb/tidemark/internal/wire"
)

// pull reads once from the server and passes on what came. It reports whether anything did.
func (l *Link) pull(r *Relay) bool {
	n, err := l.Conn.IO.Read(l.in.space(l.bulk.on))
	if n > 0 {
		l.in.w += n
		l.bulk.read(l.Conn.IO, n)
		if b := l.in.bytes(); l.answered(r, b) {
			l.in.consume(len(b))
		} else {
			l.consume(r)
		}
		if l.Owed() == 0 {
			l.bulk.end(l.Conn.IO) // nobody may find the connection like that
		}
		return true
	}
	if err == nil || errors.Is(err, loop.ErrWouldBlock) {
		l.in.release()
		return false
	}
	l.in.drop()
	l.broke(err)
	return true
}

// stretch is what a link has read and goes through: b[from:pos] is to be forwarded. A nil one has nothing.
type stretch struct {
	b         []byte
	from, pos int
}

// cut gives the client what is to be forwarded so far, ahead of what the caller adds.
func (st *stretch) cut(r *Relay) {
	if st != nil {
		r.Reply(st.b[st.from:st.pos])
		st.from = st.pos
	}
}

// drop leaves the next n bytes out.
func (st *stretch) drop(r *Relay, n int) {
	st.cut(r)
	st.pos += n
	st.from = st.pos
}

// consume goes through what was read. Runs of messages that are forwarded leave as one piece, without a copy.
func (l *Link) consume(r *Relay) {
	st := stretch{b: l.in.bytes()}
	for st.pos < len(st.b) && l.Err == nil {
		have := st.b[st.pos:]
		if l.rest > 0 {
			n := min(l.rest, len(have))
			l.rest -= n
			if l.mute {
				st.drop(r, n)
			} else {
				st.pos += n
			}
			continue
		}
		if len(have) < wire.HeaderLen {
			break
		}
		typ, size := have[0], int(int32(binary.BigEndian.Uint32(have[1:])))
		if size < 4 {
			l.broke(l.unexpected(typ))
			break
		}
		if typ == 'D' || typ == 'd' {
			l.mute = l.head == len(l.queue) || l.queue[l.head].Mute&MuteRows != 0
			if l.mute {
				if e := l.first(); e != nil && e.Reply != nil && typ == 'D' && e.Reply.Row == nil && size < maxSteering {
					if len(have) < 1+size {
						break // the proxy's own rows are small: wait for all of it
					}
					e.Reply.Row = append([]byte{}, have[wire.HeaderLen:1+size]...)
				}
			}
			if l.mute || len(have) < 1+size {
				l.rest = 1 + size
			} else {
				st.pos += 1 + size
			}
			continue
		}
		if len(have) < 1+size {
			if size <= maxSteering || !l.large(r, typ, size, &st) {
				break
			}
			continue
		}
		if l.message(r, typ, have[wire.HeaderLen:1+size], &st) {
			st.pos += 1 + size
		} else {
			st.drop(r, 1+size)
		}
		e := l.first()
		if e == nil {
			continue
		}
		if typ == 'C' && e.Kind == Query && e.Reply != nil && e.Reply.Between != nil {
			st.cut(r)
			e.Reply.Between(e.Reply.Tags)
			e = l.first()
		}
		if e != nil && e.Kind == Synthetic {
			l.synthetic(r, &st)
		}
	}
	if st.from < st.pos {
		if len(r.out) == 0 {
			r.forward(st.b[st.from:st.pos])
		} else {
			r.Reply(st.b[st.from:st.pos])
		}
	}
	l.in.consume(st.pos)
	if l.in.full() { // a message that steers and is larger than a chunk: an error with a long text, a wide table's row description
		l.in.grow(min(1+int(binary.BigEndian.Uint32(l.in.bytes()[1:])), maxSteering))
	}
	r.writePending()
}

// message handles one complete message that steers; it says whether the client gets it. st is cut before it adds anything itself.
func (l *Link) message(r *Relay, typ byte, body []byte, st *stretch) (forward bool) {
	e := l.first()
	switch typ {
	case 'S': // ParameterStatus: the client's view of the session, passed on but where the proxy changes settings itself
		name, value, err := wire.DecodeParameterStatus(body)
		if err != nil {
			l.broke(err)
			return false
		}
		l.Conn.SetParam(name, value)
		return (e == nil || e.Mute&MuteStatus == 0) && !backend.OfServer(string(name))
	case 'A': // NotificationResponse
		return r.Overhears == nil || r.Overhears(l, body)
	case 'N':
		return e != nil && (e.Mute&MuteError == 0 || e.Reply != nil && e.Reply.PassNotices)
	case 'E':
		return l.failed(r, e, body, st)
	}
	if typ == 'Z' && l.Synced > 0 && (e == nil || e.Reply != nil && e.Reply.Counts) {
		l.Counted++
		return false
	}
	if e == nil {
		l.broke(l.unexpected(typ))
		return false
	}
	switch typ {
	case '1', '2', '3':
		mute := e.Mute&MuteAck != 0
		l.done()
		return !mute
	case 't':
		if e.Reply != nil {
			e.Reply.Row = append([]byte{}, body...)
		}
		return e.Mute&MuteDesc == 0
	case 'T', 'n':
		mute := e.Mute&MuteDesc != 0
		if e.Reply != nil && typ == 'T' {
			e.Reply.Desc = append([]byte{}, body...)
		}
		if e.Kind == Describe {
			l.done()
		}
		return !mute
	case 'C', 'I', 's':
		l.Copying, l.Synced = false, 0
		mute := e.Mute&MuteTag != 0
		if e.Unseen != nil && e.next() {
			return false
		}
		if e.Reply != nil && typ == 'C' && len(body) > 0 {
			mute = mute && e.Reply.Tags >= int(e.Reply.PassTags)
			e.Reply.Tag = string(body[:len(body)-1])
			e.Reply.Tags++
		}
		if e.Begins {
			l.begun, l.Conn.TxStatus = begunAnswered, wire.TxOpen
		}
		if e.Kind == Execute {
			l.done()
		}
		return !mute
	case 'G', 'W':
		if l.early > 0 {
			l.early--
		} else {
			l.Copying = true
		}
		if e.Reply != nil {
			e.Reply.CopyIn, e.Reply.Desc = true, append([]byte{}, body...)
		}
		return e.Mute&MuteCopy == 0
	case 'H', 'c':
		return e.Mute&MuteRows == 0
	case 'V':
		return e.Mute&MuteRows == 0
	case 'Z':
		if len(body) != 1 || (e.Kind != Sync && e.Kind != Query && e.Kind != Function) {
			l.broke(l.unexpected(typ))
			return false
		}
		l.Conn.TxStatus = body[0]
		l.Conn.Outstanding--
		l.Skipping, l.Copying = false, false
		mute := e.Mute&MuteReady != 0
		l.done()
		return !mute
	}
	l.broke(l.unexpected(typ))
	return false
}

// EndCopy notes that the client's CopyDone or CopyFail goes to the server. It may have come before the server said that it
// takes copy data at all.
func (l *Link) EndCopy() {
	if !l.Copying {
		l.early, l.ended = l.early+1, len(l.queue)
	}
	l.Copying = false
}

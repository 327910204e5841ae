package engine

import "github.com/tidemarkdb/tidemark/internal/wire"

// A transaction begins on its server ahead of its first statement, in the same write. If that BEGIN fails, of a timeout or by a cancel
// request, what comes behind must not run: it would outside of the transaction, for good. So BEGIN is no Query, but a Parse, Bind and
// Execute without a Sync: the server skips whatever it is sent behind an error there, Queries as well, up to a Sync. Err is that error then,
// and the connection may be of use all the same: see Unbegun. A Close, which cannot fail, leaves the client no portal.
//
// The answer comes with that to what is sent behind, a Query or a batch with its Sync. Where the relay waits before, the server is sent a Flush.

// begun says how far a link's transaction has begun.
type begun uint8

const (
	begunAnswered begun = iota // or there is none
	begunSent
	begunFlushed // its answer will come
	begunSynced  // it would not have what comes now skipped
)

// runUnnamed runs the unnamed statement by the unnamed portal.
var runUnnamed = wire.AppendClose(wire.AppendExecute(wire.AppendBind(nil, "", "", nil, nil, nil), "", 0), wire.KindPortal, "")

// Begin sends BEGIN, with whatever options, ahead of what comes next. The client hears of an error only.
func (l *Link) Begin(sql []byte) {
	l.out = append(wire.AppendParse(l.out, "", sql, nil), runUnnamed...)
	l.Conn.Unnamed = 0
	for _, k := range [...]Kind{Parse, Bind, Execute} {
		l.Expect(Expect{Kind: k, Mute: MuteAll &^ MuteError, Begins: true})
	}
	l.Expect(Expect{Kind: Close, Mute: MuteAll})
	l.begun = begunSent
}

// Begins says whether it is not known yet that the link's transaction has begun, and more may be run outside of it: Await that it has.
func (l *Link) Begins() bool { return l.begun == begunSynced && l.Err == nil }

// expects notes what is sent behind BEGIN.
func (b *begun) expects(k Kind) {
	switch {
	case *b == begunAnswered:
	case k == Sync:
		*b = begunSynced
	case k == Query && *b == begunSent, k == Function && *b == begunSent:
		*b = begunFlushed
	}
}

// askBegun has the answer to a BEGIN come although nothing has been sent behind it that brings one.
func (l *Link) askBegun() {
	if l.begun == begunSent && l.Err == nil {
		l.begun = begunFlushed
		l.out = wire.AppendFlush(l.out)
		l.flush()
	}
}

// Unbegun says whether Err is that of BEGIN, and the link can go on with Regain when Fail has answered.
func (l *Link) Unbegun() bool {
	if !l.unbegun || l.lossy {
		return false
	}
	for i := l.head; i < len(l.queue)-1; i++ {
		if l.queue[i].Kind == Sync {
			return false // what is behind that may have been run
		}
	}
	return true
}

// Regain has the server go on when its BEGIN has failed, by a Sync. It answers that, and those that it was sent before.
func (r *Relay) Regain(l *Link, syncs uint64) error {
	l.Err, l.unbegun, l.begun, l.Skipping, l.Copying = nil, false, begunAnswered, false, false
	l.early, l.ended, l.Conn.Outstanding = 0, 0, 0
	l.out = wire.AppendSync(l.out)
	for range syncs + 1 {
		l.Expect(Expect{Kind: Sync, Mute: MuteAll})
	}
	return r.Await(l)
}

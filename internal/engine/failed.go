package engine

import (
	"fmt"

	"github.com/tidemarkdb/tidemark/internal/wire"
)

// failed handles an ErrorResponse.
func (l *Link) failed(r *Relay, e *Expect, body []byte, st *stretch) (forward bool) {
	l.Copying = false
	err, bad := wire.DecodeError(body)
	if bad != nil {
		l.broke(bad)
		return false
	}
	if e != nil && e.Begins && !err.EndsSession() {
		l.Err, l.unbegun = err, true // what comes behind is skipped, see Begin
		return false
	}
	if e == nil || err.EndsSession() {
		// FATAL and PANIC end the connection: the client hears of it through the replies that it is owed.
		err.Severity, err.SeverityLocalized = wire.SeverityError, ""
		l.Err = err
		return false
	}
	if l.repeats(e, err) {
		return false
	}
	l.Errors++
	l.Code = err.Code
	l.OutOfStep = err.Code == wire.ProtocolViolation && err.Routine == "CopyGetData"
	if e.Instead != nil {
		l.Code = e.Instead.Code
	}
	if err.Code == wire.FeatureNotSupported && err.Routine == "RevalidateCachedQuery" {
		l.Stale = e.Statement
	}
	forward = e.Mute&MuteError == 0
	at := 0
	if e.Reply != nil && e.Kind == Query { // that of an Execute may be one for all of its batch, and it runs one statement
		at = e.Reply.Tags
	}
	if e.Names != nil && e.Names.tell(err, at) && forward {
		st.cut(r)
		r.SetOut(wire.AppendErrorResponse(r.Out(), err))
		forward = false
	}
	if e.Instead != nil {
		st.cut(r)
		r.SetOut(wire.AppendErrorResponse(r.Out(), e.Instead))
		forward = false
	}
	if e.Reply != nil && e.Reply.Err == nil {
		e.Reply.Err = err
	}
	if e.Kind == Query || e.Kind == Function || e.Kind == Sync {
		return forward
	}
	var unparsed Unparsed
	before := uint64(0) // what the first Parse of the unnamed statement that is skipped would have replaced
	for failing := e; e != nil && e.Kind != Sync; e = l.first() {
		if e.Kind == Parse {
			if before == 0 && e != failing {
				before = e.Replaces
			}
			last := l.Conn.Unnamed == e.Statement
			if l.Forget(e.Statement); last {
				l.Conn.Unnamed = before
			}
			if e.Undo == nil && e.Mute&MuteAck == 0 {
				if unparsed.To = e.Statement; unparsed.From == 0 {
					unparsed.From, unparsed.Failed = e.Statement, e == failing
				}
			}
		}
		if e.Undo != nil {
			e.Undo()
		}
		if e.Reply != nil && e.Reply.Err == nil {
			e.Reply.Err = err
		}
		l.done()
	}
	l.Conn.Statements.Settled()
	if unparsed.From != 0 {
		l.Unparsed = append(l.Unparsed, unparsed)
	}
	l.Skipping = l.first() == nil
	return forward
}

// repeats says whether the batch whose first request has just failed will be sent again: the server refuses the statement,
// not its execution, and nothing is queued behind the batch.
func (l *Link) repeats(e *Expect, err *wire.Error) bool {
	if !l.MayRepeat || !e.Again || e.Statement == 0 {
		return false
	}
	stale := err.Code == wire.FeatureNotSupported && err.Routine == "RevalidateCachedQuery"
	lost := err.Code == wire.InvalidSQLStatementName
	last := &l.queue[len(l.queue)-1]
	if !stale && !lost || last.Kind != Sync || !last.Again {
		return false
	}
	for i := l.head; i < len(l.queue)-1; i++ {
		if l.queue[i].Kind == Sync {
			return false
		}
	}
	l.Again = append([]Expect(nil), l.queue[l.head:len(l.queue)-1]...)
	last.Mute |= MuteReady
	for l.first() != last {
		l.pop(l.first())
	}
	return true
}

// Unparsed are the Parses of the unnamed statement in one batch that had no effect, by the ids of the statements. PostgreSQL drops
// the statement that was there before for one that fails, and leaves it for one that is skipped.
type Unparsed struct {
	From, To uint64
	Failed   bool // the first of them has failed
}

// Forget takes back that a statement is prepared: its Parse failed, or was not looked at, or it is the Undo of a request that
// prepares by other means.
func (l *Link) Forget(statement uint64) {
	if l.Conn.Unnamed == statement {
		l.Conn.Unnamed = 0
	}
	l.Conn.Statements.Unparsed(statement)
}

// unexpected is what a server sends that none sends there.
func (l *Link) unexpected(typ byte) error {
	if e := l.first(); e != nil {
		return fmt.Errorf("message of type %q in the answer to one of type %q", typ, e.Kind)
	}
	return fmt.Errorf("message of type %q that nobody asked for", typ)
}

// broke marks the connection as lost.
func (l *Link) broke(cause error) {
	if l.Err == nil {
		l.Err = wire.Errorf(wire.ConnectionFailure, "server connection to shard %s was lost", l.Shard).
			WithHint("The statement may or may not have taken effect; check before repeating it.")
		l.Cause = cause
	}
	l.Torn = l.rest > 0 && !l.mute
	l.out, l.sent = nil, 0
}

// Fail answers all that the client is owed by a broken link: the error for the request in progress and each one
// behind it, and ReadyForQuery with status for each Sync and Query. It says whether a Sync is still to come, whose
// reply the proxy then owes itself.
func (l *Link) Fail(r *Relay, status byte) (syncOwed bool) {
	err, told := l.Err, false
	if e := l.first(); e != nil && len(l.Again) > 0 { // the Sync of a batch that would have been sent again
		e.Mute = 0
	}
	for e := l.first(); e != nil; e = l.first() {
		if e.Reply != nil && e.Reply.Err == nil {
			e.Reply.Err = l.Err
		}
		if e.Undo != nil && (told || e.Kind != Synthetic) {
			e.Undo()
		}
		if e.prepares() {
			l.Forget(e.Statement)
		}
		if e.Kind == Synthetic {
			if !told {
				r.Reply(e.Bytes)
			}
			l.done()
			continue
		}
		if !told && e.Mute&MuteError == 0 {
			r.SetOut(wire.AppendErrorResponse(r.Out(), err))
			told = true
		}
		syncOwed = true
		if e.Kind == Sync || e.Kind == Query || e.Kind == Function {
			if e.Mute&MuteReady == 0 {
				r.SetOut(wire.AppendReadyForQuery(r.Out(), status))
				if told = false; l.unbegun { // which is an error of the first
					err = wire.Aborted()
				}
			}
			syncOwed = false
		}
		l.done()
	}
	return syncOwed
}

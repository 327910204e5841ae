package proxy

import (
	"errors"
	"time"

	"github.com/tidemarkdb/tidemark/internal/backend"
	"github.com/tidemarkdb/tidemark/internal/engine"
	"github.com/tidemarkdb/tidemark/internal/loop"
	"github.com/tidemarkdb/tidemark/internal/lsn"
	"github.com/tidemarkdb/tidemark/internal/wire"
	"github.com/tidemarkdb/tidemark/router"
)

// session is one client after its login. It runs as one task; everything here happens on that task.
//
// It reads as a loop over the client's messages. While it waits for the next one the relay moves rows, and settle looks
// at whether the server connection in use has answered all that it was asked and can go back to the pool.
type session struct {
	*engine.Relay
	p      *Proxy
	client *client
	// identity is who logs in to servers for this session; nil: the shared role.
	identity *backend.Identity
	mode     backend.Mode

	link  *engine.Link            // the server connection in use, nil between transactions
	place *backend.Waiter         // in the queue for one, see queued.go; nil: it is in none
	pins  map[string]*engine.Link // by shard: connections that hold state of this session and stay with it, see pins.go
	// askState: a statement may have changed what pins, or settings.
	askState bool
	closes   bool      // batch.closes, of batches that may not be answered yet
	drawn    bool      // chance has decided whether the batch, or the request that has queued, is traced
	parted   bool      // the client was told why its session ends
	rests    bool      // it waits for the client's next message, and its task has no stack: see goOn
	steady   bool      // it is calm, for nothing but the fast path has run since it was
	meaning            // what code has done to the meaning of names, see coded.go
	lasting  *lasting  // nil: no connection stays until its end, for all that is known
	question *question // what is asked for askState; nil: nothing in particular

	tx    transaction
	batch batch
	syncs uint64 // how many the client has sent
	after after

	stmts    map[string]*statement
	spare    *statement // the last unnamed one that a Query has dropped, for its memory
	replaced []replaced // unnamed statements whose successors may not be prepared after all
	kept     uint64     // how many statements with names the client has prepared
	lent     *lent      // statements that server connections have under the client's own names; nil: none ever had
	portals  portals
	settings settings
	own      ownSettings
	token    lsn.Token
	reported uint64          // what the client knows of its settings, see reported.go
	unsure   map[string]bool // shards where something was written and no mark could be taken

	view    *router.Session // what of the settings changes the meaning of SQL
	strung  *queryString    // the query string in hand; nil: it has one statement
	owns    []ownStep       // of the query string in hand: Tidemark's own settings that are still to be done
	values  [][]byte        // reused by Bind
	formats []int16
	again   []byte // the batch that was sent last, if it may be sent again
	last    route
	traced  *traced                      // the trace under way; nil: none, see tracing.go
	metered []*Meter                     // of the shards that it has used
	ear     *ear                         // nil: it listens to nothing over a shared connection
	counts  func() []byte                // sets after.errors; nil: it was not needed yet
	resume  func(*loop.Task, loop.Cause) // goOn
	began   time.Duration                // when the transaction under way did, by loop.Clock; 0: none is
}

// after is what is to be done when the link has answered everything, before the client hears ReadyForQuery if it was held.
type after struct {
	active  bool
	hold    bool              // ReadyForQuery was muted, the session gives it
	schema  bool              // read the catalog again
	discard bool              // it is DISCARD ALL
	state   bool              // stateSQL was sent
	mark    bool              // the probe was sent
	mended  bool              // a transaction that had failed has been ended
	aborted bool              // replay began in a transaction that had failed: its COMMIT is a ROLLBACK
	counted bool              // errors is
	begun   bool              // a transaction block, and it has not been ended
	unclear bool              // there are several of tx, or settings beside it, so that an error leaves open which have run
	errors  uint32            // what the link had seen before its first request
	tx      *router.TxControl // the transaction command whose outcome changes the session's state
	changes []*router.SettingChange
	// foreseen is what becomes of the session's settings, where that changes what names mean; else nil.
	foreseen *foreseen
	replay   *queryString   // in place of changes: settings and transaction commands of one query string, in order
	outcome  engine.Reply   // of these statements
	looked   int            // how many they are
	prepared []preparedStep // what they do to prepared statements
	aside    []*aside       // prepared statements that are to be forgotten
	probe    engine.Reply
}

// plain says that nothing of it changes what the session keeps.
func (a *after) plain() bool {
	return !a.schema && !a.mark && !a.discard && !a.state && a.tx == nil && len(a.changes) == 0 && a.replay == nil && a.prepared == nil
}

// run serves the client until it leaves, or there is nothing to do: then the session rests. The error says why it ended, nil for a Terminate.
// Busy says that the client was being served when the session rested.
func (s *session) run(busy bool) error {
	for ; ; busy = true {
		typ, size, err := s.next(busy)
		if err != nil || s.rests {
			return err
		}
		if typ == wire.MsgTerminate {
			return s.complete()
		}
		if err := s.handle(typ, size); err != nil {
			return err
		}
		s.batch.unasked = inBatch(typ)
	}
}

// inBatch says whether a message's answer may wait for a Sync or Flush.
func inBatch(typ byte) bool {
	switch typ {
	case wire.MsgParse, wire.MsgBind, wire.MsgDescribe, wire.MsgExecute, wire.MsgClose:
		return true
	}
	return false
}

// serverUser is who the session's server connections log in as.
func (s *session) serverUser() string {
	if s.identity != nil {
		return s.identity.User
	}
	return s.p.serverUser
}

// complete waits for the end of the statement that the client sent before it said goodbye, and gives the connection back: the client
// counts on that, whether it stays to hear of it or not.
func (s *session) complete() error {
	for l := s.link; l != nil && l.Owed() > 0 && l.Err == nil && !l.Copying && !s.batch.sent; {
		if err := s.Step(time.Time{}); err != nil {
			return err
		}
	}
	if err := s.settle(); err != nil || s.link != nil {
		return err
	}
	return s.Flush(0)
}

// next finds the header of the client's next message. It returns only when that message may be handled, or s.rests.
func (s *session) next(busy bool) (typ byte, size int, err error) {
	for {
		if l := s.link; l != nil && l.Synced > 0 && !l.Copying && l.Err == nil {
			if err := s.recount(l, 0); err != nil {
				return 0, 0, err
			}
		}
		if err := s.settle(); err != nil {
			return 0, 0, err
		}
		if s.traced != nil || len(s.pins) > 0 || s.ear != nil {
			if err := s.attend(); err != nil {
				return 0, 0, err
			}
		}
		if s.Crowded() && !s.Gone() {
			if err := s.thin(); err != nil {
				return 0, 0, err
			}
			continue
		}
		if (!s.after.active || s.batch.sent || s.link != nil && s.link.Copying) && !s.repeats() {
			if typ, size, err = s.Header(); err != nil || size > 0 && !s.begunAhead(size) {
				return typ, size, err
			}
			// As PostgreSQL does, which tells of errors at once, and of a COPY that begins.
			s.Holds = s.batch.unasked && size == 0 && !s.skipping() && !s.batch.copying && (s.link == nil || !s.link.Copying)
		}
		switch {
		case s.Gone() && (s.link == nil || !s.Behind(0)): // else the next message waits for the end of this one
			return 0, 0, engine.ErrClientGone
		case s.p.draining.Load() && s.link == nil && s.tx.state == txNone && !s.batch.sent:
			if err := s.leaves(busy); err != nil {
				return 0, 0, err
			}
			continue
		}
		if l := s.link; l != nil { // only here nothing is half done that a batch could get in the way of
			l.MayRepeat = true
		}
		if s.rests, err = s.Rest(s.resume); s.rests {
			return 0, 0, nil
		}
		if s.awoken(); err != nil {
			return 0, 0, err
		}
	}
}

// awoken ends what is so only while the session waits for the client's next message.
func (s *session) awoken() {
	s.Holds = false
	if l := s.link; l != nil {
		l.MayRepeat = false
	}
}

// attend looks at what only few sessions have.
func (s *session) attend() error {
	if s.traced != nil {
		s.traced.answered()
	}
	if err := s.lostPin(); err != nil {
		return err
	}
	if s.ear != nil {
		return s.hear()
	}
	return nil
}

// begunAhead says whether the client's next message has only begun, and the link, which has still to answer what came before, may be
// free then: to wait for the rest of the message must not keep it.
func (s *session) begunAhead(size int) bool {
	l := s.link
	return l != nil && len(s.Input()) < size && l.Owed() > 0 && !s.batch.sent && !l.Copying
}

// leaves ends an idle session while the process drains: errDrained. Not when something has just come from the client, nor
// when it has logged in a moment ago and not asked anything yet: clients that connect for each transaction would notice.
func (s *session) leaves(busy bool) error {
	until := time.Time{}
	if s.Client.Readable() {
		until = time.Now().Add(drainPoll)
	}
	if s.last.plan == nil && time.Since(s.client.since) < firstRequest {
		until = s.client.since.Add(firstRequest)
	}
	if until.IsZero() {
		return s.lull(busy)
	}
	if err := s.Step(until); err != nil && !errors.Is(err, engine.ErrDeadline) {
		return err
	}
	return nil
}

// lull ends a session a moment later, or in answer to its client's next request: libpq drops an error that it reads in one breath with an answer,
// so that the next request would fail for no known reason. A busy client has just had one, and may come to read it late; others may have.
func (s *session) lull(busy bool) error {
	moment := 10 * drainPoll
	if busy {
		moment = firstRequest
	}
	for until := time.Now().Add(moment); !s.Gone() && len(s.Input()) == 0; {
		if err := s.Step(until); errors.Is(err, engine.ErrDeadline) {
			break
		} else if err != nil {
			return err
		}
	}
	return errDrained
}

// firstRequest is how long a client may take to ask something before it counts as idle, from its login on, and from an answer on.
const firstRequest = 2 * time.Second

// handle takes one message from the client.
//
//	message                  goes to
//	Query                    simple.go
//	Parse … Sync             extended.go
//	CopyData, Done, Fail     copy.go: the link, while it takes a COPY; dropped otherwise, as PostgreSQL does
//	FunctionCall             function.go: the default shard
func (s *session) handle(typ byte, size int) error {
	if s.batch.sent && size > len(s.Input()) {
		if err := s.whole(typ, size); err != nil {
			return err
		}
	}
	if s.skipping() && typ != wire.MsgSync {
		return s.Skip(size)
	}
	if s.batch.ending && !s.batch.copying {
		if err := s.queryEnded(); err != nil {
			return err
		}
	}
	if s.batch.copying || s.link != nil && s.link.Copying {
		if handled, err := s.amidCopy(typ, size); handled || err != nil {
			return err
		}
	}
	if typ == wire.MsgQuery || typ == wire.MsgFunctionCall { // an error in the batch that it stands in skips it
		if err := s.prepareHeld(); err != nil {
			return s.failBatch(err)
		}
		if s.batch.sent {
			if goesOn, err := s.caughtUp(); !goesOn || err != nil {
				return err
			}
		}
	}
	switch typ {
	case wire.MsgQuery:
		return s.query()
	case wire.MsgParse:
		return s.parse()
	case wire.MsgBind:
		return s.bind(size)
	case wire.MsgDescribe:
		return s.describe()
	case wire.MsgExecute:
		return s.execute()
	case wire.MsgClose:
		return s.close()
	case wire.MsgFlush:
		if size > wire.HeaderLen {
			return s.malformed(wire.LeftOver(size-wire.HeaderLen, "Flush"))
		}
		return s.answerFlush()
	case wire.MsgSync:
		if size > wire.HeaderLen {
			return s.malformed(wire.LeftOver(size-wire.HeaderLen, "Sync"))
		}
		return s.sync()
	case wire.MsgCopyData, wire.MsgCopyDone, wire.MsgCopyFail:
		return s.copying(typ, size)
	case wire.MsgFunctionCall:
		return s.function(size)
	}
	return wire.Errorf(wire.ProtocolViolation, "invalid frontend message type %d", typ).Fatal()
}

// replyInOrder gives the client bytes of the proxy's own, in order behind the replies that the link still owes.
func (s *session) replyInOrder(b []byte) {
	if s.link != nil && s.link.Owed() > 0 {
		s.link.Expect(engine.Expect{Kind: engine.Synthetic, Bytes: b})
		return
	}
	s.Reply(b)
}

// status is what ReadyForQuery says when the session gives it itself.
func (s *session) status() byte {
	switch {
	case s.link != nil:
		return s.link.Conn.TxStatus
	case s.tx.state == txBegun:
		return wire.TxOpen
	case s.tx.state == txFailed:
		return wire.TxAborted
	}
	return wire.TxIdle
}

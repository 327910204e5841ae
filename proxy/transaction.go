package proxy

import (
	"strings"

	"github.com/tidemarkdb/tidemark/internal/backend"
	"github.com/tidemarkdb/tidemark/internal/engine"
	"github.com/tidemarkdb/tidemark/internal/sql"
	"github.com/tidemarkdb/tidemark/internal/wire"
	"github.com/tidemarkdb/tidemark/router"
)

// A transaction begins where its first statement names a shard, so BEGIN is answered before any server hears of it.
//
//	state   BEGIN            first statement          COMMIT / ROLLBACK    error of the proxy   server lost
//	none    begun            (none)                   none, with warning   none                 none
//	begun   begun, warning   open on the shard        none                 failed               -
//	open    forwarded        open; other shard 0A000  none, by the server  aborted by server    failed
//	failed  25P02            25P02                    none, "ROLLBACK"     failed               -
//
// begun -> open sends the preamble: BEGIN and all that was said since and must be said on whatever server it becomes.
type txState uint8

const (
	txNone txState = iota
	txBegun
	txOpen
	txFailed
)

type transaction struct {
	preamble []byte
	first    int32 // where its first statement ends, BEGIN
	state    txState
	readOnly bool
	// readWrite: its preamble says so, before it says otherwise. No replica takes that.
	readWrite bool
	// snapshot: repeatable read or serializable: all statements see one state, which only one shard can show.
	snapshot bool
	// serializable: no replica runs it.
	serializable bool
	// flat: where in the preamble the first savepoint is that was made before any server heard of the transaction; 0: none was.
	flat uint16
	// start: where its last AND CHAIN ends, 0 if it has none; began: what the transaction was like there. An error takes back what came behind.
	start uint16
	began character
	// sealed: something has taken a snapshot, behind which it is too late to choose what the transaction is like.
	sealed bool
	// neutral: nothing but neutral statements has run on the server, so that the transaction may still move elsewhere.
	neutral bool
	// looked: something that takes a snapshot has run on the server.
	looked bool
	// wrote: a statement may have changed data, so a mark is taken behind COMMIT. schema: ... the catalog.
	wrote, schema bool
	// unclear: what its commands have done to the session's settings could not be followed, so that a server is asked behind it.
	unclear bool
	// probeLater: the mark could not be asked for in the same round trip, and is when the link is idle.
	probeLater bool
	// cause is why it failed, told once.
	cause *wire.Error
}

// character is what a transaction is like, in few bits.
type character uint8

const (
	onlyReads character = 1 << iota
	oneSnapshot
	isSerializable
)

func (t *transaction) character() (c character) {
	if t.readOnly {
		c |= onlyReads
	}
	if t.snapshot {
		c |= oneSnapshot
	}
	if t.serializable {
		c |= isSerializable
	}
	return c
}

func (t *transaction) reset() {
	*t = transaction{preamble: t.preamble[:0]}
}

func (t *transaction) fail(cause *wire.Error) {
	t.state, t.cause = txFailed, cause
}

func (t *transaction) isolation(level string) {
	if level != "" {
		t.serializable = level == "serializable"
		t.snapshot = t.serializable || level == "repeatable read"
	}
}

// add appends a statement to the preamble.
func (t *transaction) add(sql []byte) {
	if len(t.preamble) == 0 {
		t.preamble, t.first = append(t.preamble, sql...), int32(len(sql))
		return
	}
	t.preamble = append(append(t.preamble, separator...), sql...)
}

// separator is what lies between two statements of the preamble.
const separator = ";\n"

// said is the preamble in two parts; the second may be empty.
func (t *transaction) said() (begin, rest []byte) {
	if len(t.preamble) == int(t.first) {
		return t.preamble, nil
	}
	return t.preamble[:t.first], t.preamble[int(t.first)+len(separator):]
}

// seal has the server that the transaction will begin on know that there has been a query: it was answered before.
func (t *transaction) seal() {
	if t.state == txBegun && !t.sealed {
		t.add([]byte("SELECT 1"))
		t.sealed = true
	}
}

// maxPreamble bounds what is kept to be said again.
const maxPreamble = 16 << 10

// follow notes what was said to the server of a transaction that may still move: it is said again where that goes.
func (t *transaction) follow(c *router.TxControl) {
	if c.Chain {
		t.began = t.character()
	}
	if t.state != txOpen || !t.neutral {
		return
	}
	if len(t.preamble) > maxPreamble {
		t.neutral = false
		return
	}
	switch name := `"` + strings.ReplaceAll(c.Name, `"`, `""`) + `"`; c.Op {
	case router.Savepoint:
		t.add([]byte("SAVEPOINT " + name))
	case router.Release:
		t.add([]byte("RELEASE " + name))
	case router.RollbackTo:
		t.add([]byte("ROLLBACK TO " + name))
	default:
		t.neutral = false
	}
}

// inTransaction says whether a server has a transaction block of the session's, or will have behind what it was sent.
func (s *session) inTransaction() bool {
	return s.tx.state == txOpen || s.after.begun
}

// control handles transaction commands that no server needs to hear of. Its answer, behind what is in dst, is a command tag, perhaps with
// a notice before it; handled is false when the command must go to the link. The error is a *wire.Error for the client.
func (s *session) control(dst []byte, p *router.Plan, sql []byte) (answer []byte, handled bool, err error) {
	if s.link != nil {
		return nil, false, nil
	}
	c := p.Tx
	answer = dst
	warn := func(code, text string) {
		answer = wire.AppendNoticeResponse(answer, wire.Noticef(wire.SeverityWarning, code, "%s", text))
	}
	tag := p.Tag
	switch c.Op {
	case router.Begin:
		if (s.batch.queried || s.batch.parsed) && (c.Isolation != "" || c.ReadOnly != router.Unset || c.Deferrable != router.Unset) {
			return nil, false, nil // it is too late for these, where they are others than the default
		}
		if s.tx.state == txBegun && (c.Isolation != "" || c.ReadOnly != router.Unset || c.Deferrable != router.Unset) {
			return nil, false, nil // it warns, and sets them
		}
		if s.tx.state != txNone {
			warn(wire.ActiveSQLTransaction, "there is already a transaction in progress")
			break
		}
		s.tx.reset()
		s.tx.state, s.tx.readOnly, s.tx.readWrite, s.tx.neutral = txBegun, c.ReadOnly == router.On, c.ReadOnly == router.Off, true
		s.tx.serializable = s.settings.serializable
		s.tx.isolation(c.Isolation)
		s.tx.add(sql)
	case router.Commit, router.Rollback:
		unheard := s.tx.state == txBegun || s.tx.state == txFailed
		if c.Chain && unheard && !s.chain(sql) {
			return nil, false, nil
		}
		switch s.tx.state {
		case txNone:
			if c.Chain {
				return nil, true, wire.Errorf(wire.NoActiveSQLTransaction, "%s AND CHAIN can only be used in transaction blocks", tag)
			}
			warn(wire.NoActiveSQLTransaction, "there is no transaction in progress")
		case txFailed:
			tag = "ROLLBACK"
		}
		s.batch.queried, s.batch.parsed = false, false // what was, was in the transaction that ends here
		if s.portals.clear(); c.Chain && unheard {
			if s.tx.state == txFailed {
				s.settings.end(false)
				s.tx.state, s.tx.cause, s.tx.neutral = txBegun, nil, true
			}
			break
		}
		s.settings.end(false)
		s.tx.reset()
	case router.Savepoint, router.SetTransaction:
		if s.tx.state != txBegun || len(s.tx.preamble) > maxPreamble {
			return nil, false, nil // PostgreSQL's own error is the right one
		}
		if c.Op == router.SetTransaction && (s.tx.flat > 0 || s.tx.sealed) {
			return nil, false, nil // it may be too late for that
		}
		if c.Op == router.Savepoint && s.tx.flat == 0 {
			s.tx.flat = uint16(len(s.tx.preamble)) // see maxPreamble
		}
		s.tx.add(sql)
		if c.Op == router.SetTransaction && c.ReadOnly != router.Unset {
			s.tx.readOnly, s.tx.readWrite = c.ReadOnly == router.On, s.tx.readWrite || c.ReadOnly == router.Off
		}
		s.tx.isolation(c.Isolation)
	case router.Release, router.RollbackTo:
		s.tx.neutral = false
		return nil, false, nil // the savepoint may not exist: let a server say
	}
	return wire.AppendCommandComplete(answer, tag), true, nil
}

// chain ends the transaction that no server has heard of and begins the next with the same characteristics. PostgreSQL keeps
// those otherwise than what BEGIN says: an error does not take them back. So the preamble has it, once.
func (s *session) chain(sql []byte) bool {
	t := &s.tx
	if t.sealed, t.looked = false, false; t.state == txFailed {
		s.chainFailed()
		return true
	}
	if t.flat > 0 {
		t.preamble, t.flat = t.preamble[:t.flat], 0
	}
	if t.start == 0 || len(t.preamble) > int(t.start) { // it does not end with one
		if len(t.preamble)+len(sql) > maxPreamble {
			return false
		}
		t.add(sql)
	}
	t.start, t.began = uint16(len(t.preamble)), t.character() // see maxPreamble
	return true
}

// chainFailed is chain for a transaction that has failed: the next is like what that was when it began.
func (s *session) chainFailed() {
	t := &s.tx
	t.preamble, t.flat = t.preamble[:t.start], 0
	if t.start == 0 {
		begin := "BEGIN"
		if t.began &= onlyReads; t.began != 0 { // by a chain that a server has run
			begin = "BEGIN READ ONLY"
		}
		if t.add([]byte(begin)); s.settings.serializable {
			t.began |= isSerializable
		}
	}
	t.readOnly, t.snapshot, t.serializable = t.began&onlyReads != 0, t.began&oneSnapshot != 0, t.began&isSerializable != 0
}

// offReplica ends a transaction that has failed on a replica, if the plan ends it AND CHAIN: it was there because it was read only, and the
// next is not, where that was said in the transaction itself. So that begins anew, see chainFailed. Behind a savepoint an error does not take it back. What
// the session has read of its client's input may move meanwhile.
func (s *session) offReplica(p *router.Plan) error {
	l := s.link
	if l == nil || p.Kind != router.Tx || !p.Tx.Chain || s.tx.state != txOpen || s.tx.flat > 0 || s.settings.divided() || s.tx.began&onlyReads != 0 || l.Conn.Endpoint().Role() != backend.RoleReplica {
		return nil
	}
	_, goesOn, err := s.rollBack()
	if err == nil && !goesOn {
		return errAnswered
	}
	return err
}

// failedOnReplica says whether the transaction has failed on a replica. What a query string has behind its end may be for the primary.
func (s *session) failedOnReplica() bool {
	l := s.link
	return l != nil && s.tx.state == txOpen && !s.batch.sent && s.aborted() && l.Conn.Endpoint().Role() == backend.RoleReplica
}

// goesOnElsewhere says whether a plan that is about to be executed may end a transaction that has failed on a server, and what comes behind
// it in its batch may need another one. Where that has only a Sync behind the Execute of n bytes at hand, nothing does.
func (s *session) goesOnElsewhere(p *router.Plan, n int) bool {
	if s.tx.state != txOpen || !s.frees(s.link, p) || !s.aborted() && s.link.Syncs() == 0 { // with one on its way it may fail yet
		return false
	}
	next := s.Input()[n:]
	return len(next) == 0 || next[0] != wire.MsgSync
}

// frees says whether a plan ends a transaction of l, and what comes behind it may be for another server.
func (s *session) frees(l *engine.Link, p *router.Plan) bool {
	return p.Kind != router.Nothing && endsTransaction(p) && (p.Kind != router.Tx || !p.Tx.Chain) &&
		(len(s.p.shards) > 1 || l.Conn.Endpoint().Role() == backend.RoleReplica)
}

// rollBack ends the transaction of the link, if that has failed, before the client's own command does, which may be one of a batch: the
// transaction is then one that has failed and that no server has. goesOn is false where an error of the batch has come first. What
// the session has read of its client's input may move meanwhile.
func (s *session) rollBack() (ended, goesOn bool, err error) {
	l := s.link
	if goesOn, err := s.allAnswered(); !goesOn || err != nil {
		return false, false, err
	}
	if s.link != l || l.Err != nil || !s.aborted() {
		return false, true, nil
	}
	if s.batch.sent {
		syncUnseen(l)
		s.batch.goesOn()
	}
	s.queryUnseen(l, "ROLLBACK", nil)
	if err := s.Await(l); err != nil {
		return false, false, err
	}
	if l.Err == nil {
		if s.tx.state = txBegun; s.ear != nil { // it is no longer this server's
			s.ear.end(false)
		}
		s.asksUnclear()
		s.settingsEnded(false, l)
	}
	if err := s.drain(); err != nil {
		return false, false, err
	}
	s.tx.fail(nil)
	return true, true, nil
}

// errAborted is the answer to statements in a transaction that failed.
func (s *session) errAborted() *wire.Error {
	if e := s.tx.cause; e != nil {
		s.tx.cause = nil
		return e
	}
	return wire.Aborted()
}

// errElsewhere refuses a statement that would take a transaction to a second shard.
func (s *session) errElsewhere(l *engine.Link, p *router.Plan) *wire.Error {
	onReplica := l.Conn.Endpoint().Role() == backend.RoleReplica
	if onReplica && s.strung != nil && s.leavesReplica() {
		return wire.Errorf(wire.FeatureNotSupported, "a transaction that reads on a replica cannot do what is for the primary").
			WithDetail("The transaction is read only and runs on a replica; the query string has something that may lock, listens or notifies, or ends it and goes on, which may write.").
			WithHint("Send them one by one.")
	}
	if onReplica && p.OnPrimary() {
		return wire.Errorf(wire.FeatureNotSupported, "a transaction that reads on a replica cannot do what is for the primary").
			WithDetail("The transaction is read only and runs on a replica; %s may lock, or leave something in the session.", called(p)).
			WithHint("Run it first in the transaction, outside of it, or in one that is not read only; declare functions STABLE that only read.")
	}
	where := "another shard"
	if len(p.Shards) == 1 {
		where = "shard " + s.p.shard(p, 0)
	}
	return wire.Errorf(wire.FeatureNotSupported, "a transaction cannot touch two shards").
		WithDetail("The transaction runs on shard %s; this statement needs %s.", l.Shard, where).
		WithHint("Commit first, or keep rows that change together on one shard by giving them the same shard key.")
}

// endsTransaction says whether the plan may run in a failed transaction.
func endsTransaction(p *router.Plan) bool {
	return p.Kind == router.Nothing || p.Kind == router.Tx && p.Tx.Ends() || p.Tag == router.PrepareTransaction
}

// ended is what the plan is in a transaction that has failed and that no server has, or has any more: PREPARE TRANSACTION is a ROLLBACK
// then.
func (s *session) ended(p *router.Plan) *router.Plan {
	if s.tx.state == txFailed && p.Tag == router.PrepareTransaction {
		return rolledBack
	}
	return p
}

var rolledBack = &router.Plan{Kind: router.Tx, Command: sql.Transaction, Tag: "ROLLBACK", Tx: &router.TxControl{Op: router.Rollback}}

// runsAborted says whether the plan may run in a failed transaction that a server knows, with its savepoints.
func runsAborted(p *router.Plan) bool {
	return endsTransaction(p) || p.Kind == router.Tx && p.Tx.Op == router.RollbackTo
}

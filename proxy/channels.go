package proxy

import (
	"github.com/tidemarkdb/tidemark/internal/sql"
	"github.com/tidemarkdb/tidemark/internal/wire"
	"github.com/tidemarkdb/tidemark/router"
)

// channels are those that a session listens to over a shared connection, as PostgreSQL keeps them: LISTEN and UNLISTEN go to
// a log that a commit merges and a rollback drops; a savepoint is a position in the log.
type channels struct {
	on      map[string]bool // committed
	log     []channelChange
	said    []step // by the request under way: whether it happened is known when that is answered
	aborted bool   // the transaction has failed: its COMMIT is a rollback
}

type channelChange struct {
	name      string // empty: UNLISTEN *
	listen    bool
	savepoint string // not a change, but a savepoint of that name
}

// maxChannelBytes bounds the names of the channels of one session.
const maxChannelBytes = 1 << 20

// crowded is the error for more channels than a session may listen to, or nil.
func (c *channels) crowded(asked map[string]bool, more []string) error {
	bytes := 0
	for name := range asked {
		bytes += len(name) + 16
	}
	for _, name := range more {
		bytes += len(name) + 16
	}
	if bytes <= maxChannelBytes {
		return nil
	}
	return wire.Errorf(wire.ProgramLimitExceeded, "too many channels: %d bytes of names", bytes).
		WithHint("A session can listen to channels of %d bytes of names. UNLISTEN those that are not used any more.", maxChannelBytes)
}

// say notes a statement of what is being sent to a server for the request under way: number n of those whose outcome is looked at.
func (c *channels) say(n int, p *router.Plan) {
	if p.Kind == router.Tx || p.Command == sql.Listen || p.Command == sql.Unlisten {
		c.said = append(c.said, step{n, p})
	}
}

// answered follows what the request has done: all of it if it succeeded, else the first statements, of that number. status is
// that of its ReadyForQuery.
func (c *channels) answered(ok bool, completed int, status byte) {
	for _, x := range c.said {
		if ok || x.n < completed {
			c.apply(x.plan)
		}
	}
	c.said = c.said[:0]
	c.aborted = status == wire.TxAborted
	if status == wire.TxIdle {
		c.end(ok)
	}
}

func (c *channels) apply(p *router.Plan) {
	switch p.Command {
	case sql.Listen:
		c.log = append(c.log, channelChange{name: p.Channel, listen: true})
		return
	case sql.Unlisten:
		c.log = append(c.log, channelChange{name: p.Channel})
		return
	}
	switch p.Tx.Op {
	case router.Commit:
		c.end(!c.aborted)
	case router.Rollback:
		c.end(false)
	case router.Savepoint:
		c.log = append(c.log, channelChange{savepoint: p.Tx.Name})
	case router.Release:
		at := c.savepoint(p.Tx.Name)
		kept := c.log[:at]
		for _, x := range c.log[at:] {
			if x.savepoint == "" {
				kept = append(kept, x)
			}
		}
		c.log = kept
	case router.RollbackTo:
		if at := c.savepoint(p.Tx.Name); at < len(c.log) && c.log[at].savepoint == p.Tx.Name {
			c.log = c.log[:at+1]
		} else {
			c.log = c.log[:0]
		}
		c.aborted = false
	}
}

// savepoint is where the newest savepoint of that name stands. One that is not known was made before the first change: no
// server had heard of the transaction yet.
func (c *channels) savepoint(name string) int {
	for i := len(c.log) - 1; i >= 0; i-- {
		if c.log[i].savepoint == name {
			return i
		}
	}
	return 0
}

// end closes the transaction.
func (c *channels) end(committed bool) {
	for _, x := range c.log {
		switch {
		case !committed || x.savepoint != "":
		case x.listen:
			if c.on == nil {
				c.on = map[string]bool{}
			}
			c.on[x.name] = true
		case x.name == "":
			clear(c.on)
		default:
			delete(c.on, x.name)
		}
	}
	c.log, c.aborted = c.log[:0], false
}

// begins says whether a commit now would make the session, which listens to nothing, listen.
func (c *channels) begins() bool {
	if len(c.on) > 0 || c.aborted {
		return false
	}
	for _, x := range c.log {
		if x.listen {
			return true
		}
	}
	return false
}

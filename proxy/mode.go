package proxy

import (
	"github.com/tidemarkdb/tidemark/internal/backend"
	"github.com/tidemarkdb/tidemark/internal/engine"
	"github.com/tidemarkdb/tidemark/internal/wire"
	"github.com/tidemarkdb/tidemark/router"
)

// The pool mode is for how long a session keeps a server connection.
//
//	mode          from                        to
//	transaction   the first statement         the end of the transaction, see settle
//	session       the first use of a shard    the end of the session: a pin from the beginning
//	statement     the statement               its end; a transaction of several statements is refused
//
// A session in session mode has one connection to each shard that it has touched, always to the primary: a client that asks
// for this mode relies on state that lives in a connection, a temporary table or a function's variable, and would miss it
// on a replica.

// stay makes a link that was just connected the session's until its end, in session mode.
func (s *session) stay(l *engine.Link) {
	s.pin(l, "session pooling")
	s.Use(l)
}

// hasServer says whether the session has a server connection to itself. By an empty query drivers ask whether theirs lives, and keep the
// server's timeouts for idle sessions and transactions from ending it: it is the server's to answer then.
func (s *session) hasServer() bool {
	return s.tx.state == txOpen || s.tx.state == txNone && s.mode == backend.Session && len(s.pins) > 0
}

// checkMode refuses to begin a transaction in statement mode.
func (s *session) checkMode(p *router.Plan) error {
	if s.mode == backend.Statement && p.Kind == router.Tx && p.Tx.Op == router.Begin {
		return s.errStatementMode()
	}
	return nil
}

func (s *session) errStatementMode() *wire.Error {
	return wire.Errorf(wire.FeatureNotSupported, "transaction blocks are not allowed in statement pooling mode").
		WithHint("User %q shares server connections statement by statement. Set pool_mode to transaction for this user, or leave out BEGIN.", s.client.user)
}

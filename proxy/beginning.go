package proxy

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/tidemarkdb/tidemark/internal/engine"
)

// A transaction begins on its server by a BEGIN of the proxy's own, and the client's statement goes with it, in the same write. A cancel
// request that hit the BEGIN would have the statement run outside of a transaction, for good. So none is sent from when the BEGIN is
// until it is answered, and no BEGIN while one is on its way: each side says first what it is about to do, and looks then at the other.
type beginning struct {
	sent       atomic.Bool  // and not answered
	cancelling atomic.Int32 // cancel requests that are on their way to servers
	answered   func() []byte
}

func (b *beginning) init() {
	b.answered = func() []byte {
		b.sent.Store(false)
		return nil
	}
}

// cancelPause is how often a cancel request and a BEGIN look for the other's end.
const cancelPause = time.Millisecond

// cancelServers has the statements of a client cancelled that servers run for it. It blocks.
func (p *Proxy) cancelServers(x *client) {
	b := &x.beginning
	for until := time.Now().Add(cancelTimeout); ; time.Sleep(cancelPause) {
		if b.cancelling.Add(1); !b.sent.Load() {
			break
		}
		if b.cancelling.Add(-1); time.Now().After(until) {
			p.log.Warn("cancel request not delivered", "error", "the server does not answer a BEGIN")
			return
		}
	}
	defer b.cancelling.Add(-1)
	p.cancelKeys(x.keys())
}

// beginsUncancelled is to be called before BEGIN is sent. The error ends the session.
func (s *session) beginsUncancelled() error {
	b := &s.client.beginning
	for b.sent.Store(true); b.cancelling.Load() > 0; {
		if err := s.Step(time.Now().Add(cancelPause)); err != nil && !errors.Is(err, engine.ErrDeadline) {
			return err
		}
	}
	return nil
}

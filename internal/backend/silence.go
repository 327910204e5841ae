package backend

import (
	"time"

	"github.com/tidemarkdb/tidemark/internal/wire"
)

// A server that hangs, or a network that swallows everything, leaves connections open on which nobody will ever answer: the
// kernel finds that out after a quarter of an hour, or never while the other side's kernel lives. Who waits there is told
// when the server has answered no health check for SilenceLimit.

// silent breaks the endpoint's connections if it has been silent for too long. last is when it answered, failed why not now.
func (e *Endpoint) silent(last time.Time, failed *wire.Error) {
	if failed.Code != wire.ConnectionFailure || last.IsZero() || time.Since(last) < e.b.cfg().SilenceLimit {
		return
	}
	for p := range e.pools {
		p.abort()
	}
}

// abort breaks every open connection. Whoever uses one sees it end, and gives it back.
func (p *pool) abort() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		c.IO.Abort()
	}
}

package proxy

import (
	"sync/atomic"

	"github.com/tidemarkdb/tidemark/router"
)

// counters are kept without locks; Stats reads them.
type counters struct {
	logins, refused atomic.Uint64
	errors          atomic.Uint64
	plans           [16]atomic.Uint64 // statements by kind of plan
}

// Stats are numbers since the start.
type Stats struct {
	Clients    int               // connected now, logins included
	Logins     uint64            // sessions that began
	Refused    uint64            // logins that failed
	Errors     uint64            // statements that the proxy itself answered with an error
	Statements map[string]uint64 // statements by kind of plan: route, scatter, viewscan, …
}

// Stats returns the proxy's numbers.
func (p *Proxy) Stats() Stats {
	s := Stats{
		Clients: p.Clients(), Logins: p.stats.logins.Load(), Refused: p.stats.refused.Load(), Errors: p.stats.errors.Load(),
		Statements: map[string]uint64{},
	}
	for k := router.Refuse; k <= router.ViewScan; k++ {
		s.Statements[k.String()] = p.stats.plans[k].Load()
	}
	return s
}

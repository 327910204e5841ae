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
	Clients      int               // connected now, logins included
	MaxClients   int               // of these at most
	Sessions     map[string]int    // clients whose login is complete, by state: idle, active, waiting
	Pinned       int               // of these, who keep a server connection between transactions
	Listening    int               // of these, who listen to channels over a shared connection
	Consoles     int               // connections to the admin database
	Prepared     int               // distinct named prepared statements
	MessageBytes int               // what large messages take while they are read
	PlanCache    router.CacheStats // empty before Serve
	Draining     bool
	Logins       uint64            // sessions that began
	Refused      uint64            // logins that failed
	Errors       uint64            // statements that the proxy itself answered with an error
	Statements   map[string]uint64 // statements by kind of plan: route, scatter, viewscan, …
}

// Stats returns the proxy's numbers.
func (p *Proxy) Stats() Stats {
	s := Stats{
		Clients: p.Clients(), Logins: p.stats.logins.Load(), Refused: p.stats.refused.Load(), Errors: p.stats.errors.Load(),
		Statements: map[string]uint64{}, MaxClients: p.cfg().MaxClients, MessageBytes: p.memory.Used(), Draining: p.draining.Load(), Sessions: map[string]int{"idle": 0, "active": 0, "waiting": 0},
	}
	waiting := p.backend.Waiting()
	for _, x := range p.clients.all() {
		h := x.holding()
		s.Sessions[x.state(h, waiting)]++
		if len(h.reasons) > 0 {
			s.Pinned++
		}
		if x.channels.Load() > 0 {
			s.Listening++
		}
	}
	p.admin.mu.Lock()
	s.Consoles = len(p.admin.byPID)
	p.admin.mu.Unlock()
	p.statements.mu.Lock()
	s.Prepared = len(p.statements.byKey)
	p.statements.mu.Unlock()
	if r := p.router.Load(); r != nil {
		s.PlanCache = r.CacheStats()
	}
	for k := router.Refuse; k <= router.ViewScan; k++ {
		s.Statements[k.String()] = p.stats.plans[k].Load()
	}
	return s
}

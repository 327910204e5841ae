package backend

import "time"

// PoolStats are the numbers of one pool: gauges at this moment, and counters since the start.
type PoolStats struct {
	Shard    string
	Endpoint string // host:port
	Database string
	User     string // whose pool it is
	Role     string // who its connections log in as
	Mode     Mode   // Listening too
	Own      bool   // it is one user's; else shared by all without one

	Size    int // most connections, without the reserve
	Reserve int // of these beyond it
	Active  int // held by sessions, or being cleaned
	Idle    int
	Opening int
	Waiting int // sessions in the queue

	MaxWait time.Duration // how long the one who has waited longest now has waited

	Acquired    uint64        // connections asked for
	Waits       uint64        // sessions that had to wait, and the time that they waited in all
	WaitTime    time.Duration //
	LongestWait time.Duration // of one session
	Timeouts    uint64        // of these, how many gave up
	Opened      uint64
	Closed      uint64
	Failures    uint64 // attempts to open a connection that failed
	Evicted     uint64 // connections closed so that another pool could open one
	Broken      uint64 // idle connections that were found dead only by asking (Config.CheckDelay)
}

func (p *pool) snapshot() PoolStats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.stats
	s.Shard, s.Endpoint = p.endpoint.shard.name, p.endpoint.name
	s.Database, s.User, s.Role, s.Mode = p.endpoint.login().database, p.user, p.user, p.mode
	s.Own = p.identity != nil
	if id := p.identity; id != nil && id.Shared {
		s.Role = p.endpoint.login().user
	}
	s.Size, s.Reserve, s.Idle, s.Opening, s.Waiting = p.size, p.reserve, len(p.idle), p.opening, p.waiters.n
	if w := p.waiters.first; w != nil {
		s.MaxWait = time.Since(w.since)
	}
	s.Active = int(p.total.Load()) - s.Idle - s.Opening
	return s
}

// Stats are the numbers of all pools: the shared ones in order of the configuration, then those of users.
func (b *Backend) Stats() []PoolStats {
	var all []PoolStats
	for _, p := range b.budget.every() {
		all = append(all, p.snapshot())
	}
	return all
}

// Budget is how many server connections exist or are being opened, and how many may.
func (b *Backend) Budget() (used, limit int) {
	b.budget.mu.Lock()
	defer b.budget.mu.Unlock()
	return b.budget.all.used, b.budget.all.limit
}

// BudgetUsed is how many server connections exist or are being opened, at most Config.Budget.
func (b *Backend) BudgetUsed() int {
	b.budget.mu.Lock()
	defer b.budget.mu.Unlock()
	return b.budget.all.used
}

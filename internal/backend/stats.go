package backend

import "time"

// PoolStats are the numbers of one pool: gauges at this moment, and counters since the start.
type PoolStats struct {
	Shard    string
	Endpoint string // host:port
	Database string
	User     string

	Size    int // most connections
	Active  int // held by sessions, or being cleaned
	Idle    int
	Opening int
	Waiting int // sessions in the queue

	Waits    uint64        // sessions that had to wait, and the time that they waited in all
	WaitTime time.Duration //
	Timeouts uint64        // of these, how many gave up
	Opened   uint64
	Closed   uint64
	Failures uint64 // attempts to open a connection that failed
	Evicted  uint64 // idle connections closed so that another pool could open one
}

func (p *pool) snapshot() PoolStats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.stats
	s.Shard, s.Endpoint = p.endpoint.shard.name, p.endpoint.name
	s.Database, s.User = p.endpoint.login.database, p.endpoint.login.user
	s.Size, s.Idle, s.Opening, s.Waiting = p.size, len(p.idle), p.opening, p.waiters.n
	s.Active = int(p.total.Load()) - s.Idle - s.Opening
	return s
}

// Stats are the numbers of all pools, in order of the configuration.
func (b *Backend) Stats() []PoolStats {
	var all []PoolStats
	for _, p := range b.budget.all() {
		all = append(all, p.snapshot())
	}
	return all
}

// BudgetUsed is how many server connections exist or are being opened, at most Config.Budget.
func (b *Backend) BudgetUsed() int {
	b.budget.mu.Lock()
	defer b.budget.mu.Unlock()
	return b.budget.used
}

package backend

import (
	"slices"
	"time"

	"github.com/tidemarkdb/tidemark/internal/loop"
)

// What an administrator may see of server connections, and do to them.

// ConnInfo is one server connection at one moment.
type ConnInfo struct {
	Conn      *Conn // to compare with, not to use: it is its holder's
	Shard     string
	Endpoint  string
	Database  string
	User      string
	PID       uint32 // of the server process
	Idle      bool
	Since     time.Time // when it was opened
	Expires   time.Time // when it is replaced for its age
	Retiring  bool      // it is closed instead of being used again
	Encrypted bool
	Listening bool // for all sessions of its user, see AcquireListening
}

// Conns lists the open connections of all pools.
func (b *Backend) Conns() []ConnInfo {
	var all []ConnInfo
	for _, p := range b.budget.every() {
		p.mu.Lock()
		idle := make(map[*Conn]bool, len(p.idle))
		for _, c := range p.idle {
			idle[c] = true
		}
		for _, c := range p.conns {
			all = append(all, ConnInfo{
				Conn: c, Shard: p.endpoint.shard.name, Endpoint: p.endpoint.name, Database: p.endpoint.login().database, User: p.user,
				PID: c.pid, Idle: idle[c], Since: c.opened, Expires: c.expires, Retiring: c.retire, Encrypted: c.tls != nil, Listening: p.listening,
			})
		}
		p.mu.Unlock()
	}
	return all
}

// poolsOf are the pools of the named shards; of all when there is no name.
func (b *Backend) poolsOf(shards []string) []*pool {
	var found []*pool
	for _, p := range b.budget.every() {
		named := len(shards) == 0
		for _, s := range shards {
			named = named || s == p.endpoint.shard.name
		}
		if named {
			found = append(found, p)
		}
	}
	return found
}

// Busy is how many connections of the shards are lent or being cleaned, and how many sessions wait for one; no name means
// all shards. Those that listen run no statements, and are not counted.
func (b *Backend) Busy(shards ...string) int {
	n := 0
	for _, p := range b.poolsOf(shards) {
		if p.listening {
			continue
		}
		p.mu.Lock()
		n += int(p.total.Load()) - len(p.idle) - p.opening + p.waiters.n
		p.mu.Unlock()
	}
	return n
}

// Waiting are the tasks that wait for a connection now.
func (b *Backend) Waiting() map[*loop.Task]bool {
	all := map[*loop.Task]bool{}
	for _, p := range b.budget.every() {
		p.mu.Lock()
		for w := p.waiters.first; w != nil; w = w.next {
			all[w.task] = true
		}
		p.mu.Unlock()
	}
	return all
}

// Recall ends a task's wait for a connection, if it waits for one: Acquire then fails with ErrRecalled. Any goroutine may call it,
// also when the task has ended.
func (b *Backend) Recall(t *loop.Task) {
	for _, p := range b.budget.every() {
		if p.recall(t) {
			return
		}
	}
}

func (p *pool) recall(t *loop.Task) bool {
	p.mu.Lock()
	w := p.waiters.first
	for w != nil && w.task != t {
		w = w.next
	}
	if w == nil {
		p.mu.Unlock()
		return false
	}
	p.waiters.remove(w)
	w.err = errRecalled()
	next := p.fill()
	p.mu.Unlock()
	t.Wake()
	next.run()
	return true
}

// Reconnect has every connection of the shards replaced: idle ones now, others when they are released. It returns how many
// that are.
func (b *Backend) Reconnect(shards ...string) int {
	n := 0
	for _, p := range b.poolsOf(shards) {
		p.mu.Lock()
		for _, c := range p.conns {
			c.retire = true
		}
		n += len(p.conns)
		ended := p.takeAllIdle()
		p.mu.Unlock()
		p.end(ended)
	}
	return n
}

// Pause closes the idle connections of the shards, and those in use when they are released, and opens none until Resume:
// whoever wants one waits. It does not wait itself. Those that listen stay: closing them would lose notifications.
func (b *Backend) Pause(shards ...string) {
	b.setPaused(true, shards)
	for _, p := range b.poolsOf(shards) {
		p.mu.Lock()
		ended := p.takeAllIdle()
		p.mu.Unlock()
		p.end(ended)
	}
}

// Resume ends Pause.
func (b *Backend) Resume(shards ...string) {
	b.setPaused(false, shards)
	for _, p := range b.poolsOf(shards) {
		p.poke()
	}
}

// setPaused marks endpoints rather than pools: pools that are made later look there too.
func (b *Backend) setPaused(paused bool, shards []string) {
	for _, s := range b.shards {
		if len(shards) > 0 && !slices.Contains(shards, s.name) {
			continue
		}
		for _, e := range s.endpoints {
			e.paused.Store(paused)
		}
	}
}

// AcquireTimeout is how long a session may wait for a connection.
func (b *Backend) AcquireTimeout() time.Duration { return b.cfg().AcquireTimeout }

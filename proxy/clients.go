package proxy

import (
	"context"
	"crypto/subtle"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tidemarkdb/tidemark/internal/backend"
	"github.com/tidemarkdb/tidemark/internal/engine"
	"github.com/tidemarkdb/tidemark/internal/loop"
	"github.com/tidemarkdb/tidemark/internal/wire"
)

// clients are all that are connected, by the process id that they were told.
type clients struct {
	mu    sync.Mutex
	byPID map[uint32]*client
	count atomic.Int64 // logins included
}

// client is what others may know and do about a session.
type client struct {
	pid   uint32
	key   []byte
	user  string
	addr  net.Addr
	since time.Time
	app   string // application_name of the startup message
	task  *loop.Task
	relay *engine.Relay

	waiting     atomic.Bool  // for a paused shard; for a server connection see Backend.Waiting
	tracedUntil atomic.Int64 // by loop.Clock: an administrator wants to see what it does; 0: nobody has asked
	channels    atomic.Int32 // that it listens to over a shared connection

	mu        sync.Mutex               // guards what follows
	held      []*backend.Conn          // server connections in use
	pinned    map[*backend.Conn]string // server connections that stay with the session, and why
	interrupt func()                   // ends what the proxy does for the client, or waits for; nil: nothing that can be ended
}

// add registers a client under a process id that nobody else has, and no server process can have: a client that listens
// compares it with those in notifications.
func (c *clients) add(x *client) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		x.pid = mostPID + 1 + rand.Uint32N(1<<31-1-mostPID-1)
		if _, taken := c.byPID[x.pid]; !taken {
			break
		}
	}
	c.byPID[x.pid] = x
}

// mostPID is the greatest id that a process can have on Linux (PID_MAX_LIMIT).
const mostPID = 1 << 22

func (c *clients) remove(x *client) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.byPID, x.pid)
}

// find is the client that a cancel request means, or nil. It takes as long for a wrong key as for a right one.
func (c *clients) find(pid uint32, key []byte) *client {
	c.mu.Lock()
	defer c.mu.Unlock()
	x := c.byPID[pid]
	if x == nil || subtle.ConstantTimeCompare(x.key, key) != 1 {
		return nil
	}
	return x
}

// wakeAll lets every session look at the proxy's state.
func (c *clients) wakeAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, x := range c.byPID {
		x.task.Wake()
	}
}

// hold and letGo say which server connections run the client's statements, so that a cancel request finds them.
func (x *client) hold(c *backend.Conn) {
	x.mu.Lock()
	x.held = append(x.held, c)
	x.mu.Unlock()
}

func (x *client) letGo() {
	x.mu.Lock()
	clear(x.held)
	x.held = x.held[:0]
	x.mu.Unlock()
}

// holds says whether a server connection is in use.
func (x *client) holds() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return len(x.held) > 0
}

// pin and unpin say which server connections stay with the client between its transactions, and why.
func (x *client) pin(c *backend.Conn, why string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.pinned == nil {
		x.pinned = map[*backend.Conn]string{}
	}
	x.pinned[c] = why
}

func (x *client) unpin(c *backend.Conn) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.pinned, c)
}

// interruptible says what a cancel request does from now on, beside cancelling on servers; nil: nothing. stop must not block.
func (x *client) interruptible(stop func()) {
	x.mu.Lock()
	x.interrupt = stop
	x.mu.Unlock()
}

// kill ends a session: its statement is cancelled, its transaction rolled back.
func (p *Proxy) kill(x *client) {
	x.relay.Stop()
	p.interrupt(x)
}

// interrupt ends what a client waits for before a server has its statement: a server connection, RESUME, or a read model.
func (p *Proxy) interrupt(x *client) {
	x.mu.Lock()
	if x.interrupt != nil {
		x.interrupt()
	}
	x.mu.Unlock()
	p.backend.Recall(x.task)
}

// all lists the clients whose session has begun.
func (c *clients) all() []*client {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := make([]*client, 0, len(c.byPID))
	for _, x := range c.byPID {
		list = append(list, x)
	}
	return list
}

// keys are what to cancel. They stay valid, and harmless, when the connections are given back meanwhile.
func (x *client) keys() []backend.CancelKey {
	x.mu.Lock()
	defer x.mu.Unlock()
	keys := make([]backend.CancelKey, len(x.held))
	for i, c := range x.held {
		keys[i] = c.CancelKey()
	}
	return keys
}

// Cancel serves a CancelRequest. It blocks, and tells the client nothing, as PostgreSQL does not.
func (p *Proxy) Cancel(pid uint32, key []byte) {
	if p.admin.cancelled(pid, key) {
		return
	}
	switch x := p.clients.find(pid, key); {
	case x != nil:
		p.interrupt(x)
		p.cancelKeys(x.keys())
	case p.elsewhere != nil:
		p.elsewhere(pid, key)
	}
}

// errCancelled is the answer to a statement that a cancel request has ended in the proxy.
func errCancelled() *wire.Error {
	return wire.Errorf(wire.QueryCanceled, "canceling statement due to user request")
}

// cancelTimeout bounds the delivery of one cancel request.
const cancelTimeout = 5 * time.Second

func (p *Proxy) cancelKeys(keys []backend.CancelKey) {
	ctx, stop := context.WithTimeout(context.Background(), cancelTimeout)
	defer stop()
	for _, k := range keys {
		if err := k.Cancel(ctx); err != nil {
			p.log.Warn("cancel request not delivered", "error", err)
		}
	}
}

// abandon closes a link's connection. A statement that still runs there is cancelled first, while the connection is held:
// the server would not notice before it had something to say.
func (p *Proxy) abandon(l *engine.Link) {
	c := l.Conn
	if l.Err != nil || l.Owed() == 0 {
		c.Close()
		return
	}
	key := c.CancelKey()
	p.engine.Go(func(t *loop.Task) {
		t.Own(c.IO)
		t.Await(func() { p.cancelKeys([]backend.CancelKey{key}) })
		c.Close()
	})
}

package proxy

import (
	"sync"
	"time"

	"github.com/tidemarkdb/tidemark/internal/wire"
)

// doorstep is the clients that have not proven yet who they are. There is a limit on how many, because each costs a
// stack and, over TLS, some tens of kilobytes.
//
// When it is reached, the client goes that has let us wait for its next byte the longest, if that is longer than patience:
// so nobody keeps others out by opening connections and saying nothing. If all are being served, as when thousands of
// good clients come back at once, the newest is refused, and those that are nearly in get in.
type doorstep struct {
	mu      sync.Mutex
	waiting map[*login]struct{}
}

const (
	// patience is what a client may take to answer, without risk, when others wait: a slow network's round trips.
	patience = 5 * time.Second
	// firstWord bounds the time to the first packet, which every client sends at once.
	firstWord = 10 * time.Second
	// farewellTime bounds telling a client that it is refused.
	farewellTime = time.Second
)

// enter takes a client in, or says why not.
func (d *doorstep) enter(l *login, limit int) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.waiting) >= limit {
		late := d.slowest()
		if late == nil {
			return wire.Errorf(wire.TooManyConnections, "sorry, too many clients are logging in already").
				WithHint("At most %d clients may be on their way in; try again, or raise clients.max_logins.", limit)
		}
		delete(d.waiting, late)
		late.evict()
	}
	if d.waiting == nil {
		d.waiting = map[*login]struct{}{}
	}
	d.waiting[l] = struct{}{}
	return nil
}

// leave is for clients that are in, or gone. It may be called twice.
func (d *doorstep) leave(l *login) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.waiting, l)
}

// clear is for the end of the process.
func (d *doorstep) clear() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for l := range d.waiting {
		l.evict()
	}
}

// slowest is the client that has not spoken for the longest time, nil if none has been silent for long.
func (d *doorstep) slowest() *login {
	var found *login
	oldest := time.Now().Add(-patience).UnixNano()
	for l := range d.waiting {
		if since := l.silent.Load(); since != 0 && since < oldest {
			found, oldest = l, since
		}
	}
	return found
}

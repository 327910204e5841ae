package proxy

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// Lookup asks where users are kept, as by PgBouncer's auth_query: found is false for a user that does not exist, and secret
// is in one of the forms of ParseSecret, empty for a user without a password. An error is for the log.
type Lookup func(ctx context.Context, user string) (secret string, found bool, err error)

// Bounds of what is kept of lookups.
const (
	maxKnown     = 10_000 // users
	maxLookups   = 4      // at a time; others wait their turn
	lookupRetry  = time.Second
	lookupWithin = 5 * time.Second
)

// directory is the users that Lookup knows, remembered for a while. Many logins of one user ask once.
//
//	answer          is remembered for
//	a user          ttl; but no longer than absent when nobody has logged in by it since
//	no such user    absent
//	an error        lookupRetry
//
// A user that nobody proved to be is not remembered for longer than one that does not exist: else the time that a failing
// login takes would tell them apart.
type directory struct {
	lookup      Lookup
	disguise    *disguise
	ttl, absent time.Duration
	slots       chan struct{}

	mu      sync.Mutex
	entries map[string]*directoryEntry
}

// directoryEntry is one user's answer. All but expires is set before done is closed and never changes then.
type directoryEntry struct {
	done    chan struct{}
	secret  Secret
	found   bool
	err     error
	asked   time.Time
	expires time.Time // guarded by directory.mu; zero while the answer is awaited
	doubted time.Time // guarded by directory.mu: when a login that failed last had a fresh answer asked for again
}

func newDirectory(lookup Lookup, d *disguise, ttl, absent time.Duration) *directory {
	return &directory{
		lookup: lookup, disguise: d, ttl: ttl, absent: min(ttl, absent),
		slots: make(chan struct{}, maxLookups), entries: map[string]*directoryEntry{},
	}
}

// find is what answers for a user.
func (d *directory) find(user string) *directoryEntry {
	e, mine := d.entry(user)
	if mine {
		// The answer is for all who wait for it, so that the first of them must not take it along when it leaves.
		go d.ask(user, e)
	}
	return e
}

// known says whether answer need not wait.
func (e *directoryEntry) known() bool {
	select {
	case <-e.done:
		return true
	default:
		return false
	}
}

// answer waits for a user's secret. Its error is for the log.
func (e *directoryEntry) answer(ctx context.Context) (s Secret, found bool, err error) {
	select {
	case <-e.done:
		return e.secret, e.found, e.err
	case <-ctx.Done():
		return Secret{}, false, ctx.Err()
	}
}

// entry is the one that answers for a user; the caller asks if it is new.
func (d *directory) entry(user string) (e *directoryEntry, mine bool) {
	now := time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	if e = d.entries[user]; e != nil && (e.expires.IsZero() || now.Before(e.expires)) {
		return e, false
	}
	if len(d.entries) >= maxKnown {
		d.makeRoom(now)
	}
	old := e
	e = &directoryEntry{done: make(chan struct{}), asked: now}
	if old != nil {
		e.doubted = old.doubted
	}
	d.entries[user] = e
	return e, true
}

// makeRoom forgets what has expired, or else any that is not awaited.
func (d *directory) makeRoom(now time.Time) {
	for user, e := range d.entries {
		if !e.expires.IsZero() && now.After(e.expires) {
			delete(d.entries, user)
		}
	}
	for user, e := range d.entries {
		if len(d.entries) < maxKnown {
			return
		}
		if !e.expires.IsZero() {
			delete(d.entries, user)
		}
	}
}

func (d *directory) ask(user string, e *directoryEntry) {
	ctx, stop := context.WithTimeout(context.Background(), lookupWithin)
	defer stop()
	keep := lookupRetry
	defer func() {
		d.mu.Lock()
		e.expires = time.Now().Add(keep)
		d.mu.Unlock()
		close(e.done)
	}()
	select {
	case d.slots <- struct{}{}:
		defer func() { <-d.slots }()
	case <-ctx.Done():
		e.err = fmt.Errorf("%d lookups were under way already: %w", maxLookups, ctx.Err())
		return
	}
	text, found, err := d.lookup(ctx, user)
	if err == nil && found {
		e.secret, err = ParseSecret(text)
	}
	if err == nil {
		e.secret, err = d.disguise.complete(user, e.secret)
	}
	if err != nil {
		e.secret, e.err = Secret{}, err
		return
	}
	e.found, keep = found, d.absent
	d.disguise.saw(e.secret)
}

// proven keeps a user whose secret has just let somebody in.
func (d *directory) proven(user string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if e := d.entries[user]; e != nil && !e.expires.IsZero() && e.found {
		e.expires = e.asked.Add(d.ttl)
	}
}

// failed has a secret that did not fit asked for again: the user's password may have changed. So may that of a user who was asked for
// a moment ago; but once in the time of absent is enough, for who guesses passwords is not to have as many queries run.
func (d *directory) failed(user string) {
	now := time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	e := d.entries[user]
	if e == nil || e.expires.IsZero() {
		return
	}
	if now.Sub(e.asked) <= d.absent {
		if now.Sub(e.doubted) <= d.absent {
			return
		}
		e.doubted = now
	}
	e.expires = now
}

package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tidemarkdb/tidemark/internal/backend"
	"github.com/tidemarkdb/tidemark/internal/wire"
)

// starting is what a proxy knows that cannot serve clients yet, because it has not read the schema. It accepts them, so
// that they hear why:
//
//	readings of the schema        a client
//	none has failed, or only one  waits for the next one's end, for startPatience at most
//	more have failed              is refused at once
//	one has succeeded             is served
//
// It is refused as by a PostgreSQL that is starting up, before it is asked who it is: pg_isready takes the question for a
// server that accepts connections. So it hears from which shard the schema cannot be read and what kind of failure that is;
// whatever names a database, a role or an address is for those who have nothing to prove, for the log, /ready and the
// admin database.
type starting struct {
	decided chan struct{} // closed when waiting makes no sense any more
	once    sync.Once     // closes it

	mu       sync.Mutex // guards what follows
	failures int
	err      error // of the last reading
}

const (
	startRetry = time.Second
	// startFailures is after how many readings that failed clients wait no longer: one that breaks is nothing unusual.
	startFailures = 2
	// startPatience is how long a client waits for a reading to end: longer than for a server that does not answer, so
	// that one which is down holds up the start without a client's being refused.
	startPatience = 10 * time.Second
	// startSilence bounds the time between two lines of the log that say the same.
	startSilence = 30 * time.Second
)

// Start waits until the servers are known and the schema is read, which it tries until ctx ends, so that a proxy may start
// before its servers. Its error is that of ctx, or the backend's when that is closed.
func (p *Proxy) Start(ctx context.Context) error {
	if err := p.backend.Ready(ctx); err != nil {
		return err
	}
	return p.starting.try(ctx, p.loadCatalog, p.log)
}

// Starting is why no client is served yet; empty: they are.
func (p *Proxy) Starting() string {
	if p.router.Load() != nil {
		return ""
	}
	if err := p.starting.last(); err != nil {
		return "starting: " + strings.Join(strings.Fields(err.Error()), " ")
	}
	return "starting"
}

// try reads until that succeeds or ctx ends.
func (s *starting) try(ctx context.Context, read func(context.Context) error, log *slog.Logger) error {
	var told repeats
	for {
		err := read(ctx)
		if err == nil {
			s.decide()
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		n := s.failed(err)
		if told.due(err.Error(), time.Now()) {
			log.Warn("cannot read the schema; trying again", "error", err, "failures", n, "again_in", startRetry)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(startRetry):
		}
	}
}

func (s *starting) failed(err error) (failures int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
	if s.failures++; s.failures == startFailures {
		s.decide()
	}
	return s.failures
}

func (s *starting) last() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

func (s *starting) decide() { s.once.Do(func() { close(s.decided) }) }

// wait returns when clients can be served or need not wait any longer.
func (s *starting) wait(ctx context.Context) {
	ctx, stop := context.WithTimeout(ctx, startPatience)
	defer stop()
	select {
	case <-s.decided:
	case <-ctx.Done():
	}
}

// awaitStart lets a client on when the proxy has started, and says else why it has not. The admin database is there at once.
func (l *login) awaitStart() error {
	p := l.p
	if l.admin || p.router.Load() != nil {
		return nil
	}
	l.await(p.starting.wait)
	switch {
	case p.router.Load() != nil:
		return nil
	case p.draining.Load():
		return errShuttingDown()
	}
	return errStarting(p.home, p.starting.last(), l.trusted())
}

// trusted says whether the client has nothing to prove any more. Users that would have to be looked up have.
func (l *login) trusted() bool {
	k := l.live.doorkeeper
	r := decide(k.rules, newArrival(l.user, l.database, l.conn.RemoteAddr(), l.tls != nil))
	if _, known := k.users[l.user]; !known || r == nil {
		return false
	}
	return (r.Method == MethodTrust || r.Method == MethodCert || r.Method == MethodPeer) && l.unasked(r) == nil
}

// errStarting refuses a client while the proxy starts. cause is why the last reading failed, nil when none has ended.
func errStarting(shard string, cause error, trusted bool) *wire.Error {
	e := wire.Errorf(wire.CannotConnectNow, "the proxy is starting up").
		WithHint("The proxy's log tells more, and so does the table endpoints of the admin database.")
	switch {
	case cause == nil:
		return e.WithDetail("The schema has not been read from shard %q yet.", shard)
	case trusted:
		return e.WithDetail("The schema cannot be read from shard %q: %s.", shard, inFull(cause))
	}
	return e.WithDetail("The schema cannot be read from shard %q: %s.", shard, inGeneral(cause))
}

// inFull is the server's own answer, if there was one.
func inFull(cause error) string {
	var pg *pgconn.PgError
	if errors.As(cause, &pg) {
		return pg.Message + " (SQLSTATE " + pg.Code + ")"
	}
	return backend.Reason(cause).Error()
}

// inGeneral is a failure without any name.
func inGeneral(cause error) string {
	var pg *pgconn.PgError
	var login *pgconn.ConnectError
	switch answered := errors.As(cause, &pg); {
	case !answered && errors.As(cause, &login):
		return "its server cannot be reached"
	case !answered:
		return "the reading failed"
	case pg.Code == wire.InvalidCatalogName:
		return "its server has no database of the configured name"
	case pg.Code == wire.InvalidPassword, pg.Code == wire.InvalidAuthorizationSpecification:
		return "its server refuses the configured login"
	}
	return fmt.Sprintf("its server answers with SQLSTATE %s", pg.Code)
}

func errShuttingDown() *wire.Error {
	return wire.Errorf(wire.CannotConnectNow, "the proxy is shutting down")
}

// repeats says when what is said again and again is worth a line in the log: once it says something else, and what has
// been said ever more rarely, until it is once in startSilence.
type repeats struct {
	told  map[string]bool // since the last time that all could be told
	next  time.Time       // when it can be again
	pause time.Duration
}

func (r *repeats) due(text string, now time.Time) bool {
	// A number alone, such as that of the port which a connection came from, makes no difference.
	text = strings.Map(func(c rune) rune {
		if c >= '0' && c <= '9' {
			return -1
		}
		return c
	}, text)
	if !now.Before(r.next) {
		r.pause = min(max(2*r.pause, 2*startRetry), startSilence)
		r.next, r.told = now.Add(r.pause), map[string]bool{}
	}
	if r.told[text] {
		return false
	}
	r.told[text] = true
	return true
}

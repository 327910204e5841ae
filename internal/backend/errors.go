package backend

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tidemarkdb/tidemark/internal/wire"
)

// ErrClientGone is wrapped by Acquire's error when the client hung up while it waited. There is nobody to tell.
var ErrClientGone = errors.New("client has disconnected")

// ErrRecalled is wrapped by Acquire's error when Recall ended the wait.
var ErrRecalled = errors.New("canceling statement due to user request")

// ErrClosed is wrapped by errors of a Backend that was closed.
var ErrClosed = errors.New("backend is closed")

// connectError turns what pgconn says about a failed login into an error for a client: the server's own SQLSTATE and
// words when it answered, 08006 when nobody did. Its severity is ERROR: the client's session can go on, and its next
// statement may succeed.
func (e *Endpoint) connectError(err error, user string) *wire.Error {
	var pg *pgconn.PgError
	var w *wire.Error
	if errors.As(err, &pg) {
		w = fromPgError(pg)
	} else if !errors.As(err, &w) { // the answer to our own login comes as it is
		w = nil
	}
	if w != nil {
		w.Severity = wire.SeverityError
		if w.Detail == "" {
			w.Detail = fmt.Sprintf("This is the answer of %s to the login of user %q.", e, user)
		}
		if w.Hint == "" {
			w.Hint = hints[w.Code]
			if own := limitHints[w.Routine]; own != "" && w.Code == wire.TooManyConnections {
				w.Hint = own
			}
		}
		return w
	}
	return wire.Errorf(wire.ConnectionFailure, "could not connect to %s: %w", e, Reason(err)).
		WithHint("Is the server running, and does it accept connections from here?")
}

// hints say what to do about a server's answer to a login, where the server does not.
var hints = map[string]string{
	wire.TooManyConnections:                "The server has no connection left: raise its max_connections, or lower pool.budget of the proxies.",
	wire.CannotConnectNow:                  "The server is starting, stopping or recovering; it is tried again until it takes connections.",
	wire.InvalidAuthorizationSpecification: "The server does not let this role in, or not from here: look at its pg_hba.conf, and whether the role may log in (ALTER ROLE ... LOGIN).",
	wire.InvalidPassword:                   "The server stores another password for this role than the configuration has, or none.",
}

// limitHints are for those of PostgreSQL's routines that refuse a connection by another limit than max_connections. Messages have
// the server's language.
var limitHints = map[string]string{
	"InitializeSessionUserId": "The role's own limit is reached: raise it by ALTER ROLE ... CONNECTION LIMIT, or lower the size of its pools, pool.size or users.pool_size.",
	"CheckMyDatabase":         "The database's own limit is reached: raise it by ALTER DATABASE ... CONNECTION LIMIT, or lower database.max_connections of the proxies.",
}

// Reason shortens what pgconn and net wrapped into what people look for, and keeps the chain for errors.Is.
func Reason(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return connectFailure{"connection attempt timed out", err}
	}
	var op *net.OpError
	if errors.As(err, &op) {
		return connectFailure{op.Err.Error(), err}
	}
	var cert *tls.CertificateVerificationError
	if errors.As(err, &cert) {
		return connectFailure{cert.Error(), err}
	}
	var dns *net.DNSError
	if errors.As(err, &dns) {
		return connectFailure{dns.Error(), err}
	}
	return connectFailure{strings.Join(strings.Fields(err.Error()), " "), err}
}

type connectFailure struct {
	text  string
	cause error
}

func (f connectFailure) Error() string { return f.text }
func (f connectFailure) Unwrap() error { return f.cause }

func fromPgError(pg *pgconn.PgError) *wire.Error {
	e := wire.Errorf(pg.Code, "%s", pg.Message)
	e.Severity = pg.SeverityUnlocalized
	if e.Severity == "" {
		e.Severity = pg.Severity
	}
	e.Detail, e.Hint, e.Where = pg.Detail, pg.Hint, pg.Where
	e.Position, e.InternalPosition, e.InternalQuery = int(pg.Position), int(pg.InternalPosition), pg.InternalQuery
	e.Schema, e.Table, e.Column = pg.SchemaName, pg.TableName, pg.ColumnName
	e.DataType, e.Constraint = pg.DataTypeName, pg.ConstraintName
	e.File, e.Line, e.Routine = pg.File, int(pg.Line), pg.Routine
	return e
}

func (p *pool) errTimeout(waited time.Duration) *wire.Error {
	e := wire.Errorf(wire.TooManyConnections, "no server connection to %s became free within %w", p.endpoint, waitedFor(waited))
	switch lack := p.budget.whatLacks(p); {
	case p.lastErr != nil:
		return e.WithDetail("The last attempt to open one failed: %s", p.lastErr.Message).
			WithHint("Look at the server: it may refuse further connections of user %q.", p.user)
	case int(p.total.Load()) < p.size+p.reserve && lack != "":
		return e.WithHint("This is used up: %s. Raise it, or look for who keeps connections: SHOW CLIENTS in the admin database tells.", lack)
	}
	return e.WithHint("The pool of user %q has size %d, and all its connections were busy. Raise that, or look for who keeps them, in long transactions or pinned: SHOW CLIENTS in the admin database tells.", p.user, p.size)
}

// waitedFor is how long somebody has waited in vain, as a part of the error that says so.
type waitedFor time.Duration

func (d waitedFor) Error() string { return time.Duration(d).Round(time.Millisecond).String() }

// WaitedFor is how long Acquire has waited for a connection before it gave up with this error; 0 when it failed otherwise.
func WaitedFor(err error) time.Duration {
	var d waitedFor
	errors.As(err, &d)
	return time.Duration(d)
}

func (p *pool) errClientGone() *wire.Error {
	return wire.Errorf(wire.ConnectionFailure, "waiting for a server connection: %w", ErrClientGone)
}

func errRecalled() *wire.Error { return wire.Errorf(wire.QueryCanceled, "%w", ErrRecalled) }

// errcodeRoleNotFound is 0P000, which no session of Tidemark's own raises.
const errcodeRoleNotFound = "0P000"

func errClosing() *wire.Error {
	return wire.Errorf(wire.AdminShutdown, "terminating connection because Tidemark is shutting down: %w", ErrClosed).WithHint("Connect again.").Fatal()
}

package backend

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tidemarkdb/tidemark/internal/loop"
)

// login is how to reach and enter one endpoint.
type login struct {
	user, database string
	pooled         *pgconn.Config // for connections that the engine adopts
	plain          *pgconn.Config // for health checks and cancel requests, which stay ordinary
	timeout        time.Duration
}

func newLogin(cfg *Config, eng loop.Engine, database string, ec EndpointConfig) (*login, error) {
	plain, err := pgconn.ParseConfig(connString(cfg, database, ec))
	if err != nil {
		return nil, fmt.Errorf("connection settings: %w", err)
	}
	// What the environment says about a session (PGOPTIONS, PGTZ, PGTARGETSESSIONATTRS) is not for a pool.
	plain.RuntimeParams = map[string]string{"application_name": healthName}
	plain.ValidateConnect = nil
	plain.ConnectTimeout = cfg.ConnectTimeout
	dialer := &net.Dialer{KeepAliveConfig: keepAlive}
	plain.DialFunc = dialer.DialContext

	pooled := plain.Copy()
	pooled.RuntimeParams = map[string]string{} // what its clients name themselves, the connection is named
	pooled.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		nc, err := dialer.DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return eng.Wrap(nc), nil
	}
	return &login{user: plain.User, database: plain.Database, pooled: pooled, plain: plain, timeout: cfg.ConnectTimeout}, nil
}

// keepAlive has the kernel find a dead peer of an idle connection within a minute, and keeps firewalls from forgetting it.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 30 * time.Second, Interval: 10 * time.Second, Count: 3}

// connString is libpq's keyword/value form. What is left out libpq's environment and files may fill in.
func connString(cfg *Config, database string, ec EndpointConfig) string {
	var b strings.Builder
	add := func(key, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%s='%s' ", key, strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(value))
		}
	}
	add("host", ec.Host)
	add("port", strconv.Itoa(ec.Port))
	add("dbname", database)
	add("user", cfg.User)
	add("password", cfg.Password)
	add("sslmode", cfg.SSLMode)
	add("sslrootcert", cfg.SSLRootCert)
	add("sslcert", cfg.SSLCert)
	add("sslkey", cfg.SSLKey)
	return b.String()
}

// open makes a new server connection for a pool, logged in as id. It blocks, for the connect timeout at most, so it runs
// in an ordinary goroutine.
func (e *Endpoint) open(ctx context.Context, p *pool, id *Identity) (*Conn, error) {
	in := e.login()
	user := in.user
	if id != nil && !id.Shared {
		user = id.User
	}
	in = in.beginning(e.b.searchPath(user))
	ctx, cancel := context.WithTimeout(ctx, in.timeout)
	defer cancel()
	hc, err := in.enter(ctx, id)
	if err != nil {
		return nil, err
	}
	io, err := e.b.eng.Adopt(hc.Conn)
	if err != nil {
		_ = hc.Conn.Close() // Adopt's error is the one that counts
		return nil, fmt.Errorf("adopt the connection: %w", err)
	}
	if id == nil || id.Shared { // what another role's sessions begin with is not what all clients are told
		e.shard.setParams(maps.Clone(hc.ParameterStatuses), e.Role() == RolePrimary)
	}
	now, cfg := time.Now(), e.b.cfg()
	return &Conn{
		IO:         io,
		Params:     hc.ParameterStatuses,
		Reported:   ReportedPrint(hc.ParameterStatuses),
		TxStatus:   hc.TxStatus,
		Statements: newStatements(cfg.StatementBytes),
		endpoint:   e,
		pool:       p,
		pid:        hc.PID,
		key:        hc.SecretKey,
		tls:        hc.TLSConfig,
		idleTime:   jitter(cfg.IdleTime),
		opened:     now,
		expires:    now.Add(jitter(cfg.Lifetime)),
	}, nil
}

// beginning is l for connections that begin with that search_path; with the servers' own if it is empty.
func (l *login) beginning(searchPath string) *login {
	if searchPath == "" {
		return l
	}
	x := *l
	x.pooled = l.pooled.Copy()
	x.pooled.RuntimeParams = map[string]string{"search_path": searchPath}
	return &x
}

// enter connects and logs in: by pgconn, which knows every way in but by SCRAM keys.
func (l *login) enter(ctx context.Context, id *Identity) (*pgconn.HijackedConn, error) {
	cfg := l.pooled
	if id != nil && !id.Shared {
		if id.Keys != nil {
			return l.enterByKeys(ctx, id)
		}
		cfg = cfg.Copy()
		cfg.User, cfg.Password = id.User, id.Password
	}
	pg, err := pgconn.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, err
	}
	if err := pg.SyncConn(ctx); err != nil {
		return nil, closeAfter(pg, err)
	}
	hc, err := pg.Hijack()
	if err != nil {
		return nil, closeAfter(pg, err)
	}
	return hc, nil
}

func closeAfter(pg *pgconn.PgConn, err error) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = pg.Close(ctx) // the connection is lost either way; err says why
	return err
}

// jitter is d, give or take a tenth.
func jitter(d time.Duration) time.Duration {
	return d - d/10 + rand.N(d/5+1)
}

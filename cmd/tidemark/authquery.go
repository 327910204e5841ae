package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tidemarkdb/tidemark/internal/config"
	"github.com/tidemarkdb/tidemark/proxy"
)

// lookupPath is the search_path of auth.query: whoever may create functions in a schema of the role's own, "$user" or public, would else decide
// what a name or an operator of the query means, run it as that role, and say who may come in.
const lookupPath = " search_path='pg_catalog, pg_temp'"

// idleLookups is how many connections wait for the next auth.query.
const idleLookups = 2

// newLookup runs auth.query; nil where there is none. It has connections of its own, outside of the pools: who comes in
// does not depend on what those who are in do. The proxy bounds how many run at a time.
// The servers and who logs in are those of the configuration in force.
func newLookup(current func() *config.Config) proxy.Lookup {
	c := current()
	if c.Auth.Query == "" {
		return nil
	}
	q := &authQuery{query: c.Auth.Query, connString: func() string { return current().AuthConnString() }, idle: make(chan *pgconn.PgConn, idleLookups)}
	return q.lookup
}

type authQuery struct {
	query      string
	connString func() string
	idle       chan *pgconn.PgConn
}

// lookup asks over an idle connection, and over a new one if that has broken meanwhile.
func (q *authQuery) lookup(ctx context.Context, user string) (secret string, found bool, err error) {
	for {
		var conn *pgconn.PgConn
		fresh := false
		select {
		case conn = <-q.idle:
		default:
			if conn, err = pgconn.Connect(ctx, q.connString()+lookupPath); err != nil {
				return "", false, fmt.Errorf("auth.query: %w", err)
			}
			fresh = true
		}
		secret, found, err = q.ask(ctx, conn, user)
		if err == nil || !conn.IsClosed() {
			q.keep(conn)
		} else if !fresh && ctx.Err() == nil {
			continue
		}
		return secret, found, err
	}
}

func (q *authQuery) ask(ctx context.Context, conn *pgconn.PgConn, user string) (secret string, found bool, err error) {
	res := conn.ExecParams(ctx, q.query, [][]byte{[]byte(user)}, nil, nil, nil).Read()
	switch {
	case unknownName(res.Err):
		return "", false, fmt.Errorf("auth.query: %w; it runs with pg_catalog alone in its search_path: write the schema before names, as in public.user_lookup($1)", untold(res.Err))
	case res.Err != nil:
		return "", false, fmt.Errorf("auth.query: %w", untold(res.Err))
	case len(res.Rows) == 0:
		return "", false, nil
	case len(res.Rows) > 1:
		return "", false, fmt.Errorf("auth.query: %d rows for one user; expected one or none", len(res.Rows))
	case len(res.Rows[0]) != 2:
		return "", false, fmt.Errorf("auth.query: a row of %d columns; expected the name and the secret", len(res.Rows[0]))
	}
	name, value := res.Rows[0][0], res.Rows[0][1]
	switch {
	case name == nil: // as functions with OUT parameters say that there is nobody
		return "", false, nil
	case string(name) != user:
		return "", false, fmt.Errorf("auth.query: asked for user %q, it returned another name; expected the name and the secret, in this order", user)
	}
	return string(value), true, nil
}

// untold leaves of a server's error the SQLSTATE alone: a function may have put what it has read into all else, a secret, for one.
func untold(err error) error {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return fmt.Errorf("the server answers with SQLSTATE %s; its message, which may tell a secret, is in the server's log", e.Code)
	}
	return err
}

// unknownName says whether a server could not find a table, function or type.
func unknownName(err error) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) && slices.Contains([]string{"42P01", "42883", "42704"}, e.Code)
}

// keep leaves a connection for the next lookup, or closes it.
func (q *authQuery) keep(conn *pgconn.PgConn) {
	if !conn.IsClosed() {
		select {
		case q.idle <- conn:
			return
		default:
		}
	}
	ctx, stop := context.WithTimeout(context.Background(), time.Second)
	defer stop()
	_ = conn.Close(ctx) // it has served
}

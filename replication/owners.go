package replication

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// querier is a connection, or a transaction on one.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// inspectOwners finds schema tidemark and its tables where they are somebody else's. Whoever may create schemas can make them before capture
// does, or in a schema of its own replace them later, with triggers, defaults or a view's functions that run as the role that captures. So they
// are to belong to this role, or to who can act as it in any case: a superuser, or a member of the role. That this role is a member of
// theirs is not enough: it says what this one may do, not what they may.
//
// The publication may be anybody's: it runs no code, and setup looks at what it holds.
func inspectOwners(ctx context.Context, q querier) ([]Finding, error) {
	rows, err := q.Query(ctx, `SELECT kind, name, owner::pg_catalog.regrole::text, current_user::regrole::text FROM (
			SELECT 'schema' AS kind, pg_catalog.quote_ident(nspname) AS name, nspowner AS owner FROM pg_catalog.pg_namespace WHERE nspname = $1
			UNION ALL
			SELECT 'table', pg_catalog.quote_ident(nspname) || '.' || pg_catalog.quote_ident(relname), relowner
			FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE nspname = $1 AND relname IN ($2, $3)
		) own WHERE NOT pg_catalog.pg_has_role(owner, current_user, 'MEMBER') ORDER BY kind, name`, ownSchema, epochTable, captureTable)
	if err != nil {
		return nil, fmt.Errorf("inspect the owner of schema tidemark: %w", err)
	}
	var (
		out                     []Finding
		kind, name, owner, role string
	)
	_, err = pgx.ForEachRow(rows, []any{&kind, &name, &owner, &role}, func() error {
		out = append(out, Finding{
			Problem: fmt.Sprintf("%s %s belongs to %s: what that role hangs on it would run as %s", kind, name, owner, role),
			Fix:     fmt.Sprintf("DROP SCHEMA %s CASCADE if nobody captures by it, else see that its tables have no triggers and rules, then ALTER %s %s OWNER TO %s", ownSchema, strings.ToUpper(kind), name, role),
		})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("inspect the owner of schema tidemark: %w", err)
	}
	return out, nil
}

// ownersRefusal is inspectOwners as an error.
func ownersRefusal(ctx context.Context, q querier, shard string) error {
	findings, err := inspectOwners(ctx, q)
	if err != nil {
		return err
	}
	return refusal(shard, findings)
}

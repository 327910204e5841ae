package main

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tidemarkdb/tidemark/testcontainers"
)

// Whom auth.query finds does not depend on what others have made in schemas where its role would look.
func TestLookupBesideFunctionsOfOthers(t *testing.T) {
	cluster := testcontainers.Shared(t, testcontainers.Spec{Shards: 1})
	db := cluster.Database(t)
	p := cluster.Shards[0].Primary
	conn, err := pgx.Connect(t.Context(), p.DSN(db))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeConn(conn) })
	for _, sql := range []string{
		`CREATE FUNCTION public.user_lookup(in name text, out uname text, out phash text) LANGUAGE sql AS $$ SELECT name, 'right' WHERE name = 'ann' $$`,
		`CREATE FUNCTION public.user_failing(in name text, out uname text, out phash text) LANGUAGE plpgsql AS $$ BEGIN
			RAISE 'what is wrong with right?' USING DETAIL = 'right', HINT = 'right', COLUMN = 'right'; END $$`,
		`CREATE SCHEMA tidemark`, // "$user"
		`CREATE FUNCTION tidemark.user_lookup(in name text, out uname text, out phash text) LANGUAGE sql AS $$ SELECT name, 'wrong' $$`,
		`CREATE FUNCTION public.lower(text) RETURNS text LANGUAGE sql AS $$ SELECT 'eve' $$`,
		`ALTER ROLE tidemark IN DATABASE ` + db + ` SET search_path = public, pg_catalog`,
	} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	ask := func(query string) (string, bool, error) {
		q := &authQuery{query: query, idle: make(chan *pgconn.PgConn, 1), connString: func() string {
			return fmt.Sprintf("host='%s' port=%d dbname=%s user=%s password=%s sslmode=disable", p.Host, p.Port, db, testcontainers.AppUser, testcontainers.AppPassword)
		}}
		defer func() {
			if len(q.idle) > 0 {
				closeConn(<-q.idle)
			}
		}()
		return q.lookup(t.Context(), "ann")
	}
	for _, query := range []string{"SELECT uname, phash FROM public.user_lookup($1)", "SELECT lower(uname), phash FROM public.user_lookup($1)"} {
		if secret, found, err := ask(query); err != nil || !found || secret != "right" {
			t.Errorf("%s: %q, %v, %v", query, secret, found, err)
		}
	}
	for query, says := range map[string]string{
		"SELECT uname, phash FROM public.user_failing($1)":                     "SQLSTATE P0001",
		"SELECT phash, uname FROM public.user_lookup($1)":                      "another name",
		"SELECT uname, phash FROM public.user_lookup($1) WHERE phash::int = 1": "SQLSTATE 22P02",
	} {
		if _, _, err := ask(query); err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "right") {
			t.Errorf("%s: %v; want an error that says %s, and not the secret", query, err, says)
		}
	}
	if _, _, err := ask("SELECT uname, phash FROM user_lookup($1)"); err == nil || !strings.Contains(err.Error(), "write the schema before names") {
		t.Errorf("a function without its schema: %v", err)
	}
}

func closeConn(c interface{ Close(context.Context) error }) {
	ctx, stop := context.WithTimeout(context.Background(), 20*time.Second)
	defer stop()
	_ = c.Close(ctx) // it has served
}

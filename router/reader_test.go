package router_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/tidemarkdb/tidemark/router"
)

// asking asks one question after another.
func asking(ctx context.Context, conn *pgx.Conn) router.Ask {
	return func(questions []router.Question) (router.Answers, error) {
		return func(each func(row [][]byte) error) error {
			q := questions[0]
			questions = questions[1:]
			r := conn.PgConn().ExecParams(ctx, q.SQL, q.Params, nil, nil, nil)
			for r.NextRow() {
				if err := each(r.Values()); err != nil {
					return err
				}
			}
			_, err := r.Close()
			return err
		}, nil
	}
}

// What a Reader keeps is what there is: also of functions of PostgreSQL's own, which a superuser can alter.
func TestReaderKeeps(t *testing.T) {
	for _, version := range []string{"15", "18"} {
		t.Run(version, func(t *testing.T) {
			ctx, conn := connect(t, version)
			kept := router.NewReader(2)
			ask := asking(ctx, conn)
			var again bool
			counting := func(questions []router.Question) (router.Answers, error) {
				answers, err := ask(questions)
				return func(each func(row [][]byte) error) error {
					rows := 0
					err := answers(func(row [][]byte) error { rows++; return each(row) })
					again = again || rows > 1000
					return err
				}, err
			}
			for i, step := range []struct {
				sql   string
				again bool // PostgreSQL's own functions are read again
			}{
				{"", true},
				{"CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'", false},
				{"ALTER FUNCTION mine() IMMUTABLE", false},
				{"ALTER FUNCTION pg_catalog.version() VOLATILE", true},
				{"CREATE TABLE t (a int)", false},
				{"ALTER FUNCTION pg_catalog.version() STABLE", true},
				{"BEGIN; ALTER FUNCTION pg_catalog.version() IMMUTABLE; ROLLBACK", false},
				{"ALTER FUNCTION pg_catalog.pi() RENAME TO pie", true},
				{"CREATE FUNCTION pg_catalog.version(int) RETURNS SETOF int LANGUAGE sql VOLATILE AS 'SELECT 1'", false},
				{"DROP FUNCTION pg_catalog.version(int)", false},
				{"CREATE FUNCTION pg_catalog.set_config(int) RETURNS int LANGUAGE sql AS 'SELECT 1'", false},
				{"DROP FUNCTION mine()", false},
				{"CREATE SCHEMA moved; ALTER FUNCTION information_schema._pg_truetypid(pg_attribute, pg_type) SET SCHEMA moved", true},
				{"ALTER SCHEMA moved RENAME TO renamed", true},
				{"ALTER FUNCTION renamed._pg_truetypid(pg_attribute, pg_type) SET SCHEMA information_schema", true},
				{"DROP SCHEMA renamed", false},
				{"CREATE OR REPLACE FUNCTION pg_catalog.chr(int) RETURNS text LANGUAGE internal VOLATILE AS 'chr'", true},
				{"ALTER SCHEMA information_schema RENAME TO informed", true},
				{"VACUUM FULL pg_proc", true},
				{"", false},
			} {
				if _, err := conn.PgConn().Exec(ctx, step.sql).ReadAll(); err != nil {
					t.Fatalf("%s: %v", step.sql, err)
				}
				want, err := router.NewReader(2).Read(ask)
				if err != nil {
					t.Fatal(err)
				}
				again = false
				got, err := kept.Read(counting)
				if err != nil {
					t.Fatal(err)
				}
				byName := cmp.Transformer("ByName", func(list []router.Function) map[string]router.Function {
					m := map[string]router.Function{}
					for _, f := range list {
						m[fmt.Sprint(f.Schema, ".", f.Name, " ", f.User)] = f
					}
					return m
				})
				if d := cmp.Diff(want, got, byName); d != "" {
					t.Errorf("%d %s: %s", i, step.sql, d)
				}
				if again != step.again {
					t.Errorf("%d %s: all are read: %v", i, step.sql, again)
				}
			}
		})
	}
}

package backend

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

// The health check runs nothing that a user has made, even where the role's search_path has it before PostgreSQL's own.
func TestHealthBesideFunctions(t *testing.T) {
	c := servers(t)
	shard := c.Shards[0]
	name := c.Database(t)
	ctx, stop := context.WithTimeout(context.Background(), patience)
	defer stop()
	conn, err := pgconn.Connect(ctx, shard.Primary.DSN(name))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = closeAfter(conn, nil) }()
	const own = ` language plpgsql as $$ begin raise exception 'a function of the user''s own'; end $$;`
	if _, err := conn.Exec(ctx, `create schema mine;
		create function mine.pg_is_in_recovery() returns bool`+own+`
		create function mine.pg_current_wal_insert_lsn() returns pg_lsn`+own+`
		create function mine.pg_walfile_name(pg_lsn) returns text`+own+`
		create function mine.substr(text, integer, integer) returns text`+own+`
		create function mine.joined(text, text) returns text`+own+`
		create operator mine.|| (leftarg = text, rightarg = text, function = mine.joined);
		create function mine.current_setting(text) returns text`+own+`
		create view mine.pg_control_system as select 0 as system_identifier;
		set search_path = mine, pg_catalog`).ReadAll(); err != nil {
		t.Fatal(err)
	}
	res := conn.ExecParams(ctx, healthQuery, nil, nil, nil, nil).Read()
	if res.Err != nil {
		t.Fatal(res.Err)
	}
	if _, err := parseStatus(res.Rows[0]); err != nil {
		t.Error(err)
	}
}

package proxy_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgconn"
)

// Statements in encodings other than UTF-8: names, literals, settings and what errors point at are the client's own.
func TestClientEncodings(t *testing.T) {
	one, two := newFixture(t, fixtureSpec{shards: 1, pool: 2}), newFixture(t, fixtureSpec{shards: 2})
	encode := map[string]func(string) string{
		"latin9": strings.NewReplacer("é", "\xe9", "€", "\xa4", "Ã", "\xc3", "©", "\xa9").Replace,
		"euc_jp": strings.NewReplacer("é", "\xa5\xc6", "€", "\xa5\xb9", "Ã", "\xa5\xc8", "©", "\xa4\xa2").Replace,
		"utf8":   func(s string) string { return s },
	}
	run := func(t *testing.T, dsn string) string {
		exec(t, connect(t, one.direct(0)), `drop table if exists "tabé"`)
		exec(t, connect(t, one.direct(0)), "create or replace function nothing_much() returns int language plpgsql volatile as 'begin return 1; end'")
		var b strings.Builder
		for _, encoding := range []string{"latin9", "euc_jp", "utf8"} {
			places := encoding != "euc_jp" // of a syntax error, which counts bytes there
			c, other := connect(t, dsn).PgConn(), connect(t, dsn).PgConn()
			for _, sql := range []string{
				"set client_encoding to " + encoding, "select 'é€'", "select 'é', '€' as é, 2 -- Ã©", "select '€€', nothing", "select 'é' é €",
				`create table "tabé" ("colé" text)`, `insert into tabé values ('€'), ('b')`, `select colé, length(colé) from tabé where colé = '€'`,
				"select 'Ã©'; select 'é'", "select 'é'; selec '€'", "set my.Zé€ = 'é'", "select nothing_much()", "set my.plain = 'é€'", "OTHER", "show my.plain", "show my.zé€", "select current_setting('my.plain')", "set client_encoding = latin1", "OTHER", "select current_setting('my.plain')", "set client_encoding = " + encoding, "OTHER",
				"prepare é as select 'é'::text || $1", "execute é('€')", "deallocate é", "select $é$ €$é$", "begin; savepoint é; rollback to é; commit",
				"do $$ begin raise 'é %', '€'; end $$", "drop table tabé", "select e'\\é', u&'é'", "select 'é' collate \"é\"",
			} {
				if sql == "OTHER" {
					if _, err := other.Exec(t.Context(), "rollback; begin; select 1").ReadAll(); err != nil {
						t.Error(err)
					}
					continue
				}
				sql = encode[encoding](sql)
				simple, err := c.Exec(t.Context(), sql).ReadAll()
				fmt.Fprintf(&b, "%q\n", sql)
				for _, r := range simple {
					fmt.Fprintf(&b, "  %s %q\n", r.CommandTag, r.Rows)
				}
				tellError(&b, err, places)
				if strings.HasPrefix(sql, "select") {
					r := c.ExecParams(t.Context(), sql, nil, nil, nil, nil).Read()
					fmt.Fprintf(&b, "  %s %q\n", r.CommandTag, r.Rows)
					tellError(&b, r.Err, places)
				}
			}
			if _, err := other.Exec(t.Context(), "rollback").ReadAll(); err != nil {
				t.Error(err)
			}
		}
		for _, encoding := range []string{"latin1", "latin9"} { // the same bytes, other characters: nothing to share
			c := connect(t, dsn+"&client_encoding="+encoding).PgConn()
			_, err := c.Prepare(t.Context(), "s", "select '\xa4'", nil)
			tellError(&b, err, true)
			r := c.ExecPrepared(t.Context(), "s", nil, nil, nil).Read()
			fmt.Fprintf(&b, "  %s %q\n", r.CommandTag, r.Rows)
			tellError(&b, r.Err, true)
			defer func() { _ = c.Close(t.Context()) }()
		}
		return b.String()
	}
	want := run(t, one.direct(0))
	for name, dsn := range map[string]string{"epoll": one.start(t, "epoll"), "goroutines": one.start(t, "goroutines")} {
		if diff := cmp.Diff(want, run(t, dsn)); diff != "" {
			t.Errorf("%s (-PostgreSQL +Tidemark)\n%s", name, diff)
		}
	}
	c := connect(t, two.start(t, "epoll")).PgConn()
	exec := func(sql string) error {
		_, err := c.Exec(t.Context(), sql).ReadAll()
		return err
	}
	if err := errors.Join(exec("set client_encoding to latin9"), exec("select '\xe9'")); err != nil {
		t.Errorf("over two shards: %v", err)
	}
	if err := exec("select * from tab\xe9"); code(err) != "0A000" {
		t.Errorf("a name over two shards: %v", err)
	}
}

func tellError(b *strings.Builder, err error, places bool) {
	var e *pgconn.PgError
	switch {
	case errors.As(err, &e) && !places:
		fmt.Fprintf(b, "  %s %q\n", e.Code, e.Message)
	case errors.As(err, &e):
		fmt.Fprintf(b, "  %s %q at %d\n", e.Code, e.Message, e.Position)
	case err != nil:
		fmt.Fprintf(b, "  %v\n", err)
	}
}

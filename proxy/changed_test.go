package proxy_test

import (
	"errors"
	"regexp"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgconn"
)

// ownType finds the numbers of types that are not PostgreSQL's own, which differ from run to run.
var ownType = regexp.MustCompile(`([:\[])[1-9][0-9]{4}\b`)

// What a client prepares is what the schema is then, whatever others have prepared under the same text when it was another one.
func TestPreparedBehindChanges(t *testing.T) {
	f := newFixture(t, fixtureSpec{shards: 1, pool: 1})
	const prepare = `
		Parse {"Name":"s","Query":"%s"}
		Describe {"ObjectType":"S","Name":"s"}
		Sync`
	again := func(query string) string {
		return "Close {\"ObjectType\":\"S\",\"Name\":\"s\"}" + strings.ReplaceAll(prepare, "%s", query)
	}
	const ins, sel = "insert into changed values ($1)", "select * from changed"
	steps := []struct{ other, messages string }{
		{again(ins), again(ins)},
		{"", "Query alter table changed alter a type bool using true"},
		{"", again(ins)}, // its parameter has another type now
		{again(sel), again(sel)},
		{"", "Query begin"},
		{"", "Query alter table changed add b int"},
		{"", again(sel)},
		{"", "Query rollback"},
		{"", again(sel)},
		{"", "Query begin; alter table changed add b int; savepoint one; alter table changed add c int"},
		{"", again(sel)},
		{"", "Query rollback to one"},
		{"", again(sel)},
		{"", "Query commit"},
		{"", again(sel)},
		{again("select null::kind"), again("select null::kind = 'b'")},
		{"", "Query drop type kind; create type kind as enum ('b')"},
		{"", "Query begin"},
		{"", again("select $1::kind = 'b'")},
		{"", again("select null::kind = 'b'") + "\n" + `Bind {"PreparedStatement":"s"}
			Execute
			Sync`},
		{"", "Query commit"},
		{again(sel), again(sel)},
		{"", "Query create temp table changed (temporary text)"},
		{"", again(sel)},
		{"", "Query drop table changed"},
		{"", again(sel)},
	}
	run := func(t *testing.T, dsn string) string {
		direct := connect(t, f.direct(0))
		exec(t, direct, "drop table if exists changed")
		exec(t, direct, "drop type if exists kind")
		exec(t, direct, "create table changed (a int)")
		exec(t, direct, "create type kind as enum ('a')")
		_ = direct.Close(t.Context())
		a, b := dialWire(t, dsn), dialWire(t, dsn)
		var said strings.Builder
		for _, step := range steps {
			if step.other != "" {
				said.WriteString(b.play(t, &datadriven.TestData{Cmd: "send", Input: step.other}))
			}
			said.WriteString(step.messages + "\n" + a.play(t, &datadriven.TestData{Cmd: "send", Input: step.messages}))
		}
		b.play(t, &datadriven.TestData{Cmd: "send", Input: again(sel)})
		direct = connect(t, f.direct(0)) // behind the proxy's back
		exec(t, direct, "alter table changed add d int")
		_ = direct.Close(t.Context())
		said.WriteString(a.play(t, &datadriven.TestData{Cmd: "send", Input: strings.Replace(again(sel), "Describe", `Bind {"PreparedStatement":"s"}
			Execute
			Describe`, 1)}))
		return ownType.ReplaceAllString(said.String(), "$1")
	}
	want := run(t, f.direct(0))
	engines(t, func(t *testing.T, engineName string) {
		if diff := cmp.Diff(want, run(t, f.start(t, engineName))); diff != "" {
			t.Errorf("(-PostgreSQL +Tidemark)\n%s", diff)
		}
	})
}

// A client that has a statement's description from before a change gets no rows by a new one, on whatever connection it comes to.
func TestExecutedBehindChanges(t *testing.T) {
	f := newFixture(t, fixtureSpec{shards: 1, pool: 2})
	run := func(t *testing.T, dsn string) string {
		d := connect(t, f.direct(0))
		exec(t, d, "drop table if exists moved, stayed")
		exec(t, d, "create table moved (a int)")
		exec(t, d, "create table stayed (a int)")
		exec(t, d, "insert into moved values (1)")
		a, b := dialWire(t, dsn), dialWire(t, dsn)
		var said strings.Builder
		send := func(c *wireClient, messages string) {
			said.WriteString(c.play(t, &datadriven.TestData{Cmd: "send", Input: messages}))
		}
		send(a, `Parse {"Name":"moved","Query":"select * from moved"}
			Describe {"ObjectType":"S","Name":"moved"}
			Parse {"Name":"portal","Query":"select * from moved where a = 1"}
			Bind {"PreparedStatement":"portal"}
			Describe {"ObjectType":"P"}
			Execute
			Parse {"Name":"stayed","Query":"select * from stayed"}
			Describe {"ObjectType":"S","Name":"stayed"}
			Parse {"Name":"fetch","Query":"fetch all in cc"}
			Describe {"ObjectType":"S","Name":"fetch"}
			Parse {"Name":"write","Query":"insert into moved values (2)"}
			Describe {"ObjectType":"S","Name":"write"}
			Sync
			Bind {"PreparedStatement":"moved"}
			Execute
			Sync`)
		exec(t, d, "alter table moved add b int")
		_ = d.Close(t.Context())
		send(b, "Query begin\nQuery select 1") // on the connection that has the statements
		for _, name := range []string{"moved", "portal", "stayed", "write", "moved"} {
			send(a, `Bind {"PreparedStatement":"`+name+`"}
				Execute
				Sync`)
		}
		send(a, `Query begin
			Query declare cc cursor for select 8
			Bind {"PreparedStatement":"fetch"}
			Describe {"ObjectType":"P"}
			Execute
			Sync
			Bind {"PreparedStatement":"stayed"}
			Execute
			Sync
			Bind {"PreparedStatement":"moved"}
			Execute
			Bind {"PreparedStatement":"stayed"}
			Sync
			Query rollback`)
		send(b, "Query rollback")
		send(a, `Close {"ObjectType":"S","Name":"moved"}
			Parse {"Name":"moved","Query":"select * from moved"}
			Describe {"ObjectType":"S","Name":"moved"}
			Bind {"PreparedStatement":"moved"}
			Execute
			Sync`)
		return said.String()
	}
	want := run(t, f.direct(0))
	engines(t, func(t *testing.T, engineName string) {
		if diff := cmp.Diff(want, run(t, f.start(t, engineName))); diff != "" {
			t.Errorf("(-PostgreSQL +Tidemark)\n%s", diff)
		}
	})
}

// Drivers know the error by where PostgreSQL raises it.
func TestChangeAsDriversKnowIt(t *testing.T) {
	f := newFixture(t, fixtureSpec{shards: 1, pool: 2})
	dsn := f.start(t, "epoll")
	a, b, d := connect(t, dsn).PgConn(), connect(t, dsn), connect(t, f.direct(0))
	exec(t, d, "create table known (a int)")
	if _, err := a.Prepare(t.Context(), "s", "select * from known", nil); err != nil {
		t.Fatal(err)
	}
	exec(t, d, "alter table known add b int")
	exec(t, b, "begin")
	exec(t, b, "select 1") // on the connection that has the statement
	if _, err := a.Exec(t.Context(), "begin").ReadAll(); err != nil {
		t.Fatal(err)
	}
	var e *pgconn.PgError
	if r := a.ExecPrepared(t.Context(), "s", nil, nil, nil).Read(); !errors.As(r.Err, &e) || e.Code != "0A000" || e.Routine != "RevalidateCachedQuery" {
		t.Errorf("%v of %+v", r.Err, e)
	}
}

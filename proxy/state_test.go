package proxy_test

import (
	"context"
	"fmt"
	"math/rand"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tidemarkdb/tidemark/internal/backend"
)

var bothModes = []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec}

// Settings follow their client over server connections that it shares with others.
func TestSettingsFollowTheClient(t *testing.T) {
	f := newFixture(t, fixtureSpec{shards: 1, pool: 1})
	engines(t, func(t *testing.T, engineName string) {
		dsn := f.start(t, engineName)
		for _, mode := range bothModes {
			var clients []*pgx.Conn
			for i := range 4 {
				clients = append(clients, connect(t, dsn+fmt.Sprintf("&application_name=client%d&options=-c%%20work_mem%%3D%dMB", i, i+1)))
			}
			show := func(c *pgx.Conn, name string) string { return text(t, c, "show "+name, mode) }
			for i, c := range clients {
				exec(t, c, fmt.Sprintf("set timezone = 'Etc/GMT+%d'", i+1), mode)
				exec(t, c, fmt.Sprintf(`set search_path = public, "Schema ""%d"""`, i), mode)
				text(t, c, fmt.Sprintf("select set_config('my.setting', 'it''s %d \\', false)", i), mode)
			}
			for range 2 {
				for i, c := range clients {
					for name, want := range map[string]string{
						"timezone": fmt.Sprintf("Etc/GMT+%d", i+1), "search_path": fmt.Sprintf(`public, "Schema ""%d"""`, i),
						"my.setting": fmt.Sprintf(`it's %d \`, i), "application_name": fmt.Sprintf("client%d", i), "work_mem": fmt.Sprintf("%dMB", i+1),
					} {
						if got := show(c, name); got != want {
							t.Errorf("%v: client %d has %s = %q, want %q", mode, i, name, got, want)
						}
					}
				}
			}
			a, b := clients[0], clients[1]
			steps := []struct{ sql, want string }{ // what a has for work_mem behind each
				{"set work_mem = '10MB'", "10MB"},
				{"begin", "10MB"},
				{"set work_mem = '11MB'", "11MB"},
				{"rollback", "10MB"},
				{"begin", "10MB"},
				{"set work_mem = '12MB'", "12MB"},
				{"commit", "12MB"},
				{"begin", "12MB"},
				{"set local work_mem = '13MB'", "13MB"},
				{"commit", "12MB"},
				{"begin", "12MB"},
				{"set work_mem = '14MB'", "14MB"},
				{"savepoint s", "14MB"},
				{"set work_mem = '15MB'", "15MB"},
				{"rollback to s", "14MB"},
				{"commit", "14MB"},
				{"begin", "14MB"},
				{"savepoint s", "14MB"},
				{"set work_mem = '16MB'", "16MB"},
				{"release s", "16MB"},
				{"commit", "16MB"},
				{"set local work_mem = '17MB'", "16MB"}, // outside of a transaction: a warning, no more
				{"select set_config('work_mem', '18MB', true)", "16MB"},
				{"begin", "16MB"},
				{"select set_config('work_mem', '19MB', true)", "19MB"},
				{"commit", "16MB"},
				{"begin", "16MB"},
				{"select set_config('work_mem', '20MB', false)", "20MB"},
				{"rollback", "16MB"},
				{"begin", "16MB"},
				{"set work_mem = '21MB'", "21MB"},
				{"commit and chain", "21MB"},
				{"set work_mem = '22MB'", "22MB"},
				{"rollback", "21MB"},
				{"begin", "21MB"},
				{"set local work_mem = '23MB'", "23MB"},
				{"reset work_mem", "1MB"},
				{"commit", "1MB"},
				{"set work_mem to default", "1MB"},
				{"set work_mem = '24MB'", "24MB"},
				{"reset all", "1MB"},
			}
			inTx := false
			for _, s := range steps {
				exec(t, a, s.sql, mode)
				inTx = a.PgConn().TxStatus() != 'I'
				if !inTx { // one connection: b takes it in between
					if got := show(b, "work_mem"); got != "2MB" {
						t.Fatalf("%v: behind a's %q b has work_mem %s", mode, s.sql, got)
					}
				}
				if got := show(a, "work_mem"); got != s.want {
					t.Fatalf("%v: behind %q work_mem is %s, want %s", mode, s.sql, got, s.want)
				}
			}
			if _, err := a.Exec(t.Context(), "set work_mem = 'much'", mode); code(err) != "22023" {
				t.Errorf("%v: %v", mode, err)
			}
			if got := show(b, "work_mem") + show(a, "work_mem"); got != "2MB1MB" {
				t.Errorf("%v: behind a SET that failed: %s", mode, got)
			}
			exec(t, a, "set timezone = 'Etc/GMT+9'", mode)
			exec(t, a, "discard all", mode)
			if got := show(a, "timezone"); got == "Etc/GMT+9" {
				t.Errorf("%v: DISCARD ALL leaves timezone %s", mode, got)
			}
			for _, c := range clients {
				_ = c.Close(t.Context())
			}
		}
	})
}

// A change within one query string is followed too, whichever way it ends.
func TestSettingsInQueryStrings(t *testing.T) {
	f := newFixture(t, fixtureSpec{shards: 1, pool: 1})
	engines(t, func(t *testing.T, engineName string) {
		dsn := f.start(t, engineName)
		a, b := connect(t, dsn), connect(t, dsn)
		before := text(t, b, "show work_mem")
		for _, tc := range []struct{ sql, want string }{
			{"set work_mem = '10MB'; select 1", "10MB"},
			{"set work_mem = '11MB'; select 1/0", "10MB"},
			{"begin; set work_mem = '12MB'; rollback", "10MB"},
			{"begin; set work_mem = '13MB'; commit", "13MB"},
			{"set work_mem = '14MB'; set work_mem = '15MB'; select 1", "15MB"},
			{"reset work_mem; select 1", before},
		} {
			_, err := a.PgConn().Exec(t.Context(), tc.sql).ReadAll()
			if (err != nil) != strings.Contains(tc.sql, "1/0") {
				t.Fatalf("%s: %v", tc.sql, err)
			}
			if got := text(t, b, "show work_mem"); got != before {
				t.Errorf("behind a's %q b has %s", tc.sql, got)
			}
			if got := text(t, a, "show work_mem"); got != tc.want {
				t.Errorf("behind %q work_mem is %s, want %s", tc.sql, got, tc.want)
			}
		}
	})
}

// What lives in a server connection keeps it with its client, and is gone with the client.
func TestPinnedState(t *testing.T) {
	f := newFixture(t, fixtureSpec{shards: 1, pool: 2})
	engines(t, func(t *testing.T, engineName string) {
		dsn := f.start(t, engineName)
		for _, tc := range []struct{ name, make, check, want, gone string }{
			{"temporary table", "create temp table mine as select 7 as a", "select a from mine", "7", "42P01"},
			{"advisory lock", "select pg_advisory_lock(4711)", "select count(*) from pg_locks where locktype = 'advisory' and objid = 4711 and pid = pg_backend_pid()", "1", "0"},
			{"prepared statement", "prepare mine as select 8", "execute mine", "8", "26000"},
			{"WITH HOLD cursor", "declare mine scroll cursor with hold for select 9", "fetch absolute 1 from mine", "9", "34000"},
			{"LISTEN", "listen mine", "select * from pg_listening_channels()", "mine", ""},
		} {
			a, b := connect(t, dsn), connect(t, dsn)
			exec(t, a, tc.make, pgx.QueryExecModeSimpleProtocol)
			for range 3 {
				if got := text(t, a, tc.check, pgx.QueryExecModeSimpleProtocol); got != tc.want {
					t.Errorf("%s: its client sees %q", tc.name, got)
				}
				if got := outcome(t, b, tc.check); got != tc.gone {
					t.Errorf("%s: another client sees %q", tc.name, got)
				}
			}
			_ = a.Close(t.Context())
			for i := range 4 {
				c := connect(t, dsn)
				if got := outcome(t, c, tc.check); got != tc.gone {
					t.Errorf("%s: the client %d behind sees %q", tc.name, i, got)
				}
				_ = c.Close(t.Context())
			}
			_ = b.Close(t.Context())
		}
		// A notification arrives.
		a, b := connect(t, dsn), connect(t, dsn)
		exec(t, a, "listen news")
		exec(t, b, "notify news, 'hello'")
		ctx, stop := context.WithTimeout(t.Context(), 20*time.Second)
		defer stop()
		n, err := a.WaitForNotification(ctx)
		if err != nil || n.Payload != "hello" {
			t.Errorf("notification: %v, %v", n, err)
		}
	})
}

// outcome is a query's rows or its SQLSTATE.
func outcome(t *testing.T, c *pgx.Conn, sql string) string {
	t.Helper()
	res, err := c.PgConn().Exec(t.Context(), sql).ReadAll()
	if err != nil {
		return code(err)
	}
	return resultText(res)
}

func resultText(res []*pgconn.Result) string {
	var out []string
	for _, r := range res {
		for _, row := range r.Rows {
			var cols []string
			for _, v := range row {
				if v == nil {
					cols = append(cols, "NULL")
				} else {
					cols = append(cols, string(v))
				}
			}
			out = append(out, strings.Join(cols, "|"))
		}
	}
	return strings.Join(out, ";")
}

// Statements prepared by name work on every server connection, and none sees another client's.
func TestPreparedStatements(t *testing.T) {
	f := newFixture(t, fixtureSpec{shards: 1, pool: 3, backend: func(c *backend.Config) { c.StatementBytes = 4096 }})
	engines(t, func(t *testing.T, engineName string) {
		dsn := f.start(t, engineName)
		ctx := t.Context()
		var clients []*pgx.Conn
		for i := range 3 {
			c := connect(t, dsn)
			clients = append(clients, c)
			// The same name, other text; and enough of them that connections forget some.
			for n := range 30 {
				if _, err := c.Prepare(ctx, fmt.Sprint("s", n), fmt.Sprintf("select $1::int + %d, pg_sleep(0.001)", 1000*i+n)); err != nil {
					t.Fatal(err)
				}
			}
		}
		done := make(chan error, len(clients))
		for i, c := range clients {
			go func() {
				rnd := rand.New(rand.NewSource(int64(i)))
				for range 100 {
					n := rnd.Intn(30)
					var got int
					if err := c.QueryRow(ctx, fmt.Sprint("s", n), 5).Scan(&got, nil); err != nil || got != 5+1000*i+n {
						done <- fmt.Errorf("client %d, statement %d: %d, %w", i, n, got, err)
						return
					}
				}
				done <- nil
			}()
		}
		for range clients {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		c := clients[0].PgConn()
		if _, err := c.Prepare(ctx, "s1", "select 1", nil); code(err) != "42P05" {
			t.Errorf("a name twice: %v", err)
		}
		if err := c.Deallocate(ctx, "s1"); err != nil {
			t.Errorf("close: %v", err)
		}
		if r := c.ExecPrepared(ctx, "s1", [][]byte{[]byte("1")}, nil, nil).Read(); code(r.Err) != "26000" {
			t.Errorf("a closed statement: %v", r.Err)
		}
		if _, err := c.Prepare(ctx, "s1", "select 'new'", nil); err != nil {
			t.Errorf("again: %v", err)
		}
		if r := c.ExecPrepared(ctx, "s1", nil, nil, nil).Read(); r.Err != nil || string(r.Rows[0][0]) != "new" {
			t.Errorf("again: %v", r)
		}
		if r := clients[1].PgConn().ExecPrepared(ctx, "s1", [][]byte{[]byte("1")}, nil, nil).Read(); r.Err != nil || string(r.Rows[0][0]) != "1002" {
			t.Errorf("another's of that name: %v", r)
		}
		for _, sql := range []string{"deallocate all", "discard all"} {
			if _, err := c.Prepare(ctx, "last", "select 1", nil); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Exec(ctx, sql).ReadAll(); err != nil {
				t.Fatal(err)
			}
			if r := c.ExecPrepared(ctx, "last", nil, nil, nil).Read(); code(r.Err) != "26000" {
				t.Errorf("behind %s: %v", sql, r.Err)
			}
		}
	})
}

// A table that changes under a prepared statement is noticed only where PostgreSQL's own error must be: where the client
// would read the new rows by the old description, and in a transaction.
func TestPreparedStatementAfterDDL(t *testing.T) {
	f := newFixture(t, fixtureSpec{shards: 1, pool: 1})
	engines(t, func(t *testing.T, engineName string) {
		dsn := f.start(t, engineName)
		a, b := connect(t, dsn), connect(t, dsn)
		exec(t, a, "drop table if exists changing")
		exec(t, a, "create table changing (a int)")
		exec(t, a, "insert into changing values (1)")
		if got := text(t, a, "select * from changing"); got != "1" {
			t.Fatal(got)
		}
		exec(t, b, "alter table changing add b int default 2")
		rows, err := a.Query(t.Context(), "select * from changing") // pgx relies on the description that it has
		if err == nil {
			rows.Close()
			err = rows.Err()
		}
		if code(err) != "0A000" { // it then prepares anew
			t.Fatal(err)
		}
		if got := text(t, a, "select * from changing"); got != "1 2" {
			t.Errorf("behind ALTER TABLE: %q", got)
		}
		c := dialWire(t, dsn)
		play := func(messages, want string) {
			t.Helper()
			got := c.play(t, &datadriven.TestData{Cmd: "send", Input: messages})
			if diff := cmp.Diff(strings.TrimSpace(want), strings.TrimSpace(got)); diff != "" {
				t.Errorf("%s (-want +got)\n%s", messages, diff)
			}
		}
		play(`Parse {"Name":"s","Query":"select * from changing"}
			Bind {"PreparedStatement":"s"}
			Execute
			Sync`, "ParseComplete\nBindComplete\nDataRow \"1\" \"2\"\nCommandComplete SELECT 1\nReadyForQuery I\n")
		change := func(sql string) {
			t.Helper()
			direct := connect(t, f.direct(0))
			exec(t, direct, sql)
			_ = direct.Close(t.Context())
		}
		play(`Bind {"PreparedStatement":"s"}
			Describe {"ObjectType":"P"}
			Execute
			Sync`, "BindComplete\nRowDescription a:23/0 b:23/0\nDataRow \"1\" \"2\"\nCommandComplete SELECT 1\nReadyForQuery I\n")
		change("alter table changing add d int default 3") // behind the proxy's back
		play(`Bind {"PreparedStatement":"s"}
			Describe {"ObjectType":"P"}
			Execute
			Sync`, "BindComplete\nRowDescription a:23/0 b:23/0 d:23/0\nDataRow \"1\" \"2\" \"3\"\nCommandComplete SELECT 1\nReadyForQuery I\n")
		change("alter table changing drop b, drop d")
		const refused = "ErrorResponse ERROR 0A000 cached plan must not change result type\n"
		play(`Query begin
			Bind {"PreparedStatement":"s"}
			Describe {"ObjectType":"P"}
			Execute
			Sync
			Query rollback`, "CommandComplete BEGIN\nReadyForQuery T\n"+refused+"ReadyForQuery E\nCommandComplete ROLLBACK\nReadyForQuery I\n")
		play(`Bind {"PreparedStatement":"s"}
			Execute
			Sync`, refused+"ReadyForQuery I\n")
		play(`Close {"ObjectType":"S","Name":"s"}
			Parse {"Name":"s","Query":"select * from changing"}
			Bind {"PreparedStatement":"s"}
			Execute
			Sync`, "CloseComplete\nParseComplete\nBindComplete\nDataRow \"1\"\nCommandComplete SELECT 1\nReadyForQuery I\n")
		change("drop table changing")
		play(`Bind {"PreparedStatement":"s"}
			Describe {"ObjectType":"P"}
			Execute
			Sync`, "ErrorResponse ERROR 42P01 relation \"changing\" does not exist\nReadyForQuery I\n")
		// A connection that has lost its statements.
		play(`Parse {"Name":"l","Query":"select 5 as five"}
			Sync
			Query create temp table pins (a int)
			Query do $$ begin execute 'deallocate all'; end $$`,
			"ParseComplete\nReadyForQuery I\nCommandComplete CREATE TABLE\nReadyForQuery I\nCommandComplete DO\nReadyForQuery I\n")
		play(`Bind {"PreparedStatement":"l"}
			Describe {"ObjectType":"P"}
			Execute
			Sync`, "BindComplete\nRowDescription five:23/0\nDataRow \"5\"\nCommandComplete SELECT 1\nReadyForQuery I\n")
	})
}

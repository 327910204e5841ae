package proxy_test

import (
	"context"
	"errors"
	"fmt"
	osexec "os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/tidemarkdb/tidemark/internal/wire"
	"github.com/tidemarkdb/tidemark/proxy"
)

// consoleDSN is the admin database of a proxy.
func consoleDSN(dsn string) string { return strings.Replace(dsn, "/shop?", "/tidemark?", 1) }

func asAdmin(c *proxy.Config) { c.Admins = []string{clientUser} }

func console(t *testing.T, dsn string) *pgx.Conn {
	t.Helper()
	return connectTo(t, consoleDSN(dsn))
}

func connectTo(t *testing.T, dsn string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// cell is one value as text.
func cell(t *testing.T, conn *pgx.Conn, sql string, args ...any) string {
	t.Helper()
	rows, err := conn.Query(t.Context(), sql, args...)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	got, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (string, error) {
		v, err := r.Values()
		if err != nil || len(v) == 0 {
			return "", err
		}
		return fmt.Sprint(v[0]), nil
	})
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return strings.Join(got, " ")
}

func execute(t *testing.T, conn *pgx.Conn, sql string) string {
	t.Helper()
	tag, err := conn.Exec(t.Context(), sql)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return tag.String()
}

func sqlState(err error) string {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

func TestAdminDatabase(t *testing.T) {
	f := newFixture(t, fixtureSpec{shards: 2, config: asAdmin})
	dsn := f.start(t, "")
	c := console(t, dsn)
	app := connectTo(t, dsn)
	execute(t, app, "BEGIN")
	execute(t, app, "SELECT 1")
	if _, err := app.Prepare(t.Context(), "one", "SELECT $1::int + 7"); err != nil {
		t.Fatal(err)
	}
	execute(t, app, "PREPARE two (int, text) AS SELECT $1, $2")

	t.Run("prepared statements", func(t *testing.T) {
		for text, want := range map[string]string{"SELECT $1::int + 7": "18 0 1", "SELECT $1, $2": "13 2 1"} {
			var bytes, types, uses int
			if err := c.QueryRow(t.Context(), "SELECT bytes, parameter_types, uses FROM prepared_statements WHERE statement = $1", text).Scan(&bytes, &types, &uses); err != nil {
				t.Fatalf("%s: %v", text, err)
			}
			if got := fmt.Sprint(bytes, types, uses); got != want {
				t.Errorf("%s: bytes, types and uses are %s, want %s", text, got, want)
			}
		}
	})
	t.Run("what its tables do not answer", func(t *testing.T) {
		for _, where := range []string{"username LIKE '%p'", "username LIKE 'a_'", "username NOT LIKE 'a%'", "username ILIKE 'a%'", "username ~ 'a'", "username @@ 'a'"} {
			_, err := c.Exec(t.Context(), "SELECT id FROM clients WHERE "+where)
			var e *pgconn.PgError
			if !errors.As(err, &e) || e.Code != "0A000" || !strings.Contains(e.Hint, "LIKE 'abc%'") || strings.Contains(e.Message+e.Detail+e.Hint, "read model") || strings.Contains(e.Hint, "@@") {
				t.Errorf("%s: %+v", where, e)
			}
		}
	})
	t.Run("every table, in both protocols", func(t *testing.T) {
		for _, name := range []string{"clients", "servers", "databases", "shards", "users", "prepared_statements", "consoles", "version"} {
			n := cell(t, c, "SELECT count(*) FROM "+name)
			rows, err := c.Query(t.Context(), "SELECT * FROM tidemark."+name)
			if err != nil {
				t.Fatal(err)
			}
			all, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (int, error) { v, err := r.Values(); return len(v), err })
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if fmt.Sprint(len(all)) != n {
				t.Errorf("%s: %d rows, count(*) = %s", name, len(all), n)
			}
			rows, err = c.Query(t.Context(), "SHOW "+strings.ToUpper(name), pgx.QueryExecModeSimpleProtocol)
			if err != nil {
				t.Fatal(err)
			}
			rows.Close()
			if err := rows.Err(); err != nil || rows.CommandTag().String() != "SHOW" {
				t.Errorf("SHOW %s: tag %q, error %v", name, rows.CommandTag(), err)
			}
		}
	})
	t.Run("filters, order, limit, parameters", func(t *testing.T) {
		if diff := cmp.Diff("shard1", cell(t, c, "SELECT shard FROM shards WHERE shard > $1 ORDER BY shard DESC LIMIT 1", "shard0")); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("a client, its server connection, and the way between", func(t *testing.T) {
		if got := cell(t, c, "SELECT state FROM clients WHERE username = $1", clientUser); got != "active" {
			t.Errorf("state %q", got)
		}
		id := cell(t, c, "SELECT id FROM clients")
		pid := cell(t, c, "SELECT pid FROM servers WHERE client_id = "+id)
		if want := cell(t, app, "SELECT pg_backend_pid()"); pid != want {
			t.Errorf("server pid %s, want %s", pid, want)
		}
		if id != fmt.Sprint(app.PgConn().PID()) {
			t.Errorf("client id %s, the client was told %d", id, app.PgConn().PID())
		}
	})
	t.Run("rows in portions, in a transaction", func(t *testing.T) {
		c := console(t, dsn).PgConn()
		for _, test := range []struct{ before, want string }{{"BEGIN", "PortalSuspended, PortalSuspended, CommandComplete"}, {"SHOW version", "PortalSuspended, ErrorResponse, ErrorResponse"}} {
			if _, err := c.Exec(t.Context(), test.before).ReadAll(); err != nil {
				t.Fatal(err)
			}
			f := c.Frontend()
			f.SendParse(&pgproto3.Parse{Query: "SELECT shard FROM shards"})
			f.SendBind(&pgproto3.Bind{DestinationPortal: "p"})
			var got []string
			for range 3 {
				f.SendExecute(&pgproto3.Execute{Portal: "p", MaxRows: 1})
				f.SendSync(&pgproto3.Sync{})
				if err := f.Flush(); err != nil {
					t.Fatal(err)
				}
				for ready := false; !ready; {
					m, err := f.Receive()
					if err != nil {
						t.Fatal(err)
					}
					switch m.(type) {
					case *pgproto3.PortalSuspended, *pgproto3.CommandComplete, *pgproto3.ErrorResponse:
						got = append(got, strings.TrimPrefix(fmt.Sprintf("%T", m), "*pgproto3."))
					case *pgproto3.ReadyForQuery:
						ready = true
					}
				}
			}
			if got := strings.Join(got, ", "); got != test.want {
				t.Errorf("behind %s: %s, want %s", test.before, got, test.want)
			}
			if _, err := c.Exec(t.Context(), "ROLLBACK").ReadAll(); err != nil {
				t.Fatal(err)
			}
		}
	})
	t.Run("transactions that drivers begin unasked", func(t *testing.T) {
		if err := pgx.BeginFunc(t.Context(), c, func(tx pgx.Tx) error {
			_, err := tx.Exec(t.Context(), "SHOW VERSION")
			return err
		}); err != nil {
			t.Error(err)
		}
		tx, err := c.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tx.Exec(t.Context(), "SHOW nothing"); sqlState(err) != wire.UndefinedObject {
			t.Error(err)
		}
		if _, err := tx.Exec(t.Context(), "SHOW VERSION"); sqlState(err) != wire.InFailedSQLTransaction {
			t.Error(err)
		}
		if err := tx.Rollback(t.Context()); err != nil {
			t.Error(err)
		}
	})
	t.Run("errors", func(t *testing.T) {
		for _, test := range []struct{ sql, code, says string }{
			{"SELECT * FROM pg_catalog.pg_class", wire.FeatureNotSupported, "admin database"},
			{"SELECT relname FROM pg_class", wire.FeatureNotSupported, "admin database"},
			{"SELECT nope FROM clients", wire.UndefinedColumn, "nope"},
			{"SELECT state, count(*) FROM clients GROUP BY state", wire.FeatureNotSupported, "not supported"},
			{"SELECT id + 1 FROM clients", wire.FeatureNotSupported, "SELECT from table clients"},
			{"CREATE TABLE t (a int)", wire.FeatureNotSupported, "admin database"},
			{"SET work_mem = '1GB'", wire.FeatureNotSupported, "settings"},
			{"SHOW", wire.SyntaxError, "table"},
			{"SHOW elephants", wire.UndefinedObject, "elephants"},
			{"KILL", wire.SyntaxError, "ids"},
			{"KILL bob", wire.SyntaxError, "bob"},
			{"KILL 1", wire.UndefinedObject, "client 1"},
			{"PAUSE s9", wire.UndefinedObject, "s9"},
			{"PAUSE shard0 shard1", wire.SyntaxError, "one shard"},
			{"RELOAD now", wire.SyntaxError, "no arguments"},
			{"RELOAD", wire.FeatureNotSupported, "reload"},
			{"SELEC 1", wire.SyntaxError, "SELEC"},
		} {
			for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec} {
				_, err := c.Exec(t.Context(), test.sql, mode)
				if sqlState(err) != test.code || !strings.Contains(err.Error(), test.says) {
					t.Errorf("%s: %v; want %s with %q", test.sql, err, test.code, test.says)
				}
			}
		}
	})
	t.Run("psql", func(t *testing.T) {
		out, err := osexec.Command("psql", "-X", "-A", "-t", consoleDSN(dsn), "-c", "SHOW databases; SHOW version", "-c", `\d`).CombinedOutput()
		if err == nil || !strings.Contains(string(out), "shop|2|") || !strings.Contains(string(out), "The catalogs of PostgreSQL") {
			t.Errorf("%v: %s", err, out)
		}
	})
}

func TestAdminRights(t *testing.T) {
	f := newFixture(t, fixtureSpec{shards: 1, config: func(c *proxy.Config) {
		c.StatsUsers = []string{"watcher"}
		c.Users = append(c.Users, proxy.User{Name: "watcher", Secret: c.Users[0].Secret})
	}})
	dsn := consoleDSN(f.start(t, ""))
	if _, err := pgx.Connect(t.Context(), dsn); sqlState(err) != wire.InsufficientPrivilege {
		t.Errorf("a user without rights: %v", err)
	}
	watcher := connectTo(t, strings.Replace(dsn, clientUser+":", "watcher:", 1))
	if got := cell(t, watcher, "SHOW SHARDS"); got != "shard0" {
		t.Errorf("SHOW SHARDS: %q", got)
	}
	for _, command := range []string{"RELOAD", "PAUSE", "RESUME", "RECONNECT", "KILL 1", "DRAIN", "SHUTDOWN"} {
		if _, err := watcher.Exec(t.Context(), command); sqlState(err) != wire.InsufficientPrivilege {
			t.Errorf("%s by a stats user: %v", command, err)
		}
	}
	bad := strings.Replace(dsn, clientPassword, "wrong", 1)
	if _, err := pgx.Connect(t.Context(), bad); sqlState(err) != wire.InvalidPassword {
		t.Errorf("a wrong password: %v", err)
	}
}

// KILL ends a client in the middle of a statement, and that statement too.
func TestKill(t *testing.T) {
	for _, engine := range []string{"epoll", "goroutines"} {
		t.Run(engine, func(t *testing.T) {
			f := newFixture(t, fixtureSpec{shards: 1, config: asAdmin})
			dsn := f.start(t, engine)
			c := console(t, dsn)
			victim, other := connectTo(t, dsn), connectTo(t, dsn)
			execute(t, victim, "CREATE TABLE killed (a int)")
			execute(t, victim, "BEGIN")
			execute(t, victim, "INSERT INTO killed VALUES (1)")
			pid := cell(t, victim, "SELECT pg_backend_pid()")
			ended := make(chan error, 1)
			go func() { _, err := victim.Exec(context.Background(), "SELECT pg_sleep(60)"); ended <- err }()
			awaitRow(t, other, "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'SELECT pg_sleep%'", "1")
			if tag := execute(t, c, fmt.Sprintf("KILL %d", victim.PgConn().PID())); tag != "KILL 1" {
				t.Errorf("tag %q", tag)
			}
			if err := <-ended; sqlState(err) != wire.AdminShutdown {
				t.Errorf("the client heard %v", err)
			}
			awaitRow(t, other, "SELECT count(*) FROM pg_stat_activity WHERE pid = "+pid, "0")
			if got := cell(t, other, "SELECT count(*) FROM killed"); got != "0" {
				t.Errorf("%s rows of a transaction that was killed", got)
			}
			awaitRow(t, c, "SELECT count(*) FROM clients", "1") // the victim may still be on its way out
			if tag := execute(t, c, "KILL USER "+clientUser); tag != "KILL 1" {
				t.Errorf("tag %q", tag)
			}
			if err := sentAway(t, other); sqlState(err) != wire.AdminShutdown {
				t.Errorf("an idle client behind KILL USER: %v", err)
			}
		})
	}
}

// awaitRow waits until a query gives want.
func awaitRow(t *testing.T, conn *pgx.Conn, sql, want string) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for got := ""; got != want; {
		if time.Now().After(deadline) {
			t.Fatalf("%s: still %q, want %q", sql, got, want)
		}
		got = cell(t, conn, sql)
	}
}

func TestPause(t *testing.T) {
	f := newFixture(t, fixtureSpec{shards: 2, config: asAdmin})
	in := f.run(t, "")
	c, viewer := console(t, in.dsn), console(t, in.dsn)
	busy, late := connectTo(t, in.dsn), connectTo(t, in.dsn)
	execute(t, busy, "CREATE TABLE paused (a int)")
	execute(t, busy, "BEGIN")
	execute(t, busy, "INSERT INTO paused VALUES (1)")

	paused := make(chan error, 1)
	go func() { _, err := c.Exec(context.Background(), "PAUSE"); paused <- err }()
	awaitRow(t, viewer, "SELECT count(*) FROM shards WHERE paused", "2")
	answered := make(chan string, 1)
	go func() {
		var n int
		err := late.QueryRow(context.Background(), "SELECT count(*) FROM paused").Scan(&n)
		answered <- fmt.Sprint(n, err)
	}()
	awaitRow(t, viewer, "SELECT count(*) FROM clients WHERE state = 'waiting'", "1")

	execute(t, busy, "INSERT INTO paused VALUES (2)") // a transaction under way goes on
	select {
	case err := <-paused:
		t.Fatalf("PAUSE ended while a transaction was running: %v", err)
	default:
	}
	execute(t, busy, "COMMIT")
	if err := <-paused; err != nil {
		t.Fatal(err)
	}
	awaitRow(t, viewer, "SELECT count(*) FROM servers", "0")
	select {
	case got := <-answered:
		t.Fatalf("a statement ran while its shard was paused: %s", got)
	default:
	}
	if tag := execute(t, viewer, "RESUME"); tag != "RESUME" {
		t.Errorf("tag %q", tag)
	}
	if got := <-answered; got != "2 <nil>" {
		t.Errorf("the statement that waited: %s", got)
	}

	t.Run("cancelled", func(t *testing.T) {
		execute(t, busy, "BEGIN")
		execute(t, busy, "SELECT 1 FROM paused")
		ctx, stop := context.WithCancel(t.Context())
		failed := make(chan error, 1)
		go func() { _, err := viewer.Exec(t.Context(), "PAUSE shard0"); failed <- err }()
		awaitRow(t, c, "SELECT shard FROM shards WHERE paused", "shard0")
		if err := viewer.PgConn().CancelRequest(ctx); err != nil {
			t.Fatal(err)
		}
		stop()
		if err := <-failed; sqlState(err) != wire.QueryCanceled {
			t.Errorf("PAUSE: %v", err)
		}
		if got := cell(t, c, "SELECT count(*) FROM shards WHERE paused"); got != "0" {
			t.Errorf("%s shards are paused", got)
		}
		execute(t, busy, "COMMIT")
		execute(t, late, "SELECT 1 FROM paused")
	})
}

// RECONNECT replaces a server connection between transactions, never within one.
func TestReconnect(t *testing.T) {
	f := newFixture(t, fixtureSpec{shards: 1, config: asAdmin})
	dsn := f.start(t, "")
	c, app := console(t, dsn), connectTo(t, dsn)
	execute(t, app, "BEGIN")
	before := cell(t, app, "SELECT pg_backend_pid()")
	if tag := execute(t, c, "RECONNECT"); !strings.HasPrefix(tag, "RECONNECT ") {
		t.Errorf("tag %q", tag)
	}
	if got := cell(t, app, "SELECT pg_backend_pid()"); got != before {
		t.Errorf("the transaction moved from server process %s to %s", before, got)
	}
	execute(t, app, "COMMIT")
	if got := cell(t, app, "SELECT pg_backend_pid()"); got == before {
		t.Errorf("still server process %s", got)
	}
}

func TestStatsAndPins(t *testing.T) {
	f := newFixture(t, fixtureSpec{shards: 1, config: asAdmin})
	in := f.run(t, "")
	c, app := console(t, in.dsn), connectTo(t, in.dsn)
	execute(t, app, "SELECT repeat('x', 10000)")
	execute(t, app, "BEGIN")
	execute(t, app, "SELECT 1")
	execute(t, app, "SELECT 2")
	execute(t, app, "COMMIT")
	// Two transactions: of one request, and of BEGIN, which no server hears of, with three.
	// They are counted behind the answer that the client has.
	awaitRow(t, c, "SELECT transactions FROM stats WHERE username = '"+clientUser+"'", "2")
	for _, m := range in.proxy.Meters() {
		for name, h := range map[string]*proxy.Histogram{"wait": &m.Wait, "request": &m.Query, "transaction": &m.Transaction} {
			count, sum, buckets := h.Read()
			if count < 2 || sum <= 0 || buckets[float64(uint64(1)<<35)/1e9] != count {
				t.Errorf("%s: count %d, sum %g, buckets %v", name, count, sum, buckets)
			}
		}
		if out := m.BytesOut.Load(); out < 10_000 || out > 20_000 {
			t.Errorf("%d bytes to the client", out)
		}
	}

	execute(t, app, "CREATE TEMP TABLE own (a int)")
	pid := cell(t, app, "SELECT pg_backend_pid()")
	if got := cell(t, c, "SELECT pinned FROM clients"); !strings.Contains(got, "temporary") {
		t.Errorf("clients.pinned is %q", got)
	}
	awaitRow(t, c, "SELECT pid FROM servers WHERE state = 'pinned'", pid) // it is in use until the proxy has seen the answer's end

	execute(t, app, "DROP TABLE own")
	execute(t, app, "BEGIN; DECLARE held CURSOR WITH HOLD FOR SELECT 1; COMMIT")
	if got := cell(t, c, "SELECT pinned FROM clients"); got != "cursor WITH HOLD" {
		t.Errorf("behind a query string, clients.pinned is %q", got)
	}
}

package proxy_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tidemarkdb/tidemark/sharding"
)

var shopTables = []sharding.Table{
	{Name: "customers", Kind: sharding.Sharded, Column: "id", Type: sharding.Int8},
	{Name: "orders", Kind: sharding.Sharded, Column: "customer_id", Type: sharding.Int8},
	{Name: "products", Kind: sharding.Reference},
	{Name: "notes", Kind: sharding.Local},
}

const shopSchema = `
create table customers (id bigint primary key, name text);
create table orders (customer_id bigint, id bigint, total numeric(10,2), primary key (customer_id, id));
create table products (id int primary key, name text);
create table notes (id int primary key, body text)`

// shop is a proxy over two shards with the tables of a shop.
func shop(t *testing.T, engineName string, spec fixtureSpec) (*fixture, string) {
	t.Helper()
	f, p := shopProxy(t, engineName, spec)
	return f, p.dsn
}

func shopProxy(t *testing.T, engineName string, spec fixtureSpec) (*fixture, *instance) {
	t.Helper()
	spec.shards, spec.tables = 2, shopTables
	f := newFixture(t, spec)
	p := f.run(t, engineName)
	c := connect(t, p.dsn)
	for _, ddl := range strings.Split(shopSchema, ";") {
		exec(t, c, ddl)
	}
	return f, p
}

func connect(t *testing.T, dsn string) *pgx.Conn {
	t.Helper()
	c, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

func exec(t *testing.T, c *pgx.Conn, sql string, args ...any) {
	t.Helper()
	if _, err := c.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func text(t *testing.T, c *pgx.Conn, sql string, args ...any) string {
	t.Helper()
	rows, err := c.Query(t.Context(), sql, args...)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	out, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (string, error) {
		vals, err := r.Values()
		return strings.Trim(fmt.Sprint(vals...), "[]"), err
	})
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return strings.Join(out, ";")
}

func route(t *testing.T, c *pgx.Conn) string {
	t.Helper()
	var r string
	if err := c.QueryRow(t.Context(), "show tidemark.route").Scan(&r); err != nil {
		t.Fatal(err)
	}
	return r
}

func code(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code
	}
	return fmt.Sprint(err)
}

func engines(t *testing.T, f func(t *testing.T, engineName string)) {
	for _, e := range []string{"epoll", "goroutines"} {
		t.Run(e, func(t *testing.T) { f(t, e) })
	}
}

// A session that asked for it is told the route of each statement before its answer, and only of its own statements.
func TestRouteNotices(t *testing.T) {
	engines(t, func(t *testing.T, engineName string) {
		_, dsn := shop(t, engineName, fixtureSpec{})
		cfg, err := pgx.ParseConfig(dsn)
		if err != nil {
			t.Fatal(err)
		}
		var told []string
		cfg.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { told = append(told, n.Message) }
		c, err := pgx.ConnectConfig(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close(context.Background()) }()
		exec(t, c, "insert into customers values (1, 'one')")
		for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeCacheStatement, pgx.QueryExecModeExec} {
			exec(t, c, "set tidemark.route_notice = on")
			told = nil
			for sql, want := range map[string]string{
				"select name from customers where id = 1":               "route: route shard",
				"select name from customers":                            "route: scatter shard0",
				"update customers set name = 'uno' where id = 1":        "route: route shard",
				"select pg_backend_pid() > 0 from customers where id=1": "route: route shard",
			} {
				told = nil
				if exec(t, c, sql, mode); len(told) != 1 || !strings.HasPrefix(told[0], want) {
					t.Errorf("mode %v: %s: %q, want %q", mode, sql, told, want)
				}
				told = nil
				if r := route(t, c); len(told) != 0 {
					t.Errorf("the question for the route, %s, is told %q", r, told)
				}
			}
			told = nil
			batch := &pgx.Batch{}
			for range 3 {
				batch.Queue("select name from customers where id = $1", 1)
			}
			if err := c.SendBatch(t.Context(), batch).Close(); err != nil || len(told) != 3 {
				t.Errorf("a batch of three: %v, told %q", err, told)
			}
			exec(t, c, "set tidemark.route_notice = off")
			told = nil
			if exec(t, c, "select name from customers where id = 1", mode); len(told) != 0 {
				t.Errorf("off, but told %q", told)
			}
		}
	})
}

func TestRouting(t *testing.T) {
	engines(t, func(t *testing.T, engineName string) {
		f, dsn := shop(t, engineName, fixtureSpec{})
		c := connect(t, dsn)
		for i := range 50 {
			exec(t, c, "insert into customers values ($1, $2)", i, fmt.Sprint("customer ", i))
		}
		var shards [2]int
		for i := range 2 {
			d := connect(t, f.direct(i))
			if err := d.QueryRow(t.Context(), "select count(*) from customers").Scan(&shards[i]); err != nil {
				t.Fatal(err)
			}
		}
		if shards[0]+shards[1] != 50 || shards[0] < 10 || shards[1] < 10 {
			t.Fatalf("50 customers are spread as %v", shards)
		}
		for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeCacheStatement, pgx.QueryExecModeExec, pgx.QueryExecModeDescribeExec} {
			for i := range 10 {
				if got := text(t, c, "select name from customers where id = $1", mode, i); got != fmt.Sprint("customer ", i) {
					t.Fatalf("mode %v: customer %d is %q", mode, i, got)
				}
				if r := route(t, c); !strings.HasPrefix(r, "route shard") {
					t.Fatalf("route is %q", r)
				}
			}
			if n := len(strings.Split(text(t, c, "select name from customers", mode), ";")); n != 50 {
				t.Errorf("mode %v: a scatter found %d customers", mode, n)
			}
			if r := route(t, c); !strings.HasPrefix(r, "scatter shard0 primary") || !strings.Contains(r, "shard1 primary") {
				t.Errorf("route is %q", r)
			}
		}
		for _, sql := range []string{
			"select * from customers order by id", "select count(*) from customers", "update customers set name = 'x'",
			"insert into customers values (1, 'a'), (2, 'b'), (3, 'c'), (4, 'd')", "select distinct name from customers",
		} {
			for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeCacheStatement} {
				if _, err := c.Exec(t.Context(), sql, mode); code(err) != "0A000" {
					t.Errorf("%s: %v, want 0A000", sql, err)
				}
			}
		}
		exec(t, c, "insert into products values (1, 'hat')")
		for i := range 2 {
			if got := text(t, connect(t, f.direct(i)), "select name from products"); got != "hat" {
				t.Errorf("shard %d has products %q", i, got)
			}
		}
		exec(t, c, "insert into notes values (1, 'n')")
		if got := text(t, connect(t, f.direct(0)), "select body from notes"); got != "n" {
			t.Errorf("the default shard has notes %q", got)
		}
	})
}

func TestTransactionsStayOnTheirShard(t *testing.T) {
	engines(t, func(t *testing.T, engineName string) {
		_, dsn := shop(t, engineName, fixtureSpec{})
		c := connect(t, dsn)
		for i := range 20 {
			exec(t, c, "insert into customers values ($1, 'c')", i)
		}
		// Two keys on different shards.
		a, b := -1, -1
		for i := range 20 {
			text(t, c, "select name from customers where id = $1", i)
			switch r := route(t, c); {
			case strings.HasPrefix(r, "route shard0"):
				a = i
			case strings.HasPrefix(r, "route shard1"):
				b = i
			}
		}
		if a < 0 || b < 0 {
			t.Fatalf("keys on both shards: %d, %d", a, b)
		}
		tx, err := c.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got := text(t, c, "select 1"); got != "1" { // binds the transaction to no shard
			t.Fatal(got)
		}
		exec(t, c, "update customers set name = 'in tx' where id = $1", b)
		if got := text(t, c, "select name from customers where id = $1", b); got != "in tx" {
			t.Fatalf("the transaction does not see its own write: %q", got)
		}
		_, err = c.Exec(t.Context(), "update customers set name = 'y' where id = $1", a)
		if code(err) != "0A000" {
			t.Fatalf("second shard in a transaction: %v", err)
		}
		_, err = c.Exec(t.Context(), "select name from customers where id = $1", b)
		if code(err) != "25P02" {
			t.Fatalf("after an error the transaction is aborted, got %v", err)
		}
		if err := tx.Rollback(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := text(t, c, "select name from customers where id = $1", b); got != "c" {
			t.Fatalf("rolled back, but %q", got)
		}
		// An implicit transaction: a batch of writes to two shards is refused and leaves nothing.
		batch := &pgx.Batch{}
		batch.Queue("update customers set name = 'batch' where id = $1", a)
		batch.Queue("update customers set name = 'batch' where id = $1", b)
		if err := c.SendBatch(t.Context(), batch).Close(); code(err) != "0A000" {
			t.Fatalf("batch over two shards: %v", err)
		}
		if got := text(t, c, "select name from customers where id in ($1)", a); got != "c" {
			t.Fatalf("half a batch was written: %q", got)
		}
		// Reads may go to two shards.
		batch = &pgx.Batch{}
		batch.Queue("select name from customers where id = $1", a)
		batch.Queue("select name from customers where id = $1", b)
		if err := c.SendBatch(t.Context(), batch).Close(); err != nil {
			t.Fatalf("batch of reads over two shards: %v", err)
		}
	})
}

func TestCopyIsSplitByKey(t *testing.T) {
	engines(t, func(t *testing.T, engineName string) {
		f, dsn := shop(t, engineName, fixtureSpec{})
		c := connect(t, dsn)
		var data strings.Builder
		for i := range 20000 {
			fmt.Fprintf(&data, "%d\tname\\t%d %s\n", i, i, strings.Repeat("x", i%50))
		}
		tag, err := c.PgConn().CopyFrom(t.Context(), strings.NewReader(data.String()), "copy customers (id, name) from stdin")
		if err != nil || tag.RowsAffected() != 20000 {
			t.Fatalf("%v, %v", tag, err)
		}
		sum := 0
		for i := range 2 {
			var n int
			if err := connect(t, f.direct(i)).QueryRow(t.Context(), "select count(*) from customers").Scan(&n); err != nil {
				t.Fatal(err)
			}
			sum += n
		}
		if sum != 20000 {
			t.Fatalf("%d rows arrived", sum)
		}
		for i := 0; i < 20000; i += 1999 {
			if got := text(t, c, "select name from customers where id = $1", i); !strings.HasPrefix(got, fmt.Sprintf("name\t%d ", i)) {
				t.Fatalf("row %d is %q", i, got)
			}
		}
		_, err = c.PgConn().CopyFrom(t.Context(), strings.NewReader("30000\ta\n30001\tb\nx\tc\n"), "copy customers (id, name) from stdin")
		if code(err) != "22P02" {
			t.Fatalf("a bad key: %v", err)
		}
		if got := text(t, c, "select name from customers where id = 30000"); got != "" {
			t.Fatalf("half a COPY is there: %q", got)
		}
		_, err = c.PgConn().CopyFrom(t.Context(), strings.NewReader("30000\ta\n5\tdup\n"), "copy customers (id, name) from stdin")
		if code(err) != "23505" {
			t.Fatalf("a duplicate key: %v", err)
		}
		if got := text(t, c, "select name from customers where id = 30000"); got != "" {
			t.Fatalf("half a COPY is there: %q", got)
		}
	})
}

const codeThatRunsCode = `
create table steps (id bigint);
create function on_step() returns trigger language plpgsql as $$ begin insert into notes values (new.id); return new; end $$;
create trigger t before insert on steps for each row execute function on_step();
create view steps_view as select * from steps;
create table parted (id bigint) partition by list (id); create table parted_1 partition of parted for values in (1);
create trigger t before insert on parted_1 for each row execute function on_note();
create function on_truncate() returns trigger language plpgsql as $$ begin delete from customers; return null; end $$;
create table emptied (id bigint); create trigger t before truncate on emptied execute function on_truncate();
create materialized view counted as select count(*) from customers;
create domain checked_too as checked; create table typed_too (a checked_too);
create function "größe"() returns bigint language sql as 'select count(*) from customers'`

// Functions, triggers and DO run on one shard: what they name of sharded tables would be that shard's part.
func TestCodeThatNeedsOtherShards(t *testing.T) {
	engines(t, func(t *testing.T, engineName string) {
		f, dsn := shop(t, engineName, fixtureSpec{})
		c := connect(t, dsn)
		exec(t, c, "create function name_of(bigint) returns text language sql stable as 'select name from customers where id = $1'")
		exec(t, c, "create function add_customer(n bigint) returns void language plpgsql as $$ begin insert into customers values (n, 'by a function'); end $$")
		exec(t, c, "create procedure add_product() language sql as $$ insert into products values (1, 'shoe') $$")
		exec(t, c, "create function on_note() returns trigger language plpgsql as $$ begin perform add_customer(new.id); return new; end $$")
		exec(t, c, "create trigger t before insert on notes for each row execute function on_note()")
		exec(t, c, "create table tasks (id bigint)")
		exec(t, c, "create rule r as on insert to tasks do also update customers set name = 'x' where id = new.id")
		exec(t, c, "create function has_customers() returns bool language sql stable as 'select exists (select from customers)'")
		exec(t, c, "create view looks as select has_customers() as has")
		exec(t, c, "create view looks_through as select * from looks")
		exec(t, c, "create domain checked as int check (value > 0 or has_customers())")
		exec(t, c, "create table typed (a checked)")
		exec(t, c, "create trigger t before insert on products for each row execute function on_note()")
		for shard := range 2 {
			exec(t, connect(t, f.direct(shard)), codeThatRunsCode, pgx.QueryExecModeSimpleProtocol)
		}
		exec(t, c, "create function notes_of() returns bigint language sql as 'select count(*) from notes'") // and the catalog is read
		for i := range 10 {
			exec(t, c, fmt.Sprintf("insert into customers values (%d, 'c%d')", i, i))
		}
		for _, accepted := range []string{
			"insert into emptied values (1)", "select * from steps_view", "truncate steps", "select * from counted", "select notes_of()", "insert into orders values (1, 1, 1)",
		} {
			exec(t, c, accepted, pgx.QueryExecModeSimpleProtocol)
		}
		for _, refused := range []string{
			"select name_of(5)", "select add_customer(42)", "call add_product()", "insert into notes values (1, 'x')", "insert into tasks values (1)",
			"do $$ begin update customers set name = 'x'; end $$", "do $$ begin perform add_customer(43); end $$",
			"select * from looks", "select * from looks_through", "insert into typed values (1)", "insert into products values (2, 'hat')",
			"insert into steps values (1)", "insert into steps_view values (1)", "insert into parted values (1)", "truncate emptied", "refresh materialized view counted",
			"insert into typed_too values (1)", "select notes_of() from customers where id = 1",
		} {
			if _, err := c.Exec(t.Context(), refused, pgx.QueryExecModeSimpleProtocol); code(err) != "0A000" {
				t.Errorf("%s: %v", refused, err)
			}
		}
		var oid uint32
		if err := c.QueryRow(t.Context(), "select 'add_customer'::regproc::oid").Scan(&oid); err != nil {
			t.Fatal(err)
		}
		if err := callFunction(c, oid, "44"); code(err) != "0A000" {
			t.Errorf("a FunctionCall of add_customer(): %v", err)
		}
		latin := connect(t, dsn+"&client_encoding=latin1")
		for _, refused := range []string{"do $$ begin perform gr\xf6\xdfe(); end $$", "select gr\xf6\xdfe()"} {
			_, err := latin.PgConn().Exec(t.Context(), refused).ReadAll()
			if code(err) != "0A000" {
				t.Errorf("%q: %v", refused, err)
			}
		}
		if _, err := latin.PgConn().Exec(t.Context(), "do $$ begin raise notice 'm\xfc\xdfig'; end $$").ReadAll(); err != nil {
			t.Error(err)
		}
		for i := range 10 { // each on the shard of its key
			if got := text(t, c, fmt.Sprintf("select name_of(id) from customers where id = %d", i)); got != fmt.Sprint("c", i) {
				t.Errorf("customer %d is %s", i, got)
			}
		}
	})
}

// What a query string names behind a change of search_path is not looked for where the old one leads.
func TestQueryStringThatChangesTheSearchPath(t *testing.T) {
	engines(t, func(t *testing.T, engineName string) {
		_, dsn := shop(t, engineName, fixtureSpec{})
		c, refusals := connect(t, dsn), 0
		for _, k := range keysOn(t, c) {
			exec(t, c, "insert into customers values ($1, 'here') on conflict (id) do nothing", k)
			read := fmt.Sprintf("select name from customers where id = %d", k)
			for _, change := range []string{"reset search_path", "reset all", "set search_path = public", "set local search_path = public", "select set_config('search_path', 'public', false)"} {
				exec(t, c, "set search_path = pg_temp")
				results, err := c.PgConn().Exec(t.Context(), change+"; "+read).ReadAll()
				if refused := code(err) == "0A000"; !refused && (err != nil || len(results[len(results)-1].Rows) != 1) {
					t.Errorf("%s, then customer %d: %v, and no row", change, k, err)
				} else if refused {
					refusals++
				}
				if _, err := c.PgConn().Exec(t.Context(), change+"; select 1").ReadAll(); err != nil {
					t.Errorf("%s, then no table: %v", change, err)
				}
				exec(t, c, "set search_path = public")
				results, err = c.PgConn().Exec(t.Context(), "set local search_path = public; "+read).ReadAll()
				if err != nil || string(results[len(results)-1].Rows[0][0]) != "here" {
					t.Errorf("a change that is none: %v", err)
				}
			}
		}
		if refusals != 5 { // the other shard is where both meanings lead
			t.Errorf("%d were refused", refusals)
		}
	})
}

// Nor is what a batch names.
func TestBatchThatChangesTheSearchPath(t *testing.T) {
	engines(t, func(t *testing.T, engineName string) {
		_, dsn := shop(t, engineName, fixtureSpec{})
		c := connect(t, dsn)
		for _, k := range keysOn(t, c) {
			exec(t, c, "set search_path = public")
			exec(t, c, "insert into customers values ($1, 'here') on conflict (id) do nothing", k)
			read := fmt.Sprintf("select name from customers where id = %d", k)
			for _, test := range []struct {
				before, batch string
				refused       bool
			}{
				{"set search_path = pg_temp", "set search_path = public; " + read, true},
				{"set search_path = pg_temp", "begin; set local search_path = public; " + read + "; commit", true},
				{"set search_path = pg_temp; begin; set local search_path = public", "commit; " + read, false},
				{"begin; set local search_path = pg_temp", "rollback; " + read, true},
			} {
				for _, sql := range strings.Split(test.before, "; ") {
					simply(t, c, sql)
				}
				got := strings.Join(pipelined(t, c, strings.Split(test.batch, "; ")), " ")
				if strings.Contains(got, "SELECT 0") || strings.Contains(got, "0A000") != test.refused {
					t.Errorf("%s, then as a batch %s: %s", test.before, test.batch, got)
				}
				simply(t, c, "rollback")
				if got := strings.Join(pipelined(t, c, []string{"set search_path = public"}, []string{read}), " "); got != "SET here" {
					t.Errorf("in two batches: %s", got)
				}
			}
		}
	})
}

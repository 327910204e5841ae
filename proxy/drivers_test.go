package proxy_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/lib/pq"

	"github.com/tidemarkdb/tidemark/internal/localstack"
)

// tool finds a program of PostgreSQL's, or installs it.
func tool(t *testing.T, name string) string {
	t.Helper()
	pkg := map[string]string{"psql": "postgresql-client", "pgbench": "postgresql"}[name]
	path, err := localstack.Tool(t.Context(), name, pkg, func(s string) { t.Log(s) })
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// command runs a program and returns what it printed.
func command(t *testing.T, stdin, path string, args ...string) string {
	t.Helper()
	cmd := osexec.CommandContext(t.Context(), path, args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", filepath.Base(path), strings.Join(args, " "), err, out)
	}
	return string(out)
}

func TestPsql(t *testing.T) {
	psql := tool(t, "psql")
	file := filepath.Join(t.TempDir(), "in.tsv")
	if err := os.WriteFile(file, []byte("1\tone\n2\ttwo\n3\tthree\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	engines(t, func(t *testing.T, engineName string) {
		_, dsn := shop(t, engineName, fixtureSpec{replicas: 1})
		got := command(t, `
\copy customers from '`+file+`'
select name from customers where id = 2;
select count(*) as n from customers where id = 3 \gset
\echo rows :n
begin;
insert into customers values (4, 'four');
savepoint a;
insert into customers values (4, 'again');
rollback to a;
commit;
\copy (select id, name from customers where id = 4) to stdout
\set QUIET on
select 1 \; select 2;
prepare p as select $1::int + 1;
execute p(41);
`, psql, "-XAtq", dsn)
		want := "two\nrows 1\nERROR:  duplicate key value violates unique constraint \"customers_pkey\"\nDETAIL:  Key (id)=(4) already exists.\n4\tfour\n1\n2\n42\n"
		if diff := cmp.Diff(want, withoutLines(got)); diff != "" {
			t.Errorf("-want +got\n%s", diff)
		}
		for args, wants := range map[string][]string{
			`\dt`:           {"customers", "orders", "products", "notes"},
			`\d orders`:     {"customer_id", "numeric(10,2)", "orders_pkey"},
			`\d+ customers`: {"bigint"}, `\du`: {"tidemark"}, `\dn`: {"public"}, `\df lower`: {"lower"},
			`\conninfo`: {"shop", "app"},
		} {
			got := command(t, "", psql, "-X", dsn, "-c", args)
			for _, w := range wants {
				if !strings.Contains(got, w) {
					t.Errorf("%s lacks %q:\n%s", args, w, got)
				}
			}
		}
		got = command(t, "", psql, "-XAtq", dsn, "-c", "insert into notes values (1, 'a')", "-c", "select body from notes", "-c", "select 1; select 2")
		if got != "a\n1\n2\n" {
			t.Errorf("-c with several commands: %q", got)
		}
	})
}

// withoutLines drops psql's LINE and pointer lines, whose form varies by version.
func withoutLines(s string) string {
	var out []string
	for _, l := range strings.Split(s, "\n") {
		if !strings.HasPrefix(l, "LINE ") && strings.TrimSpace(l) != "^" && !strings.HasPrefix(l, "psql:<stdin>") {
			out = append(out, l)
		} else if _, rest, ok := strings.Cut(l, ": ERROR:"); ok {
			out = append(out, "ERROR:"+rest)
		}
	}
	return strings.Join(out, "\n")
}

func TestPgbench(t *testing.T) {
	pgbench := tool(t, "pgbench")
	engines(t, func(t *testing.T, engineName string) {
		f := newFixture(t, fixtureSpec{shards: 1, replicas: 1, pool: 6}) // pgbench blocks a thread while it prepares, so that fewer connections than clients would stand still
		dsn := f.start(t, engineName)
		command(t, "", pgbench, "-i", "-q", dsn)
		for _, mode := range []string{"simple", "extended", "prepared"} {
			for _, script := range []string{"tpcb-like", "select-only"} {
				got := command(t, "", pgbench, "-n", "-b", script, "-M", mode, "-c", "6", "-j", "2", "-t", "30", dsn)
				if !strings.Contains(got, "processed: 180/180") {
					t.Errorf("%s, %s:\n%s", script, mode, got)
				}
			}
		}
		sum := text(t, connect(t, dsn), "select (select sum(abalance) from pgbench_accounts) = (select sum(delta) from pgbench_history), count(*) from pgbench_history")
		if sum != "true 540" {
			t.Errorf("books: %s", sum)
		}

		_, sharded := shop(t, engineName, fixtureSpec{replicas: 1})
		script := filepath.Join(t.TempDir(), "shop.sql")
		if err := os.WriteFile(script, []byte(`\set id random(1, 1000)
begin;
insert into customers values (:id, 'x') on conflict (id) do update set name = customers.name || 'x';
insert into orders select :id, coalesce(max(id), 0) + 1, 1.50 from orders where customer_id = :id;
select count(*) from orders where customer_id = :id;
end;
select name from customers where id = :id;
`), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, mode := range []string{"simple", "extended", "prepared"} {
			got := command(t, "", pgbench, "-n", "-f", script, "-M", mode, "-c", "4", "-t", "25", "--max-tries", "5", sharded)
			if !strings.Contains(got, "processed: 100/100") {
				t.Errorf("sharded, %s:\n%s", mode, got)
			}
		}
	})
}

func TestPgx(t *testing.T) {
	engines(t, func(t *testing.T, engineName string) {
		_, dsn := shop(t, engineName, fixtureSpec{})
		c := connect(t, dsn)
		ctx := t.Context()
		for _, mode := range []pgx.QueryExecMode{
			pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeDescribeExec, pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol,
		} {
			for i := range 5 {
				exec(t, c, "insert into orders values ($1, $2, $3)", mode, i, int(mode), "1.50")
				if got := text(t, c, "select total::text from orders where customer_id = $1 and id = $2", mode, i, int(mode)); got != "1.50" {
					t.Errorf("%v: %q", mode, got)
				}
			}
		}
		if _, err := c.CopyFrom(ctx, pgx.Identifier{"customers"}, []string{"id", "name"}, pgx.CopyFromRows([][]any{{1, "a"}})); code(err) != "0A000" {
			t.Errorf("binary COPY to a sharded table: %v", err)
		}
		if n, err := c.CopyFrom(ctx, pgx.Identifier{"notes"}, []string{"id", "body"}, pgx.CopyFromRows([][]any{{1, "a"}, {2, "b"}})); err != nil || n != 2 {
			t.Errorf("binary COPY to a local table: %d, %v", n, err)
		}
		b := &pgx.Batch{}
		for i := range 50 {
			b.Queue("insert into orders values (7, $1, 2)", 100+i)
		}
		b.Queue("select count(*) from orders where customer_id = 7")
		res := c.SendBatch(ctx, b)
		for range 50 {
			if _, err := res.Exec(); err != nil {
				t.Fatal(err)
			}
		}
		var n int
		if err := res.QueryRow().Scan(&n); err != nil || n != 50 {
			t.Errorf("batch: %d, %v", n, err)
		}
		if err := res.Close(); err != nil {
			t.Error(err)
		}
		p := c.PgConn().StartPipeline(ctx)
		for i := range 20 {
			p.SendQueryParams("select $1::text", [][]byte{fmt.Append(nil, i)}, nil, nil, nil)
			if i%5 == 4 {
				p.SendQueryParams("select 1/0", nil, nil, nil, nil)
			}
			if i%2 == 1 {
				if err := p.Sync(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := p.Close(); err != nil && code(err) != "22012" {
			t.Errorf("pipeline: %v", err)
		}
		if got := text(t, c, "select 1"); got != "1" {
			t.Error(got)
		}
		// A context that ends cancels the statement and the pool's next user finds a clean connection.
		short, stop := context.WithTimeout(ctx, 1)
		defer stop()
		if _, err := connect(t, dsn).Exec(short, "select pg_sleep(60)"); err == nil {
			t.Error("no error behind a timeout")
		}
	})
}

func TestLibPQ(t *testing.T) {
	engines(t, func(t *testing.T, engineName string) {
		_, dsn := shop(t, engineName, fixtureSpec{replicas: 1})
		for _, options := range []string{"", "&binary_parameters=yes"} {
			db, err := sql.Open("postgres", dsn+options)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = db.Close() }()
			ctx := t.Context()
			if _, err := db.ExecContext(ctx, "insert into customers values ($1, $2) on conflict do nothing", 5, "five"); err != nil {
				t.Fatal(err)
			}
			st, err := db.PrepareContext(ctx, "select name from customers where id = $1")
			if err != nil {
				t.Fatal(err)
			}
			for range 5 {
				var name string
				if err := st.QueryRowContext(ctx, 5).Scan(&name); err != nil && !errors.Is(err, sql.ErrNoRows) { // another session's replica may lag
					t.Fatal(err)
				}
			}
			tx, err := db.BeginTx(ctx, nil)
			if err != nil {
				t.Fatal(err)
			}
			in, err := tx.PrepareContext(ctx, "copy notes (id, body) from stdin")
			if err != nil {
				t.Fatal(err)
			}
			for i := range 10 {
				if _, err := in.ExecContext(ctx, len(options)*100+i, "note"); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := in.ExecContext(ctx); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(in.Close(), tx.Commit()); err != nil {
				t.Fatal(err)
			}
			var e *pq.Error
			if _, err := db.ExecContext(ctx, "select count(*) from customers"); !errors.As(err, &e) || e.Code != "0A000" {
				t.Errorf("refusal: %v", err)
			}
		}
	})
}

// pythonPackages are installed into a virtual environment in the user's cache folder.
var pythonPackages = []string{"psycopg[binary]==3.2.3", "SQLAlchemy==2.0.36"}

func TestPsycopg(t *testing.T) {
	python := pythonWith(t, pythonPackages)
	engines(t, func(t *testing.T, engineName string) {
		_, dsn := shop(t, engineName, fixtureSpec{replicas: 1})
		if got := command(t, "", python, "testdata/drivers.py", dsn); got != "ok\n" {
			t.Error(got)
		}
	})
}

func pythonWith(t *testing.T, packages []string) string {
	t.Helper()
	python, err := osexec.LookPath("python3")
	if err != nil {
		t.Fatal("this test needs python3 with venv and pip: apt-get install python3-venv python3-pip")
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(cache, "tidemark", "venv-"+strings.NewReplacer("[", "-", "]", "", "=", "").Replace(strings.Join(packages, "-")))
	bin := filepath.Join(dir, "bin", "python3")
	if osexec.CommandContext(t.Context(), bin, "-c", "import psycopg, sqlalchemy").Run() == nil {
		return bin
	}
	for _, args := range [][]string{{python, "-m", "venv", "--clear", dir}, append([]string{bin, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"}, packages...)} {
		if out, err := osexec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: this test needs python3 with venv and pip (apt-get install python3-venv python3-pip)\n%s", strings.Join(args, " "), err, out)
		}
	}
	return bin
}

package router_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/tidemarkdb/tidemark/internal/sql"
	"github.com/tidemarkdb/tidemark/router"
	"github.com/tidemarkdb/tidemark/sharding"
	"github.com/tidemarkdb/tidemark/testcontainers"
)

const schema = `
CREATE TABLE orders (customer_id bigint, id bigint GENERATED ALWAYS AS IDENTITY, total numeric(10,2) DEFAULT 0, twice numeric GENERATED ALWAYS AS (total * 2) STORED,
  at timestamptz DEFAULT now(), day date DEFAULT CURRENT_DATE, code uuid DEFAULT gen_random_uuid(), city varchar(20) COLLATE "C", PRIMARY KEY (customer_id, id));
CREATE TABLE log (k int, v text) PARTITION BY RANGE (k);
CREATE TABLE log_1 PARTITION OF log FOR VALUES FROM (1) TO (10) PARTITION BY RANGE (k);
CREATE TABLE log_1a PARTITION OF log_1 FOR VALUES FROM (1) TO (5);
CREATE VIEW totals AS SELECT customer_id, sum(total) FROM orders GROUP BY 1;
CREATE VIEW more AS SELECT *, random() FROM totals, log;
CREATE VIEW above AS SELECT * FROM more;
CREATE VIEW nothing AS SELECT 1 AS one;
CREATE FUNCTION calm() RETURNS int LANGUAGE sql STABLE AS 'SELECT 1';
CREATE FUNCTION wild() RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION twofold(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1';
CREATE FUNCTION twofold(text) RETURNS int LANGUAGE sql VOLATILE AS 'SELECT 1';`

func TestReadCatalog(t *testing.T) {
	for _, version := range []string{"15", "18"} {
		t.Run(version, func(t *testing.T) {
			ctx, conn := connect(t, version)
			if _, err := conn.PgConn().Exec(ctx, schema).ReadAll(); err != nil {
				t.Fatal(err)
			}
			c, err := router.ReadCatalog(func(statement string, each func(row [][]byte) error) error {
				r := conn.PgConn().ExecParams(ctx, statement, nil, nil, nil, nil)
				for r.NextRow() {
					if err := each(r.Values()); err != nil {
						return err
					}
				}
				_, err := r.Close()
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			col := func(name string, oid uint32, typmod int32) router.Column {
				return router.Column{Name: name, OID: oid, TypeMod: typmod, Deterministic: true}
			}
			with := func(c router.Column, f func(*router.Column)) router.Column { f(&c); return c }
			constant := func(c *router.Column) { c.Default = true }
			changing := func(c *router.Column) { c.Default, c.Volatile = true, true }
			wantTables := map[string]router.Table{
				"orders": {Schema: "public", Name: "orders", Columns: []router.Column{
					col("customer_id", 20, -1), with(col("id", 20, -1), changing), with(col("total", 1700, 655366), constant),
					with(col("twice", 1700, -1), func(c *router.Column) { c.Default, c.Generated = true, true }),
					with(col("at", 1184, -1), changing), with(col("day", 1082, -1), changing), with(col("code", 2950, -1), changing),
					with(col("city", 1043, 24), func(c *router.Column) { c.Collation = "C" }),
				}},
				"log_1a":  {Schema: "public", Name: "log_1a", Root: router.Name{Schema: "public", Name: "log"}, Columns: []router.Column{col("k", 23, -1), col("v", 25, -1)}},
				"nothing": {Schema: "public", Name: "nothing", Columns: []router.Column{col("one", 23, -1)}},
			}
			for _, got := range c.Tables {
				if want, ok := wantTables[got.Name]; ok {
					delete(wantTables, got.Name)
					if d := cmp.Diff(want, got); d != "" {
						t.Errorf("%s: %s", got.Name, d)
					}
				}
			}
			for name := range wantTables {
				t.Errorf("table %s is missing", name)
			}
			wantViews := []router.View{
				{Schema: "public", Name: "above", Volatile: true, BaseTables: []router.Name{{Schema: "public", Name: "log"}, {Schema: "public", Name: "orders"}}},
				{Schema: "public", Name: "more", Volatile: true, BaseTables: []router.Name{{Schema: "public", Name: "log"}, {Schema: "public", Name: "orders"}}},
				{Schema: "public", Name: "nothing"},
				{Schema: "public", Name: "totals", BaseTables: []router.Name{{Schema: "public", Name: "orders"}}},
			}
			if d := cmp.Diff(wantViews, c.Views); d != "" {
				t.Error(d)
			}
			functions := map[string]router.Function{}
			for _, f := range c.Functions {
				functions[f.Schema+"."+f.Name] = f
			}
			for _, want := range []router.Function{
				{Schema: "public", Name: "calm", Volatility: router.Stable, User: true},
				{Schema: "public", Name: "wild", Volatility: router.Volatile, User: true},
				{Schema: "public", Name: "twofold", Volatility: router.Volatile, User: true},
				{Schema: "pg_catalog", Name: "now", Volatility: router.Stable},
				{Schema: "pg_catalog", Name: "random", Volatility: router.Volatile},
				{Schema: "pg_catalog", Name: "nextval", Volatility: router.Volatile},
				{Schema: "pg_catalog", Name: "count", Volatility: router.Immutable, Aggregate: true},
				{Schema: "pg_catalog", Name: "generate_series", Volatility: router.Stable, Set: true},
			} {
				if d := cmp.Diff(want, functions[want.Schema+"."+want.Name]); d != "" {
					t.Errorf("%s: %s", want.Name, d)
				}
			}
			plans(t, c)
		})
	}
}

// plans routes what everyone writes with a real catalog: no function that PostgreSQL brings may be unknown.
func plans(t *testing.T, c *router.Catalog) {
	t.Helper()
	m, err := sharding.New(sharding.Definition{
		Shards: []sharding.Shard{{Name: "s1", Buckets: []sharding.Range{{First: 0, Last: 2047}}}, {Name: "s2", Buckets: []sharding.Range{{First: 2048, Last: 4095}}}},
		Tables: []sharding.Table{{Name: "orders", Kind: sharding.Sharded, Column: "customer_id", Type: sharding.Int8}},
	})
	if err != nil {
		t.Fatal(err)
	}
	r, err := router.New(router.Config{Map: m, Catalog: c})
	if err != nil {
		t.Fatal(err)
	}
	s, err := router.NewSession("tidemark", "", "UTF8", true)
	if err != nil {
		t.Fatal(err)
	}
	var sc router.Scratch
	for statement, want := range map[string]router.Kind{
		"SELECT version(), current_database(), pg_backend_pid()":                              router.AnyShard,
		"SELECT lower(city), coalesce(total, 0), at::date FROM orders":                        router.Scatter,
		"SELECT max(total) FROM orders":                                                       router.Refuse,
		"SELECT count(*), string_agg(city, ',') FROM orders WHERE customer_id = 7":            router.Route,
		"SELECT * FROM totals":                                                                router.Refuse,
		"SELECT wild()":                                                                       router.Route,
		"SELECT wild() FROM orders":                                                           router.Refuse,
		"SELECT oid::regclass, pg_get_userbyid(relowner), obj_description(oid) FROM pg_class": router.AnyShard,
	} {
		if p := r.Plan(&sc, s, []byte(statement))[0].Plan; p.Kind != want {
			t.Errorf("%s: %s, want %s", statement, p, want)
		}
	}
}

// TestLiteralsAreLive compares the values of literals, as the router reads them for keys, with PostgreSQL's.
func TestLiteralsAreLive(t *testing.T) {
	for _, version := range []string{"15", "18"} {
		t.Run(version, func(t *testing.T) {
			ctx, conn := connect(t, version)
			for _, literal := range []string{
				`'a'`, `''`, `'it''s'`, `'a\nb'`, `E'a\nb\t\\\'\q'`, `E'\101\x42\u0043\U00000044'`, `E'\uD83D\uDE00'`, `E'\x4'`, `E'\xg'`, `e'a''b'`, `E'\1012'`,
				`$$a'b$$`, `$tag$a$$b$tag$`, "'a'\n'b'", "'a' -- no\n  'b''c'\n\n'd'", "E'a'\n'\\x42'", `'ü'`,
			} {
				var want string
				results, err := conn.PgConn().Exec(ctx, "SELECT "+literal).ReadAll()
				if err != nil {
					t.Fatalf("%s: %v", literal, err)
				}
				want = string(results[0].Rows[0][0])
				text := []byte("SELECT " + literal)
				var s sql.Scanner
				if !s.Scan(text) || len(s.Literals) != 1 {
					t.Errorf("%s: %d literals", literal, len(s.Literals))
					continue
				}
				if got, ok := s.Literals[0].Value(text, nil); !ok || string(got) != want {
					t.Errorf("%s: %q, %v; PostgreSQL has %q", literal, got, ok, want)
				}
			}
		})
	}
}

func connect(t *testing.T, version string) (context.Context, *pgx.Conn) {
	t.Helper()
	c := testcontainers.New(t, testcontainers.Spec{Shards: 1, PostgresVersion: version})
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(stop)
	conn, err := pgx.Connect(ctx, c.Shards[0].Primary.DSN(c.Database(t)))
	if err != nil {
		t.Fatal(fmt.Errorf("connect: %w", err))
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) }) // the server goes away with the test
	return ctx, conn
}

// What functions leave behind is found in their code, and passes to who calls them and to the tables that use them.
func TestReadCatalogOfCode(t *testing.T) {
	ctx, conn := connect(t, "15")
	if _, err := conn.PgConn().Exec(ctx, `
CREATE FUNCTION named() RETURNS trigger LANGUAGE plpgsql STABLE AS $$ BEGIN PERFORM set_config('app.row', NEW.a::text, false); RETURN NEW; END $$;
CREATE FUNCTION any_name(text, text) RETURNS text LANGUAGE sql AS 'SELECT set_config($1, $2, false)';
CREATE FUNCTION calls_any() RETURNS text LANGUAGE plpgsql AS $$ BEGIN RETURN any_name('a.b', 'c'); END $$;
CREATE FUNCTION atomic() RETURNS text LANGUAGE sql BEGIN ATOMIC; SELECT set_config('app.atomic', 'x', false); END;
CREATE FUNCTION allowed(int) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN CREATE TEMP TABLE seen (); RETURN true; END $$;
CREATE FUNCTION quiet() RETURNS int LANGUAGE plpgsql AS $$ BEGIN RETURN 1; END $$;
CREATE FUNCTION runs(text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN EXECUTE $1; RETURN ''; END $$;
CREATE FUNCTION runs_too() RETURNS text LANGUAGE sql STABLE AS 'SELECT runs(''select 1'')'; CREATE TABLE running (a text DEFAULT runs_too());
CREATE TABLE triggered (a int) PARTITION BY LIST (a); CREATE TABLE triggered_1 PARTITION OF triggered FOR VALUES IN (1);
CREATE TRIGGER t BEFORE INSERT ON triggered_1 FOR EACH ROW EXECUTE FUNCTION named();
CREATE TABLE guarded (a int); ALTER TABLE guarded ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON guarded USING (allowed(a));
CREATE FUNCTION seeds() RETURNS int LANGUAGE plpgsql SET seed = 0.5 AS $$ BEGIN RETURN 1; END $$;
CREATE FUNCTION dblink_connect(text) RETURNS text LANGUAGE internal STRICT AS 'textin'; -- whoever has that name
CREATE FUNCTION reaches() RETURNS int LANGUAGE plpgsql STABLE AS $$ BEGIN PERFORM dblink_connect('x'); RETURN 1; END $$;
CREATE VIEW seeding AS SELECT setseed(0.5)::text; CREATE VIEW through AS SELECT * FROM seeding;
CREATE TABLE reaching (a int DEFAULT reaches());
CREATE TABLE set_by_name (a int, b text DEFAULT any_name('a.b', 'c'));
CREATE TABLE plain (a int DEFAULT quiet());
CREATE FUNCTION fills() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.plain VALUES (1); RETURN new; END $$;
CREATE TABLE filling (a int); CREATE TRIGGER t BEFORE INSERT ON filling FOR EACH ROW EXECUTE FUNCTION fills();
CREATE FUNCTION looks() RETURNS bool LANGUAGE sql BEGIN ATOMIC; SELECT count(*) > 0 FROM plain; END;
CREATE TABLE looking (a int); ALTER TABLE looking ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON looking USING (looks())`).ReadAll(); err != nil {
		t.Fatal(err)
	}
	c, err := router.ReadCatalog(func(statement string, each func(row [][]byte) error) error {
		r := conn.PgConn().ExecParams(ctx, statement, nil, nil, nil, nil)
		for r.NextRow() {
			if err := each(r.Values()); err != nil {
				return err
			}
		}
		_, err := r.Close()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"app.atomic", "app.row"}, c.Settings); d != "" {
		t.Error(d)
	}
	functions := map[string]string{
		"named": "v", "any_name": "v opaque", "calls_any": "v opaque", "atomic": "v", "quiet": "v",
		"seeds": "v keeps", "dblink_connect": "v keeps", "reaches": "v keeps", "runs": "v executes", "runs_too": "s executes",
	}
	for _, f := range c.Functions {
		if want, ok := functions[f.Name]; ok && f.Schema == "public" {
			got := string(f.Volatility)
			if f.Opaque {
				got += " opaque"
			}
			if f.Keeps {
				got += " keeps"
			}
			if f.Executes {
				got += " executes"
			}
			if got != want {
				t.Errorf("%s is %s, want %s", f.Name, got, want)
			}
		}
	}
	for _, table := range c.Tables {
		if got, want := fmt.Sprint(table.Runs, table.ReadRuns), map[string]string{"filling": "[fills] []", "looking": "[looks] [looks]", "plain": "[] []"}[table.Name]; want != "" && got != want {
			t.Errorf("%s runs %s, want %s", table.Name, got, want)
		}
	}
	for _, f := range c.Functions {
		if got, want := fmt.Sprint(f.Uses, f.Writes), map[string]string{"fills": "[plain] [plain]", "looks": "[plain] []", "quiet": "[] []"}[f.Name]; want != "" && got != want {
			t.Errorf("%s uses %s, want %s", f.Name, got, want)
		}
	}
	type marks struct{ Traces, ReadTraces, Keeps, ReadKeeps, Opaque, ReadOpaque, Executes, ReadExecutes bool }
	for name, want := range map[string]marks{
		"triggered": {Traces: true}, "triggered_1": {Traces: true}, "guarded": {Traces: true, ReadTraces: true}, "plain": {},
		"reaching": {Traces: true, Keeps: true}, "set_by_name": {Traces: true, Opaque: true}, "running": {Executes: true},
		"seeding": {Keeps: true, ReadKeeps: true}, "through": {Keeps: true, ReadKeeps: true},
	} {
		for _, table := range c.Tables {
			got := marks{table.Traces, table.ReadTraces, table.Keeps, table.ReadKeeps, table.Opaque, table.ReadOpaque, table.Executes, table.ReadExecutes}
			if table.Name == name && got != want {
				t.Errorf("%s: %+v, want %+v", name, got, want)
			}
		}
	}
	for _, f := range []string{"setseed", "dblink_connect", "reaches"} {
		var oid uint32
		if err := conn.QueryRow(ctx, "SELECT oid FROM pg_proc WHERE proname = $1", f).Scan(&oid); err != nil || !slices.Contains(c.Keepers, oid) {
			t.Errorf("%s, OID %d, is not among those that keep state: %v", f, oid, err)
		}
	}
}

package router_test

import (
	"context"
	"fmt"
	"strings"
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
			c, err := router.NewReader(2).Read(asking(ctx, conn))
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
				{Schema: "pg_catalog", Name: "generate_series", Volatility: router.Stable},
			} {
				got := functions[want.Schema+"."+want.Name]
				if want.User != (len(got.OIDs) > 0) {
					t.Errorf("%s has the OIDs %v", want.Name, got.OIDs)
				}
				got.OIDs = nil
				if d := cmp.Diff(want, got); d != "" {
					t.Errorf("%s: %s", want.Name, d)
				}
			}
			plans(t, c)
		})
	}
}

// live is a router over a real catalog, and a session of it.
func live(t *testing.T, c *router.Catalog, d sharding.Definition) (*router.Router, *router.Session) {
	t.Helper()
	m, err := sharding.New(d)
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
	return r, s
}

// plans routes what everyone writes with a real catalog: no function that PostgreSQL brings may be unknown.
func plans(t *testing.T, c *router.Catalog) {
	t.Helper()
	r, s := live(t, c, sharding.Definition{
		Shards: []sharding.Shard{{Name: "s1", Buckets: []sharding.Range{{First: 0, Last: 2047}}}, {Name: "s2", Buckets: []sharding.Range{{First: 2048, Last: 4095}}}},
		Tables: []sharding.Table{{Name: "orders", Kind: sharding.Sharded, Column: "customer_id", Type: sharding.Int8}},
	})
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

// coded is a schema in which code runs code. What ends in keeps or seeds keeps state in the server process; what names "split" needs the
// shards that have it.
const coded = `
CREATE TABLE split (k int); CREATE TABLE everywhere (a int); CREATE TABLE plain (a int); CREATE TABLE far (a int); CREATE TABLE far_too (a int);
CREATE FUNCTION named() RETURNS trigger LANGUAGE plpgsql STABLE AS $$ BEGIN PERFORM set_config('app.row', NEW.a::text, false); RETURN NEW; END $$;
CREATE FUNCTION any_name(text, text) RETURNS text LANGUAGE sql AS 'SELECT set_config($1, $2, false)';
CREATE FUNCTION calls_any() RETURNS text LANGUAGE plpgsql AS $$ BEGIN RETURN any_name('a.b', 'c'); END $$;
CREATE FUNCTION atomic() RETURNS text LANGUAGE sql BEGIN ATOMIC; SELECT set_config('app.atomic', 'x', false); END;
CREATE FUNCTION atomic_any(text) RETURNS text LANGUAGE sql STABLE BEGIN ATOMIC; SELECT set_config($1, 'app.no_name', false); END;
CREATE FUNCTION atomic_local(varchar) RETURNS text LANGUAGE sql STABLE BEGIN ATOMIC; SELECT set_config($1, 'x', true); END;
CREATE FUNCTION allowed(int) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN CREATE TEMP TABLE seen (); RETURN true; END $$;
CREATE FUNCTION quiet() RETURNS int LANGUAGE plpgsql STABLE AS $$ BEGIN RETURN 1; END $$;
CREATE TABLE triggered (a int) PARTITION BY LIST (a); CREATE TABLE triggered_1 PARTITION OF triggered FOR VALUES IN (1);
CREATE TRIGGER t BEFORE INSERT ON triggered_1 FOR EACH ROW EXECUTE FUNCTION named();
CREATE TABLE guarded (a int); ALTER TABLE guarded ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON guarded USING (allowed(a));
CREATE TABLE unguarded (a int); CREATE POLICY p ON unguarded USING (allowed(a));
CREATE FUNCTION seeds() RETURNS int LANGUAGE plpgsql SET seed = 0.5 AS $$ BEGIN RETURN 1; END $$;
CREATE FUNCTION dblink_connect(text) RETURNS text LANGUAGE internal STRICT AS 'textin'; -- whoever has that name
CREATE FUNCTION reaches() RETURNS int LANGUAGE plpgsql STABLE AS $$ BEGIN PERFORM dblink_connect('x'); RETURN 1; END $$;
CREATE VIEW seeding AS SELECT setseed(0.5)::text; CREATE VIEW through AS SELECT * FROM seeding;
CREATE TABLE reaching (a int DEFAULT reaches());
CREATE TABLE set_by_name (a int, b text DEFAULT any_name('a.b', 'c'));
CREATE TABLE set_directly (a int, b text DEFAULT set_config('a' || '.b', 'c', false));
CREATE TABLE defaults (a int DEFAULT quiet());
CREATE FUNCTION runs(text) RETURNS text LANGUAGE plpgsql STABLE AS $$ BEGIN EXECUTE $1; RETURN ''; END $$;
CREATE FUNCTION runs_too() RETURNS text LANGUAGE sql STABLE AS 'SELECT runs(''select 1'')'; CREATE TABLE running (a text DEFAULT runs_too());
CREATE FUNCTION atomic_runs() RETURNS text LANGUAGE sql STABLE RETURN runs('DELETE FROM public.Split -- é');

CREATE FUNCTION keeps() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM setseed(0.5); RETURN coalesce(new, old); END $$;
CREATE TABLE deep (id int PRIMARY KEY); CREATE TRIGGER t BEFORE INSERT OR DELETE ON deep FOR EACH ROW EXECUTE FUNCTION keeps();
CREATE FUNCTION digs() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO deep VALUES (1); RETURN new; END $$;
CREATE TABLE upper (a int); CREATE TRIGGER t BEFORE INSERT ON upper FOR EACH ROW EXECUTE FUNCTION digs();
CREATE FUNCTION dig() RETURNS void LANGUAGE sql AS 'INSERT INTO upper VALUES (1)';
CREATE FUNCTION atomic_dig() RETURNS void LANGUAGE sql BEGIN ATOMIC; SELECT 1; INSERT INTO upper VALUES (1); END;
CREATE TABLE rule_digs (a int); CREATE RULE r AS ON DELETE TO rule_digs WHERE old.a > 0 DO ALSO (UPDATE plain SET a = 1; DELETE FROM deep);
CREATE TABLE rule_locks (a int); CREATE RULE r AS ON INSERT TO rule_locks DO ALSO SELECT pg_advisory_lock(new.a);
CREATE FUNCTION looks_at_upper() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM upper';
CREATE VIEW deep_view AS SELECT * FROM deep WHERE id IN (SELECT a FROM plain);
CREATE TABLE off (a int); CREATE TRIGGER t BEFORE INSERT ON off FOR EACH ROW EXECUTE FUNCTION keeps(); ALTER TABLE off DISABLE TRIGGER t;
CREATE TABLE cleared (a int); CREATE TRIGGER t BEFORE TRUNCATE ON cleared EXECUTE FUNCTION keeps();
CREATE FUNCTION clears() RETURNS void LANGUAGE sql AS 'TRUNCATE plain, public.cleared';
CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child (p int REFERENCES parent ON DELETE CASCADE);
CREATE TRIGGER t BEFORE DELETE ON child FOR EACH ROW EXECUTE FUNCTION keeps();
CREATE TABLE older (a int); CREATE TABLE heir () INHERITS (older); CREATE TRIGGER t BEFORE UPDATE ON heir FOR EACH ROW EXECUTE FUNCTION keeps();
CREATE FUNCTION steps(int, int) RETURNS int LANGUAGE sql AS 'SELECT seeds()'; CREATE AGGREGATE stepped(int) (sfunc = steps, stype = int);
CREATE OPERATOR ~~~ (leftarg = int, rightarg = int, function = steps); CREATE VIEW operated AS SELECT 1 ~~~ 2 AS x;
CREATE MATERIALIZED VIEW drawn AS SELECT seeds() AS x WITH NO DATA;
CREATE FUNCTION draws() RETURNS void LANGUAGE sql AS 'REFRESH MATERIALIZED VIEW drawn';
CREATE FUNCTION "odd-keeps"() RETURNS int LANGUAGE sql AS 'SELECT seeds()'; CREATE FUNCTION calls_odd() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN "odd-keeps"(); END';

CREATE FUNCTION fills() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.Split VALUES (1); RETURN new; END $$;
CREATE TABLE second (id int PRIMARY KEY); CREATE TRIGGER t BEFORE INSERT OR DELETE ON second FOR EACH ROW EXECUTE FUNCTION fills();
CREATE FUNCTION to_second() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO second VALUES (1); RETURN new; END $$;
CREATE TABLE first (a int); CREATE TRIGGER t BEFORE INSERT ON first FOR EACH ROW EXECUTE FUNCTION to_second();
CREATE VIEW first_view AS SELECT * FROM first; CREATE VIEW first_through AS SELECT * FROM first_view;
CREATE TABLE root (a int) PARTITION BY LIST (a); CREATE TABLE leaf PARTITION OF root FOR VALUES IN (1);
CREATE TRIGGER t BEFORE INSERT ON leaf FOR EACH ROW EXECUTE FUNCTION fills();
CREATE FUNCTION has_split(int) RETURNS bool LANGUAGE sql STABLE BEGIN ATOMIC; SELECT count(*) > $1 FROM split; END;
CREATE TABLE looking (a int); ALTER TABLE looking ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON looking USING (has_split(a));
CREATE TABLE asking (a int); ALTER TABLE asking ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON asking USING (EXISTS (SELECT FROM split WHERE k = a));
CREATE DOMAIN checked AS int CHECK (has_split(value)); CREATE DOMAIN nested AS checked; CREATE TYPE pair AS (a int, b nested);
CREATE TABLE nesting (a nested); CREATE TABLE pairing (a pair[]);
CREATE FUNCTION on_truncate() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN DELETE FROM split; RETURN NULL; END $$;
CREATE TABLE emptied (a int); CREATE TRIGGER t AFTER TRUNCATE ON emptied EXECUTE FUNCTION on_truncate();
CREATE MATERIALIZED VIEW summed AS SELECT count(*) FROM split; CREATE MATERIALIZED VIEW calm AS SELECT a FROM plain;
CREATE FUNCTION refreshes() RETURNS void LANGUAGE sql AS 'REFRESH MATERIALIZED VIEW CONCURRENTLY summed';
CREATE TABLE referred (id int PRIMARY KEY); CREATE TABLE referring (p int REFERENCES referred ON DELETE CASCADE);
CREATE TRIGGER t BEFORE DELETE ON referring FOR EACH ROW EXECUTE FUNCTION fills();
CREATE TABLE country (id int PRIMARY KEY); CREATE TABLE settled (k int, c int REFERENCES country ON DELETE CASCADE);
CREATE VIEW few AS SELECT * FROM everywhere WHERE a IN (SELECT a FROM plain);
CREATE FUNCTION instead() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN new; END $$;
CREATE VIEW replaced AS SELECT * FROM second; CREATE TRIGGER t INSTEAD OF INSERT OR UPDATE OR DELETE ON replaced FOR EACH ROW EXECUTE FUNCTION instead();
CREATE VIEW joined AS SELECT f.id, p.a FROM second f JOIN plain p ON p.a = f.id; CREATE TRIGGER t INSTEAD OF INSERT ON joined FOR EACH ROW EXECUTE FUNCTION instead();
CREATE FUNCTION notes() RETURNS int LANGUAGE sql AS 'INSERT INTO plain VALUES (1) RETURNING a';
CREATE FUNCTION on_far() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO far_too VALUES (1); RETURN new; END $$;
CREATE TRIGGER t BEFORE INSERT ON far FOR EACH ROW EXECUTE FUNCTION on_far();
CREATE TABLE ruled (a int); CREATE RULE r AS ON INSERT TO ruled DO ALSO INSERT INTO first VALUES (1);
CREATE TABLE rule_asks (a int); CREATE RULE r AS ON INSERT TO rule_asks WHERE has_split(new.a) DO INSTEAD NOTHING;
CREATE FUNCTION atomic_size() RETURNS bigint LANGUAGE sql RETURN pg_relation_size('split');
CREATE TABLE "odd-split" (a int); CREATE FUNCTION atomic_odd() RETURNS void LANGUAGE sql BEGIN ATOMIC; DELETE FROM "odd-split"; END; CREATE FUNCTION to_odd() RETURNS void LANGUAGE plpgsql AS 'BEGIN INSERT INTO "odd-split" VALUES (1); END'`

// What functions leave behind, and what they need of other shards, is found in their code, and passes to who runs it: callers, tables by
// triggers, defaults and so on, and what these are written by.
func TestCodeIsFollowed(t *testing.T) {
	for _, version := range []string{"15", "18"} {
		t.Run(version, func(t *testing.T) { codeIsFollowed(t, version) })
	}
}

func codeIsFollowed(t *testing.T, version string) {
	ctx, conn := connect(t, version)
	schema := coded
	if version != "15" { // newer ones do not let a function have that setting
		schema = strings.Replace(schema, "SET seed = 0.5 AS $$ BEGIN", "AS $$ BEGIN SET seed = 0.5;", 1)
	}
	if _, err := conn.PgConn().Exec(ctx, schema).ReadAll(); err != nil {
		t.Fatal(err)
	}
	// A transaction that changes every table does not keep the catalog from being read.
	changing, err := pgx.ConnectConfig(ctx, conn.Config())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = changing.Close(ctx) }()
	if _, err := changing.Exec(ctx, `BEGIN; DO $$ DECLARE r regclass; BEGIN
		FOR r IN SELECT oid FROM pg_class WHERE relkind IN ('r', 'p', 'v', 'm') AND relnamespace = 'public'::regnamespace AND NOT relispartition LOOP
			EXECUTE format('ALTER TABLE %s RENAME TO changed_%s', r, r::oid); END LOOP; END $$`, pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(ctx, `SET lock_timeout = '20s'`); err != nil {
		t.Fatal(err)
	}
	planned := func(shards int) (*router.Catalog, func(statement string) string) {
		c, err := router.NewReader(shards).Read(asking(ctx, conn))
		if err != nil {
			t.Fatal(err)
		}
		last := fmt.Sprint("s", shards)
		d := sharding.Definition{Tables: []sharding.Table{
			{Name: "split", Kind: sharding.Sharded, Column: "k", Type: sharding.Int4},
			{Name: "everywhere", Kind: sharding.Reference},
			{Name: "referred", Kind: sharding.Reference},
			{Name: "odd-split", Kind: sharding.Sharded, Column: "a", Type: sharding.Int4},
			{Name: "referring", Kind: sharding.Reference},
			{Name: "country", Kind: sharding.Reference},
			{Name: "settled", Kind: sharding.Sharded, Column: "k", Type: sharding.Int4},
			{Name: "far", Kind: sharding.Local, Shard: last},
			{Name: "far_too", Kind: sharding.Local, Shard: last},
		}}
		for i := range shards {
			d.Shards = append(d.Shards, sharding.Shard{Name: fmt.Sprint("s", i+1), Buckets: []sharding.Range{{First: 4096 * i / shards, Last: 4096*(i+1)/shards - 1}}})
		}
		r, s := live(t, c, d)
		return c, func(statement string) string {
			var sc router.Scratch
			p := r.Plan(&sc, s, []byte(statement))[0].Plan
			if p.Kind == router.Refuse {
				return "refused: " + p.Refusal.Error()
			}
			var flags []string
			for _, f := range []struct {
				flag router.Flags
				name string
			}{{router.Dirty, "dirty"}, {router.Keeps, "keeps"}, {router.Opaque, "opaque"}, {router.Executes, "executes"}} {
				if p.Has(f.flag) {
					flags = append(flags, f.name)
				}
			}
			return strings.Join(flags, " ")
		}
	}
	c, one := planned(1)
	if d := cmp.Diff([]string{"app.atomic", "app.row"}, c.Settings); d != "" {
		t.Error(d)
	}
	for statement, want := range map[string]string{
		"SELECT any_name('a', 'b')": "dirty opaque", "SELECT calls_any()": "dirty opaque", "SELECT atomic()": "dirty", "SELECT atomic_any('a')": "dirty opaque", "SELECT atomic_local('a')": "", "SELECT quiet()": "",
		"SELECT seeds()": "dirty keeps", "SELECT public.dblink_connect('x')": "dirty keeps", "SELECT reaches()": "dirty keeps", "SELECT setseed(0)": "keeps",
		"INSERT INTO triggered VALUES (1)": "dirty", "INSERT INTO triggered_1 VALUES (1)": "dirty", "SELECT * FROM triggered": "",
		"SELECT * FROM guarded": "dirty", "INSERT INTO guarded VALUES (1)": "dirty", "SELECT * FROM unguarded": "", "COPY guarded TO STDOUT": "dirty",
		"SELECT * FROM seeding": "dirty keeps", "SELECT * FROM through": "dirty keeps", "INSERT INTO reaching DEFAULT VALUES": "dirty keeps",
		"INSERT INTO set_by_name VALUES (1)": "dirty opaque", "INSERT INTO set_directly VALUES (1)": "dirty opaque", "INSERT INTO defaults DEFAULT VALUES": "", "SELECT * FROM reaching": "",

		"SELECT runs('')": "executes", "SELECT runs_too()": "executes", "SELECT atomic_runs()": "executes", "INSERT INTO running DEFAULT VALUES": "executes",

		"INSERT INTO upper VALUES (1)": "dirty keeps", "SELECT dig()": "dirty keeps", "SELECT atomic_dig()": "dirty keeps", "DELETE FROM rule_digs": "dirty keeps", "SELECT * FROM rule_digs": "", "INSERT INTO rule_locks VALUES (1)": "dirty", "SELECT looks_at_upper()": "dirty", "DO 'BEGIN INSERT INTO upper VALUES (1); END'": "dirty keeps",
		"INSERT INTO deep_view VALUES (1)": "dirty keeps", "SELECT * FROM deep_view": "", "INSERT INTO off VALUES (1)": "", "COPY upper FROM STDIN": "dirty keeps", "COPY upper TO STDOUT": "",
		"TRUNCATE cleared": "dirty keeps", "INSERT INTO cleared VALUES (1)": "", "SELECT clears()": "dirty keeps", "TRUNCATE upper": "",
		"DELETE FROM parent": "dirty keeps", "UPDATE older SET a = 1": "dirty keeps", "SELECT stepped(a) FROM plain": "dirty keeps", "SELECT * FROM operated": "dirty keeps",
		"REFRESH MATERIALIZED VIEW drawn": "dirty keeps", "SELECT * FROM drawn": "", "SELECT draws()": "dirty keeps", "SELECT calls_odd()": "dirty keeps",
		"INSERT INTO first VALUES (1)": "", "TRUNCATE emptied": "",
		"SELECT set_config(name, 'view', false) FROM pg_settings WHERE name = 'restrict_nonsystem_relation_kind'": "dirty keeps opaque", "SELECT set_config('a.b', 'c' || 'd', false)": "dirty keeps opaque",
		"SELECT set_config('tidemark.x', 'y', false) FROM plain": "refused: set_config of tidemark.x is not supported",
	} {
		if got := one(statement); got != want {
			t.Errorf("with one shard, %s: %q, want %q", statement, got, want)
		}
	}
	_, two := planned(2)
	for statement, want := range map[string]bool{
		"INSERT INTO plain VALUES (1)": true, "INSERT INTO second VALUES (1)": false, "INSERT INTO first VALUES (1)": false, "SELECT * FROM first": true, "COPY first TO STDOUT": true, "TRUNCATE first": true,
		"INSERT INTO first_view VALUES (1)": false, "INSERT INTO first_through VALUES (1)": false, "SELECT * FROM first_through": true,
		"INSERT INTO root VALUES (1)": false, "INSERT INTO leaf VALUES (1)": false, "SELECT * FROM root": true,
		"SELECT * FROM looking": false, "SELECT * FROM asking": false, "COPY looking TO STDOUT": false, "COPY asking TO STDOUT": false,
		"INSERT INTO nesting VALUES (1)": false, "SELECT * FROM nesting": true, "INSERT INTO pairing VALUES (NULL)": false, "COPY pairing FROM STDIN": false,
		"TRUNCATE emptied": false, "INSERT INTO emptied VALUES (1)": true, "REFRESH MATERIALIZED VIEW summed": false, "REFRESH MATERIALIZED VIEW calm": true,
		"SELECT * FROM summed": true, "SELECT refreshes()": false, "DELETE FROM referred": false, "DELETE FROM country": true, "INSERT INTO referring VALUES (1)": false,
		"UPDATE few SET a = 1": false, "SELECT * FROM few": true, "UPDATE everywhere SET a = 1": true,
		"INSERT INTO replaced VALUES (1)": true, "INSERT INTO joined VALUES (1, 1)": true,
		"SELECT notes()": true, "SELECT notes() FROM far": false, "SELECT notes() FROM plain": true, "INSERT INTO far VALUES (1)": true,
		"INSERT INTO ruled VALUES (1)": false, "INSERT INTO rule_asks VALUES (1)": false, "SELECT atomic_size()": false, "SELECT atomic_odd()": false, "SELECT atomic_runs()": false, "SELECT atomic_any('a')": true, "SELECT to_odd()": false, "DO 'BEGIN DELETE FROM \"odd-split\"; END'": false, "DO 'BEGIN DELETE FROM plain; END'": true,
		"DO 'BEGIN INSERT INTO first_view VALUES (1); END'": false, "SELECT clears()": true,
	} {
		if got := two(statement); strings.HasPrefix(got, "refused") == want {
			t.Errorf("with two shards, %s: %q", statement, got)
		}
	}
}

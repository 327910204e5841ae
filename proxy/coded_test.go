package proxy_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tidemarkdb/tidemark/sharding"
	"github.com/tidemarkdb/tidemark/testcontainers"
)

// codedSchema is code that changes what names mean: coded.customers is the sharded table, public.customers lives on the default shard.
var codedSchema = []string{
	"create schema coded", "create table coded.customers (id bigint primary key, name text)", "create table public.customers (id bigint primary key, name text)",
	"create table public.noted (id int)", "create table public.late (id int)",
	"grant usage on schema coded to public", "grant select, insert on all tables in schema coded, public to public",
	"create function moves() returns int language plpgsql as $$ begin perform set_config('search_path', 'coded', false); return 1; end $$",
	"create function moves_back() returns int language plpgsql as $$ begin perform set_config('search_path', 'public', false); return 1; end $$",
	"create function moves_here() returns int language plpgsql as $$ begin perform set_config('search_path', 'coded', true); return 1; end $$",
	"create function public.runs(text) returns int language plpgsql as $$ begin execute $1; return 1; end $$",
	"create function by_sql() returns text language sql as $$ select set_config('search_path', 'coded', false) $$",
	"create function becomes() returns int language plpgsql as $$ begin set role coded; return 1; end $$",
	"create function restores() returns int language plpgsql set search_path = coded as $$ begin return 1; end $$",
	"create function notes() returns trigger language plpgsql as $$ begin perform public.moves(); return new; end $$",
	"create function stays() returns int language plpgsql as $$ begin return 1; end $$",
	"create procedure calls() language plpgsql as $$ begin set search_path = coded; end $$",
	"create table public.remarked (id int)",
	"create function remarks() returns trigger language plpgsql as $$ begin -- now\n set /* it */ search_path = coded; return new; end $$",
	"create trigger remarked before insert on public.remarked for each row execute function remarks()",
	"create function in_time() returns int language plpgsql stable as $$ begin perform set_config('search_path', 'coded', true); return 1; end $$",
	"create function atomically() returns text begin atomic select set_config('search_path', 'coded', true); end",
	"create trigger noted before insert on public.noted for each row execute function notes()",
	"create constraint trigger late after insert on public.late deferrable initially deferred for each row execute function notes()",
}

// codedCases are statements, after all of which customers is read.
var codedCases = []string{
	"select moves()", "select moves_here()", "select moves(); select moves_back()", "select by_sql()", "select becomes()", "select restores()", "select stays()",
	"select public.runs('set search_path = coded')", "select public.runs('set schema ''coded''')", "select public.runs('set local role coded')",
	"select public.runs('set session authorization coded')",
	"with x as materialized (select moves() m) select m from x", "select (select moves() where true)", "select 1 + moves()",
	"do $$ begin perform public.moves(); end $$", "do $$ begin set local search_path = coded; end $$", "call calls()",
	"insert into noted values (1)", "insert into late values (1)", "insert into late values (1); set constraints all immediate", "insert into late select moves()",
	"insert into late select 1; commit and chain", "insert into late select 1; rollback and chain",
	"prepare p as select moves(); execute p", "prepare p(int) as select $1; execute p(moves())",
	"declare c cursor for select moves(); fetch c", "declare c cursor for select moves(); select stays(); move c",
	"select set_config('search_path', 'coded', true) from generate_series(1, 1)", "select coalesce(set_config('search_path', 'coded', true), 'x')",
	"select set_config('search_path', 'cod' || 'ed', true)", "explain (analyze, costs off, timing off, summary off) select moves()",
	"savepoint a; select moves(); rollback to a", "select moves(); savepoint a; select moves_back(); rollback to a", "savepoint a; select moves(); release a",
	"select moves(); savepoint a; select 1 / 0; rollback to a",
	"select moves(); set search_path = public", "set search_path = coded; select moves_back()", "select moves(); reset search_path", "select moves(); discard plans",
	"set local search_path = coded; select moves_back(); set local search_path = coded",
	"select public.runs('set -- x\n search_path = coded')", "insert into remarked values (1)", "select in_time()", "select atomically()", "select query_to_xml('select public.moves()', true, true, '')::text",
	"select moves(); rollback; begin", "select moves(); commit; begin", "select moves_here(); commit; begin",
	"create temp table temp_one as select moves()",
}

// What a statement names behind code that has changed search_path or the role, in whatever that is together with it, is what PostgreSQL
// finds under that name, or refused.
func TestMeaningBehindCode(t *testing.T) {
	tables := []sharding.Table{{Schema: "coded", Name: "customers", Kind: sharding.Sharded, Column: "id", Type: sharding.Int8}}
	engines(t, func(t *testing.T, engineName string) {
		f := newFixture(t, fixtureSpec{shards: 2, tables: tables})
		plain := f.cluster.Database(t)
		for i, s := range f.cluster.Shards[:2] {
			super := connect(t, s.Primary.DSN("postgres"))
			exec(t, super, "select pg_advisory_lock(2)")
			exec(t, super, `do $$ begin if not exists (select from pg_roles where rolname = 'coded') then create role coded; end if; end $$`)
			exec(t, super, "grant coded to "+testcontainers.AppUser)
			_ = super.Close(t.Context())
			d := connect(t, f.direct(i))
			for _, sql := range codedSchema {
				exec(t, d, sql)
			}
		}
		peer := f.cluster.Shards[0].Primary.DSNAs(testcontainers.AppUser, testcontainers.AppPassword, plain)
		oracle := connect(t, peer)
		for _, sql := range codedSchema {
			exec(t, oracle, sql)
		}
		dsn := f.start(t, engineName)
		c := connect(t, dsn)
		keys := map[string]int{}
		for k := 0; len(keys) < 2; k++ {
			text(t, c, "select name from coded.customers where id = $1", k)
			keys[strings.Fields(route(t, c))[1]] = k
		}
		for _, k := range keys {
			for _, c := range []*pgx.Conn{oracle, c} {
				exec(t, c, "insert into coded.customers values ($1, 'own')", k)
				exec(t, c, "insert into public.customers values ($1, 'common')", k)
			}
		}
		home := f.cluster.Shards[0].Name
		for i, test := range codedCases {
			for _, begin := range []string{"begin; ", ""} {
				for r, read := range []string{"select name from customers where id = %d", "prepare q as select name from customers where id = %[1]d; execute q", "select name from customers where id = $1"} {
					if begin == "" && strings.Contains(test, "savepoint") {
						continue
					}
					for h, how := range []string{"one by one", "in a string", "in a batch", "in batches", "in a pipeline"} {
						if every := map[string]int{"epoll": 2, "goroutines": 5}[engineName]; (i+r+h)%every != 0 {
							continue // there are many
						}
						for at, k := range keys {
							want, got := runCoded(t, oracle, begin+test, read, k, how), runCoded(t, c, begin+test, read, k, how)
							if strings.Contains(got, "0A000") {
								if how == "one by one" && (at == home || strings.Contains(want, "common")) {
									t.Errorf("%s%s, then %s, %s, of shard %s: refused: %s", begin, test, read, how, at, got)
								}
							} else if got != want {
								t.Errorf("%s%s, then %s, %s, of shard %s: %s, want %s", begin, test, read, how, at, got, want)
							}
						}
					}
				}
			}
		}
	})
}

// runCoded is what comes of statements, and of reads behind them.
func runCoded(t *testing.T, c *pgx.Conn, before, read string, key int, how string) string {
	t.Helper()
	pg := c.PgConn()
	simply(t, c, "rollback")
	simply(t, c, "discard all")
	bound := strings.Contains(read, "$1")
	if !bound {
		read = fmt.Sprintf(read, key)
	} else if how == "in a string" {
		return ""
	}
	statements := strings.Split(before, "; ")
	var got []string
	add := func(r *pgconn.Result) {
		switch {
		case r.Err != nil:
			got = append(got, code(r.Err))
		case len(r.Rows) > 0 && !strings.Contains(string(r.Rows[0][0]), "actual"):
			got = append(got, string(r.Rows[0][0]))
		default:
			got = append(got, r.CommandTag.String())
		}
	}
	simple := func(sql string) {
		results, err := pg.Exec(t.Context(), sql).ReadAll()
		for _, r := range results {
			if r.Err == nil {
				add(r)
			}
		}
		if err != nil {
			got = append(got, code(err))
		}
	}
	values := [][]byte{[]byte(fmt.Sprint(key))}
	reads := []string{read}
	if !bound {
		reads = strings.Split(read, "; ")
	}
	switch how {
	case "one by one":
		for _, sql := range statements {
			simple(sql)
		}
		for _, sql := range reads {
			if bound {
				add(pg.ExecParams(t.Context(), sql, values, nil, nil, nil).Read())
			} else {
				simple(sql)
			}
		}
	case "in a string":
		i := 0
		if statements[0] == "begin" {
			i = 1
			simple("begin")
		}
		simple(strings.Join(slices.Concat(statements[i:], reads), "; "))
	default:
		p := pg.StartPipeline(t.Context())
		syncs := 0
		sync := func() {
			syncs++
			if err := p.Sync(); err != nil {
				t.Fatal(err)
			}
		}
		for i, sql := range statements {
			p.SendQueryParams(sql, nil, nil, nil, nil)
			if how == "in batches" || how == "in a pipeline" && i == 0 {
				sync()
			}
		}
		for _, sql := range reads {
			if bound {
				p.SendQueryParams(sql, values, nil, nil, nil)
			} else {
				p.SendQueryParams(sql, nil, nil, nil, nil)
			}
		}
		sync()
		for syncs > 0 {
			r, err := p.GetResults()
			switch r := r.(type) {
			case *pgconn.PipelineSync:
				syncs--
			case *pgconn.ResultReader:
				add(r.Read())
			default:
				got = append(got, code(err))
			}
		}
		_ = p.Close()
	}
	status := pg.TxStatus()
	return strings.Join(got, " ") + " " + string(status)
}

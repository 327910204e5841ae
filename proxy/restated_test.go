package proxy_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/tidemarkdb/tidemark/sharding"
	"github.com/tidemarkdb/tidemark/testcontainers"
)

// restatedSchema is what the same name means under different settings: the sharded table in the schema of the role restated, else one
// that the shard map does not name, or none.
var restatedSchema = []string{
	"create schema restated", "create table restated.customers (id bigint primary key, name text)",
	"grant usage on schema restated to public", "grant select on restated.customers to public",
	"create table public.customers (id bigint primary key, name text)",
}

// restatedCase is statements, the last of which reads customers: before each in a message of its own, together in one string or batch.
type restatedCase struct {
	before, together string // separated by semicolons; within before a | joins those of one batch
	refused          bool   // as a string, for the key on the other shard
}

var restatedCases = []restatedCase{
	// settings that change the meaning only together
	{"set search_path = public", `set search_path = "$user"; set role restated; READ`, true},
	{"set search_path = public", `set role restated; set search_path = "$user"; READ`, true},
	{"set search_path = public", "set role restated; reset all; READ", true},
	{"set search_path = public", "set role restated; reset search_path; READ", true},
	{"set search_path = public", `set local search_path = "$user"; set local role restated; READ`, true},
	{"set search_path = public", `select set_config('search_path', '"$user"', false), set_config('role', 'restated', false); READ`, true},
	{"set search_path = public", `select set_config('search_path', '"$user"', true); select set_config('role', 'restated', true); READ`, true},
	{"set search_path = public", `set search_path = "$user"; set application_name = x; set role restated; select 1; READ`, true},
	{"set role restated; set search_path = public", `set search_path = "$user", public; set role none; READ`, false},
	{"set role restated", `set search_path = "$user", public; set session authorization default; READ`, true},
	{"set role restated", "reset session authorization; READ", true},
	{"set role restated; set search_path = public", `reset role; reset all; READ`, false},
	// what ends or divides a transaction takes them back, or not
	{"set role restated|begin", "savepoint p; rollback and chain; READ; commit", true},
	{"set search_path = public; set role restated|begin; reset search_path", "rollback; READ", true},
	{"set search_path = public; begin; set local role restated; reset search_path", "commit; READ", true},
	{"set search_path = public; set role restated; begin; set local search_path = restated", "commit; READ", true},
	{"begin; savepoint p; set role restated", "rollback to p; READ; commit", true},
	{"begin; set role restated; savepoint p; set role none; savepoint p; set role restated; release p", "rollback to p; READ; commit", true}, // of another shard
	{"begin; savepoint p; set role restated; savepoint p; set role none; release p", "rollback to p; READ; commit", false},
	{"begin; savepoint p; set role restated; rollback to p", "READ; commit", false},
	{"begin; savepoint p; set role restated; savepoint q; release p", "READ; commit", true}, // of another shard
	{"", "set role restated; rollback; READ", false},
	{"", "set role restated; commit; READ", true},
	{"", "begin; set role restated; commit; READ", true},
	{"", "set local role restated; commit; READ", false},
	{"", "begin; savepoint p; set role restated; rollback to p; READ; commit", false},
	{"", "begin; set role restated; rollback; READ", false},
	{"", "set role restated; set role none; READ", false},
	// what was prepared under other settings is looked up anew
	{"prepare p as READ; set role restated", "execute p", false},
	{"set role restated; prepare p as READ; set role none", "execute p", false},
	{"prepare p as READ", "set role restated; execute p", true},
	{"set role restated; prepare p as READ", "reset role; execute p", true},
	{"prepare p as READ; set search_path = public", `set role restated; set search_path = "$user"; execute p`, true},
	{"", "set role restated; prepare p as READ; execute p", true},
	{"prepare p(int) as PARAM", "set role restated; execute p(KEY)", true},
	{"prepare p as READ; begin; set role restated", "rollback; execute p", true},
}

// What a query string or batch names behind changes of its meaning is what PostgreSQL finds under that name, or refused.
func TestMeaningBehindSeveralChanges(t *testing.T) {
	tables := []sharding.Table{{Schema: "restated", Name: "customers", Kind: sharding.Sharded, Column: "id", Type: sharding.Int8}}
	engines(t, func(t *testing.T, engineName string) {
		f := newFixture(t, fixtureSpec{shards: 2, tables: tables})
		plain := f.cluster.Database(t)
		for i, s := range f.cluster.Shards[:2] {
			super := connect(t, s.Primary.DSN("postgres"))
			exec(t, super, "select pg_advisory_lock(2)")
			exec(t, super, `do $$ begin if not exists (select from pg_roles where rolname = 'restated') then create role restated; end if; end $$`)
			exec(t, super, "grant restated to "+testcontainers.AppUser)
			_ = super.Close(t.Context())
			if d := connect(t, f.direct(i)); i == 0 {
				for _, sql := range restatedSchema {
					exec(t, d, sql)
				}
			} else {
				for _, sql := range restatedSchema[:4] {
					exec(t, d, sql)
				}
			}
		}
		peer := f.cluster.Shards[0].Primary.DSNAs(testcontainers.AppUser, testcontainers.AppPassword, plain)
		oracle := connect(t, peer)
		for _, sql := range restatedSchema {
			exec(t, oracle, sql)
		}
		dsn := f.start(t, engineName)
		c := connect(t, dsn)
		keys := map[string]int{}
		for k := 0; len(keys) < 2; k++ {
			text(t, c, "select name from restated.customers where id = $1", k)
			keys[strings.Fields(route(t, c))[1]] = k
		}
		for _, k := range keys {
			for _, c := range []*pgx.Conn{oracle, c} {
				exec(t, c, "insert into restated.customers values ($1, 'own')", k)
				exec(t, c, "insert into public.customers values ($1, 'common')", k)
			}
		}
		pg := c.PgConn()
		if _, err := pg.Prepare(t.Context(), "protocol", "select name from customers where id = $1", nil); err != nil {
			t.Fatal(err)
		}
		exec(t, c, "set role restated")
		for _, k := range keys { // it is looked up anew, too
			r := pg.ExecPrepared(t.Context(), "protocol", [][]byte{[]byte(fmt.Sprint(k))}, nil, nil).Read()
			if r.Err != nil || len(r.Rows) != 1 || string(r.Rows[0][0]) != "own" {
				t.Errorf("a prepared statement of key %d under another role: %s %v", k, r.Rows, r.Err)
			}
		}
		for _, test := range restatedCases {
			for _, batch := range []bool{false, true} {
				refused := false
				for _, k := range keys {
					want, got := test.run(t, peer, k, batch), test.run(t, dsn, k, batch)
					if again := strings.Contains(got, "0A000"); again {
						refused = true
					} else if got != want {
						t.Errorf("%s, then together (in a batch: %v) %s: %s, want %s", test.before, batch, test.together, got, want)
					}
				}
				if refused != test.refused && !batch || refused && !test.refused && !strings.Contains(test.before+test.together, "commit; READ") {
					t.Errorf("%s, then together (in a batch: %v) %s: refused: %v", test.before, batch, test.together, refused)
				}
			}
		}
	})
}

// run is what comes of the case.
func (x restatedCase) run(t *testing.T, dsn string, key int, batch bool) string {
	t.Helper()
	c := connect(t, dsn)
	defer func() { _ = c.Close(t.Context()) }()
	fill := strings.NewReplacer("READ", fmt.Sprintf("select name from customers where id = %d", key), "PARAM", "select name from customers where id = $1", "KEY", fmt.Sprint(key))
	for _, sql := range strings.Split(fill.Replace(x.before), "; ") {
		if together := strings.Split(sql, "|"); len(together) > 1 {
			pipelined(t, c, together)
		} else if sql != "" {
			simply(t, c, sql)
		}
	}
	if batch {
		return strings.Join(pipelined(t, c, strings.Split(fill.Replace(x.together), "; ")), " ")
	}
	results, err := c.PgConn().Exec(t.Context(), fill.Replace(x.together)).ReadAll()
	var got []string
	for _, r := range results {
		switch {
		case r.Err != nil:
		case len(r.Rows) > 0:
			got = append(got, string(r.Rows[0][0]))
		default:
			got = append(got, r.CommandTag.String())
		}
	}
	if err != nil {
		got = append(got, code(err))
	}
	return strings.Join(got, " ")
}

package proxy_test

import (
	"fmt"
	"math/rand"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/tidemarkdb/tidemark/sharding"
)

// leakKeys are so many that each of two shards has some.
const leakKeys = 8

// leakSharded are the tables that are split by key where there are several shards. All others are on the default shard.
func leakSharded(clients int) []sharding.Table {
	var list []sharding.Table
	for _, name := range append([]string{"leak_key", "traced"}, leakNames("split_%d", clients)...) {
		list = append(list, sharding.Table{Name: name, Kind: sharding.Sharded, Column: "a", Type: sharding.Int4})
	}
	return list
}

func leakNames(format string, clients int) (list []string) {
	for i := range clients {
		list = append(list, fmt.Sprintf(format, i))
	}
	return list
}

// leakSchema makes what the generated statements use. Each client has tables of its own: what they meet at is state of
// sessions alone.
func leakSchema(clients int) []string {
	list := []string{
		"create schema s1", "create schema s2", "create table s1.here (a text)", "create table s2.here (a text)",
		"insert into s1.here values ('one')", "insert into s2.here values ('two')", "grant usage on schema s1, s2 to public",
		"grant select on all tables in schema s1, s2 to public",
		`create function leak_set(name text, value text, local bool) returns text language sql volatile as 'select set_config($1, $2, $3)'`,
		`create function leak_x(value text) returns text language sql volatile as 'select set_config(''my.x'', $1, false)'`,
		`create function leak_temp(name text) returns void language plpgsql as $$ begin execute format('create temp table %I (a int)', name); end $$`,
		`create function leak_lock(k int) returns void language plpgsql as $$ begin perform pg_advisory_lock(k); end $$`,
		`create function leak_role(name text) returns void language plpgsql as $$ begin execute format('set role %I', name); end $$`,
		`create function leak_nothing() returns int language plpgsql volatile as $$ begin return 1; end $$`,
		`create function leak_trigger() returns trigger language plpgsql as $$ begin perform set_config('my.y', 'row ' || new.a, false); return new; end $$`,
		`create table traced (a int)`, `grant all on traced to public`, `create trigger t before insert on traced for each row execute function leak_trigger()`,
		`create function leak_clause(v text) returns text language plpgsql set work_mem = '95MB' as $$ begin
			perform set_config('my.x', v, false), set_config('work_mem', '96MB', v is null); return current_setting('work_mem'); end $$`,
		`create function leak_as(name text) returns text language plpgsql set role = 'leak_b' as $$ begin return current_user; end $$`,
		`create function leak_path() returns text language plpgsql set search_path from current as $$ begin set local search_path = s2; return current_schema(); end $$`,
		`create function leak_local(v text) returns text language plpgsql set my.x = 'clause' as $$ begin set local work_mem = '97MB'; perform set_config('my.x', v, true); return v; end $$`,
		`create procedure leak_commits(v text) language plpgsql as $$ begin
			perform set_config('my.y', v, false); set local work_mem = '98MB'; commit; perform set_config('my.y', v || ' lost', false); rollback; end $$`,
		`create procedure leak_rolls(v text) language plpgsql as $$ begin set my.y = 'rolled'; rollback; set local my.y = 'local'; end $$`,
		`create procedure leak_proc(v text) language plpgsql as $$ begin perform set_config('my.y', v, false); end $$`,
	}
	for _, name := range leakNames("leak_seq_%d", clients) {
		list = append(list, fmt.Sprintf("create sequence %s", name), fmt.Sprintf("grant all on sequence %s to public", name))
	}
	for _, name := range slices.Concat([]string{"leak_key"}, leakNames("leak_%d", clients), leakNames("split_%d", clients)) {
		list = append(list, fmt.Sprintf("create table %s (a int primary key, b text) with (autovacuum_enabled = off)", name), fmt.Sprintf("grant all on %s to public", name))
	}
	return list
}

// generator makes the requests of one session.
type generator struct {
	*rand.Rand
	keys           [][]int // of leak_key, by shard
	shard          int     // where the request, or the transaction, is to stay
	slot, session  int
	status         byte     // of the transaction, as PostgreSQL says
	started, began bool     // with settings in the startup message; with my.y
	plot           []string // what is left of one
	calm           bool     // it makes nothing that changes the schema, behind which no two clients share what is prepared
}

func newGenerator(rnd *rand.Rand, keys [][]int, slot, session int) *generator {
	return &generator{Rand: rnd, keys: keys, slot: slot, session: session, calm: session/calmSessions%2 == 1}
}

// calmSessions is how many sessions begin one after the other that are calm, or that are not.
const calmSessions = 100

func (g *generator) pick(list ...string) string { return list[g.Intn(len(list))] }

// options are settings of the startup message.
func (g *generator) options() map[string]string {
	o := map[string]string{}
	for _, set := range []struct{ name, value string }{
		{"application_name", g.pick("a", "b")},
		{"datestyle", g.pick("German", "ISO, DMY")},
		{"timezone", g.pick("Asia/Tokyo", "UTC")},
		{"search_path", g.pick("s1", "s2, public")},
		{"my.x", "of the startup"},
		{"client_encoding", "LATIN1"},
		{"options", g.pick("-c work_mem=3MB", "-c role=leak_a", "-c work_mem=4MB -c my.y=s", "-c default_transaction_read_only=on")},
	} {
		if g.Intn(5) == 0 {
			o[set.name], g.started = set.value, true
			g.began = g.began || strings.Contains(set.value, "my.y")
		}
	}
	return o
}

// family makes statements of one kind; weight is how often, against the others'.
type family struct {
	weight int
	make   func(g *generator) string
}

var families = []family{
	{30, (*generator).look},
	{14, (*generator).setting},
	{5, (*generator).role},
	{16, (*generator).transaction},
	{5, (*generator).failure},
	{5, (*generator).temporary},
	{7, (*generator).prepared},
	{2, (*generator).listening},
	{4, (*generator).lock},
	{3, (*generator).cursor},
	{6, (*generator).code},
	{3, (*generator).data},
	{2, (*generator).discard},
}

// statement is one SQL statement.
func (g *generator) statement() string {
	total := 0
	for _, f := range families {
		total += f.weight
	}
	n := g.Intn(total)
	for _, f := range families {
		if n -= f.weight; n < 0 {
			sql := f.make(g)
			switch {
			case g.began && strings.Contains(sql, "null"), // set_config() returns the servers' default, see docs/limits.md
				g.calm && changesSchema.MatchString(sql),
				len(g.keys) > 1 && strings.Contains(sql, "leak_set('my."),                                                               // see docs/limits.md
				len(g.keys) > 1 && g.status == 'T' && changesTemporary.MatchString(sql) && !strings.Contains(sql, "temp") && !g.stray(), // refused where there is none
				g.shard > 0 && !g.stray() && atHome.MatchString(sql) && !strings.Contains(sql, " leak_key"):
				return g.statement()
			}
			return sql
		}
	}
	panic("unreachable")
}

// stray says whether a statement may be one that leaves the shard of its transaction: that is refused, which ends the session.
func (g *generator) stray() bool { return g.Intn(200) == 0 }

// atHome are statements for the default shard.
var atHome = regexp.MustCompile(`\bhere\b|leak_|temp|\b[tvq][01]\b|lock|cursor|fetch|move|close|listen|notify|^do |^call |pg_|discard|nosuch`)

// key is one of the shard that the transaction is on.
func (g *generator) key() int {
	keys := g.keys[g.shard]
	if g.stray() {
		keys = slices.Concat(g.keys...)
	}
	return keys[g.Intn(len(keys))]
}

// keyed has a SELECT without tables run on the shard of a key.
func (g *generator) keyed(sql string) string {
	return fmt.Sprintf("%s from leak_key where a = %d", sql, g.key())
}

// look shows state.
func (g *generator) look() string {
	if g.Intn(4) == 0 {
		return g.keyed(g.pick(
			"select b, current_user, session_user, current_setting('role')",
			"select a, current_setting('work_mem'), coalesce(current_setting('my.x', true), ''), coalesce(current_setting('my.y', true), ''), current_setting('search_path')",
			"select current_setting('datestyle'), current_setting('timezone'), current_setting('statement_timeout'), current_setting('log_statement'), current_setting('application_name')",
			"select current_setting('transaction_isolation'), current_setting('transaction_read_only'), current_setting('default_transaction_isolation'), current_setting('client_encoding')",
			"select '2001-02-03'::date, '2001-02-03 04:05+06'::timestamptz",
		))
	}
	return g.pick(
		"select current_user, session_user, current_setting('role')",
		"select current_setting('work_mem'), coalesce(current_setting('my.x', true), ''), coalesce(current_setting('my.y', true), ''), current_setting('search_path')",
		"select current_setting('datestyle'), current_setting('timezone'), current_setting('statement_timeout'), current_setting('log_statement'), current_setting('application_name')",
		"select current_setting('transaction_isolation'), current_setting('transaction_read_only'), current_setting('default_transaction_isolation'), current_setting('client_encoding')",
		"select * from here", "select '2001-02-03'::date, '2001-02-03 04:05+06'::timestamptz",
		"select relname::text from pg_class where relnamespace = pg_my_temp_schema() order by 1",
		"select * from pg_listening_channels() order by 1",
		"select objid, mode from pg_locks where locktype = 'advisory' and pid = pg_backend_pid() order by 1, 2",
		"select name, is_holdable from pg_cursors where name like 'c%' order by 1",
		"select name, case when not from_sql then statement end, from_sql, parameter_types from pg_prepared_statements order by name",
		"show work_mem", "show search_path", "show role", "show timezone",
	)
}

// scattered shows state of the one of all shards that has the row.
func (g *generator) scattered() string {
	return fmt.Sprintf("select a, current_setting('work_mem'), current_user, '2001-02-03'::date from leak_key where b = 'r%d'", 1+g.Intn(leakKeys))
}

func (g *generator) setting() string {
	mb := 1 + g.Intn(50)
	local := g.pick("", "", "session ", "local ")
	return g.pick(
		fmt.Sprintf("set %swork_mem = '%dMB'", local, mb), fmt.Sprintf("set %smy.x = 'v%d'", local, mb), fmt.Sprintf("set %smy.x to a, 'b c', %d", local, mb),
		fmt.Sprintf("set %ssearch_path = %s", local, g.pick("s1", "s2, public", `"$user", public`, `"S x", s1`)),
		fmt.Sprintf("set %sdatestyle = %s", local, g.pick("'ISO, DMY'", "german", "sql, mdy")), fmt.Sprintf("set %stime zone %s", local, g.pick("'UTC'", "'Asia/Tokyo'", "-5", "local", "default")),
		fmt.Sprintf("set %sapplication_name = '%s'", local, g.pick("x", "it''s", `b\s`)), fmt.Sprintf("set %sstatement_timeout = %s", local, g.pick("'10min'", "600001", "0")),
		fmt.Sprintf("set %sdefault_transaction_isolation = '%s'", local, g.pick("serializable", "read committed")), fmt.Sprintf("set %slog_statement = '%s'", local, g.pick("none", "mod")),
		"set session characteristics as transaction isolation level repeatable read", "set names 'LATIN1'", "set client_encoding to default",
		fmt.Sprintf("set %s to default", g.pick("work_mem", "my.x", "search_path", "datestyle", "timezone")),
		fmt.Sprintf("reset %s", g.pick("work_mem", "my.x", "search_path", "datestyle", "timezone", "statement_timeout", "application_name", "client_encoding", "log_statement")),
		"reset all", "reset all",
		"set work_mem = 'much'", "set nosuch = 1", "set transaction_isolation = 'serializable'",
		fmt.Sprintf("select set_config('my.x', 'f%d', %v)", mb, g.Intn(2) == 0), fmt.Sprintf("select set_config('work_mem', '%dkB', %v), set_config('my.y', null, false)", 100+mb, g.Intn(2) == 0),
		fmt.Sprintf("select set_config('search_path', '%s', %v)", g.pick("s1", "s2,public", ""), g.Intn(2) == 0),
	)
}

func (g *generator) role() string {
	return g.pick("set role leak_a", "set role leak_b", "set local role leak_a", "set role none", "reset role", "set role nosuch",
		"set session authorization leak_a", "set session authorization leak_b", "set local session authorization leak_b", "set session authorization default", "reset session authorization",
		"select set_config('role', 'leak_b', false)", "select set_config('role', 'leak_a', true)")
}

func (g *generator) transaction() string {
	if g.status == 'I' {
		return g.pick("begin", "begin", "begin isolation level repeatable read", "start transaction read only", "begin isolation level serializable, read only", "commit", "rollback", "savepoint p0", "commit and chain")
	}
	p := g.pick("p0", "p1")
	return g.pick("commit", "commit", "rollback", "end", "abort", "commit and chain", "rollback and chain", "savepoint "+p, "savepoint "+p, "rollback to "+p, "rollback to savepoint "+p, "release "+p,
		"set transaction read only", "set transaction isolation level serializable", "begin")
}

func (g *generator) failure() string {
	return g.pick("select 1/0", "select nosuch", "selec", "select * from nosuch", "select 'a'::int", "do $$ begin raise exception 'x'; end $$")
}

func (g *generator) temporary() string {
	tmp := g.pick("t0", "t1")
	return g.pick("create temp table "+tmp+" (a int)", "create temp table "+tmp+" (a int)", "create temp table "+tmp+" (a int) on commit drop", "create temp table "+tmp+" as select 7 as a", "select 5 as a into temp "+tmp,
		"create temp table if not exists "+tmp+" (a int) on commit delete rows",
		"insert into "+tmp+" values (1)", "select count(*) from "+tmp, "drop table "+tmp, "drop table if exists "+tmp, "drop table pg_temp."+tmp, "alter table "+tmp+" add b int", "create index on "+tmp+" (a)", "truncate "+tmp,
		"create temp view v0 as select 1 as a", "drop view v0", "create temp sequence q0", "select nextval('q0')", "drop sequence q0", "discard temp")
}

func (g *generator) prepared() string {
	p := g.pick("s0", "s1", "S 2")
	q := p
	if p == "S 2" {
		q = `"S 2"`
	}
	return g.pick(fmt.Sprintf("prepare %s as select %d as n, current_setting('work_mem') as w", q, g.Intn(9)), fmt.Sprintf("prepare %s (int, text) as select $1 + 1 as n, $2 as t", q), "prepare "+q+" as select * from here",
		"prepare "+q+" as select * from nosuch", "prepare "+q+" as insert into "+g.table()+" values ($1, 'p') on conflict do nothing",
		"prepare "+q+" as select a, current_setting('work_mem'), current_user from leak_key where a = $1",
		"execute "+q, "execute "+q, "execute "+q+"(5, 'five')", fmt.Sprintf("execute %s(%d)", q, g.key()), "deallocate "+q, "deallocate prepare "+q, "deallocate all", "explain (costs off) execute "+q)
}

func (g *generator) listening() string {
	ch := g.pick("c0", "c1")
	return g.pick("listen "+ch, "listen "+ch, "unlisten "+ch, "unlisten *", "unlisten *", "notify "+ch)
}

// lock takes locks that no other session wants, and one that all want, one after the other.
func (g *generator) lock() string {
	k := 1000*g.session + g.Intn(3)
	return g.pick(fmt.Sprintf("select pg_advisory_lock(%d)", k), fmt.Sprintf("select pg_try_advisory_lock(%d)", k), fmt.Sprintf("select pg_advisory_lock_shared(%d)", k), fmt.Sprintf("select pg_advisory_unlock(%d)", k), fmt.Sprintf("select pg_advisory_unlock_shared(%d)", k),
		fmt.Sprintf("select pg_advisory_xact_lock(%d)", k), "select pg_advisory_unlock_all()", "select pg_advisory_unlock_all()", "select pg_advisory_xact_lock(1)", "select pg_advisory_lock_shared(2)")
}

func (g *generator) cursor() string {
	c := g.pick("c0", "c1")
	return g.pick("declare "+c+" cursor with hold for select generate_series(1, 5) as n", "declare "+c+" scroll cursor for select generate_series(1, 5) as n", "fetch 2 from "+c, "fetch 2 from "+c, "move 1 in "+c, "close "+c, "close "+c, "close all")
}

// code changes the session where the wire does not show it.
func (g *generator) code() string {
	k := 1000*g.session + g.Intn(3)
	return g.pick(fmt.Sprintf("select leak_set('my.x', 'c%d', false)", g.Intn(9)), "select leak_set('my.y', 'local', true)", fmt.Sprintf("select leak_set('work_mem', '%dMB', false)", 60+g.Intn(9)),
		"select leak_temp('t0')", fmt.Sprintf("select leak_lock(%d)", k), "select leak_role('leak_a')", "select leak_nothing()", fmt.Sprintf("insert into traced values (%d)", g.key()),
		fmt.Sprintf("select leak_x('d%d')", g.Intn(9)), g.keyed(fmt.Sprintf("select leak_x('k%d')", g.Intn(9))), g.keyed("select leak_role('leak_b')"), "call leak_proc('called')",
		"do $$ begin perform set_config('my.y', 'done', false); end $$", "do $$ begin set my.y = 'plain'; end $$", "do $$ begin create temp table t1 (a int); end $$",
		"do $$ begin perform set_config('search_path', 's2', false); end $$", "do $$ begin set local work_mem = '77MB'; end $$")
}

// table is one of the client's own.
func (g *generator) table() string { return fmt.Sprintf("%s_%d", g.pick("leak", "split"), g.slot) }

func (g *generator) data() string {
	table, key := g.table(), g.key()
	return g.pick(fmt.Sprintf("insert into %s values (%d, 'x')", table, key), fmt.Sprintf("select count(*) from %s where a = %d", table, key), fmt.Sprintf("delete from %s where a = %d", table, key),
		fmt.Sprintf("update %s set b = current_setting('work_mem') where a = %d returning b", table, key))
}

func (g *generator) discard() string {
	return g.pick("discard all", "discard all", "discard temp", "discard plans", "discard sequences", "deallocate all")
}

// next is a request.
func (g *generator) next(status byte) action {
	g.status = status
	if status == 'I' {
		g.shard = g.Intn(len(g.keys))
	}
	if len(g.plot) > 0 && g.Intn(8) > 0 {
		line := g.plot[0]
		g.plot = g.plot[1:]
		return g.request(line)
	}
	switch n := g.Intn(100); {
	case n < 3:
		return g.leave()
	case n < 4:
		return g.cancelled()
	case n < 5 && status == 'I' && len(g.keys) == 1: // see docs/limits.md
		return g.twoPhase()
	case n < 11 && status == 'I' && len(g.plot) == 0 && g.shard == 0:
		g.plot = plots[g.Intn(len(plots))](g)
		return g.next(status)
	case n < 40:
		return simpleAction(g.statement())
	case n < 50:
		var list []string
		for range 2 + g.Intn(3) {
			list = append(list, g.statement())
		}
		return simpleAction(strings.Join(list, "; "))
	case n < 54:
		return g.copy()
	case n < 57 && g.status == 'I':
		return simpleAction(g.scattered())
	}
	return g.extended()
}

// copy begins one and ends it well, badly, or in the middle.
func (g *generator) copy() (a action) {
	table := g.table()
	if g.status != 'I' && !g.stray() { // refused where it is sharded
		table = fmt.Sprint("leak_", g.slot)
	}
	a = simpleAction(g.pick(fmt.Sprintf("copy %s from stdin", table), fmt.Sprintf("copy %s from stdin", table), "copy nosuch from stdin", "copy (select generate_series(1, 3)) to stdout", "begin; copy t0 from stdin"))
	if strings.HasSuffix(a.text, "stdout") {
		return a
	}
	switch g.Intn(6) {
	case 0: // two in a string
		a = simpleAction(fmt.Sprintf("copy %s from stdin; set my.x = 'copied'; copy %[1]s from stdin; show work_mem", table))
		a.messages = append(a.messages, &pgproto3.CopyData{Data: []byte("5\tx\n")}, &pgproto3.CopyDone{})
	case 1: // in a batch
		a = action{text: "[" + a.text + "]", messages: []pgproto3.FrontendMessage{&pgproto3.Parse{Query: a.text}, &pgproto3.Bind{}, &pgproto3.Execute{}}, ready: 1}
		defer func() { a.messages = append(a.messages, &pgproto3.Sync{}) }()
	}
	a.messages = append(a.messages, &pgproto3.CopyData{Data: []byte(g.pick("1\tx\n", "2\ty\n3\tz\n", "no number\t\n", "4\t"))})
	if g.Intn(2) == 0 {
		a.messages, a.text = append(a.messages, &pgproto3.CopyFail{Message: "changed my mind"}), a.text+" (fail)"
	} else {
		a.messages, a.text = append(a.messages, &pgproto3.CopyDone{}), a.text+" (done)"
	}
	return a
}

// extended is a batch of the extended protocol, or several at once.
func (g *generator) extended() action {
	var a action
	var text []string
	say := func(what string, m ...pgproto3.FrontendMessage) {
		text = append(text, what)
		a.messages = append(a.messages, m...)
	}
	parts := 1 + g.Intn(2)*g.Intn(4)
	if g.Intn(12) == 0 {
		parts = 6 + g.Intn(10)
	}
	for range parts {
		name := g.pick("", "", "", "s0", "s1", "S 2", "b0")
		portal := ""
		switch n := g.Intn(12); {
		case n == 0:
			say(fmt.Sprintf("close %q", name), &pgproto3.Close{ObjectType: 'S', Name: name})
			continue
		case n == 1 && name != "":
			sql := g.transaction()
			for name != "b0" && (!preparable.MatchString(sql) || strings.Contains(sql, "pg_prepared")) { // EXECUTE of a BEGIN is nothing that anybody does
				sql = g.statement()
			}
			say(fmt.Sprintf("parse %q %s", name, sql), &pgproto3.Parse{Name: name, Query: sql})
			if g.Intn(2) == 0 {
				say("describe", &pgproto3.Describe{ObjectType: 'S', Name: name})
			}
		case n <= 3 && name != "": // what was prepared before
			say(fmt.Sprintf("bind %q, execute", name), &pgproto3.Bind{DestinationPortal: portal, PreparedStatement: name}, &pgproto3.Execute{Portal: portal, MaxRows: uint32(g.Intn(2) * 2)})
		case n == 4:
			sql, args := g.parameters()
			say(fmt.Sprintf("%s %q", sql, args), &pgproto3.Parse{Query: sql}, &pgproto3.Bind{Parameters: args}, &pgproto3.Describe{ObjectType: 'P'}, &pgproto3.Execute{})
		case n == 5:
			// Not the unnamed portal: PostgreSQL 18.6 dies of one that a failed simple query has left.
			say("execute portal q0", &pgproto3.Execute{Portal: "q0", MaxRows: 2})
		default:
			sql := g.statement()
			if strings.HasPrefix(sql, "select") && g.Intn(3) == 0 { // what Tidemark answers itself has no portal on a server
				portal = "q0"
			}
			bind, binary := &pgproto3.Bind{DestinationPortal: portal}, ""
			if g.Intn(6) == 0 {
				bind.ResultFormatCodes, binary = []int16{1}, " in binary"
			}
			say("["+sql+"]"+binary, &pgproto3.Parse{Query: sql}, bind, &pgproto3.Describe{ObjectType: 'P', Name: portal}, &pgproto3.Execute{Portal: portal})
		}
		if g.Intn(3) == 0 {
			say("sync", &pgproto3.Sync{})
			a.ready++
		}
	}
	say("sync", &pgproto3.Sync{})
	a.ready++
	a.text = strings.Join(slices.Clip(text), ", ")
	return a
}

var changesSchema = regexp.MustCompile(`temp|^(drop|alter|create|truncate) `)

var preparable = regexp.MustCompile(`^(select|insert|update|delete|show|fetch) `)

// parameters is a statement with values.
func (g *generator) parameters() (string, [][]byte) {
	b := func(list ...string) (out [][]byte) {
		for _, x := range list {
			out = append(out, []byte(x))
		}
		return out
	}
	switch n := g.Intn(5); {
	case n == 0 && g.shard == 0:
		return "select set_config($1, $2, $3)", b(g.pick("my.x", "work_mem", "timezone", "search_path", "role"), g.pick("12MB", "UTC", "s1", "leak_a", "none"), g.pick("t", "f"))
	case n == 1 && !g.began:
		return "select set_config('my.x', $1, false), set_config('my.y', $2, true)", [][]byte{[]byte(g.pick("b1", "b2")), nil}
	case n == 2 && g.shard == 0:
		return g.pick("select leak_set('work_mem', $1 || '0MB', false)", "select leak_x($1)"), b(g.pick("3", "4"))
	case n == 3:
		return fmt.Sprintf("insert into %s values ($1, $2)", g.table()), b(g.pick(fmt.Sprint(g.key()), fmt.Sprint(g.key()), "x"), "v")
	}
	if g.shard > 0 {
		return "select leak_x($1) from leak_key where a = $2", b("5", fmt.Sprint(g.key()))
	}
	return "select pg_advisory_lock($1)", b(fmt.Sprint(1000*g.session + g.Intn(3)))
}

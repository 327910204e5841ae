package proxy_test

import (
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgproto3"
)

// What only shows where several requests fit together: a plot is a few of them, said one after the other, with others between.

// plot is a way to make the requests of one; each is a Query, or a batch of those that " ; " divides.
type plot func(g *generator) []string

var plots = []plot{
	(*generator).savepoints,
	(*generator).heldCursor,
	(*generator).scrolled,
	(*generator).changedTable,
	(*generator).typed,
	(*generator).drawn,
	(*generator).committing,
	(*generator).clauses,
	(*generator).failingPrepare,
	(*generator).rolesMixed,
	(*generator).chained,
	(*generator).coded,
	(*generator).called,
	(*generator).bound,
	(*generator).executed,
	(*generator).endedSettings,
	(*generator).endedListens,
	(*generator).endedTemporary,
	(*generator).endedLocks,
	(*generator).endedCursors,
	(*generator).endedPrepared,
	(*generator).largeObjects,
}

// savepoints have settings in them that are released or rolled back.
func (g *generator) savepoints() []string {
	set := func() string {
		return g.pick("set work_mem = '%dMB'", "set local work_mem = '%dMB'", "set my.x = 'p%d'", "set local my.x = 'p%d'", "select set_config('my.y', 'p%d', false)", "select set_config('my.y', 'p%d', true)")
	}
	list := []string{"begin"}
	for range 2 + g.Intn(5) {
		list = append(list, fmt.Sprintf(set(), 70+g.Intn(20)), g.pick("savepoint p0", "savepoint p1", "release p0", "release p1", "rollback to p0", "rollback to p1", "set role leak_a", "set local role leak_b", "reset all", "reset role"))
	}
	return append(list, g.pick("commit", "rollback", "commit and chain", "rollback and chain"), "select current_user, current_setting('work_mem'), coalesce(current_setting('my.x', true), ''), coalesce(current_setting('my.y', true), '')")
}

// heldCursor is one that outlives its transaction, or does not.
func (g *generator) heldCursor() []string {
	c := g.pick("c2", `"C 3"`)
	list := []string{g.pick("begin", "begin", "begin read only", "select 1"), "declare " + c + " " + g.pick("", "", "scroll ", "no scroll ", "insensitive ", "asensitive ", "binary ") + "cursor with hold for " +
		g.pick("select generate_series(1, 5) as n", "values ('a'), ('b')", "select current_setting('work_mem') as w, n from generate_series(1, 3) n", fmt.Sprintf("select b from leak_key where a = %d", g.keys[0][0]))}
	for range g.Intn(3) {
		list = append(list, "fetch "+g.pick("1", "2", "all", "0", "next")+" from "+c, g.pick("savepoint p0", "rollback to p0", "set my.x = 'held'", "select 1/0", "show work_mem"))
	}
	list = append(list, g.pick("commit", "commit", "rollback", "commit and chain", "end"))
	for range 1 + g.Intn(3) {
		list = append(list, g.pick("fetch 1 from ", "fetch all in ", "move 1 from ", "fetch backward 1 from ", "fetch absolute 2 from ", "fetch first from ", "move forward all in ")+c)
	}
	return append(list, g.pick("close "+c, "close all", "discard all", "select name, is_holdable from pg_cursors where name ilike 'c%' order by 1"))
}

// scrolled moves a cursor to and fro, in the simple and in the extended protocol.
func (g *generator) scrolled() []string {
	list := []string{"begin", "declare c2 scroll cursor for select n, 'x' || n from generate_series(1, 5) n"}
	for range 2 + g.Intn(4) {
		move := g.pick("fetch", "move") + " " + g.pick("next", "prior", "first", "last", "absolute 3", "absolute -1", "relative 2", "relative -2", "forward 2", "backward 2", "backward all", "all", "0") + " from c2"
		if g.Intn(2) == 0 {
			move = "[" + move + "] ; sync"
		}
		list = append(list, move)
	}
	return append(list, g.pick("commit", "rollback", "close c2", "[close c2] ; [fetch 1 from c2] ; sync"), g.pick("rollback", "commit and chain"))
}

// changedTable has a statement prepared whose table changes.
func (g *generator) changedTable() []string {
	if g.calm {
		return nil
	}
	list := []string{"create temp table t2 (a int, b text)", "insert into t2 values (1, 'one'), (2, 'two')", g.pick("prepare s2 as select a from t2 order by a", "prepare s2 (int) as select a, b from t2 where a = $1", "prepare s2 as insert into t2 values (3, 'three') returning a")}
	run := func() string {
		return g.pick("execute s2", "execute s2(1)", "[execute s2] ; sync", "[execute s2(2)] ; sync")
	}
	list = append(list, run(), "alter table pg_temp.t2 "+g.pick("add c int", "alter a type bigint", "rename b to d", "add constraint k check (a < 3)", "alter b set default 'x'"), run(),
		g.pick("truncate pg_temp.t2", "drop table pg_temp.t2", "discard temp", "select 1"), run(), g.pick("deallocate s2", "deallocate all", "discard all"))
	return append(list, "drop table if exists t2")
}

// typed is EXECUTE with arguments of many types.
func (g *generator) typed() []string {
	return []string{
		g.pick("prepare s2 (int, text, date) as select $1 + 1 as n, $2 as t, $3 as d", "prepare s2 (numeric, varchar(3), timestamptz) as select $1 as n, $2 as t, $3 as d", "prepare s2 (int[], json, interval) as select $1[1] as n, $2->>'a' as t, $3 as d",
			"prepare s2 (bool, bytea, oid) as select $1 as n, $2 as t, $3 as d", "prepare s2 as select $1::int as n, $2::text as t, $3::date as d", "prepare s2 (unknown, text, date) as select $1::int as n, $2 as t, $3 as d"),
		"execute s2(1, 'x', '2001-02-03')",
		"execute s2(" + g.pick("1", "null", "'7'", "1.5", "1 + 1", "true", "'{4,5}'", "array[1,2]", "-1", "$1", "(select 1)") + ", " + g.pick("'a'", "null", "'a' || 'b'", "current_setting('work_mem')", `'{"a": 5}'`, `E'\\x41'`, "5") + ", " +
			g.pick("'2001-02-03'", "null", "date '2001-02-03' + 1", "'1 day'", "17", "'nothing'") + ")",
		"[execute s2(" + g.pick("2", "'8'", "null") + ", 'ab', " + g.pick("null", "'2001-02-03'", "'3 hours'") + ")] ; sync",
		g.pick("execute s2", "execute s2(1)", "execute s2(1, 'x', null, 4)", "explain (costs off) execute s2(1, 'x', null)"),
		"deallocate s2",
	}
}

// drawn tells of numbers of a sequence in the request that draws them: see docs/limits.md.
func (g *generator) drawn() []string {
	q := fmt.Sprintf("leak_seq_%d", g.slot)
	last := g.pick(fmt.Sprintf("select currval('%s'), lastval()", q), "select lastval()", fmt.Sprintf("select currval('%s')", q))
	next := fmt.Sprintf("select nextval('%s')", q)
	list := []string{next, last, g.pick("savepoint p0", "discard sequences", "select 1"), g.pick(next, fmt.Sprintf("select setval('%s', 40)", q)), g.pick("rollback to p0", "select 1", "show work_mem"), next, last}
	switch g.Intn(3) {
	case 0:
		return []string{next + "; " + last}
	case 1:
		return []string{"begin; " + strings.Join(list, "; "), g.pick("commit", "rollback")}
	}
	return []string{"[begin] ; [" + strings.Join(list, "] ; [") + "] ; sync", g.pick("commit", "rollback")}
}

// committing is code that ends transactions.
func (g *generator) committing() []string {
	call := g.pick("call leak_commits('c1')", "call leak_commits('c2')", "call leak_rolls('r1')", "do $$ begin set my.y = 'd1'; commit; set my.y = 'd2'; rollback; end $$", "do $$ begin set local my.y = 'l1'; commit; perform set_config('my.y', 'd3', false); end $$",
		"do $$ begin perform pg_advisory_xact_lock(1); commit; set work_mem = '91MB'; end $$", "do $$ begin set work_mem = '92MB'; commit; perform 1/0; end $$", "[call leak_commits('c3')] ; sync", "[select 1] ; [call leak_commits('c4')] ; sync",
		"do $$ begin begin set my.y = 'sub'; perform 1/0; exception when others then null; end; end $$", "call leak_commits('c5'); select 1", "[do $$ begin commit; set my.y = 'd4'; end $$] ; sync")
	list := []string{call, "show work_mem", "select coalesce(current_setting('my.y', true), '')"}
	if g.Intn(3) == 0 {
		list = append([]string{g.pick("begin", "set work_mem = '90MB'")}, append(list, "rollback")...)
	}
	return list
}

// clauses are functions with SET clauses.
func (g *generator) clauses() []string {
	value := "null"
	if g.started { // see docs/limits.md
		value = "'k5'"
	}
	return []string{
		g.pick("set work_mem = '93MB'", "begin", "set local my.x = 'l'"),
		g.pick("select leak_clause('k1')", "select leak_clause('k2'), current_setting('work_mem')", "[select leak_clause('k3')] ; sync", "select leak_as('leak_a')", "select leak_path()", "select leak_local('l1')", "[select leak_local('l2')] ; [show work_mem] ; sync",
			"select leak_clause('k4') from generate_series(1, 2)", "select leak_clause("+value+")"),
		"select current_user, current_setting('work_mem'), current_setting('search_path'), coalesce(current_setting('my.x', true), '')",
		g.pick("rollback", "commit", "select 1"),
		"show work_mem",
	}
}

// failingPrepare is about prepared statements in a transaction that fails.
func (g *generator) failingPrepare() []string {
	list := []string{"begin"}
	some := func() string {
		return g.pick("prepare s2 as select 2 as n", "prepare s3 (int) as select $1 as n", "deallocate s2", "deallocate s3", "deallocate all", "execute s2", "execute s3(3)", "[prepare s2 as select 22] ; sync", "[deallocate s3] ; sync", "parse s3 select 33 ; sync", "close s2 ; sync", "run s3 ; sync",
			"savepoint p0", "rollback to p0", "discard plans", "prepare s2 as select nosuch", "select 1/0", "deallocate nosuch")
	}
	for range 3 + g.Intn(4) {
		list = append(list, some())
	}
	return append(list, g.pick("commit", "rollback"), "execute s2", "execute s3(4)", "deallocate all")
}

// rolesMixed changes the user in all ways.
func (g *generator) rolesMixed() []string {
	var list []string
	if g.Intn(3) == 0 {
		list = append(list, "begin")
	}
	for range 3 + g.Intn(3) {
		list = append(list, g.pick(g.role(), g.role(), "reset all", "set session authorization leak_a; set role none; reset all", "set role leak_a; reset role; reset session authorization", "[set role leak_b] ; [reset all] ; sync", "[set session authorization leak_b] ; sync",
			"discard all", "savepoint p0", "rollback to p0", "set role 'leak_a'", "set session authorization 'leak_a'", "set local role none", "select set_config('session_authorization', 'leak_a', true)"),
			g.pick("select current_user, session_user, current_setting('role')", "show session_authorization", "show is_superuser", "[show role] ; sync"))
	}
	return append(list, "rollback", "select current_user, session_user, current_setting('role')")
}

// chained are transactions of many modes.
func (g *generator) chained() []string {
	isolation, deferrable := g.pick("", " isolation level serializable", " isolation level repeatable read,", " isolation level read committed", " isolation level read uncommitted,"), g.pick("", " deferrable", ", not deferrable")
	if deferrable == " deferrable" && (isolation == "" || strings.HasSuffix(isolation, "serializable")) {
		deferrable = " not deferrable" // it may wait for all others that write: also for the client's own transaction on the other side
	}
	begin := "begin" + g.pick("", " work", " transaction") + isolation + g.pick("", " read write", " read only") + deferrable
	begin = strings.TrimSuffix(begin, ",")
	list := []string{g.pick(begin, begin, strings.Replace(begin, "begin", "start transaction", 1))}
	show := "select current_setting('transaction_isolation'), current_setting('transaction_read_only'), current_setting('transaction_deferrable')"
	for range 1 + g.Intn(4) {
		list = append(list, g.pick("commit and chain", "rollback and chain", "commit and no chain", "rollback and no chain", "set transaction read write", "set transaction not deferrable", "set transaction isolation level repeatable read, read only", "select 1/0", "begin read only", "[commit and chain] ; sync",
			"set local transaction_deferrable = off", "set transaction_read_only = on", "reset transaction_isolation", "show transaction_isolation"), g.pick(show, "["+show+"] ; sync"))
	}
	return append(list, g.pick("commit", "rollback"), show)
}

// coded is code that does what clients do.
func (g *generator) coded() []string {
	k := 1000*g.session + g.Intn(3)
	list := []string{g.pick("do $$ begin listen c0; end $$", "do $$ begin execute 'listen c1'; end $$", "do $$ begin unlisten *; end $$", fmt.Sprintf("do $$ begin perform pg_advisory_lock(%d); end $$", k), fmt.Sprintf("do $$ begin perform pg_advisory_unlock(%d); end $$", k),
		"do $$ begin set role leak_a; end $$", "do $$ begin set session authorization leak_b; end $$", "do $$ begin reset all; end $$", "do $$ begin discard plans; end $$", "do $$ begin execute 'set work_mem = ''94MB'''; end $$", "do $$ begin create temp table t3 (a int); end $$",
		"do $$ begin create temp table t3 (a int) on commit drop; end $$", "do $$ begin set search_path = s1; end $$", "do $$ begin set datestyle = 'German'; raise exception 'x'; end $$", "do $$ begin set time zone 'Asia/Tokyo'; end $$",
		"do $$ begin execute 'prepare s2 as select 5'; end $$", "do $$ declare c cursor for select 1; begin open c; end $$", "do $$ begin execute 'declare c2 cursor with hold for select 3 as n'; end $$")}
	if g.calm && strings.Contains(list[0], "temp") || g.started && strings.Contains(list[0], "reset all") { // see docs/limits.md
		return nil
	}
	if g.Intn(3) == 0 {
		list = append([]string{"begin"}, list...)
		list = append(list, g.pick("commit", "rollback"))
	}
	return append(list, "select * from pg_listening_channels() order by 1", "select objid, mode from pg_locks where locktype = 'advisory' and pid = pg_backend_pid() order by 1, 2",
		"select current_user, current_setting('work_mem'), current_setting('search_path'), current_setting('datestyle'), current_setting('timezone')", "select relname::text from pg_class where relnamespace = pg_my_temp_schema() order by 1",
		"select name, from_sql from pg_prepared_statements order by name", "discard temp", "reset all")
}

// twoPhase commits in two phases, which only a pipeline does for sure before its client leaves. Its lock is its own: all server connections
// can be with clients that wait for a lock, and then the one that could end the prepared transaction which holds it waits for a connection.
func (g *generator) twoPhase() action {
	done := func() string {
		return g.pick("set my.x = 'two'", "set local my.x = 'phase'", "set role leak_a", "set local work_mem = '51MB'", fmt.Sprintf("insert into leak_%d values (%d, 'two')", g.slot, g.key()), "select set_config('my.y', 'two', true)", "savepoint p0", "select 1/0", "listen c0",
			"notify c0", fmt.Sprintf("select pg_advisory_xact_lock(%d)", 9000+g.session), "declare c0 cursor with hold for select 1 as n", "create temp table t4 (a int)", "prepare s4 as select 4", "set session authorization leak_b", "select * from here")
	}
	line := "[begin] ; [" + done() + "] ; [" + done() + "] ; " + g.pick("", "sync ; ") + "[" + done() + "] ; [prepare transaction '" + gid + "'] ; sync ; [" + g.pick("show work_mem", "select current_user", "begin", "select 1/0") + "] ; sync ; [" +
		g.pick("commit", "rollback", "select 1") + "] ; sync ; [" + g.pick("commit", "rollback") + " prepared '" + gid + "'] ; sync ; [rollback] ; sync ; [rollback prepared '" + gid + "'] ; sync"
	if g.calm && strings.Contains(line, "temp") {
		return g.twoPhase()
	}
	return g.request(line)
}

// request is a line of a plot: as in testdata/sessions.txt, or a Query as a batch.
func (g *generator) request(line string) action {
	if !strings.HasSuffix(line, " ; sync") {
		if g.Intn(4) > 0 || strings.Contains(line, "; ") {
			return simpleAction(line)
		}
		line = "[" + line + "] ; sync"
	}
	a := action{text: line}
	for part := range strings.SplitSeq(line, " ; ") {
		m := partMessages(part)
		a.messages = append(a.messages, m...)
		if _, ok := m[0].(*pgproto3.Sync); ok {
			a.ready++
		}
	}
	return a
}

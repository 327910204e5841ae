package proxy_test

import (
	"fmt"
	"strings"
)

// What ends, with its transaction, its savepoint or by a DISCARD, or does not: said one by one, in one string, batch or pipeline.

// ended is a transaction, or what was none yet, of some of these and of what may end them; shows tells what is left.
func (g *generator) ended(some []string, shows ...string) []string {
	ends := []string{"savepoint p0", "savepoint p0", "savepoint p1", "release p0", "rollback to p0", "rollback to p0", "rollback to p1", "select 1/0", "commit", "rollback", "begin", "commit and chain", "rollback and chain", "select 1"}
	list := []string{g.pick("begin", "begin", "begin", "select 1")}
	for range 2 + g.Intn(5) {
		list = append(list, g.pick(some...))
		if g.Intn(2) == 0 {
			list = append(list, g.pick(ends...))
		}
	}
	list = append(list, g.pick("commit", "commit", "rollback"))
	if text := strings.Join(list, " "); g.calm && strings.Contains(text, "temp ") || g.started && strings.Contains(text, "begin reset all") { // see docs/limits.md
		return g.ended(some, shows...)
	}
	list = append(g.told(list), "rollback")
	return append(list, shows...)
}

func (g *generator) endedSettings() []string {
	n := g.Intn(20)
	return g.ended([]string{
		fmt.Sprintf("set work_mem = '%dMB'", 160+n), fmt.Sprintf("set local work_mem = '%dMB'", 160+n), fmt.Sprintf("set my.x = 's%d'", n), fmt.Sprintf("set local my.x = 's%d'", n), "set local work_mem to default", "reset work_mem", "reset all", "set role leak_a", "set local role leak_b",
		"set session authorization leak_b", "reset role", "reset session authorization", "set datestyle = 'German'", "set local datestyle = 'ISO, DMY'", "set search_path = s1", "set local search_path = s2", "select * from here", "show work_mem", "select current_user", "set schema 's2'", "set intervalstyle = 'iso_8601'",
		"select '1 day 2 hours'::interval", fmt.Sprintf("select leak_set('work_mem', '%dMB', false)", 180+n), "do $$ begin set my.y = 'in code'; end $$", "do $$ begin set local my.y = 'here'; raise exception 'x'; end $$", fmt.Sprintf("select set_config('work_mem', '%dkB', true)", 1000+n),
		"set work_mem = 'many'", "set session characteristics as transaction isolation level serializable", "set session characteristics as transaction read write", "show default_transaction_isolation",
		"do $$ begin begin set work_mem = '88MB'; perform 1/0; exception when others then null; end; end $$", "do $$ begin set work_mem = '89MB'; begin reset all; perform 1/0; exception when others then null; end; end $$",
	}, showsAll, "select current_setting('default_transaction_isolation'), current_setting('intervalstyle')", "set session characteristics as transaction isolation level read committed")
}

func (g *generator) endedListens() []string {
	return g.ended([]string{"listen c0", "listen c0", "listen c1", `listen "C 2"`, "unlisten c0", "unlisten *", "notify c0, 'x'", "do $$ begin execute 'listen c1'; end $$", "discard all", "select pg_notify('c1', 'y')", "set my.x = 'listens'"},
		"select * from pg_listening_channels() order by 1", "unlisten *", "select * from pg_listening_channels() order by 1")
}

func (g *generator) endedTemporary() []string {
	return g.ended([]string{
		"create temp table t3 (a int)", "create temp table t3 (a int) on commit drop", "create temp table if not exists t3 (a int) on commit delete rows", "insert into t3 values (1)", "select count(*) from t3", "drop table pg_temp.t3", "truncate pg_temp.t3",
		"select 7 as a into temp t3", "select leak_temp('t3')", "do $$ begin drop table if exists t3; end $$", "do $$ begin begin create temp table t4 (a int); perform 1/0; exception when others then null; end; end $$", "discard temp", "create temp view v1 as select 1 as a",
		"create function pg_temp.f(int) returns int language sql as 'select $1 + 1'", "create type pg_temp.d as enum ('a', 'b')", "alter table pg_temp.t3 add b int", "create temp sequence q1",
	},
		"select relname::text from pg_class where relnamespace = pg_my_temp_schema() order by 1", "select proname::text from pg_proc where pronamespace = pg_my_temp_schema() order by 1", "discard temp", "select relname::text from pg_class where relnamespace = pg_my_temp_schema() order by 1")
}

func (g *generator) endedLocks() []string {
	k := 1000*g.session + g.Intn(3)
	return g.ended([]string{
		fmt.Sprintf("select pg_advisory_lock(%d)", k), fmt.Sprintf("select pg_advisory_lock(%d)", k), fmt.Sprintf("select pg_advisory_xact_lock(%d)", k), fmt.Sprintf("select pg_advisory_unlock(%d)", k), fmt.Sprintf("select pg_try_advisory_lock_shared(%d)", k), fmt.Sprintf("select pg_advisory_unlock_shared(%d)", k),
		fmt.Sprintf("select pg_advisory_lock(%d), 1/0", k), fmt.Sprintf("select leak_lock(%d)", k), "select pg_advisory_unlock_all()", "discard all", fmt.Sprintf("do $$ begin begin perform pg_advisory_lock(%d); perform 1/0; exception when others then null; end; end $$", k),
		fmt.Sprintf("do $$ begin perform pg_advisory_lock(%d); raise exception 'x'; end $$", k), fmt.Sprintf("select pg_advisory_lock(%d) from generate_series(1, 3)", k), fmt.Sprintf("select pg_try_advisory_lock(7, %d)", k), fmt.Sprintf("select pg_advisory_unlock(7, %d)", k), "set my.x = 'locks'",
	},
		"select classid, objid, mode from pg_locks where locktype = 'advisory' and pid = pg_backend_pid() order by 1, 2, 3", fmt.Sprintf("select pg_advisory_unlock(%d)", k), "select pg_advisory_unlock_all()", "select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()")
}

func (g *generator) endedCursors() []string {
	return g.ended([]string{
		"declare c2 cursor with hold for select n from generate_series(1, 5) n", "declare c3 scroll cursor with hold for select current_setting('work_mem') as w", "declare c2 cursor for select n from generate_series(1, 5) n", "declare c3 cursor with hold for select 1/(n - 2) from generate_series(1, 4) n",
		"fetch 1 from c2", "fetch all from c3", "move 2 in c2", "close c2", "close c3", "close all", "discard all", "set work_mem = '87MB'", "do $$ begin execute 'declare c2 cursor with hold for select 3 as n'; end $$", "do $$ begin execute 'close c2'; end $$", "declare c2 cursor with hold for select leak_set('work_mem', '86MB', false)",
	},
		"select name, is_holdable from pg_cursors where name like 'c%' order by 1", "fetch 1 from c2", "fetch 1 from c3", "close all", "fetch 1 from c2", "show work_mem")
}

func (g *generator) endedPrepared() []string {
	return g.ended([]string{
		"prepare s2 as select 2 as n", "prepare s2 (int) as select $1 + 1 as n", "prepare s3 as select current_setting('work_mem') as w", "deallocate s2", "deallocate prepare s3", "deallocate all", "discard plans", "discard all", "execute s2", "execute s2(4)", "execute s3", "set work_mem = '85MB'",
		"prepare s3 as select * from here", "set search_path = s1", "set search_path = s2", "prepare s2 as select nosuch", "explain (costs off) execute s2", "reset all",
	},
		"select name, from_sql from pg_prepared_statements order by name", "execute s2", "execute s3", "deallocate all", "execute s2")
}

// largeObjects have descriptors, which are the transaction's.
func (g *generator) largeObjects() []string {
	oid := 100000 + g.session
	return g.ended([]string{fmt.Sprintf("select lo_create(%d)", oid), fmt.Sprintf("select lo_open(%d, 393216)", oid), "select lowrite(0, 'abc')", "select loread(0, 10)", "select lo_lseek(0, 0, 0)", "select lo_close(0)", fmt.Sprintf("select lo_unlink(%d)", oid), fmt.Sprintf("select lo_get(%d)", oid), "select lo_tell(1)"},
		fmt.Sprintf("select lo_get(%d)", oid), fmt.Sprintf("select lo_unlink(%d)", oid))
}

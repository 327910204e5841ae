package proxy_test

import (
	"fmt"
	"strings"
)

// told says statements one by one, as one query string, as one batch, or as a pipeline of several.
func (g *generator) told(list []string) []string {
	switch g.Intn(5) {
	case 0:
		return []string{strings.Join(list, "; ")}
	case 1, 2:
		syncs := g.Intn(2)
		var b strings.Builder
		for _, sql := range list {
			b.WriteString("[" + sql + "] ; ")
			if syncs > 0 && g.Intn(3) == 0 {
				b.WriteString("sync ; ")
			}
		}
		return []string{b.String() + "sync"}
	}
	return list
}

const showsAll = "select current_user, current_setting('work_mem'), coalesce(current_setting('my.x', true), ''), coalesce(current_setting('my.y', true), ''), current_setting('datestyle'), current_setting('search_path')"

// called makes settings wherever a query may call for it, or may not come to that.
func (g *generator) called() []string {
	set := func() string {
		mb := 100 + g.Intn(20)
		if len(g.keys) == 1 && g.Intn(2) == 0 { // see docs/limits.md
			return fmt.Sprintf(g.pick("set_config('my.x', 'q%d', false)", "set_config('work_mem', '%dMB', false)", "pg_catalog.set_config('WORK_MEM', '%dMB', false)"), mb)
		}
		return fmt.Sprintf(g.pick("set_config('my.x', 'q%d', true)", "set_config('work_mem', '%dMB', true)", "leak_set('work_mem', '%dMB', false)", "leak_set('work_mem', '%dMB', true)"), mb)
	}
	some := func() string {
		list := []string{
			"select %s where false", "select case when 1 > 2 then %s else 'no' end", "select case when true then %s end", "select coalesce('a', %s)", "select coalesce(null, %s)", "select %s limit 0", "select %s from generate_series(1, 2)", "with w as (select %s) select 1",
			"with w as materialized (select %s as v) select v from w", "select * from (select %s) x", "values (%s), ('b')", "select 1 where %s <> 'b'", "select (select %s)", "select exists (select %s)", "select %s, 1/0", "select %s union all select 'b'", "select %s, (select count(*) from leak_key where a < 0)",
			"explain (costs off) select %s", "explain (analyze, costs off, timing off, summary off, buffers off) select %s", "copy (select %s) to stdout", "select %s as x into temp t3", "create temp table t3 as select %s as x", "declare c2 cursor for select %s from generate_series(1, 3)", "declare c2 cursor with hold for select %s",
			"insert into leak_" + fmt.Sprint(g.slot) + " values (3, %s) on conflict (a) do update set b = excluded.b returning b", "update leak_" + fmt.Sprint(g.slot) + " set b = %s", "delete from leak_" + fmt.Sprint(g.slot) + " where b = %s", "call leak_proc(%s)", "do $$ begin perform %s; exception when others then null; end $$",
			"do $$ begin perform %s; perform 1/0; exception when others then null; end $$", "do $$ declare v text; begin select %s into v; raise exception '%%', v; end $$",
		}
		sql := list[g.Intn(len(list))]
		return fmt.Sprintf(sql, set())
	}
	list := []string{g.pick("begin", "begin", "select 1", "set work_mem = '99MB'")}
	for range 1 + g.Intn(3) {
		list = append(list, some(), g.pick(showsAll, "fetch 1 from c2", "savepoint p0", "rollback to p0", "show work_mem"))
	}
	if text := strings.Join(list, " "); g.calm && strings.Contains(text, "temp t") || len(g.keys) > 1 && strings.Contains(text, "leak_key") { // see docs/limits.md
		return g.called()
	}
	list = append(list, g.pick("commit", "commit", "rollback", "commit and chain"))
	return append(g.told(list), showsAll, "rollback", "close all", showsAll, "discard temp")
}

// bound makes settings with values that come later than the statement.
func (g *generator) bound() []string {
	value := func() string { return fmt.Sprintf("%dMB", 120+g.Intn(20)) }
	bool := func() string { return g.pick("t", "f", "true", "0") }
	name := func() string { return g.pick("work_mem", "work_mem", "Work_Mem", "my.x", "statement_timeout") }
	list := []string{
		"parse s2 " + g.pick("select set_config($1, $2, $3)", "select set_config($1, $2, $3)", "select pg_catalog.set_config($1, $2, $3) as x"),
		"parse s3 " + g.pick("select leak_set('work_mem', $1, $2)", "select leak_set('work_mem', $1, $2) where $2", "select leak_set('work_mem', $1, $2), leak_set('application_name', $1, not $2)"),
	}
	if g.Intn(2) == 0 {
		list = append(list, "describe s2")
	}
	for range 2 + g.Intn(4) {
		list = append(list, g.pick(
			"run s2 with "+name()+"|"+value()+"|"+bool(), "run s2 with "+name()+"|"+value()+"|"+bool(), "run s3 with "+value()+"|"+bool(), "run s2 with work_mem|NULL|"+bool(), "run s2 with work_mem|many|f", "run s2 with nosuch|1|f", "run s2 with NULL|1|f", "run s2 with work_mem|2MB|NULL",
			"run s2 with role|"+g.pick("leak_a", "none", "nosuch")+"|"+bool(), "run s2 with search_path|"+g.pick("s1", "s2, public", "")+"|"+bool(), "run s2 with datestyle|German|"+bool(), "run s2 with timezone|Asia/Tokyo|"+bool(), "run s2 with session_authorization|leak_b|"+bool(),
			"run s2 with transaction_isolation|serializable|t", "run s2 with client_encoding|LATIN1|"+bool(),
			"[begin]", "[commit]", "[rollback]", "[savepoint p0]", "[rollback to p0]", "[select 1/0]", "[show work_mem]", "sync", "sync", "["+showsAll+"]", "close s2", "[discard all]", "[deallocate all]", "[reset all]"))
	}
	list = append(list, "sync")
	if g.started && strings.Contains(strings.Join(list, " "), "NULL") || g.began && strings.Contains(strings.Join(list, " "), "NULL") { // see docs/limits.md
		return g.bound()
	}
	return []string{strings.Join(list, " ; "), showsAll, "rollback", showsAll, "close s2 ; close s3 ; sync", "reset session authorization", "reset role"}
}

// executed are EXECUTEs of what makes settings, with values of all kinds, by themselves and within others.
func (g *generator) executed() []string {
	mb := func() string { return fmt.Sprintf("'%dMB'", 140+g.Intn(20)) }
	list := []string{
		g.pick("begin", "select 1", "set work_mem = '98MB'"),
		g.pick("prepare s2 (text, bool) as select leak_set('work_mem', $1, $2)", "prepare s2 as select leak_set('work_mem', $1, $2)", "prepare s2 (text, bool) as select leak_set('work_mem', $1, $2) where $2", "prepare s2 (varchar, bool) as values (leak_set('work_mem', $1, $2), current_user)"),
	}
	for range 2 + g.Intn(3) {
		list = append(list, g.pick(
			"execute s2("+mb()+", false)", "execute s2("+mb()+", true)", "execute s2("+mb()+", null)", "execute s2('much', false)", "execute s2(leak_set('work_mem', "+mb()+", false), true)", "execute s2((select "+mb()+"), 1 = 1)", "explain (costs off) execute s2("+mb()+", false)",
			"explain (analyze, costs off, timing off, summary off, buffers off) execute s2("+mb()+", false)", "create temp table t3 as execute s2("+mb()+", false)", "savepoint p0", "rollback to p0", "release p0", "select 1/0", "show work_mem", "deallocate s2"))
	}
	if text := strings.Join(list, " "); g.calm && strings.Contains(text, "temp ") {
		return g.executed()
	}
	return append(g.told(append(list, g.pick("commit", "rollback"))), "show work_mem", "rollback", "deallocate all", "discard temp")
}

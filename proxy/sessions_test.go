package proxy_test

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
)

// TestSessions plays the sessions of testdata/sessions.txt, each of which has once been answered otherwise than by a private
// PostgreSQL, while another client leaves other settings and another role in the server connection. A session begins with
// an empty line and what it is about:
//
//	# about           over one shard without replicas, if it does not begin with another of leakVariants, as in "# shards: about"
//	@name=value       a setting of the startup message
//	select 1          a Query
//	[select 1] ; sync a batch of the extended protocol, divided by " ; ": a statement that is parsed, bound, described and executed,
//	                  with a number behind it, as in [select 1] 2, for so many rows;
//	                  or parse NAME sql, describe NAME, bind NAME, run NAME, close NAME, portal NAME sql, again NAME, end NAME
//	                  (Close of a portal), sync. Without a name or with an empty one it is the unnamed one; run NAME with 5|NULL
//	                  has values
//	! select 1        one of these, the last, at which Tidemark must diverge as docs/limits.md says
func TestSessions(t *testing.T) {
	text, err := os.ReadFile("testdata/sessions.txt")
	if err != nil {
		t.Fatal(err)
	}
	engines(t, func(t *testing.T, engineName string) {
		runs := map[string]*leaks{}
		for _, v := range leakVariants {
			runs[v.name] = newLeaks(t, v, engineName)
		}
		for _, block := range strings.Split(strings.TrimSpace(string(text)), "\n\n") {
			about, script, _ := strings.Cut(block, "\n")
			variant, _, _ := strings.Cut(strings.TrimPrefix(about, "# "), ":")
			k := runs[variant]
			if k == nil {
				k = runs[leakVariants[0].name]
			}
			diff, short := k.replay(parseSession(script))
			if diff != "" {
				t.Errorf("%s\n%s", about, diff)
			}
			if _, refused, ok := strings.Cut(block, "\n! "); ok && diff == "" && short != divergedBehind+refused {
				t.Errorf("%s\n  is not refused: %s", about, refused)
			} else if !ok && short != "" { // what comes behind it would be no test
				t.Errorf("%s\n  ends before its end: %s", about, short)
			}
		}
	})
}

// RESET ROLE to a role of the startup message that the user of SET SESSION AUTHORIZATION may not have is refused, and changes
// nothing: see docs/limits.md. PostgreSQL does not ask again whether it may.
func TestResetRoleThatIsNotAllowed(t *testing.T) {
	k := newLeaks(t, leakVariants[0], "epoll")
	p, err := dialPeer(k.tidemark, map[string]string{"role": "leak_a"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.conn.Close() }()
	const who, refused = "select current_user::text, session_user::text", "ERROR 42501 permission denied to set role"
	for _, step := range []struct{ script, want string }{
		{who, `"leak_a" "leak_boss"`},
		{"set session authorization leak_b", "SET"},
		{who, `"leak_b" "leak_b"`},
		{"reset role", refused},
		{who, `"leak_b" "leak_b"`},
		{"set my.x = 'a'; reset role", refused},
		{"[reset role] ; [select 1] ; sync", refused},
		{who, `"leak_b" "leak_b"`},
		{"set role none", "SET"},
		{"begin", "BEGIN"},
		{"reset role", refused},
		{who, "25P02"},
		{"rollback", "ROLLBACK"},
		{who, `"leak_b" "leak_b"`},
		{"reset session authorization", "RESET"},
		{who, `"leak_a" "leak_boss"`},
	} {
		if got := p.play(parseSession(step.script).actions[0]); !strings.Contains(got, step.want) {
			t.Fatalf("%s\ngot\n%swant %s", step.script, got, step.want)
		}
	}
}

// Code that resets settings of the startup message leaves a connection on which they have to be made again, also where it stays with the
// session, and so is not cleaned.
func TestStartupSettingsResetByCode(t *testing.T) {
	k := newLeaks(t, leakVariants[0], "epoll")
	p, err := dialPeer(k.tidemark, map[string]string{"application_name": "b", "search_path": "s1"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.conn.Close() }()
	const is = "select current_setting('application_name'), current_setting('search_path')"
	p.play(simpleAction("select pg_advisory_lock(7)"))
	for _, code := range []string{"reset all", "reset application_name", "perform set_config('search_path', null, false)"} {
		p.play(simpleAction("do $$ begin " + code + "; end $$"))
		if got, want := p.play(simpleAction(is)), `"b" "s1"`; !strings.Contains(got, want) {
			t.Errorf("behind %s\ngot\n%swant %s", code, got, want)
		}
	}
}

// A read-only transaction that has read on a replica cannot lock there: nobody would meet the lock.
func TestLockBehindReadOnReplica(t *testing.T) {
	k := newLeaks(t, leakVariants[2], "epoll")
	p, err := dialPeer(k.tidemark, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.conn.Close() }()
	if err := k.clean(0); err != nil { // which the replica has then
		t.Fatal(err)
	}
	p.play(simpleAction("set tidemark.consistency = 'eventual'")) // so that it is asked also when it lags behind
	const refused = "ERROR 0A000 a transaction that reads on a replica cannot do what is for the primary"
	for _, step := range []struct{ script, want string }{
		{"begin read only", "BEGIN"},
		{"select a from leak_key where a = 4", `"4"`},
		{"commit; begin; select 1", refused},
		{"rollback", "ROLLBACK"},
	} {
		if got := p.play(parseSession(step.script).actions[0]); !strings.Contains(got, step.want) {
			t.Fatalf("%s\ngot\n%swant %s", step.script, got, step.want)
		}
	}
	for _, locks := range []string{"select pg_advisory_xact_lock(7)", "select pg_advisory_lock(7)", "declare c cursor with hold for select 1", "notify c", "listen c", "select leak_lock(7)", "do $$ begin perform pg_advisory_lock(7); end $$"} {
		for _, step := range []struct{ script, want string }{
			{"begin read only", "BEGIN"},
			{"select a from leak_key where a = 4", `"4"`},
			{"show tidemark.route", " replica "},
			{locks, refused},
			{"rollback", "ROLLBACK"},
			{"insert into leak_0 values (1, 'x') on conflict do nothing", "INSERT"},
		} {
			if got := p.play(parseSession(step.script).actions[0]); !strings.Contains(got, step.want) {
				t.Fatalf("%s, %s\ngot\n%swant %s", locks, step.script, got, step.want)
			}
		}
	}
}

// A batch that has begun a transaction, or set something, is one transaction with what comes: it cannot go on to another shard.
func TestBatchOverShards(t *testing.T) {
	k := newLeaks(t, leakVariants[1], "epoll")
	p, err := dialPeer(k.tidemark, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.conn.Close() }()
	other := fmt.Sprintf("[select a from leak_key where a = %d]", k.keys[1][0])
	const refused = "ERROR 0A000 a transaction cannot touch two shards"
	for _, step := range []struct{ script, want string }{
		{"[select * from s1.here] ; [begin] ; " + other + " ; sync", refused},
		{"rollback", "ready I"},
		{"[set my.x = 'lost'] ; " + other + " ; sync", refused},
		{"select current_setting('my.x', true) is distinct from 'lost'", `"t"`},
		{"[begin] ; " + other + " ; sync", "ready T"},
		{"rollback", "ready I"},
	} {
		if got := p.play(parseSession(step.script).actions[0]); !strings.Contains(got, step.want) {
			t.Errorf("%s\ngot\n%swant %s", step.script, got, step.want)
		}
	}
}

// What the session keeps on one shard is asked for there, or refused where a transaction, a string or rows are on another.
func TestStateOfAnotherShard(t *testing.T) {
	k := newLeaks(t, leakVariants[1], "epoll")
	p, err := dialPeer(k.tidemark, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.conn.Close() }()
	const mine = "select relname::text from pg_class where relnamespace = pg_my_temp_schema()"
	other := fmt.Sprintf("from leak_key where a = %d", k.keys[1][0])
	for _, step := range []struct{ script, want string }{
		{"create temp table t0 (a int)", "CREATE"},
		{"select pg_advisory_lock(7)", "SELECT 1"},
		{"[select a " + other + "] ; [" + mine + "] ; sync", `"t0"`},
		{"select a " + other + "; " + mine, "0A000 these statements cannot run together"},
		{"select pg_advisory_unlock(7) " + other, "0A000 state of the session cannot be asked for beside rows of another shard"},
		{"[select pg_advisory_unlock(7) " + other + "] ; sync", "0A000 state of the session cannot be asked for beside rows of another shard"},
		{"select pg_advisory_unlock(7); select pg_advisory_unlock(8) " + other, "0A000 state of the session cannot be asked for beside rows of another shard"},
		{"begin", "BEGIN"},
		{mine, `"t0"`},
		{"select a " + other, "SELECT 1"},
		{mine, "0A000 a transaction cannot touch two shards"},
		{"rollback", "ROLLBACK"},
		{"select pg_advisory_unlock(7)", `"t"`},
	} {
		if got := p.play(parseSession(step.script).actions[0]); !strings.Contains(got, step.want) {
			t.Errorf("%s\ngot\n%swant %s", step.script, got, step.want)
		}
	}
}

// A transaction cannot choose its isolation level behind what is prepared on the server so that it can be shown.
func TestShowPreparedBehindSetTransaction(t *testing.T) {
	k := newLeaks(t, leakVariants[0], "epoll")
	p, err := dialPeer(k.tidemark, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.conn.Close() }()
	const show = "select name from pg_prepared_statements"
	for _, step := range []struct{ script, want string }{
		{"prepare s1 as select 1", "PREPARE"},
		{"set transaction_isolation = 'serializable'; " + show, `"s1"`}, // outside of a transaction block it is one of its own
		{"begin", "BEGIN"},
		{"set transaction_isolation = 'serializable'; " + show, "0A000 pg_prepared_statements cannot be shown by a query string that also sets how"},
		{"rollback", "ROLLBACK"},
		{"begin", "BEGIN"},
		{"set transaction isolation level serializable; select 1; " + show, "0A000 pg_prepared_statements cannot be shown by a query string that also sets how"},
		{"rollback", "ROLLBACK"},
		{"begin", "BEGIN"},
		{"set transaction isolation level serializable", "SET"},
		{"set my.x = 'a'; " + show, `"s1"`},
		{"select nosuch", "42703"},
		{"set transaction read only; " + show, "25P02"},
		{"rollback and chain; set transaction read only; " + show, "0A000 pg_prepared_statements cannot be shown by a query string that also sets how"},
		{"rollback", "ROLLBACK"},
	} {
		if got := p.play(parseSession(step.script).actions[0]); !strings.Contains(got, step.want) {
			t.Fatalf("%s\ngot\n%swant %s", step.script, got, step.want)
		}
	}
}

// A server would keep what an EXECUTE of a PREPARE makes, under the client's name, for the next client.
func TestExecuteOfPrepare(t *testing.T) {
	k := newLeaks(t, leakVariants[0], "epoll")
	p, err := dialPeer(k.tidemark, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.conn.Close() }()
	const refused = "0A000 EXECUTE of a statement that is itself PREPARE, EXECUTE or DEALLOCATE is not supported"
	for _, step := range []struct{ script, want string }{
		{"parse p prepare q as select 1 ; parse e execute q ; parse d deallocate q ; parse c commit ; sync", "ready I"},
		{"execute p", refused},
		{"[execute p] ; sync", refused},
		{"select 1; execute p", refused},
		{"execute e", refused},
		{"execute d", refused},
		{"run p ; sync", "PREPARE"},
		{"execute q", `"1"`},
		{"run d ; sync", "DEALLOCATE"},
		{"begin", "BEGIN"},
		{"execute c", "COMMIT"}, // which the server does, and says
		{"select name from pg_prepared_statements where name in ('q', 'c')", "SELECT 1"},
	} {
		if got := p.play(parseSession(step.script).actions[0]); !strings.Contains(got, step.want) {
			t.Fatalf("%s\ngot\n%swant %s", step.script, got, step.want)
		}
	}
}

func parseSession(script string) history {
	h := history{options: map[string]string{"application_name": "leak"}}
	for _, line := range strings.Split(script, "\n") {
		line = strings.TrimPrefix(line, "! ")
		if option, ok := strings.CutPrefix(line, "@"); ok {
			name, value, _ := strings.Cut(option, "=")
			h.options[name] = value
			continue
		}
		if !strings.HasSuffix(line, "sync") {
			h.actions = append(h.actions, simpleAction(line))
			continue
		}
		a := action{text: line}
		for _, part := range strings.Split(line, " ; ") {
			a.messages = append(a.messages, partMessages(part)...)
			if part == "sync" {
				a.ready++
			}
		}
		h.actions = append(h.actions, a)
	}
	return h
}

func partMessages(part string) []pgproto3.FrontendMessage {
	if sql, ok := strings.CutPrefix(part, "["); ok {
		limit := uint32(0)
		if at := strings.LastIndex(sql, "] "); at >= 0 {
			if n, err := strconv.ParseUint(sql[at+2:], 10, 32); err == nil {
				sql, limit = sql[:at], uint32(n)
			}
		}
		return []pgproto3.FrontendMessage{&pgproto3.Parse{Query: strings.TrimSuffix(sql, "]")}, &pgproto3.Bind{}, &pgproto3.Describe{ObjectType: 'P'}, &pgproto3.Execute{MaxRows: limit}}
	}
	verb, rest, _ := strings.Cut(part, " ")
	name, sql, _ := strings.Cut(rest, " ")
	switch verb {
	case "parse":
		return []pgproto3.FrontendMessage{&pgproto3.Parse{Name: name, Query: sql}}
	case "describe":
		return []pgproto3.FrontendMessage{&pgproto3.Describe{ObjectType: 'S', Name: name}}
	case "bind":
		return []pgproto3.FrontendMessage{&pgproto3.Bind{PreparedStatement: name}}
	case "run":
		return []pgproto3.FrontendMessage{&pgproto3.Bind{PreparedStatement: name, Parameters: values(sql)}, &pgproto3.Execute{}}
	case "close":
		return []pgproto3.FrontendMessage{&pgproto3.Close{ObjectType: 'S', Name: name}}
	case "end":
		return []pgproto3.FrontendMessage{&pgproto3.Close{ObjectType: 'P', Name: name}}
	case "portal":
		return []pgproto3.FrontendMessage{&pgproto3.Parse{Query: sql}, &pgproto3.Bind{DestinationPortal: name}, &pgproto3.Execute{Portal: name}}
	case "again":
		return []pgproto3.FrontendMessage{&pgproto3.Execute{Portal: name}}
	}
	return []pgproto3.FrontendMessage{&pgproto3.Sync{}}
}

// values are those behind "with".
func values(text string) (list [][]byte) {
	text, ok := strings.CutPrefix(text, "with ")
	if !ok {
		return nil
	}
	for v := range strings.SplitSeq(text, "|") {
		if v == "NULL" {
			list = append(list, nil)
		} else {
			list = append(list, []byte(v))
		}
	}
	return list
}

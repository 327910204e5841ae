package proxy_test

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
)

// divergence is a difference that is known. Each is one of docs/limits.md, and forgives no more than that says.
type divergence struct {
	limit string // how it begins there
	says  func(m *moment) bool
}

// moment is one request with both answers, and what the client did before.
type moment struct {
	life      history // without the request
	keys      [][]int // of the shards
	replicas  bool
	status    byte // of the transaction before it
	a         action
	got, want string
}

// diverges says whether the answers differ in nothing but what is known, a detail about a shard key included.
func (m *moment) diverges() bool {
	if len(m.keys) > 1 && strings.Contains(m.a.text, "split_") {
		m.got = ofKey.ReplaceAllString(m.got, "")
	}
	return slices.ContainsFunc(divergences, func(d divergence) bool { return d.says(m) })
}

var divergences = []divergence{
	{"A transaction that touches two shards", func(m *moment) bool {
		return len(m.keys) > 1 && m.refused("a transaction cannot touch two shards; The transaction runs on shard ")
	}},
	{"A transaction that touches two shards, and so a query string of several statements", func(m *moment) bool {
		return m.isString() && m.refused("these statements cannot run together in one query string; They are one implicit transaction, but one needs ")
	}},
	{"With several shards, or read models: a statement behind one of its own query string, or of its own batch, that changes `search_path`", func(m *moment) bool {
		return len(m.keys) > 1 && m.refused("a statement names what an earlier one of its ") && m.has(`search_path|role|authorization|reset all|discard all`)
	}},
	{"With several shards, or read models: a statement that names what is in several schemas, behind code in its own query string", func(m *moment) bool {
		return len(m.keys) > 1 && m.isString() && m.refused("a statement names what code in an earlier one of its query string may have given another meaning; ")
	}},
	{"DDL, writes to reference tables and COPY into sharded tables, inside a transaction block", func(m *moment) bool {
		return m.refused("a statement over several shards cannot run inside a transaction block; ") && m.has(`begin|start|chain|sync`) &&
			(strings.Contains(m.a.text, "copy split_") || changesTemporary.MatchString(m.a.text))
	}},
	{"A client that holds a connection of one shard while it waits for one of another", func(m *moment) bool {
		return len(m.keys) > 1 && m.fails("53300 no server connection to ")
	}},
	{"Temporary tables with several shards", func(m *moment) bool {
		return len(m.keys) > 1 && (m.refused("temporary tables and others in one statement are not supported; ") || m.refused("a table like a temporary one is not supported with several shards; ") ||
			m.refused("this temporary object is not supported; ")) && strings.Contains(m.a.text, "create ")
	}},
	{"A SELECT over several shards inside a transaction", func(m *moment) bool {
		return m.refused("a transaction cannot read from several shards; ")
	}},
	{"In a transaction that has failed, a query string that ends it and then speaks of prepared statements, or needs another shard", func(m *moment) bool {
		return m.isString() && (len(m.keys) > 1 || m.replicas) && endsTransaction.MatchString(m.a.text) && m.fails("25P02 current transaction is aborted, commands ignored until end of transaction block\n")
	}},
	{"A read-only transaction that reads on a replica: locks, functions", func(m *moment) bool {
		return m.replicas && m.refused("a transaction that reads on a replica cannot do what is for the primary; ") && m.has(`read only|read_only`)
	}},
	{"A read-only transaction that reads on a replica: COPY FROM", func(m *moment) bool {
		return m.replicas && m.fails("25006 cannot execute COPY during recovery") && strings.Contains(m.a.text, "copy ") && m.has(`read only|read_only`)
	}},
	{"What follows a read-only transaction on its replica, by `AND CHAIN` or in one batch: `SET TRANSACTION ISOLATION LEVEL SERIALIZABLE`", func(m *moment) bool {
		return m.replicas && m.fails("0A000 cannot use serializable mode in a hot standby") && m.has(`read only|read_only`) && m.has(`and chain|(abort|end|commit|rollback).*serializable`) &&
			strings.Contains(m.a.text, "serializable")
	}},
	{"A portal with a name that has given all its rows", func(m *moment) bool {
		got, want := m.differ()
		return (len(m.keys) > 1 || m.replicas) && m.has(`\[select`) &&
			(strings.HasPrefix(want, "  ERROR 42P03 cursor \"q0\" already exists") || strings.HasPrefix(got, "  ERROR 34000 portal \"q0\" does not exist"))
	}},
	{"A value that is none of the shard key's type", func(m *moment) bool {
		return m.got == m.want // beyond the detail
	}},
	{"In a transaction that has begun, in a session that listens: `pg_listening_channels()`", func(m *moment) bool {
		return m.refused("pg_listening_channels() is not supported in a transaction that has begun, in a session that listens; ") &&
			m.has(`listen (c|"C)`) && (strings.Contains(m.a.text, "pg_listening_channels()") || m.runs("pg_listening_channels()"))
	}},
	{"With several shards: what asks for the session's own locks, cursors `WITH HOLD` or temporary tables", func(m *moment) bool {
		got, want := m.differ()
		if len(m.keys) < 2 || !m.has(`with hold`) || !m.has(`leak_key where a =`) {
			return false
		}
		return (m.status == 'T' || begins.MatchString(m.a.text)) && gone.MatchString(got) && fetches.MatchString(m.a.text) ||
			taken.MatchString(want) && !strings.HasPrefix(got, "  ERROR") && strings.Contains(m.a.text, "declare ")
	}},
	{"`SET client_encoding` to another encoding, in a session that listens", func(m *moment) bool {
		return m.refused("client_encoding cannot become LATIN1 in a session that listens; ") && m.has(`listen (c|"C)`) && setsEncoding.MatchString(m.a.text)
	}},
	{"`pg_prepared_statements` with a statement that cannot be prepared any more", func(m *moment) bool {
		return m.refused("pg_prepared_statements cannot show prepared statement \"") && strings.Contains(m.a.text, "pg_prepared_statements") &&
			strings.Contains(m.got, "; It cannot be prepared any more: ") && m.has(`prepare |parse ("|s\d)`)
	}},
	{"`pg_prepared_statements` in a query string that also prepares, executes or deallocates", func(m *moment) bool {
		return m.refused("pg_prepared_statements cannot be shown by a query string that also speaks of prepared statements; ") && m.isString() &&
			strings.Contains(m.a.text, "pg_prepared_statements") && speaksOfPrepared.MatchString(m.a.text)
	}},
	{"In a transaction, a query string that sets its isolation level, or whether it is read only, and shows `pg_prepared_statements`", func(m *moment) bool {
		return m.refused("pg_prepared_statements cannot be shown by a query string that also sets how its transaction runs; ") && m.isString() &&
			(m.status == 'T' || endsFirst.MatchString(m.a.text)) && strings.Contains(m.a.text, "pg_prepared_statements") && setsTransaction.MatchString(m.a.text)
	}},
	{"In a transaction that has run something, a query string that sets its isolation level, or whether it is read only, and speaks of prepared statements", func(m *moment) bool {
		return m.refused("a query string that sets how its transaction runs cannot also speak of prepared statements in a transaction that has begun on its server; ") &&
			m.isString() && m.status == 'T' && speaksOfPrepared.MatchString(m.a.text) && setsTransaction.MatchString(m.a.text)
	}},
	{"`RESET ROLE` behind `SET SESSION AUTHORIZATION` to a role that may not have the role of the startup message", func(m *moment) bool {
		return m.fails("42501 permission denied to set role \"leak_a\"\n") && strings.Contains(m.life.options["options"], "role=leak_a") &&
			m.has(`set (local )?session authorization leak_b`) && strings.Contains(m.a.text, "reset role")
	}},
	{"In a transaction that has failed, a query string that ends it and then speaks of prepared statements", func(m *moment) bool {
		return m.isString() && m.status == 'E' && endsAndSpeaks.MatchString(m.a.text) &&
			m.got == "  ERROR 25P02 current transaction is aborted, commands ignored until end of transaction block\n  ready E\n"
	}},
	{"In a query string, `EXECUTE` of a statement that cannot be prepared where the string begins", func(m *moment) bool {
		return m.isString() && alone.MatchString(m.got) && m.runs(missing(m.got))
	}},
	{"A prepared statement that cannot be prepared any more, with the wrong number of values, or a subquery for one; in a transaction that has failed, a `Bind` with the wrong number", func(m *moment) bool {
		return otherError(m.got, m.want, "ERROR 25P02", "ERROR 08P01 bind message supplies") && (m.status == 'E' || strings.Contains(m.want, "  ready E\n"))
	}},
	{"A prepared statement that cannot be prepared any more, with the wrong number of values", func(m *moment) bool {
		got, want := m.differ()
		return noMore.MatchString(got) && m.runs(missing(got)) && wrongNumber.MatchString(want)
	}},
	{"A prepared statement that cannot be prepared any more, where its connection gets it anew", func(m *moment) bool {
		got, want := m.differ()
		return noMore.MatchString(got) && strings.HasPrefix(got, "  ERROR 42883 function ") && m.runs(missing(got)) && signature.ReplaceAllString(got, "") == signature.ReplaceAllString(want, "")
	}},
	{"`EXECUTE` of a statement that cannot be prepared any more", func(m *moment) bool {
		got, want := m.differ()
		line, _, _ := strings.Cut(got, "\n")
		_, rest, described := strings.Cut(want, "\n")
		return described && description.MatchString(want) && noMore.MatchString(got) && strings.HasPrefix(rest, line+"\n") && m.runs(missing(got))
	}},
	{"`EXECUTE` of a statement that cannot be prepared any more", func(m *moment) bool { // with values: the position
		got, want := m.differ()
		return noMore.MatchString(got) && m.runs(missing(got)) && executesWith.MatchString(m.a.text) && position.ReplaceAllString(got, "") == position.ReplaceAllString(want, "")
	}},
	{"A prepared statement whose table has changed, where its connection gets it anew", func(m *moment) bool {
		got, want := m.differ()
		return strings.HasPrefix(want, "  ERROR 0A000 cached plan must not change result type\n") && !strings.HasPrefix(got, "  ERROR") && m.runs("") &&
			m.has(`alter table`) && m.has(`(?i)datestyle|time ?zone|intervalstyle|reset all|discard all|pg_prepared_statements`)
	}},
	{"`SET TRANSACTION` in a batch behind a `Parse` alone, with replicas", func(m *moment) bool {
		got, want := m.differ()
		rest, warned := strings.CutPrefix(want, "  WARNING 25P01 SET TRANSACTION can only be used in transaction blocks\n")
		return m.replicas && warned && got == rest && m.has(`parse "[^]]*set transaction`)
	}},
	{"A prepared `FETCH` of a cursor that is another one by now, or was none", func(m *moment) bool {
		got, want := m.differ()
		return description.MatchString(got) && description.MatchString(want) && m.runs("fetch ")
	}},
	{"`pg_temp` in a session that has made no temporary table yet, or has none any more", func(m *moment) bool {
		return strings.Contains(m.a.text, " pg_temp.") && m.got != m.want && noTemporary.ReplaceAllString(m.got, "") == noTemporary.ReplaceAllString(m.want, "")
	}},
}

func TestDivergencesAreLimits(t *testing.T) {
	page, err := os.ReadFile("../docs/limits.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range divergences {
		if !strings.Contains(string(page), "\n| "+d.limit) {
			t.Errorf("docs/limits.md does not say: %s", d.limit)
		}
	}
}

var (
	gone             = regexp.MustCompile(`^(  \*pgproto3.NoData\n)?  ERROR 34000 cursor "(c|C )\d"`)
	noTemporary      = regexp.MustCompile(`  ERROR (3F000 schema "pg_temp"|42P01 table "t\d"|42P01 relation "pg_temp\.t\d") does not exist\n`)
	taken            = regexp.MustCompile(`^  ERROR 42P03 cursor "(c|C )\d" already exists\n`)
	begins           = regexp.MustCompile(`\[(begin|start)\b.*\[`)
	fetches          = regexp.MustCompile(`\b(fetch|move|close) `)
	changesTemporary = regexp.MustCompile(`(drop|alter|create|truncate) .*\b[tvq][012]\b`)
	ofKey            = regexp.MustCompile(`; It is the (value of shard key public\.split_\d+\.a|shard key "a" of COPY split_\d+)\.`)

	endsTransaction  = regexp.MustCompile(`\b(commit|rollback|end|abort)\b`)
	setsEncoding     = regexp.MustCompile(`client_encoding|names 'LATIN1'|reset all|discard all`)
	setsTransaction  = regexp.MustCompile(`transaction_isolation|set transaction|isolation level|read only`)
	speaksOfPrepared = regexp.MustCompile(`prepare|execute|deallocate`)
	endsFirst        = regexp.MustCompile(`^(commit|rollback|end|abort)\b`)
	endsAndSpeaks    = regexp.MustCompile(`(commit|rollback|end|abort)\b.*; .*(prepare|execute|deallocate)`)

	// noMore is how the answer to what cannot be prepared any more goes on, alone all of one.
	noMore       = regexp.MustCompile(`^  ERROR (42P01|42883|42703) (relation|function|column) [^\n]* does not exist`)
	signature    = regexp.MustCompile(`\([a-z0-9_, ]*\) does not exist`)
	position     = regexp.MustCompile(`; at \d+\n`)
	executesWith = regexp.MustCompile(`execute (s\d|"S 2")\(`)

	alone       = regexp.MustCompile(`^  ERROR (42P01|42883|42703) [^\n]*\n  ready [IE]\n$`)
	missingName = regexp.MustCompile(`ERROR (?:42P01 relation "([^"]+)"|42703 column "([^"]+)"|42883 function ([a-z_]+\())[^\n]* does not exist`)
	wrongNumber = regexp.MustCompile(`^(  columns [^\n]*\n|  \*pgproto3.NoData\n)?  ERROR (08P01 bind message supplies|42601 wrong number of parameters|0A000 cannot use subquery in EXECUTE parameter)`)
	description = regexp.MustCompile(`^(  columns |  \*pgproto3.NoData\n)`)
)

// missing is what an answer says there is none of.
func missing(answer string) string {
	m := missingName.FindStringSubmatch(answer)
	if m == nil {
		return "nothing of the kind"
	}
	return m[1] + m[2] + m[3]
}

// refused says whether the first difference is a refusal, and that one.
func (m *moment) refused(message string) bool { return m.fails("0A000 " + message) }

// fails says whether the first difference is that Tidemark gives this error.
func (m *moment) fails(message string) bool {
	got, _ := m.differ()
	return strings.HasPrefix(got, "  ERROR "+message)
}

// differ are the two answers from the first line on in which they are not the same.
func (m *moment) differ() (got, want string) {
	got, want = m.got, m.want
	for {
		g, gotMore, ok := strings.Cut(got, "\n")
		w, wantMore, _ := strings.Cut(want, "\n")
		if g != w || !ok {
			return got, want
		}
		got, want = gotMore, wantMore
	}
}

// isString says whether the request is a Query of several statements.
func (m *moment) isString() bool {
	q, ok := m.a.messages[0].(*pgproto3.Query)
	return ok && strings.Contains(q.String, "; ")
}

// has says whether something that the client did in its life, or does now, matches.
func (m *moment) has(pattern string) bool {
	re := regexp.MustCompile(pattern)
	return re.MatchString(m.a.text) || slices.ContainsFunc(m.life.actions, func(a action) bool { return re.MatchString(a.text) })
}

// runs says whether the request runs, by its name, a statement with that in its text which the client has prepared in its life.
func (m *moment) runs(part string) bool {
	prepared := map[string]bool{} // names of those that match
	for _, a := range slices.Concat(m.life.actions, []action{m.a}) {
		for _, sql := range a.statements() {
			if def := prepares.FindStringSubmatch(sql); def != nil && strings.Contains(sql, part) {
				prepared[strings.Trim(def[1], `"`)] = true
			}
		}
		for _, x := range a.messages {
			if p, ok := x.(*pgproto3.Parse); ok && strings.Contains(p.Query, part) {
				prepared[p.Name] = true
			}
		}
	}
	delete(prepared, "")
	for _, sql := range m.a.statements() {
		if run := executes.FindStringSubmatch(sql); run != nil && prepared[strings.Trim(run[1], `"`)] {
			return true
		}
	}
	return slices.ContainsFunc(m.a.messages, func(x pgproto3.FrontendMessage) bool {
		b, ok := x.(*pgproto3.Bind)
		return ok && prepared[b.PreparedStatement]
	})
}

var (
	prepares = regexp.MustCompile(`^prepare (s\d|"S 2")`)
	executes = regexp.MustCompile(`^(?:explain \(costs off\) )?execute (s\d|"S 2")`)
)

// statements are those in the texts of the request.
func (a action) statements() (list []string) {
	for _, m := range a.messages {
		switch x := m.(type) {
		case *pgproto3.Query:
			list = append(list, strings.Split(x.String, "; ")...)
		case *pgproto3.Parse:
			list = append(list, x.Query)
		}
	}
	return list
}

// otherError says whether two answers differ in errors alone, which are in got the one given, in want the other.
func otherError(got, want, is, should string) bool {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	if len(g) != len(w) || got == want {
		return false
	}
	for i := range g {
		if g[i] != w[i] && (!strings.HasPrefix(g[i], "  "+is) || !strings.HasPrefix(w[i], "  "+should)) {
			return false
		}
	}
	return true
}

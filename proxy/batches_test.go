package proxy_test

import (
	"cmp"
	"fmt"
	"math/rand"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/tidemarkdb/tidemark/sharding"
)

// TestBatches sends the extended protocol's messages at random, and queries between, with several Syncs in flight, or, of every other script,
// one batch when the last may have been answered, as for the fast path: whatever Tidemark answers must be what PostgreSQL answers, message by message. What is refused (0A000) ends the comparison of its script.
//
//	TIDEMARK_BATCHES_FOR   how long each variant and engine; without it 2s, and no more than 150 scripts: the same on every machine
//	TIDEMARK_SEED          what the scripts are made from; without it 1
//	TIDEMARK_SCRIPT        the number of the first script; without it 0
//
// A failure shows the script, made as short as still fails, and how to run it again.
func TestBatches(t *testing.T) {
	lasts, err := time.ParseDuration(cmp.Or(os.Getenv("TIDEMARK_BATCHES_FOR"), "2s"))
	if err != nil {
		t.Fatal(err)
	}
	seed, err := strconv.ParseInt(cmp.Or(os.Getenv("TIDEMARK_SEED"), "1"), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	first, err := strconv.ParseInt(cmp.Or(os.Getenv("TIDEMARK_SCRIPT"), "0"), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range leakVariants {
		t.Run(v.name, func(t *testing.T) {
			engines(t, func(t *testing.T, engineName string) {
				newBatches(t, v, engineName).run(seed, first, lasts)
			})
		})
	}
}

// batches are two ends to compare.
type batches struct {
	t        *testing.T
	dsns     [2]string // Tidemark, PostgreSQL
	peers    [2]*peer
	keys     [][]int // of bt_key, by shard
	marker   int
	replicas bool
	paced    bool // the script in hand is sent batch by batch
}

var batchesSchema = []string{
	"create table bt (a int primary key, b text)", "create table bt_key (a int primary key, b text)",
	"create function bt_f(i int) returns int language plpgsql as $$ begin return i; end $$",
}

func newBatches(t *testing.T, v leakVariant, engineName string) *batches {
	spec := fixtureSpec{shards: v.shards, replicas: v.replicas, pool: 4}
	if v.shards > 1 {
		spec.tables = []sharding.Table{{Name: "bt_key", Kind: sharding.Sharded, Column: "a", Type: sharding.Int4}}
	}
	f, plain := newFixture(t, spec), newFixture(t, fixtureSpec{shards: 1})
	direct := []*pgx.Conn{connect(t, plain.direct(0))}
	for i := range v.shards {
		direct = append(direct, connect(t, f.direct(i)))
	}
	for _, c := range direct {
		for _, sql := range batchesSchema {
			exec(t, c, sql)
		}
	}
	x := &batches{t: t, dsns: [2]string{f.start(t, engineName), plain.direct(0)}, keys: make([][]int, v.shards), replicas: v.replicas > 0}
	c := connect(t, x.dsns[0])
	for k := range leakKeys {
		for i := range v.shards {
			exec(t, direct[1+i], "delete from bt_key")
		}
		exec(t, c, "insert into bt_key values ($1, 'x')", k)
		for i := range v.shards {
			if text(t, direct[1+i], "select count(*) from bt_key") == "1" {
				x.keys[i] = append(x.keys[i], k)
			}
		}
	}
	for i := range v.shards {
		exec(t, direct[1+i], "delete from bt_key")
	}
	_ = c.Close(t.Context())
	x.play(nil) // so that the sessions have deleted it all themselves, and no replica that they read shows it
	return x
}

func (x *batches) run(seed, first int64, lasts time.Duration) {
	end := time.Now().Add(lasts)
	scripts, refused, failures := 0, 0, 0
	for n := first; time.Now().Before(end) && (n < first+150 || os.Getenv("TIDEMARK_BATCHES_FOR") != ""); n++ {
		g := &batchGenerator{Rand: rand.New(rand.NewSource(seed*1_000_003 + n)), keys: x.keys[int(n)%len(x.keys)], away: int(n)%len(x.keys) > 0, moves: x.replicas || int(n)%len(x.keys) > 0, shards: len(x.keys)}
		script := g.script()
		scripts++
		x.paced = n%2 > 0
		got, want, same := x.play(script)
		if strings.Contains(got, "0A000") {
			refused++
		}
		if same {
			continue
		}
		short := slices.Clone(script)
		for again := true; again && time.Now().Before(end.Add(time.Minute)); {
			again = false
			for i := len(short) - 1; i >= 0; i-- {
				less := slices.Delete(slices.Clone(short), i, i+1)
				if g, w, same := x.play(less); !same {
					short, got, want, again = less, g, w, true
				}
			}
		}
		x.t.Errorf("seed %d, script %d:\n%sanswered\n%swant\n%s", seed, n, said(short), got, want)
		if failures++; failures == 5 {
			break
		}
	}
	x.t.Logf("%d scripts, %d refused", scripts, refused)
}

// play gives a script to both ends, and says what they answered and whether that is the same.
func (x *batches) play(script []action) (got, want string, same bool) {
	var answers [2]string
	for i := range answers {
		if x.peers[i] == nil {
			p, err := newPeer(x.t.Context(), x.dsns[i], nil)
			if err != nil {
				x.t.Fatal(err)
			}
			x.peers[i] = p
		}
		answers[i] = x.ask(x.peers[i], script)
		if strings.Contains(answers[i], "(connection") {
			_ = x.peers[i].conn.Close()
			x.peers[i] = nil
		}
	}
	got, want = answers[0], answers[1]
	return got, want, got == want || strings.Contains(got, "0A000") || strings.Contains(want, "XX000") || x.replicas && strings.Contains(got, "25006")
}

// ask gives it to one, and cleans up behind it.
func (x *batches) ask(p *peer, script []action) string {
	x.marker++
	end := fmt.Sprintf("end of script %d", x.marker)
	all := action{}
	for _, a := range slices.Concat(script, []action{{messages: []pgproto3.FrontendMessage{&pgproto3.CopyDone{}, &pgproto3.Sync{}, &pgproto3.Sync{}}}}) {
		all.messages = append(all.messages, a.messages...)
	}
	if x.paced {
		all.paced = len(all.messages)
	}
	last := []string{"rollback", "discard all"}
	if strings.Contains(said(script), "bt_new") {
		last = append(last, "drop table if exists bt_new")
	}
	for _, sql := range append(last, "delete from bt", "delete from bt_key where a in (0, 1)", "select '"+end+"'") {
		if strings.Contains(sql, "bt_key") {
			for k := range leakKeys {
				all.messages = append(all.messages, &pgproto3.Query{String: fmt.Sprintf("delete from bt_key where a = %d", k)})
			}
			continue
		}
		all.messages = append(all.messages, &pgproto3.Query{String: sql})
	}
	out := p.playUntil(all, end)
	if i := strings.LastIndex(out, "  DISCARD ALL"); i >= 0 {
		out = out[:i]
	}
	return out
}

// said is a script for people.
func said(script []action) string {
	var out strings.Builder
	for _, a := range script {
		out.WriteString("  " + a.text + "\n")
	}
	return out.String()
}

// batchGenerator makes scripts.
type batchGenerator struct {
	*rand.Rand
	keys []int // of one shard
	away bool  // which is not the default one
	// moves: a batch may go on on another server than it began on.
	moves  bool
	shards int
}

func (g *batchGenerator) pick(list ...string) string { return list[g.Intn(len(list))] }

func (g *batchGenerator) script() (list []action) {
	for range 2 + g.Intn(5) {
		for range g.Intn(6) {
			list = append(list, g.step()...)
		}
		if g.Intn(12) > 0 {
			list = append(list, action{text: "Sync", messages: []pgproto3.FrontendMessage{&pgproto3.Sync{}}})
		}
		if g.Intn(3) == 0 && len(list) > 0 && list[len(list)-1].text == "Sync" {
			sql := g.statement(false)
			if g.Intn(4) == 0 && !g.away { // see docs/limits.md
				sql += "; " + g.statement(false)
			}
			list = append(list, action{text: "Query " + sql, messages: g.withData(sql, &pgproto3.Query{String: sql})})
		}
	}
	return list
}

// withData ends the COPY that a message may have begun.
func (g *batchGenerator) withData(sql string, m pgproto3.FrontendMessage) []pgproto3.FrontendMessage {
	if !strings.Contains(sql, "from stdin") {
		return []pgproto3.FrontendMessage{m}
	}
	switch g.Intn(5) {
	case 0:
		return []pgproto3.FrontendMessage{m, &pgproto3.CopyFail{Message: "no"}}
	case 1:
		return []pgproto3.FrontendMessage{m, &pgproto3.CopyData{Data: []byte("wrong\n")}, &pgproto3.CopyDone{}}
	}
	return []pgproto3.FrontendMessage{m, &pgproto3.CopyData{Data: []byte("77\tc\n")}, &pgproto3.CopyDone{}}
}

// everywhere says whether the statement is committed on all shards at once, so that an error behind it in its batch would not undo it: see
// docs/limits.md. Its batch ends with it.
func (g *batchGenerator) everywhere(sql string) bool {
	return g.shards > 1 && strings.Contains(sql, "bt_new")
}

var transacts = regexp.MustCompile(`^(begin|commit|rollback|savepoint|release|set transaction)`)

func (g *batchGenerator) step() []action {
	name, portal := g.pick("", "", "", "a", "b"), ""
	if !g.moves { // which loses those with names, see docs/limits.md
		portal = g.pick("", "", "", "p", "q")
	}
	limit := uint32(g.Intn(3) * g.Intn(2))
	one := func(text string, m pgproto3.FrontendMessage) action {
		return action{text: text, messages: []pgproto3.FrontendMessage{m}}
	}
	switch n := g.Intn(20); {
	case n < 11: // a whole statement
		sql := g.statement(true)
		if name == "b" && transacts.MatchString(sql) { // EXECUTE of a BEGIN is nothing that anybody does
			name = "a"
		}
		if g.everywhere(sql) {
			name = ""
		}
		var values [][]byte
		for range strings.Count(sql, "$") {
			values = append(values, fmt.Append(nil, g.keys[g.Intn(len(g.keys))]))
		}
		if g.Intn(40) == 0 {
			values = append(values, []byte("1"))
		}
		list := []action{
			one(fmt.Sprintf("Parse %q %s", name, sql), &pgproto3.Parse{Name: name, Query: sql}),
			one(fmt.Sprintf("Bind %q %q %q", portal, name, values), &pgproto3.Bind{DestinationPortal: portal, PreparedStatement: name, Parameters: values}),
		}
		if g.Intn(3) == 0 {
			list = append(list, one(fmt.Sprintf("Describe P %q", portal), &pgproto3.Describe{ObjectType: 'P', Name: portal}))
		}
		e := action{text: fmt.Sprintf("Execute %q %d", portal, limit), messages: g.withData(sql, &pgproto3.Execute{Portal: portal, MaxRows: limit})}
		if g.everywhere(sql) {
			e.text, e.messages = e.text+", Sync", append(e.messages, &pgproto3.Sync{})
		}
		return append(list, e)
	case n < 13:
		sql := g.statement(true)
		for g.everywhere(sql) || name == "b" && transacts.MatchString(sql) {
			sql = g.statement(true)
		}
		return []action{one(fmt.Sprintf("Parse %q %s", name, sql), &pgproto3.Parse{Name: name, Query: sql})}
	case n < 15:
		return []action{
			one(fmt.Sprintf("Bind %q %q", portal, name), &pgproto3.Bind{DestinationPortal: portal, PreparedStatement: name}),
			{text: fmt.Sprintf("Execute %q %d", portal, limit), messages: []pgproto3.FrontendMessage{
				&pgproto3.Execute{Portal: portal, MaxRows: limit}, &pgproto3.CopyFail{Message: "none"},
			}},
		}
	case n < 16:
		return []action{one(fmt.Sprintf("Describe S %q", name), &pgproto3.Describe{ObjectType: 'S', Name: name})}
	case n < 17:
		return []action{{text: fmt.Sprintf("Execute %q %d", portal, limit), messages: []pgproto3.FrontendMessage{
			&pgproto3.Execute{Portal: portal, MaxRows: limit}, &pgproto3.CopyFail{Message: "none"},
		}}}
	case n < 18:
		return []action{one("Flush", &pgproto3.Flush{})}
	case n < 19:
		return []action{one(fmt.Sprintf("Close S %q", name), &pgproto3.Close{ObjectType: 'S', Name: name})}
	}
	return []action{one(fmt.Sprintf("Close P %q", portal), &pgproto3.Close{ObjectType: 'P', Name: portal})}
}

// statement is one of the client's.
func (g *batchGenerator) statement(values bool) string {
	k := g.keys[g.Intn(len(g.keys))]
	if values && g.Intn(5) == 0 {
		return g.pick("select $1::int", "select b from bt_key where a = $1", "insert into bt_key values ($1, 'v') returning a", "select $1::int / 0", "select a from bt where a = $1", "update bt_key set b = 'u' where a = $1")
	}
	switch g.Intn(10) {
	case 0, 1, 2:
		return g.pick("select 1", "select n from generate_series(1, 3) n", "select bt_f(2)", "show work_mem", "", "values (1), (2)", "select a from bt order by a", fmt.Sprintf("select b from bt_key where a = %d", k))
	case 3, 4:
		return g.pick("begin", "begin", "commit", "commit", "rollback", "savepoint s", "rollback to s", "release s", "begin isolation level repeatable read", "begin read only",
			"set transaction isolation level serializable", "commit and chain", "rollback and chain", "set transaction read only")
	case 5:
		return g.pick("select 1/0", "selec", "select * from nosuch", "select nosuch()", "execute nosuch", "fetch from nosuch", "insert into bt values (null)")
	case 6:
		return g.pick(fmt.Sprintf("insert into bt values (%d, 'i')", g.Intn(4)), fmt.Sprintf("insert into bt_key values (%d, 'i')", k), fmt.Sprintf("delete from bt_key where a = %d", k), "update bt set b = 'w' returning a")
	case 7:
		return g.pick("set work_mem = '3MB'", "set local work_mem = '2MB'", "reset work_mem", "show transaction_isolation", "reset all", "select set_config('work_mem', '5MB', false)", "set default_transaction_isolation = 'repeatable read'")
	case 8:
		return g.pick("prepare b as select 7", "prepare sp as select 8", "execute sp", "execute b", "deallocate sp", "deallocate a", "deallocate all", "declare c cursor for select generate_series(1, 4)", "fetch 2 from c", "close c", "discard plans", "select name from pg_prepared_statements order by name")
	}
	drop := "drop table bt_temp"
	if g.shards > 1 { // which is for all of them, see docs/limits.md
		drop = "discard temp"
	}
	return g.pick("copy bt from stdin", "copy (select 5) to stdout", "do $$ begin execute 'select 1'; end $$", "do $$ begin execute 'execute sp'; end $$", "lock table bt in row share mode", "vacuum bt", "create temp table bt_temp (a int)", drop, "explain (costs off) select 1", "create table bt_new (a int)", "drop table bt_new", "notify bt", "discard all")
}

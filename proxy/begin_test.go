package proxy_test

import (
	"bytes"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
)

// A transaction's BEGIN goes to the server ahead of its first statement, in the same write. If it fails, here since what the server gets is no
// SQL, nothing behind it is run, the client has the error once, for that statement, and is in a transaction that has failed. What its session
// has on that connection stays.
func TestBeginFails(t *testing.T) {
	f := newFixture(t, fixtureSpec{shards: 1, pool: 1})
	r := newRelay(t, f.cluster.Shards[0].Primary)
	f.spec.endpoint = r.addr
	var hits atomic.Int32
	spoil := func(b []byte) {
		if i := bytes.Index(b, []byte("begin\x00")); i >= 0 {
			hits.Add(1)
			copy(b[i:], "bogus")
		}
	}
	insert := []pgproto3.FrontendMessage{
		&pgproto3.Parse{Query: "insert into unbegun values ($1)"}, &pgproto3.Bind{Parameters: [][]byte{[]byte("2")}},
		&pgproto3.Describe{ObjectType: 'P'}, &pgproto3.Execute{}, &pgproto3.Sync{},
	}
	batch := func(named string) []pgproto3.FrontendMessage {
		return []pgproto3.FrontendMessage{
			&pgproto3.Parse{Name: named, Query: "insert into unbegun values ($1)"},
			&pgproto3.Bind{PreparedStatement: named, Parameters: [][]byte{[]byte("3")}}, &pgproto3.Execute{}, &pgproto3.Sync{},
		}
	}
	plain := simpleAction("insert into unbegun values (1)").messages
	savepoint := simpleAction("savepoint s").messages
	cases := []struct {
		name   string
		ahead  []pgproto3.FrontendMessage // answered before the rest is sent
		behind []pgproto3.FrontendMessage
		ready  int
		errors string // that the client is to see, in order
	}{
		{"query", nil, plain, 1, "42601"},
		{"batch", nil, insert, 1, "42601"},
		{"named", nil, batch("u1"), 1, "42601"},
		{"queries", nil, append(plain[:1:1], plain...), 2, "42601 25P02"},
		{"batches", nil, append(insert[:5:5], batch("u2")...), 2, "42601 25P02"},
		{"batch and query", nil, append(insert[:5:5], plain...), 2, "42601 25P02"},
		{"query and batch", nil, append(plain[:1:1], insert...), 2, "42601 25P02"},
		{"savepoint", savepoint, plain, 1, "42601"},
		{"savepoint, batches", savepoint, append(insert[:5:5], insert...), 2, "42601 25P02"},
		{"string", nil, simpleAction("insert into unbegun values (1); insert into unbegun values (2)").messages, 1, "42601"},
		{"copy", nil, simpleAction("copy unbegun from stdin").messages, 1, "42601"},
		{"copy, with its data", nil, []pgproto3.FrontendMessage{
			&pgproto3.Parse{Query: "copy unbegun from stdin"}, &pgproto3.Bind{}, &pgproto3.Execute{},
			&pgproto3.CopyData{Data: []byte("7\n")}, &pgproto3.CopyDone{}, &pgproto3.Sync{},
		}, 1, "42601"},
		{"refused", nil, []pgproto3.FrontendMessage{&pgproto3.Bind{PreparedStatement: "nosuch"}, &pgproto3.Sync{}}, 1, "42601"},
	}
	engines(t, func(t *testing.T, engineName string) {
		dsn := f.start(t, engineName)
		owner := connect(t, dsn)
		exec(t, owner, "drop table if exists unbegun")
		exec(t, owner, "create table unbegun (a int)")
		for _, keeps := range []string{"", "create temp table kept as select 'kept' as k"} {
			for _, c := range cases {
				t.Run(c.name+map[bool]string{true: ", kept"}[keeps != ""], func(t *testing.T) {
					p, err := dialPeer(dsn, nil)
					if err != nil {
						t.Fatal(err)
					}
					defer func() { _ = p.conn.Close() }()
					if keeps != "" {
						p.play(simpleAction(keeps))
					}
					p.play(simpleAction("begin"))
					if c.ahead != nil {
						p.play(action{messages: c.ahead, ready: len(c.ahead)})
					}
					before := hits.Load()
					r.said.Store(&spoil)
					got := p.play(action{messages: c.behind, ready: c.ready})
					r.said.Store(nil)
					if hits.Load() == before {
						t.Fatalf("no BEGIN went to the server before\n%s", got)
					}
					var codes []string
					for line := range strings.Lines(got) {
						if _, rest, ok := strings.Cut(line, "ERROR "); ok {
							codes = append(codes, rest[:5])
						}
					}
					if strings.Join(codes, " ") != c.errors || p.status != 'E' {
						t.Errorf("the answer, in status %c, was\n%s", p.status, got)
					}
					if got := p.play(simpleAction("select 1")); !strings.Contains(got, "25P02") {
						t.Errorf("the transaction that has failed goes on:\n%s", got)
					}
					p.play(simpleAction("rollback"))
					if keeps != "" {
						if got := p.play(simpleAction("select * from kept")); !strings.Contains(got, `"kept"`) {
							t.Errorf("the temporary table is gone:\n%s", got)
						}
					}
					for _, m := range [][]pgproto3.FrontendMessage{plain, batch("u9")} { // the connection is as before
						if got := p.play(action{messages: m, ready: 1}); !strings.Contains(got, "INSERT 0 1") {
							t.Errorf("the next statement was answered\n%s", got)
						}
					}
					if got := p.play(simpleAction("select count(*) from unbegun")); !strings.Contains(got, `"2"`) {
						t.Errorf("rows of the transaction stay:\n%s", got)
					}
					p.play(simpleAction("delete from unbegun"))
				})
			}
		}
	})
}

package proxy_test

import (
	"fmt"

	"github.com/jackc/pgx/v5/pgproto3"
)

// leave ends the session, as people do and as machines do.
func (g *generator) leave() action {
	gone := func(sql string, hears int, more ...pgproto3.FrontendMessage) action {
		return action{text: sql + " (gone)", messages: append([]pgproto3.FrontendMessage{&pgproto3.Query{String: sql}}, more...), leaves: true, hears: hears}
	}
	from := fmt.Sprintf("copy %s from stdin", g.table())
	large := "select n, repeat('x', 1000) from generate_series(1, 20000) n"
	switch g.Intn(12) {
	case 0:
		return action{text: "(gone)", leaves: true}
	case 1:
		return gone("select pg_sleep(0.01)", 0)
	case 2:
		return gone(from, g.Intn(2), &pgproto3.CopyData{Data: []byte("9\tx\n")})
	case 3:
		return gone("begin; set my.x = 'gone'; "+from, g.Intn(4), &pgproto3.CopyData{Data: []byte("9\tx\n")}, &pgproto3.CopyDone{})
	case 4:
		return gone("copy ("+large+") to stdout", g.Intn(30))
	case 5:
		return gone(large, g.Intn(30))
	case 6:
		return gone("set role leak_a; begin; set work_mem = '33MB'; "+large+"; commit", g.Intn(30))
	case 7: // in the middle of a message
		return gone("show work_mem", 0, firstHalf{&pgproto3.Parse{Query: large}})
	case 8, 9: // in the middle of a pipeline
		a := g.extended()
		a.leaves, a.text, a.messages = true, a.text+" (gone)", a.messages[:1+g.Intn(len(a.messages))]
		return a
	case 10: // cancelled, perhaps
		a := gone(g.pick("select pg_sleep(0.002)", "begin; set work_mem = '34MB'; select pg_sleep(0.001)", "select pg_sleep(0.001); select pg_advisory_lock_shared(2)", "do $$ begin set role leak_b; perform pg_sleep(0.002); end $$"), 2)
		a.cancels = cancelsInTime
		return a
	}
	return action{text: "(terminate)", messages: []pgproto3.FrontendMessage{&pgproto3.Terminate{}}, leaves: true}
}

// cancelled is a request that is cancelled before it is over, or behind it, where that does nothing.
func (g *generator) cancelled() action {
	if g.status != 'I' || g.Intn(2) == 0 { // the first of a transaction may be cancelled before that has a server: see docs/limits.md
		a := g.request(g.look())
		a.text, a.cancels = a.text+" (cancelled too late)", cancelsLate
		return a
	}
	a := simpleAction(g.pick("do $$ begin perform pg_sleep(60); end $$", "do $$ begin perform set_config('my.y', 'cancelled', false); perform pg_sleep(60); end $$", "do $$ begin perform pg_advisory_xact_lock(1); perform pg_sleep(60); end $$"))
	a.text, a.cancels = a.text+" (cancelled)", cancelsInTime
	return a
}

// firstHalf is a message of which only the first half is sent.
type firstHalf struct{ pgproto3.FrontendMessage }

func (m firstHalf) Encode(dst []byte) ([]byte, error) {
	b, err := m.FrontendMessage.Encode(nil)
	return append(dst, b[:len(b)/2]...), err
}

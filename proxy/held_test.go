package proxy_test

import (
	"errors"
	"os"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// What a batch brings comes when the client asks for it by a Flush or Sync, and an error at once: as drivers expect that look for answers
// between the messages that they send.
func TestAnswersWaitToBeAskedFor(t *testing.T) {
	f := newFixture(t, fixtureSpec{shards: 1})
	batch := func(sql ...string) (list []pgproto3.FrontendMessage) {
		for _, q := range sql {
			list = append(list, &pgproto3.Parse{Query: q}, &pgproto3.Bind{}, &pgproto3.Describe{ObjectType: 'P'}, &pgproto3.Execute{})
		}
		return list
	}
	play := func(t *testing.T, dsn string) {
		for _, c := range []struct {
			messages []pgproto3.FrontendMessage
			early    bool
		}{
			{batch("begin"), false},
			{batch("select 1"), false},
			{batch("begin", "select 1", "set work_mem = '3MB'", "show work_mem"), false},
			{batch("begin", "select 1/0"), true},
			{append(batch("begin"), &pgproto3.Flush{}), true},
			{append(batch("begin", "select 1"), &pgproto3.Flush{}), true},
			{batch("copy (select 1) to stdout", "select 1"), false},
			{batch("select repeat('x', 100000)"), true}, // more than is held
			{batch("begin", "select repeat('x', 100000)"), true},
		} {
			w := dialWire(t, dsn)
			for _, m := range c.messages {
				w.fe.Send(m)
			}
			if err := w.fe.Flush(); err != nil {
				t.Fatal(err)
			}
			wait := time.Second / 4
			if c.early {
				wait = 20 * time.Second
			}
			_ = w.conn.SetReadDeadline(time.Now().Add(wait))
			if _, err := w.fe.Receive(); (err == nil) != c.early || err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%v: early %v, want %v (%v)", c.messages[0], err == nil, c.early, err)
			}
			_ = w.conn.Close()
		}
	}
	t.Run("PostgreSQL", func(t *testing.T) { play(t, f.cluster.Shards[0].Primary.DSN(f.database)) })
	engines(t, func(t *testing.T, engineName string) { play(t, f.start(t, engineName)) })
}

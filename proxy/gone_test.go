package proxy_test

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"
)

// A client may leave while its settings are made on a connection. If it is found gone in the very moment in which they are, the
// connection has them, and not those of before; and if it is gone before that, nobody is to hear the answer, and the next client all of
// its own.
func TestClientLeavesAsItsSettingsAreMade(t *testing.T) {
	f := newFixture(t, fixtureSpec{shards: 1, pool: 1})
	r := newRelay(t, f.cluster.Shards[0].Primary)
	f.spec.endpoint = r.addr
	type leaving struct {
		client net.Conn
		before time.Duration // the answer; 0: at the same time
	}
	var next atomic.Pointer[leaving]
	hear := func([]byte) (then func()) {
		x := next.Swap(nil)
		switch {
		case x == nil:
			return nil
		case x.before > 0:
			_ = x.client.Close()
			time.Sleep(x.before)
		}
		return func() { _ = x.client.Close() }
	}
	r.heard.Store(&hear)
	engines(t, func(t *testing.T, engineName string) {
		dsn := f.start(t, engineName)
		mine, plain := connect(t, dsn), connect(t, dsn)
		exec(t, mine, "set application_name = 'mine'")
		for i := range 300 {
			w := dialWire(t, dsn, "application_name another's")
			before := time.Duration(i%2) * time.Millisecond
			next.Store(&leaving{w.conn, before})
			w.fe.Send(&pgproto3.Query{String: "select 1"})
			_ = w.fe.Flush() // a health check may have had it hang up already
			if before > 0 {
				ctx, stop := context.WithTimeout(t.Context(), time.Minute)
				_, err := plain.Exec(ctx, "select from nosuch", pgx.QueryExecModeSimpleProtocol)
				if stop(); code(err) != "42P01" {
					t.Fatalf("the next client's error is %v", err)
				}
			}
			if got := text(t, mine, "select current_setting('application_name')", pgx.QueryExecModeSimpleProtocol); got != "mine" {
				t.Fatalf("application_name is %q", got)
			}
			next.Store(nil)
			_ = w.conn.Close()
		}
	})
}

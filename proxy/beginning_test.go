package proxy_test

import (
	"bytes"
	"strings"
	"sync"
	"testing"
	"time"
)

// A cancel request that comes with the first statement of a transaction ends that statement or comes too late. It does not end the BEGIN
// that goes to the server ahead of it, behind which the statement would be for good: it is not sent before that is answered.
func TestCancelAsATransactionBegins(t *testing.T) {
	f := newFixture(t, fixtureSpec{shards: 1})
	r := newRelay(t, f.cluster.Shards[0].Primary)
	f.spec.endpoint = r.addr
	engines(t, func(t *testing.T, engineName string) {
		p, err := dialPeer(f.start(t, engineName), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = p.conn.Close() }()
		ask := func(sql string) string { return p.play(simpleAction(sql)) }
		ask("drop table if exists begun; create table begun (a int)")
		ask("begin")
		var once sync.Once
		var cancelling sync.WaitGroup
		early := int32(0)
		hear := func(b []byte) (then func()) {
			if bytes.Contains(b, []byte("BEGIN\x00")) {
				once.Do(func() {
					before := r.cancels.Load()
					cancelling.Go(p.cancel)
					time.Sleep(200 * time.Millisecond) // in which the request comes to Tidemark, and would come here
					early = r.cancels.Load() - before
				})
			}
			return nil
		}
		r.heard.Store(&hear)
		got := ask("insert into begun select 1 from pg_sleep(60)")
		cancelling.Wait()
		r.heard.Store(nil)
		if early > 0 {
			t.Error("the server was sent a cancel request before it had answered BEGIN")
		}
		if !strings.Contains(got, "ERROR 57014") || !strings.Contains(got, "ready E") {
			t.Errorf("the statement was answered\n%s", got)
		}
		ask("rollback")
		if got := ask("select count(*) from begun"); !strings.Contains(got, `"0"`) {
			t.Errorf("rows were not rolled back:\n%s", got)
		}
	})
}

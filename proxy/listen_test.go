package proxy_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
)

// What a client hears of the channels it listens to is what PostgreSQL itself delivers. Each case ends with a NOTIFY that
// must arrive, so that what must not arrive would have come before it.
func TestNotifications(t *testing.T) {
	long := strings.Repeat("c", 63)
	payload := strings.Repeat("p", 7999)
	cases := []struct {
		name      string
		listener  []string // by the client that listens
		notifier  []string // by another; none: the listener notifies itself
		want      []string // channel=payload, in order
		channels  string   // pg_listening_channels() of the listener afterwards
		selfAgain []string // by the listener, behind all else
	}{
		{"in order", []string{"listen a"}, []string{"notify a, '1'", "notify a, '2'", "select pg_notify('a', '3')"}, []string{"a=1", "a=2", "a=3"}, "a", nil},
		{"of its own", []string{"listen a"}, nil, []string{"a=own"}, "a", []string{"notify a, 'own'"}},
		{"at commit", []string{"begin", "listen a", "commit"}, []string{"begin", "notify a, 'c'", "commit"}, []string{"a=c"}, "a", nil},
		{"not at rollback", []string{"listen z", "begin", "listen a", "rollback"}, []string{"notify a, 'no'", "begin", "notify z, 'no'", "rollback", "notify z, 'end'"}, []string{"z=end"}, "z", nil},
		{"savepoint", []string{"begin", "listen z", "savepoint s", "listen a", "rollback to s", "commit"}, []string{"notify a, 'no'", "notify z, 'end'"}, []string{"z=end"}, "z", nil},
		{"several statements", []string{"listen a; listen z; unlisten a"}, []string{"notify a, 'no'", "notify z, 'end'"}, []string{"z=end"}, "z", nil},
		{"63 bytes and 7,999", []string{"listen " + long}, []string{"notify " + long + ", '" + payload + "'"}, []string{long + "=" + payload}, long, nil},
		{"quoted", []string{`listen "A ""b"`}, []string{`notify "A ""b", 'q'`}, []string{`A "b=q`}, `A "b`, nil},
	}
	f := newFixture(t, fixtureSpec{shards: 2, pool: 3})
	engines(t, func(t *testing.T, engineName string) {
		for _, at := range []struct{ name, dsn string }{{"PostgreSQL", f.direct(0)}, {"Tidemark", f.start(t, engineName)}} {
			for _, tc := range cases {
				t.Run(fmt.Sprint(at.name, "/", tc.name), func(t *testing.T) {
					a, b := connect(t, at.dsn), connect(t, at.dsn)
					for _, sql := range tc.listener {
						exec(t, a, sql)
					}
					for _, sql := range tc.notifier {
						exec(t, b, sql)
					}
					for _, sql := range tc.selfAgain {
						exec(t, a, sql)
					}
					if diff := cmp.Diff(tc.want, heard(t, a, len(tc.want))); diff != "" {
						t.Errorf("(-want +got)\n%s", diff)
					}
					if got := outcome(t, a, "select * from pg_listening_channels()"); got != tc.channels {
						t.Errorf("listens to %q, want %q", got, tc.channels)
					}
					exec(t, a, "unlisten *")
					_, _ = a.Close(t.Context()), b.Close(t.Context()) // the next case has the pool to itself
				})
			}
		}
	})
}

// heard is the next n notifications of a client that sends nothing while it waits.
func heard(t *testing.T, c *pgx.Conn, n int) (all []string) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), 20*time.Second)
	defer stop()
	for range n {
		x, err := c.WaitForNotification(ctx)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, x.Channel+"="+x.Payload)
	}
	return all
}

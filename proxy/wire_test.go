package proxy_test

import (
	"path/filepath"
	"testing"

	"github.com/cockroachdb/datadriven"
)

// TestWire plays the transcripts under testdata/wire against PostgreSQL itself and against Tidemark on both engines, of one
// shard, of two, and of one with a replica that is down: the same messages must be answered alike. With -rewrite the answers recorded are PostgreSQL's.
//
//	send [until=CopyInResponse] [ready=2] [fields] [status] [as=other]
//	                messages, one a line: type, then a JSON object of its fields, or plain SQL for Query;
//	                Raw: its type and its body as a JSON string
//	----
//	what was received, up to as many ReadyForQuery as were asked for (or as ready says), to the message named, or to the end
//	of the connection
//
//	dial            a new connection; settings of its startup message, one a line: name and value
//
// Parameter status messages are left out unless status asks for them: it shows, before each ReadyForQuery, what the client knows
// otherwise than at the one before. Of errors all but severity, code and message are left out unless fields asks for the
// rest. What tells of a server's source code is never shown. Each name that as gives is a client of its own, which stays to the
// end of the file. A notification is own or of another session; the latter come to an idle client at any time, and are shown as
// late as they may come: before the next ReadyForQuery, or own notification.
func TestWire(t *testing.T) {
	f, two := newFixture(t, fixtureSpec{shards: 1}), newFixture(t, fixtureSpec{shards: 2})
	copied := newFixture(t, fixtureSpec{shards: 1, absent: true}) // whose proxy asks for a mark behind every write, and reads from the primary
	type target struct{ name, dsn string }
	targets := []target{{"postgres", f.direct(0)}}
	if !rewriting() {
		targets = append(targets, target{"epoll", f.start(t, "epoll")}, target{"goroutines", f.start(t, "goroutines")}, target{"two shards", two.start(t, "epoll")}, target{"replica", copied.start(t, "epoll")})
	}
	files, err := filepath.Glob("testdata/wire/*")
	if err != nil || len(files) == 0 {
		t.Fatal("no transcripts", err)
	}
	for _, target := range targets {
		for _, file := range files {
			t.Run(target.name+"/"+filepath.Base(file), func(t *testing.T) {
				clients := map[string]*wireClient{"": dialWire(t, target.dsn)}
				datadriven.RunTest(t, file, func(t *testing.T, d *datadriven.TestData) string {
					as := ""
					d.MaybeScanArgs(t, "as", &as)
					if clients[as] == nil {
						clients[as] = dialWire(t, target.dsn)
					}
					return clients[as].run(t, d)
				})
			})
		}
	}
}

// TestShardedWire plays the transcripts under testdata/sharded against Tidemark alone: PostgreSQL is no judge of what only a
// sharded database refuses. Both engines must give the same answers.
func TestShardedWire(t *testing.T) {
	files, err := filepath.Glob("testdata/sharded/*")
	if err != nil || len(files) == 0 {
		t.Fatal("no transcripts", err)
	}
	engines(t, func(t *testing.T, engineName string) {
		_, dsn := shop(t, engineName, fixtureSpec{})
		for _, file := range files {
			c := dialWire(t, dsn)
			datadriven.RunTest(t, file, func(t *testing.T, d *datadriven.TestData) string { return c.run(t, d) })
		}
	})
}

func rewriting() bool {
	f := lookupFlag("rewrite")
	return f == "true"
}

package proxy_test

import (
	"context"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tidemarkdb/tidemark/internal/backend"
	"github.com/tidemarkdb/tidemark/internal/collector"
	"github.com/tidemarkdb/tidemark/internal/wire"
	"github.com/tidemarkdb/tidemark/proxy"
	"github.com/tidemarkdb/tidemark/sharding"
)

// In steady state a transaction of pgbench -S, and the rows of a large result, cost no allocation. What is counted is what
// the whole process allocates while a client that does not allocate itself repeats one request: what runs in the
// background comes on top, hence the small allowance.
func TestSteadyStateDoesNotAllocate(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector makes sync.Pool forget")
	}
	t.Run("without traces", func(t *testing.T) { testAllocations(t, nil) })
	t.Run("nobody asks for traces", func(t *testing.T) {
		testAllocations(t, tracedTo(t, collector.New(t), func(x *proxy.Tracing) { x.Sample = 1e-12 }))
	})
}

func testAllocations(t *testing.T, config func(*proxy.Config)) {
	f := newFixture(t, fixtureSpec{
		shards: 2, config: config, backend: func(c *backend.Config) { c.HealthInterval = time.Minute },
		tables: []sharding.Table{{Name: "kept", Kind: sharding.Sharded, Column: "id", Type: sharding.Int8}},
	})
	dsn := f.start(t, "epoll")
	conn, err := pgconn.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), `CREATE TABLE kept (id bigint PRIMARY KEY, v text)`).ReadAll(); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), `INSERT INTO kept VALUES (7, 'seven')`).ReadAll(); err != nil {
		t.Fatal(err)
	}
	const byKey = `SELECT v FROM kept WHERE id = $1`
	bound := func(b []byte, statement string, values ...string) []byte {
		var list [][]byte
		for _, v := range values {
			list = append(list, []byte(v))
		}
		b = wire.AppendDescribe(wire.AppendBind(b, "", statement, nil, list, nil), wire.KindPortal, "")
		return wire.AppendSync(wire.AppendExecute(b, "", 0))
	}
	unnamed := func(sql string, values ...string) []byte {
		return bound(wire.AppendParse(nil, "", sql, nil), "", values...)
	}
	bind, parsed := bound(nil, "byKey", "7"), unnamed(byKey, "7")
	for _, tt := range []struct {
		name     string
		requests [][]byte
		rounds   int
		rows     int
	}{
		{"simple", [][]byte{wire.AppendQuery(nil, "SELECT v FROM kept WHERE id = 7")}, 4000, 1},
		{"extended", [][]byte{parsed}, 4000, 1},
		{"prepared", [][]byte{bind}, 4000, 1},
		{"rows", [][]byte{wire.AppendQuery(nil, "SELECT generate_series(1, 20000)")}, 20, 20000},
		{"transaction", [][]byte{
			wire.AppendQuery(nil, "BEGIN"), wire.AppendQuery(nil, "UPDATE kept SET v = 'more' WHERE id = 7"),
			wire.AppendQuery(nil, "SELECT v FROM kept WHERE id = 7"), wire.AppendQuery(nil, "END"),
		}, 4000, 1},
		{"transaction of batches", [][]byte{unnamed("BEGIN"), unnamed("UPDATE kept SET v = 'more' WHERE id = $1", "7"), parsed, unnamed("END")}, 4000, 1},
		{"transaction of batches between queries", [][]byte{wire.AppendQuery(nil, "BEGIN"), parsed, bind, wire.AppendQuery(nil, "COMMIT")}, 4000, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newRepeater(t, dsn)
			if _, err := c.Prepare(t.Context(), "byKey", byKey, nil); err != nil {
				t.Fatal(err)
			}
			c.repeat(t, tt.requests, tt.rounds/4) // fills caches and pools
			per := 1.0
			for try := 0; per > 0.1 && try < 3; try++ { // what else runs in this process allocates by time, and a busy machine takes long
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				c.repeat(t, tt.requests, tt.rounds)
				runtime.ReadMemStats(&after)
				per = float64(after.Mallocs-before.Mallocs) / float64(tt.rounds*tt.rows)
				t.Logf("%.3f allocations, %.0f bytes each", per, float64(after.TotalAlloc-before.TotalAlloc)/float64(tt.rounds*tt.rows))
			}
			if per > 0.1 {
				t.Errorf("%.2f allocations for each of %d requests of %d rows, want none", per, tt.rounds, tt.rows)
			}
		})
	}
}

// repeater sends one request again and again, without allocating.
type repeater struct {
	*pgconn.PgConn
	net net.Conn
	buf []byte
}

func newRepeater(t *testing.T, dsn string) *repeater {
	t.Helper()
	conn, err := pgconn.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return &repeater{PgConn: conn, net: conn.Conn(), buf: make([]byte, 64<<10)}
}

func (c *repeater) repeat(t *testing.T, requests [][]byte, rounds int) {
	t.Helper()
	for i := range rounds * len(requests) {
		request := requests[i%len(requests)]
		if _, err := c.net.Write(request); err != nil {
			t.Fatal(err)
		}
		for have := 0; ; {
			n, err := c.net.Read(c.buf[have:])
			if err != nil || n == 0 {
				t.Fatal("the proxy has gone:", err)
			}
			have += n
			pos := 0
			ready := false
			for have-pos >= wire.HeaderLen {
				size := 1 + int(uint32(c.buf[pos+1])<<24|uint32(c.buf[pos+2])<<16|uint32(c.buf[pos+3])<<8|uint32(c.buf[pos+4]))
				if have-pos < size {
					break
				}
				if c.buf[pos] == wire.MsgErrorResponse {
					t.Fatalf("error: %q", c.buf[pos:pos+size])
				}
				ready = c.buf[pos] == wire.MsgReadyForQuery
				pos += size
			}
			have = copy(c.buf, c.buf[pos:have])
			if ready {
				break
			}
		}
	}
}

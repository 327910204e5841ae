package main

import (
	"github.com/tidemarkdb/tidemark/cqrs"
	"github.com/tidemarkdb/tidemark/internal/backend"
	"github.com/tidemarkdb/tidemark/internal/lsn"
	"github.com/tidemarkdb/tidemark/proxy"
)

// served are the tables that every client of the served database may read, as tidemark.NAME. The admin database has them
// too.
func (p *proxyProcess) served() []proxy.Table {
	return []proxy.Table{lagTable(p.levels), endpointsTable(p.backend), poolsTable(p.backend)}
}

// lagTable is how far every read model has come with every shard.
func lagTable(levels *cqrs.Levels) proxy.Table {
	position := func(m lsn.Mark) []byte {
		if m == (lsn.Mark{}) {
			return nil // not known yet
		}
		return proxy.TextValue(m.LSN.String())
	}
	return proxy.Table{
		Name: "lag", Doc: "How far each read model has come with each shard.",
		Cols: []proxy.TableColumn{
			proxy.Text("view", "the read model"), proxy.Text("shard", "the shard"),
			proxy.Text("level", "the position that the read model has reached; NULL: not known yet"),
			proxy.Text("published", "the position up to which the shard's changes are on Kafka"),
			proxy.Int("behind", "events of the read model's topics, of all shards together, that wait to be applied"),
			proxy.Int("dead_letters", "events of the read model, of all shards together, that lie in the dead-letter queue"),
		},
		Rows: func() (rows [][][]byte) {
			for _, g := range levels.Lags() {
				rows = append(rows, [][]byte{
					proxy.TextValue(g.View.Name), proxy.TextValue(g.Shard), position(g.Level), position(g.Published), proxy.IntValue(g.Events), proxy.IntValue(g.Exceptions),
				})
			}
			return rows
		},
	}
}

// endpointsTable is what the health checks found.
func endpointsTable(b *backend.Backend) proxy.Table {
	return proxy.Table{
		Name: "endpoints", Doc: "The PostgreSQL servers, as the last health check found them.",
		Cols: []proxy.TableColumn{
			proxy.Text("shard", "the shard"), proxy.Text("endpoint", "host:port"), proxy.Text("region", "as configured"), proxy.Text("role", "primary or replica, as found; auto while unknown"),
			proxy.Bool("healthy", "whether it takes statements"), proxy.Text("level", "the position that it has replayed, or written if it is the primary"),
			proxy.Int("lag_ms", "milliseconds since the last commit that a replica with something to replay has replayed"), proxy.Int("timeline", "its timeline"),
			proxy.Int("server_version", "server_version_num"), proxy.Text("error", "why the last check failed"),
		},
		Rows: func() (rows [][][]byte) {
			for _, s := range b.Shards() {
				for _, e := range s.Endpoints() {
					st := e.Status()
					var failure []byte
					if st.Err != nil {
						failure = proxy.TextValue(st.Err.Error())
					}
					rows = append(rows, [][]byte{
						proxy.TextValue(s.Name()), proxy.TextValue(e.Name()), proxy.TextValue(e.Region()), proxy.TextValue(e.Role().String()), proxy.BoolValue(e.Healthy()),
						proxy.TextValue(e.Level().String()), proxy.IntValue(st.Lag.Milliseconds()), proxy.IntValue(st.Timeline), proxy.IntValue(st.ServerVersion), failure,
					})
				}
			}
			return rows
		},
	}
}

// poolsTable is the pools of server connections.
func poolsTable(b *backend.Backend) proxy.Table {
	return proxy.Table{
		Name: "pools", Doc: "The pools of server connections: one for each endpoint, database and user.",
		Cols: []proxy.TableColumn{
			proxy.Text("shard", "the shard"), proxy.Text("endpoint", "host:port"), proxy.Text("database", "as the server names it"), proxy.Text("username", "whose pool it is: the shared role, or a user with a pool of its own"),
			proxy.Int("size", "connections at most"), proxy.Int("active", "connections lent to sessions, or being cleaned"), proxy.Int("idle", "connections waiting for use"),
			proxy.Int("opening", "connections being opened"), proxy.Int("waiting", "sessions in the queue"), proxy.Int("waits", "sessions that had to wait, since the start"),
			proxy.Int("wait_ms", "milliseconds that they waited in all"), proxy.Int("timeouts", "of these, how many gave up"), proxy.Int("opened", "connections opened since the start"),
			proxy.Int("failures", "attempts to open one that failed"),
			proxy.Text("login", "who the connections log in as"), proxy.Bool("shared", "whether all clients without a pool of their own use it"), proxy.Text("mode", "transaction, session or statement; listening: its one connection listens to channels for all clients of its user"), proxy.Int("reserve", "connections beyond size for sessions that wait too long"),
			proxy.Int("max_wait_ms", "milliseconds that whoever has waited longest now has waited"), proxy.Int("longest_wait_ms", "the longest wait since the start"),
			proxy.Int("acquired", "connections asked for since the start"), proxy.Int("closed", "connections closed since the start"),
			proxy.Int("evicted", "of these, how many so that another pool could open one"), proxy.Int("broken", "of these, how many were found dead after having been idle for long"),
		},
		Rows: func() (rows [][][]byte) {
			for _, p := range b.Stats() {
				rows = append(rows, [][]byte{
					proxy.TextValue(p.Shard), proxy.TextValue(p.Endpoint), proxy.TextValue(p.Database), proxy.TextValue(p.User), proxy.IntValue(p.Size), proxy.IntValue(p.Active), proxy.IntValue(p.Idle),
					proxy.IntValue(p.Opening), proxy.IntValue(p.Waiting), proxy.IntValue(p.Waits), proxy.IntValue(p.WaitTime.Milliseconds()), proxy.IntValue(p.Timeouts), proxy.IntValue(p.Opened), proxy.IntValue(p.Failures),
					proxy.TextValue(p.Role), proxy.BoolValue(!p.Own), proxy.TextValue(string(p.Mode)), proxy.IntValue(p.Reserve), proxy.IntValue(p.MaxWait.Milliseconds()), proxy.IntValue(p.LongestWait.Milliseconds()),
					proxy.IntValue(p.Acquired), proxy.IntValue(p.Closed), proxy.IntValue(p.Evicted), proxy.IntValue(p.Broken),
				})
			}
			return rows
		},
	}
}

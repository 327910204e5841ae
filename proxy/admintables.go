package proxy

import (
	"bytes"
	"cmp"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/tidemarkdb/tidemark/internal/backend"
	"github.com/tidemarkdb/tidemark/internal/loop"
)

// ownTables are the proxy's own tables of the admin database.
func (p *Proxy) ownTables() []Table {
	return []Table{
		p.clientsTable(), p.serversTable(), p.databasesTable(), p.shardsTable(), p.usersTable(), p.statsTable(), p.preparedTable(), p.channelsTable(), p.consolesTable(), p.versionTable(),
	}
}

func (p *Proxy) clientsTable() Table {
	return Table{
		Name: "clients", Doc: "The clients of the served database whose login is complete.",
		Cols: []TableColumn{
			Int("id", "what KILL takes; the process id that the client was told"), Text("username", "who it logged in as"), Text("database", "the database it is connected to"),
			Text("address", "where it comes from; [local] over a Unix socket"), Text("application_name", "as the startup message gave it"),
			Text("state", "idle: holds no server connection; active: holds one; waiting: wants one"), Time("connected_at", "when its session began"),
			Int("servers", "server connections that it holds, pinned ones included"), Text("server_pids", "the server processes behind them"),
			Text("pinned", "why server connections stay with it between transactions; NULL: none do"),
			Time("traced_until", "until when TRACE has it traced; NULL: it is not"),
			Int("channels", "channels that it listens to over a shared connection"),
		},
		Rows: func() (rows [][][]byte) {
			database := p.cfg().Database
			all, waiting := p.clients.all(), p.backend.Waiting()
			slices.SortFunc(all, func(a, b *client) int { return cmp.Or(a.since.Compare(b.since), cmp.Compare(a.pid, b.pid)) })
			for _, x := range all {
				h := x.holding()
				rows = append(rows, [][]byte{
					IntValue(x.pid), TextValue(x.user), TextValue(database), TextValue(hostPort(x.addr)), TextOrNull(x.app), TextValue(x.state(h, waiting)), TimeValue(x.since),
					IntValue(len(h.pids)), TextOrNull(strings.Join(h.pids, ",")), TextOrNull(strings.Join(h.reasons, "; ")),
					TimeValue(x.traceEnds()),
					IntValue(int64(x.channels.Load())),
				})
			}
			return rows
		},
	}
}

func (p *Proxy) serversTable() Table {
	return Table{
		Name: "servers", Doc: "The connections to PostgreSQL servers.",
		Cols: []TableColumn{
			Text("shard", "the shard"), Text("endpoint", "host:port"), Text("database", "as the server names it"), Text("username", "who it logged in as"),
			Int("pid", "the server process, as in pg_stat_activity"), Text("state", "idle; active: lent to a client, or being cleaned; pinned: kept by a client between its transactions; listening: to channels, for all clients of its user"),
			Int("client_id", "the client that has it"), Text("pinned", "why that client keeps it"), Time("connected_at", "when it was opened"),
			Time("expires_at", "when it is replaced for its age"), Bool("retiring", "it is closed instead of being used again"), Bool("encrypted", "it uses TLS"),
		},
		Rows: func() (rows [][][]byte) {
			holders := p.clients.holders()
			for _, c := range p.backend.Conns() {
				state, id, why := "active", []byte(nil), ""
				if h, ok := holders[c.Conn]; ok {
					id, why = IntValue(h.client.pid), h.pinned
					if !h.active {
						state = "pinned"
					}
				} else if c.Idle {
					state = "idle"
				} else if c.Listening {
					state = "listening"
				}
				rows = append(rows, [][]byte{
					TextValue(c.Shard), TextValue(c.Endpoint), TextValue(c.Database), TextValue(c.User), IntValue(c.PID), TextValue(state), id, TextOrNull(why),
					TimeValue(c.Since), TimeValue(c.Expires), BoolValue(c.Retiring), BoolValue(c.Encrypted),
				})
			}
			return rows
		},
	}
}

func (p *Proxy) databasesTable() Table {
	return Table{
		Name: "databases", Doc: "The databases that clients can connect to.",
		Cols: []TableColumn{
			Text("name", "as clients name it"), Int("shards", "shards that it is spread over"), Int("clients", "clients connected, logins included"),
			Int("max_clients", "clients at most"), Bool("paused", "whether some shard is paused"), Bool("draining", "whether the process is about to end"),
			Text("starting", "why no client is served yet; NULL: they are"),
		},
		Rows: func() [][][]byte {
			c := p.cfg()
			return [][][]byte{{
				TextValue(c.Database), IntValue(len(p.backend.Shards())), IntValue(p.Clients()), IntValue(c.MaxClients), BoolValue(p.gate.any.Load()), BoolValue(p.draining.Load()),
				TextOrNull(p.Starting()),
			}}
		},
	}
}

func (p *Proxy) shardsTable() Table {
	return Table{
		Name: "shards", Doc: "The shards, in the order of the configuration.",
		Cols: []TableColumn{
			Text("shard", "its name"), Int("buckets", "buckets that it owns"), Text("primary", "the endpoint that takes writes; NULL: none is known"),
			Int("endpoints", "its servers"), Int("healthy", "of these, how many take statements"), Bool("paused", "whether it is paused"), Text("error", "why it takes no writes"),
		},
		Rows: func() (rows [][][]byte) {
			owned := make([]int, len(p.shardMap.Shards()))
			for b := range p.shardMap.Buckets() {
				owned[p.shardMap.ShardOf(b)]++
			}
			for i, s := range p.shardMap.Shards() {
				sh := p.backend.Shard(s.Name)
				healthy := 0
				for _, e := range sh.Endpoints() {
					if e.Healthy() {
						healthy++
					}
				}
				var primary, failure []byte
				e, err := sh.Primary()
				if err == nil {
					primary = TextValue(e.Name())
					if !e.Healthy() {
						err = e.Unhealthy()
					}
				}
				if err != nil {
					failure = TextValue(err.Error())
				}
				rows = append(rows, [][]byte{
					TextValue(s.Name), IntValue(owned[i]), primary, IntValue(len(sh.Endpoints())), IntValue(healthy), BoolValue(p.gate.closed(s.Name)), failure,
				})
			}
			return rows
		},
	}
}

func (p *Proxy) usersTable() Table {
	return Table{
		Name: "users", Doc: "The users of the configuration, and those who are connected.",
		Cols: []TableColumn{
			Text("name", "the user"), Text("admin", "users: all commands of the admin database; stats_users: its tables; NULL: none"), Int("clients", "clients whose login is complete"),
		},
		Rows: func() (rows [][][]byte) {
			c := p.cfg()
			clients := map[string]int{}
			for _, list := range [][]string{c.Admins, c.StatsUsers} {
				for _, u := range list {
					clients[u] = 0
				}
			}
			for _, u := range c.Users {
				clients[u.Name] = 0
			}
			for _, x := range p.clients.all() {
				clients[x.user]++
			}
			for _, name := range slices.Sorted(maps.Keys(clients)) {
				right := map[rights]string{allRights: "users", readRights: "stats_users"}[c.rightsOf(name)]
				rows = append(rows, [][]byte{TextValue(name), TextOrNull(right), IntValue(clients[name])})
			}
			return rows
		},
	}
}

func (p *Proxy) statsTable() Table {
	return Table{
		Name: "stats", Doc: "What each user's sessions have done on each shard since the start. The buckets of the times are in /metrics.",
		Cols: []TableColumn{
			Text("username", "the user"), Text("shard", "the shard"), Int("transactions", "transactions; a request outside of one counts as one"),
			Int("requests", "query strings, and batches of the extended protocol, of which a server was asked something: BEGIN and SET wait for the next one"), Float("transaction_s", "seconds that the transactions took in all"),
			Float("request_s", "seconds that the requests took in all, from the first byte sent to the last answer"), Float("wait_s", "seconds that they waited for server connections"),
			Int("bytes_in", "bytes from the clients"), Int("bytes_out", "bytes to the clients"),
		},
		Rows: func() (rows [][][]byte) {
			for _, m := range p.Meters() {
				transactions, transactionTime, _ := m.Transaction.Read()
				requests, requestTime, _ := m.Query.Read()
				_, waitTime, _ := m.Wait.Read()
				rows = append(rows, [][]byte{
					TextValue(m.User), TextValue(m.Shard), IntValue(transactions), IntValue(requests), FloatValue(transactionTime), FloatValue(requestTime), FloatValue(waitTime),
					IntValue(m.BytesIn.Load()), IntValue(m.BytesOut.Load()),
				})
			}
			slices.SortFunc(rows, func(a, b [][]byte) int { return cmp.Or(bytes.Compare(a[0], b[0]), bytes.Compare(a[1], b[1])) })
			return rows
		},
	}
}

// shownStatement bounds the text of a statement that prepared_statements shows, in bytes.
const shownStatement = 1000

func (p *Proxy) preparedTable() Table {
	return Table{
		Name: "prepared_statements", Doc: "The distinct named prepared statements of all clients: each is prepared once on a server connection, whoever uses it.",
		Cols: []TableColumn{
			Int("id", "its number"), Text("statement", "its text, cut after 1000 bytes"), Int("bytes", "the length of its text"), Int("parameter_types", "how many parameter types the client gave"),
			Int("uses", "clients' statements that share it"),
		},
		Rows: func() (rows [][][]byte) {
			p.statements.mu.Lock()
			defer p.statements.mu.Unlock()
			for key, x := range p.statements.byKey {
				text := key[x.text:]
				rows = append(rows, [][]byte{
					IntValue(x.id), TextValue(strings.ToValidUTF8(text[:min(len(text), shownStatement)], "")), IntValue(len(text)), IntValue(x.types), IntValue(x.uses),
				})
			}
			slices.SortFunc(rows, func(a, b [][]byte) int { return cmp.Or(cmp.Compare(len(a[0]), len(b[0])), bytes.Compare(a[0], b[0])) })
			return rows
		},
	}
}

func (p *Proxy) channelsTable() Table {
	return Table{
		Name: "channels", Doc: "The channels that clients listen to over shared connections: one connection to the default shard for each user that has pools of its own, and one for all others. Clients that listen over a connection of their own are not counted; they are pinned.",
		Cols: []TableColumn{
			Text("channel", "the channel"), Text("username", "whose connection listens: the shared role, or a user with a pool of its own"), Text("shard", "the default shard"),
			Int("server_pid", "the server process that listens"), Int("clients", "clients that hear it"),
		},
		Rows: func() (rows [][][]byte) {
			for _, c := range p.hub.Channels() {
				user := c.User
				if user == "" {
					user = p.serverUser
				}
				rows = append(rows, [][]byte{TextValue(c.Name), TextValue(user), TextValue(p.home), IntValue(c.PID), IntValue(c.Subscribers)})
			}
			return rows
		},
	}
}

func (p *Proxy) consolesTable() Table {
	return Table{
		Name: "consoles", Doc: "The connections to the admin database itself.",
		Cols: []TableColumn{
			Text("username", "who it is"), Text("address", "where it comes from; [local] over a Unix socket"), Bool("commands", "whether it may do more than read"), Time("connected_at", "since when"),
		},
		Rows: func() (rows [][][]byte) {
			p.admin.mu.Lock()
			defer p.admin.mu.Unlock()
			for _, c := range p.admin.byPID {
				rows = append(rows, [][]byte{TextValue(c.user), TextValue(hostPort(c.conn.RemoteAddr())), BoolValue(c.rights == allRights), TimeValue(c.since)})
			}
			return rows
		},
	}
}

func (p *Proxy) versionTable() Table {
	return Table{
		Name: "version", Doc: "This process.",
		Cols: []TableColumn{Text("version", "of Tidemark"), Int("pid", "the process"), Time("started_at", "when it started"), Int("uptime_s", "seconds since")},
		Rows: func() [][][]byte {
			return [][][]byte{{TextValue(p.version), IntValue(os.Getpid()), TimeValue(p.started), IntValue(int64(time.Since(p.started) / time.Second))}}
		},
	}
}

// state is what a client waits for or has, in one word.
func (x *client) state(h holding, waiting map[*loop.Task]bool) string {
	switch {
	case x.waiting.Load(), waiting[x.task]:
		return "waiting"
	case h.active:
		return "active"
	}
	return "idle"
}

// holding is what a client has of servers at one moment.
type holding struct {
	active  bool
	pids    []string
	reasons []string
}

func (x *client) holding() holding {
	x.mu.Lock()
	defer x.mu.Unlock()
	h := holding{active: len(x.held) > 0}
	add := func(c *backend.Conn) {
		if pid := string(IntValue(c.PID())); !slices.Contains(h.pids, pid) {
			h.pids = append(h.pids, pid)
		}
	}
	for _, c := range x.held {
		add(c)
	}
	for c, why := range x.pinned {
		add(c)
		if !slices.Contains(h.reasons, why) {
			h.reasons = append(h.reasons, why)
		}
	}
	slices.Sort(h.reasons)
	return h
}

// holder is the client that has a server connection.
type holder struct {
	client *client
	active bool   // a transaction or statement of it runs there
	pinned string // why it is kept
}

func (c *clients) holders() map[*backend.Conn]holder {
	found := map[*backend.Conn]holder{}
	for _, x := range c.all() {
		x.mu.Lock()
		for conn, why := range x.pinned {
			found[conn] = holder{client: x, pinned: why}
		}
		for _, conn := range x.held {
			found[conn] = holder{client: x, active: true, pinned: x.pinned[conn]}
		}
		x.mu.Unlock()
	}
	return found
}

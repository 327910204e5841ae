package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/tidemarkdb/tidemark/internal/localstack"
)

// peerNames in the order of the report.
var peerNames = []string{"direct", "pgbouncer", "pgbouncer-new", "tidemark", "tidemark-other", "tidemark-sharded"}

// peer is one way to reach the data.
type peer struct {
	name     string
	bench    *bench
	host     string
	port     int
	sessions bool                              // prepared statements need session pooling
	loops    int                               // event loops; 0: as many as it thinks right
	command  func(port int) (*exec.Cmd, error) // nil: no process of its own
	process  *os.Process                       // nil while it is not running
	ended    chan struct{}                     // closed when process has been waited for
}

func (p *peer) proxy() bool   { return p.command != nil }
func (p *peer) sharded() bool { return p.name == "tidemark-sharded" }

// dsn is a libpq connection string.
func (p *peer) dsn(prepared, tls bool) string {
	database, sslmode := "bench", "disable"
	if prepared && p.sessions {
		database = "bench_session"
	}
	if tls {
		sslmode = "require"
	}
	return fmt.Sprintf("host=%s port=%d user=bench password=bench dbname=%s sslmode=%s", p.host, p.port, database, sslmode)
}

// program is an executable to compare, and what it says it is.
type program struct{ path, version string }

// findPrograms looks up or builds what is compared. A PgBouncer that is on PATH as pgbouncer-new joins in.
func (b *bench) findPrograms(ctx context.Context) error {
	b.programs = map[string]program{}
	wanted := func(name string) bool { return len(b.peers) == 0 || slices.Contains(b.peers, name) }
	if wanted("pgbouncer") {
		path, err := localstack.Tool(ctx, "pgbouncer", "pgbouncer", func(s string) { say("%s", s) })
		if err != nil {
			return err
		}
		b.programs["pgbouncer"] = program{path: path}
	}
	if path, err := exec.LookPath("pgbouncer-new"); err == nil && wanted("pgbouncer-new") {
		b.programs["pgbouncer-new"] = program{path: path}
	}
	if wanted("tidemark") || wanted("tidemark-sharded") {
		path := filepath.Join(b.dir, "tidemark")
		say("building tidemark")
		if _, err := output(ctx, "go", "build", "-o", path, "./cmd/tidemark"); err != nil {
			return err
		}
		revision, err := output(ctx, "git", "describe", "--always", "--dirty")
		if err != nil {
			revision = "" // not a clone: the report goes without
		}
		for _, name := range []string{"tidemark", "tidemark-sharded"} {
			if wanted(name) {
				b.programs[name] = program{path: path, version: strings.TrimSpace(revision)}
			}
		}
	}
	if b.other != "" && wanted("tidemark-other") {
		b.programs["tidemark-other"] = program{path: b.other}
	}
	for name, pr := range b.programs {
		how := "version"
		if strings.HasPrefix(name, "pgbouncer") {
			how = "--version"
		}
		out, err := output(ctx, pr.path, how)
		if err != nil {
			return err
		}
		line, _, _ := strings.Cut(strings.TrimSpace(out), "\n")
		pr.version = strings.TrimSpace(line + " " + pr.version)
		b.programs[name] = pr
	}
	return nil
}

// startPeers starts the peers that take part in a scenario. Those that are returned beside an error must be stopped, too.
func (b *bench) startPeers(ctx context.Context, sc *scenario) (peers []*peer, err error) {
	one, two := b.stack.Postgres[0].Primary, b.stack.Postgres[1].Primary
	if sc.canned {
		one = &localstack.Server{Host: b.canned.host, Port: b.canned.port}
	}
	if !sc.poolers && (len(b.peers) == 0 || slices.Contains(b.peers, "direct")) {
		peers = append(peers, &peer{name: "direct", bench: b, host: one.Host, port: one.Port})
	}
	for _, name := range peerNames {
		pr, found := b.programs[name]
		if !found || name == "tidemark-sharded" && sc.sharding == "" {
			continue
		}
		p := &peer{name: name, bench: b}
		some := []*peer{p}
		switch name {
		case "pgbouncer", "pgbouncer-new":
			p.sessions = !keepsStatements(pr.version)
			p.command = func(port int) (*exec.Cmd, error) { return b.pgbouncer(p, pr.path, port, one) }
		case "tidemark-sharded":
			p.command = func(port int) (*exec.Cmd, error) {
				return b.tidemark(p, pr.path, port, sc.sharding, one, two)
			}
		default:
			some = p.byLoops(sc.loops)
			for _, p := range some {
				p.command = func(port int) (*exec.Cmd, error) { return b.tidemark(p, pr.path, port, "", one) }
			}
		}
		for _, p := range some {
			peers = append(peers, p)
			if err := p.start(ctx); err != nil {
				return peers, err
			}
		}
	}
	return peers, nil
}

// byLoops is the peer once for each number of event loops; as it is where none is given.
func (p *peer) byLoops(numbers []int) (peers []*peer) {
	if len(numbers) == 0 {
		return []*peer{p}
	}
	for _, n := range numbers {
		one := *p
		one.name, one.loops = fmt.Sprintf("%s, loops: %d", p.name, n), n
		peers = append(peers, &one)
	}
	return peers
}

// poolSize is the number of server connections that every pooler may use.
const poolSize = 20

// keepsStatements tells whether a PgBouncer can keep prepared statements in transaction pooling: since 1.21.
func keepsStatements(version string) bool {
	var major, minor int
	if _, err := fmt.Sscanf(version, "PgBouncer %d.%d", &major, &minor); err != nil {
		return false
	}
	return major > 1 || minor >= 21
}

// pgbouncer pools transactions; where it cannot keep prepared statements there is a second database that pools sessions.
func (b *bench) pgbouncer(p *peer, program string, port int, srv *localstack.Server) (*exec.Cmd, error) {
	auth := filepath.Join(b.dir, p.name+".users")
	if err := os.WriteFile(auth, []byte(strconv.Quote("bench")+" "+strconv.Quote(b.verifier)+"\n"), 0o644); err != nil {
		return nil, err
	}
	conf := fmt.Sprintf(`[databases]
bench = host=%[1]s port=%[2]d user=bench password=bench dbname=bench
bench_session = host=%[1]s port=%[2]d user=bench password=bench dbname=bench pool_mode=session pool_size=600
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %[3]d
unix_socket_dir =
auth_type = scram-sha-256
auth_file = %[4]s
client_tls_sslmode = allow
client_tls_cert_file = %[5]s
client_tls_key_file = %[6]s
pool_mode = transaction
default_pool_size = %[7]d
max_client_conn = %[8]d
logfile = %[9]s
log_connections = 0
log_disconnections = 0
`, srv.Host, srv.Port, port, auth, b.cert, b.key, poolSize, b.maxClients(), filepath.Join(b.dir, p.name+".log"))
	if !p.sessions {
		conf += "max_prepared_statements = 200\n"
	}
	ini := filepath.Join(b.dir, p.name+".ini")
	if err := os.WriteFile(ini, []byte(conf), 0o644); err != nil {
		return nil, err
	}
	cmd := exec.Command(program, "-q", ini)
	cmd.SysProcAttr = attributes()
	if os.Getuid() == 0 { // it refuses to run as root
		var err error
		if cmd.SysProcAttr.Credential, err = nobody(); err != nil {
			return nil, err
		}
	}
	return cmd, nil
}

func nobody() (*syscall.Credential, error) {
	u, err := user.Lookup("nobody")
	if err != nil {
		return nil, err
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, err
}

// tidemark serves one shard with nothing sharded, or several with tables split by key.
func (b *bench) tidemark(p *peer, program string, port int, sharding string, servers ...*localstack.Server) (*exec.Cmd, error) {
	http, err := freePort()
	if err != nil {
		return nil, err
	}
	var y strings.Builder
	fmt.Fprintf(&y, "listen: 127.0.0.1:%d\nhttp: 127.0.0.1:%d\nclients: {max: %d}\n", port, http, b.maxClients())
	fmt.Fprintf(&y, "tls: {cert: %s, key: %s}\n", b.cert, b.key)
	fmt.Fprintf(&y, "database: {name: bench, user: bench, password: bench}\nusers:\n  - {name: bench, scram: %q}\nshards:\n", strings.ReplaceAll(b.verifier, "$", "$$"))
	for i, s := range servers {
		fmt.Fprintf(&y, "  - {name: s%d, primary: {host: %s, port: %d}}\n", i+1, s.Host, s.Port)
	}
	if sharding != "" {
		fmt.Fprintf(&y, "sharding:\n  tables:\n    %s\n", sharding)
	}
	fmt.Fprintf(&y, "pool: {size: %d}\nlog: {level: error}\nloops: %d\n", poolSize, p.loops)
	file := filepath.Join(b.dir, p.name+".yaml")
	if err := os.WriteFile(file, []byte(y.String()), 0o644); err != nil {
		return nil, err
	}
	return exec.Command(program, "proxy", "--config", file), nil
}

// maxClients leaves room for the largest scenario.
func (b *bench) maxClients() int { return max(1000, b.idle+100) }

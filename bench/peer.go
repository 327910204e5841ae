package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/tidemarkdb/tidemark/internal/localstack"
)

// peer is one way to reach the data.
type peer struct {
	name string
	host string
	port int
	cmd  *exec.Cmd // nil: no process of its own
}

// startPeers starts every proxy that is compared. A PgBouncer that is on PATH as pgbouncer-new joins in.
func startPeers(ctx context.Context, stack *localstack.Stack, dir, only, other string) (peers []*peer, err error) {
	defer func() {
		if err != nil {
			for _, p := range peers {
				err = errors.Join(err, p.stop())
			}
		}
	}()
	wanted := func(name string) bool {
		return only == "" || strings.Contains(","+only+",", ","+name+",")
	}
	one, two := stack.Postgres[0].Primary, stack.Postgres[1].Primary
	if wanted("direct") {
		peers = append(peers, &peer{name: "direct", host: one.Host, port: one.Port})
	}
	if wanted("pgbouncer") {
		program, err := localstack.Tool(ctx, "pgbouncer", "pgbouncer", func(s string) { say("%s", s) })
		if err != nil {
			return peers, err
		}
		p, err := pgbouncer(ctx, "pgbouncer", program, one, dir)
		if err != nil {
			return peers, err
		}
		peers = append(peers, p)
	}
	if program, err := exec.LookPath("pgbouncer-new"); err == nil && wanted("pgbouncer-new") {
		p, err := pgbouncer(ctx, "pgbouncer-new", program, one, dir)
		if err != nil {
			return peers, err
		}
		peers = append(peers, p)
	}
	binary := filepath.Join(dir, "tidemark")
	say("building tidemark")
	if err := command(ctx, "go", "build", "-o", binary, "./cmd/tidemark"); err != nil {
		return peers, err
	}
	if wanted("tidemark") {
		p, err := tidemark(ctx, "tidemark", binary, dir, []*localstack.Server{one})
		if err != nil {
			return peers, err
		}
		peers = append(peers, p)
	}
	if other != "" {
		p, err := tidemark(ctx, "tidemark-other", other, dir, []*localstack.Server{one})
		if err != nil {
			return peers, err
		}
		peers = append(peers, p)
	}
	if wanted("tidemark-sharded") {
		p, err := tidemark(ctx, "tidemark-sharded", binary, dir, []*localstack.Server{one, two})
		if err != nil {
			return peers, err
		}
		peers = append(peers, p)
	}
	return peers, nil
}

// poolSize is the number of server connections that every pooler may use.
const poolSize = 20

// pgbouncer pools transactions for the simple protocol and sessions for the prepared one: before version 1.21 it cannot
// keep prepared statements in transaction pooling.
func pgbouncer(ctx context.Context, name, program string, srv *localstack.Server, dir string) (*peer, error) {
	port := freePort()
	auth := filepath.Join(dir, name+".users")
	if err := os.WriteFile(auth, []byte(`"bench" "bench"`+"\n"), 0o644); err != nil {
		return nil, err
	}
	ini := filepath.Join(dir, name+".ini")
	conf := fmt.Sprintf(`[databases]
bench = host=%[1]s port=%[2]d user=bench password=bench dbname=bench
bench_session = host=%[1]s port=%[2]d user=bench password=bench dbname=bench pool_mode=session pool_size=100
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %[3]d
unix_socket_dir =
auth_type = scram-sha-256
auth_file = %[4]s
pool_mode = transaction
default_pool_size = %[5]d
max_client_conn = 1000
ignore_startup_parameters = extra_float_digits
logfile = %[6]s
log_connections = 0
log_disconnections = 0
`, srv.Host, srv.Port, port, auth, poolSize, filepath.Join(dir, name+".log"))
	if err := os.WriteFile(ini, []byte(conf), 0o644); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, program, "-q", ini)
	if os.Getuid() == 0 {
		cred, err := nobody()
		if err != nil {
			return nil, err
		}
		if err := os.Chmod(dir, 0o777); err != nil {
			return nil, err
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: cred}
	}
	return launch(name, cmd, port)
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
	if err != nil {
		return nil, err
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

// tidemark serves one shard with nothing sharded, or several with the accounts split by key.
func tidemark(ctx context.Context, name, binary, dir string, servers []*localstack.Server) (*peer, error) {
	port, http := freePort(), freePort()
	var b strings.Builder
	fmt.Fprintf(&b, "listen: 127.0.0.1:%d\nhttp: 127.0.0.1:%d\n", port, http)
	fmt.Fprintf(&b, "database: {name: bench, user: bench, password: bench}\nusers:\n  - {name: bench, password: bench}\nshards:\n")
	for i, s := range servers {
		fmt.Fprintf(&b, "  - {name: s%d, primary: {host: %s, port: %d}}\n", i+1, s.Host, s.Port)
	}
	if len(servers) > 1 {
		b.WriteString("sharding:\n  tables:\n    pgbench_accounts: {key: aid, type: int}\n")
	}
	fmt.Fprintf(&b, "pool: {size: %d}\nlog: {level: warn}\n", poolSize)
	file := filepath.Join(dir, name+".yaml")
	if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
		return nil, err
	}
	return launch(name, exec.CommandContext(ctx, binary, "proxy", "--config", file), port)
}

// launch starts a proxy and waits until it takes connections.
func launch(name string, cmd *exec.Cmd, port int) (*peer, error) {
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p := &peer{name: name, host: "127.0.0.1", port: port, cmd: cmd}
	deadline := time.Now().Add(20 * time.Second)
	for {
		c, err := net.Dial("tcp", net.JoinHostPort(p.host, strconv.Itoa(port)))
		if err == nil {
			return p, c.Close()
		}
		if time.Now().After(deadline) {
			return nil, errors.Join(fmt.Errorf("%s does not answer on port %d", name, port), p.stop())
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (p *peer) stop() error {
	if p.cmd == nil || p.cmd.Process == nil {
		return nil
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	done := make(chan struct{})
	go func() {
		_ = p.cmd.Wait() // how a pooler reports its own end is of no interest here
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-time.After(15 * time.Second):
		return fmt.Errorf("%s did not end: %w", p.name, p.cmd.Process.Kill())
	}
}

func freePort() int {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0 // the program that gets it will say what is wrong
	}
	port := ln.Addr().(*net.TCPAddr).Port
	if err := ln.Close(); err != nil {
		return 0
	}
	return port
}

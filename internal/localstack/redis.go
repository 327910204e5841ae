package localstack

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strconv"
)

// Redis is one server that appends its writes to a file, so that they survive a restart and a kill of the process.
type Redis struct {
	*Service
	Addr string // host:port

	dir                string
	port               int
	program, libraries string
}

func newRedis(s *Stack, port int) *Redis {
	r := &Redis{
		Service: s.service("redis"), Addr: net.JoinHostPort(Host, strconv.Itoa(port)),
		dir: filepath.Join(s.Dir, "redis"), port: port,
	}
	r.command, r.ready = r.run, func(ctx context.Context) error { return RedisAnswers(ctx, r.Addr) }
	return r
}

func (r *Redis) prepareAndStart(ctx context.Context) error {
	var err error
	if r.program, r.libraries, err = r.stack.fetcher().redis(ctx); err != nil {
		return err
	}
	if err := r.stack.account.mkdir(r.dir); err != nil {
		return fmt.Errorf("localstack: %w", err)
	}
	return r.Start(ctx)
}

func (r *Redis) run() (*exec.Cmd, error) {
	cmd := exec.Command(r.program, "--bind", Host, "--port", strconv.Itoa(r.port), "--dir", r.dir, "--daemonize", "no",
		"--save", "", "--appendonly", "yes", "--appendfsync", "no")
	cmd.Dir = r.dir
	cmd.Env = []string{"PATH=/usr/bin:/bin", "LC_ALL=C.UTF-8", "TZ=UTC"}
	if r.libraries != "" {
		cmd.Env = append(cmd.Env, "LD_LIBRARY_PATH="+r.libraries)
	}
	return cmd, nil
}

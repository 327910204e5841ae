package main

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"time"
)

// cores shows what a second core brings to a proxy that is short of one.
func cores(b *bench) *scenario {
	const clients = 16
	sc := &scenario{
		name: "cores", title: "A second core",
		note: fmt.Sprintf("%d clients, each with %d requests under way, half of which leave in one write. Servers and clients would take a machine's two cores from the proxy, so these are no such: bench/canned stands "+
			"before PostgreSQL and answers that one statement itself, with bytes made in advance; the clients send bytes made in advance, and compare what comes with what should. What is left is the proxy's work for each message, "+
			"and it cannot be compared with the other tables. *µs* is the time from one statement to the next, of all clients together.", clients, pipelineDepth),
		keys: []string{"mode"}, cost: "µs", poolers: true, canned: true, loops: []int{1, 2},
		columns: []column{
			{name: "statements/s"},
			{name: "clients' cores", digits: 2},
			{name: "canned's cores", digits: 2},
			{name: "proxy's cores", digits: 2},
			{name: "CPU µs", digits: 2},
			{name: "µs", digits: 2},
		},
	}
	for _, pl := range pipelines() {
		sc.points = append(sc.points, point{labels: []string{pl.name}, measure: func(ctx context.Context, p *peer) (s sample, err error) {
			err = pl.run(ctx, p, clients, func(answered func() int64) error {
				s, err = b.cores(ctx, p, answered)
				return err
			})
			return s, err
		}})
	}
	return sc
}

// cores measures while clients are at work.
func (b *bench) cores(ctx context.Context, p *peer, answered func() int64) (sample, error) {
	read := func() (at time.Time, n int64, own, canned, proxy time.Duration, err error) {
		at, n = time.Now(), answered()
		if own, err = ownCPU(); err != nil {
			return
		}
		of, err := b.canned.usage()
		if err != nil {
			return
		}
		used, err := p.usage()
		return at, n, own, of.user + of.system, used.user + used.system, err
	}
	at0, n0, own0, canned0, proxy0, err := read()
	if err != nil {
		return nil, err
	}
	select {
	case <-time.After(time.Duration(b.seconds) * time.Second):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	at, n, own, canned, proxy, err := read()
	if err != nil {
		return nil, err
	}
	if n == n0 {
		return nil, fmt.Errorf("no answer in %d s", b.seconds)
	}
	wall, count := at.Sub(at0).Seconds(), float64(n-n0)
	part := func(used time.Duration) float64 { return used.Seconds() / wall }
	return sample{count / wall, part(own - own0), part(canned - canned0), part(proxy - proxy0), float64((proxy - proxy0).Microseconds()) / count, wall * 1e6 / count}, nil
}

// startCanned puts bench/canned before the first server.
func (b *bench) startCanned(ctx context.Context) error {
	path := filepath.Join(b.dir, "canned")
	if _, err := output(ctx, "go", "build", "-o", path, "./bench/canned"); err != nil {
		return err
	}
	srv := b.stack.Postgres[0].Primary
	b.canned = &peer{name: "canned", bench: b, command: func(port int) (*exec.Cmd, error) {
		return exec.Command(path, "-listen", fmt.Sprintf("127.0.0.1:%d", port), "-server", fmt.Sprintf("%s:%d", srv.Host, srv.Port), "-statement", cannedStatement), nil
	}}
	return b.canned.start(ctx)
}

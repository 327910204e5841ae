package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sync/errgroup"
)

// idle is the memory that clients take who have asked one thing and then keep still.
func idle(b *bench) *scenario {
	return &scenario{
		name: "idle", title: "Idle clients",
		note: fmt.Sprintf("%d clients log in by SCRAM-SHA-256 without TLS, run one statement each and keep still. Resident memory of the proxy's process, which is new, with them less "+
			"without them, by client; read when it has stopped falling. Goal: 8 KB.", b.idle),
		keys: []string{"clients"}, cost: "KB per client", poolers: true, fresh: true, rounds: 1,
		columns: []column{{name: "logins/s"}, {name: "KB per client", digits: 1}, {name: "MB in all"}},
		points: []point{{labels: []string{fmt.Sprint(b.idle)}, measure: func(ctx context.Context, p *peer) (sample, error) {
			return p.idle(ctx, b.idle)
		}}},
	}
}

// portsOfAddress is how many clients come from one address: each has a local port, of which the system gives out some 28,000, and it searches
// longer and longer for a free one when a quarter of them is taken, also by connections that have ended less than a minute ago.
const portsOfAddress = 2000

func (p *peer) idle(ctx context.Context, clients int) (s sample, err error) {
	if clients+200 > p.bench.files {
		return nil, fmt.Errorf("-idle %d needs %d open files, and %d are allowed: raise the hard limit (ulimit -Hn)", clients, clients+200, p.bench.files)
	}
	before, err := p.usage()
	if err != nil {
		return nil, err
	}
	conns := make([]*pgconn.PgConn, clients)
	defer func() {
		for _, c := range conns {
			if c != nil {
				_ = c.Conn().Close() // nobody waits for its farewell
			}
		}
	}()
	from := time.Now()
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(16)
	for i := range conns {
		g.Go(func() (err error) {
			conns[i], err = p.visit(gctx, i)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	rate := float64(clients) / time.Since(from).Seconds()
	after, err := p.settle(ctx)
	if err != nil {
		return nil, err
	}
	return sample{rate, float64(after.resident-before.resident) / 1024 / float64(clients), float64(after.resident) / (1 << 20)}, nil
}

// visit logs in as the i-th client and runs one statement. The loopback network has 16 million addresses to come from.
func (p *peer) visit(ctx context.Context, i int) (*pgconn.PgConn, error) {
	conf, err := pgconn.ParseConfig(p.dsn(false, false))
	if err != nil {
		return nil, err
	}
	conf.DialFunc = (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(2+i/portsOfAddress))}}).DialContext
	c, err := pgconn.ConnectConfig(ctx, conf)
	if err != nil {
		return nil, err
	}
	if _, err := c.Exec(ctx, "SELECT 1").ReadAll(); err != nil {
		return nil, errors.Join(err, c.Conn().Close())
	}
	return c, nil
}

// settle waits until resident memory has not fallen by a hundredth for three seconds, half a minute at most.
func (p *peer) settle(ctx context.Context) (last usage, err error) {
	last, err = p.usage()
	for quiet, i := 0, 0; err == nil && quiet < 3 && i < 30; i++ {
		select {
		case <-ctx.Done():
			return last, ctx.Err()
		case <-time.After(time.Second):
		}
		var now usage
		now, err = p.usage()
		if quiet++; now.resident < last.resident*99/100 {
			quiet = 0
		}
		last = now
	}
	return last, err
}

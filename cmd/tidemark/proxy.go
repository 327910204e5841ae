package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/spf13/cobra"

	"github.com/tidemarkdb/tidemark/cqrs"
	"github.com/tidemarkdb/tidemark/cqrs/kafka"
	"github.com/tidemarkdb/tidemark/internal/backend"
	"github.com/tidemarkdb/tidemark/internal/config"
	"github.com/tidemarkdb/tidemark/internal/loop"
	"github.com/tidemarkdb/tidemark/proxy"
)

func newProxy() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "proxy",
		Short: "Serve PostgreSQL clients",
		Long: `Listens for PostgreSQL clients and sends each statement where its rows are: to the shard that its key names, writes to
the primary, reads outside of transactions to the replicas in turn, and reads of read models to Elasticsearch or
Redis. Under tidemark.consistency = 'session', the default, a session's reads see everything that it wrote itself.

Until the schema can be read, which is tried every second, clients are refused with SQLSTATE 57P03 and told why.

SHOW tidemark.route tells where the last statement went; SELECT * FROM tidemark.endpoints, tidemark.pools and
tidemark.lag show the state of the servers, of the connections to them, and of the read models.

SIGTERM or Ctrl-C drains: new clients are refused with 57P03, idle ones are sent away at once, others when their transaction has
ended, or after drain_timeout. A second signal cuts off those that are left. SIGHUP reads the configuration again.
SIGUSR2 starts this program again, as it is on disk now, on the same listening sockets, and drains this process once the
new one serves. See docs/admin.md for this, for systemd, and for the admin database.`,
		Example: `  tidemark proxy -c shop.yaml
  psql "postgres://shop@127.0.0.1:6432/shop"              once it is ready
  curl -s http://127.0.0.1:9632/health                    every server and store
  tidemark check --online shop.yaml                       before the first start`,
		Args: args(cobra.NoArgs),
	}
	file := configFlag(cmd)
	leash := leashFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := load(*file)
		if err != nil {
			return err
		}
		log := newLogger(os.Stderr, c.Log)
		ctx, cancel := leashed(cmd.Context(), *leash, os.Stdin)
		defer cancel(nil)
		return runProxy(ctx, c, log)
	}
	return cmd
}

// proxyProcess is what the process consists of.
type proxyProcess struct {
	c       *config.Config
	log     *slog.Logger
	engine  loop.Engine
	backend *backend.Backend
	levels  *cqrs.Levels
	views   []*lateView
	proxy   *proxy.Proxy
	tracing *tracing
	schema  catalogConn

	current   atomic.Pointer[config.Config] // c, or what a reload has put in its place
	reloading sync.Mutex
	sockets   *sockets
	serving   chan struct{} // closed once clients are served
	notify    *notifier
	stop      context.CancelCauseFunc // begins the drain
	hurry     func()                  // cuts it short
	hurried   context.Context
}

// newProxyProcess makes what the process consists of. It connects to nothing.
func newProxyProcess(c *config.Config, s *sockets, log *slog.Logger) (p *proxyProcess, err error) {
	p = &proxyProcess{c: c, sockets: s, log: log, levels: cqrs.NewLevels(cqrs.LevelLimits{}), notify: newNotifier(log), tracing: &tracing{log: log}, serving: make(chan struct{})}
	p.current.Store(c)
	if p.engine, err = loop.New(c.Loop()); err != nil {
		return nil, fmt.Errorf("start the loops: %w", err)
	}
	bc, err := c.Backend()
	if err != nil {
		return nil, err
	}
	if p.backend, err = backend.New(bc, p.engine, log); err != nil {
		return nil, err
	}
	return p, p.open()
}

func runProxy(ctx context.Context, c *config.Config, log *slog.Logger) (err error) {
	inherited, err := inheritSockets(inheritedEnv, openInherited)
	if err != nil {
		return err
	}
	p, err := newProxyProcess(c, inherited, log)
	if err != nil {
		return err
	}
	ctx, p.stop = context.WithCancelCause(ctx)
	defer p.stop(nil)
	p.hurried, p.hurry = context.WithCancel(context.WithoutCancel(ctx))
	defer p.hurry()
	s := newService("proxy")
	if len(c.Views) > 0 {
		bus, err := p.openBus()
		if err != nil {
			return err
		}
		defer bus.Close()
		s.task("follow levels", cqrs.NewFollower(bus, c.Names(), p.levels, log).Run)
		s.endpoints.probes = append(s.endpoints.probes, probe{name: "kafka", optional: true, run: func(ctx context.Context) (string, error) { return "", bus.Health(ctx) }})
	}
	s.listen, s.drainTimeout, s.handedOver = p.sockets.listenHTTP, p.drainTimeout, proxy.ErrHandedOver
	if p.sockets.handedOver() {
		s.hold = p.serving
	}
	if err := p.sockets.listen(ctx, c.Listen, unixSocket{c.UnixSocketPath(), c.UnixSocket.Mode, c.UnixSocket.Group}); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.sockets.close()) }()
	s.task("serve clients", func(ctx context.Context) error { return p.serve(ctx, s.endpoints.ready) })
	s.endpoints.probes = append(s.endpoints.probes, p.probes()...)
	s.endpoints.metrics.MustRegister(p.metrics(), meterMetrics(p.proxy.Meters), p.tracing.metrics())
	drained := make(chan struct{})
	var controlled sync.WaitGroup
	// A handover passes on every socket, so no signal is heeded before they are open.
	s.opened = func() { controlled.Go(func() { p.control(ctx, drained) }) }
	defer controlled.Wait()
	defer close(drained)
	return s.run(ctx, c, c.HTTP, log)
}

// open makes the proxy and its views. It connects to nothing.
func (p *proxyProcess) open() error {
	shardMap, err := p.c.ShardMap()
	if err != nil {
		return err
	}
	p.c.Warn = func(err error) { p.log.Warn("TLS for clients", "error", err) }
	pc, err := p.c.Proxy()
	if err != nil {
		return err
	}
	var trace func()
	if pc.Tracing, trace, _, err = p.tracing.prepare(p.c); err != nil {
		return err
	}
	trace()
	views := map[string]cqrs.View{}
	for _, t := range p.served() {
		v := t.View("tidemark." + t.Name)
		views[v.Name()] = v
	}
	for _, v := range p.c.Views {
		late := &lateView{c: p.c, v: v}
		p.views = append(p.views, late)
		views[v.Name] = late
		schema, name := config.SplitTable(v.From)
		projection := cqrs.Projection{ViewID: cqrs.ViewID{Name: v.Name, Generation: generation}, Tables: []cqrs.Table{{Schema: schema, Name: name}}}
		p.levels.Track(projection.Tracked(p.c.Names(), p.c.ViewShards(v)))
	}
	p.proxy, err = proxy.New(pc, proxy.Parts{
		Engine: p.engine, Backend: p.backend, Map: shardMap, Catalog: p.catalog, Views: views, Levels: p.levels,
		ServerUser: p.c.Database.User, Lookup: newLookup(p.current.Load), Version: version(), Log: p.log, Admin: p.admin(),
		SocketKept: p.sockets.kept, Elsewhere: p.sockets.earlier.cancel,
	})
	return err
}

func (p *proxyProcess) openBus() (*kafka.Bus, error) {
	cfg, err := p.c.Bus(p.log)
	if err != nil {
		return nil, err
	}
	return kafka.Open(cfg)
}

// serve serves clients until ctx ends, then drains: engine and backend outlive the clients. A process that has been handed
// its sockets leaves the clients to the one before until it can serve them; any other accepts them while it starts, and
// tells them why they are not served.
func (p *proxyProcess) serve(ctx context.Context, ready *readiness) error {
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	checked := make(chan error, 1)
	go func() { checked <- p.backend.Run(running) }()

	ready.when(p.unready)
	starts, stopStart := context.WithCancel(ctx)
	defer stopStart()
	start := func() error {
		err := p.proxy.Start(starts)
		if err == nil {
			p.started(running)
		}
		return err
	}
	var starting sync.WaitGroup
	var err error
	if p.sockets.handedOver() {
		err = start()
	} else {
		starting.Go(func() { _ = start() }) // it fails only when it is stopped
	}
	if err == nil {
		err = p.proxy.Serve(ctx, p.sockets.clients...)
	}
	stopStart()
	starting.Wait()
	if !errors.Is(context.Cause(ctx), proxy.ErrHandedOver) { // else it is the new process that the manager looks at
		ready.not("stopping") // before anybody hears of it
		p.notify.stopping()
	}
	err = stopped(ctx, err)
	drain, cancel := context.WithTimeout(p.hurried, p.drainTimeout())
	defer cancel()
	if n := p.proxy.Drain(drain); n > 0 {
		p.log.Warn("clients are cut off", "clients", n)
	}
	last, cancelLast := context.WithTimeout(running, stopMargin/2)
	defer cancelLast()
	err = errors.Join(err, p.backend.Close(last), p.engine.Close(last))
	p.schema.close()
	p.tracing.close(running)
	stop()
	return errors.Join(err, <-checked)
}

// started tells all who wait for it that clients are served. What it begins ends with running.
func (p *proxyProcess) started(running context.Context) {
	p.log.Info("serving clients", "address", strings.Join(p.sockets.addresses(), ", "))
	p.notify.ready("serving " + p.c.Database.Name)
	if every := watchdogInterval(os.Getenv); every > 0 {
		go p.notify.watch(running, every, func(ctx context.Context) bool { return loopsTurn(ctx, p.engine) })
	}
	close(p.serving)
	if err := p.sockets.serving(); err != nil {
		p.log.Warn("the process that handed over does not hear that this one serves", "error", err)
	}
}

// unready says what the proxy waits for, or names a shard without a primary.
func (p *proxyProcess) unready() string {
	if why := p.proxy.Starting(); why != "" {
		return why
	}
	for _, s := range p.backend.Shards() {
		if _, err := s.Primary(); err != nil {
			return fmt.Sprintf("shard %s has no primary", s.Name())
		}
	}
	return ""
}

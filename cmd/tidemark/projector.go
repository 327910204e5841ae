package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/tidemarkdb/tidemark/cqrs"
	"github.com/tidemarkdb/tidemark/cqrs/kafka"
	"github.com/tidemarkdb/tidemark/internal/config"
	"github.com/tidemarkdb/tidemark/internal/lsn"
	"github.com/tidemarkdb/tidemark/replication"
)

func newProjector() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "projector",
		Short: "Publish changes to Kafka and keep read models up to date",
		Long: `Takes every committed change of the captured tables from each shard's write-ahead log to Kafka, beginning with a
snapshot of what is there already, and applies them to the read models in Elasticsearch and Redis.

Run as many as you like: for each shard one of them publishes while the others wait to take over, and the partitions
of the read models are shared out among all. Killing one loses and repeats nothing that a reader can see.
An event that can never be applied goes to the dead-letter queue (see tidemark dlq) without stopping others;
while a store is away its events wait.

What it creates: in each shard the replication slot, the publication and the schema tidemark; on Kafka the topics;
the indices of read models. /ready is 200 once every shard publishes here or waits for another projector to go.`,
		Example: `  tidemark projector -c shop.yaml
  tidemark projector -c shop.yaml --http 127.0.0.1:9633   beside a proxy on the same machine
  tidemark check --online shop.yaml                       what stands in the way of capture?`,
		Args: args(cobra.NoArgs),
	}
	file := configFlag(cmd)
	http := cmd.Flags().String("http", "", "address for /health, /ready and /metrics instead of the file's; off for none")
	leash := leashFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := load(*file)
		if err != nil {
			return err
		}
		log := newLogger(os.Stderr, c.Log)
		ctx, cancel := leashed(cmd.Context(), *leash, os.Stdin)
		defer cancel(nil)
		return runProjector(ctx, c, httpAddress(*http, c), log)
	}
	return cmd
}

// httpAddress is the flag where it is given.
func httpAddress(flag string, c *config.Config) string {
	switch flag {
	case "":
		return c.HTTP
	case "off":
		return ""
	}
	return flag
}

// projector is what the process consists of.
type projector struct {
	c        *config.Config
	log      *slog.Logger
	bus      *kafka.Bus
	levels   *cqrs.Levels
	models   []readModel
	runner   *cqrs.Runner
	captures []capture
}

// capture is one shard's.
type capture struct {
	shard config.Shard
	*replication.Capture
	publisher *cqrs.Publisher
}

func runProjector(ctx context.Context, c *config.Config, http string, log *slog.Logger) (err error) {
	if len(c.Capture.Tables) == 0 {
		return usageError{fmt.Errorf("%s: there is nothing to project: neither views nor capture.tables are given", c.File)}
	}
	if err := c.ServerFiles(); err != nil {
		return err
	}
	p := &projector{c: c, log: log, levels: cqrs.NewLevels(cqrs.LevelLimits{})}
	busConfig, err := c.Bus(log)
	if err != nil {
		return err
	}
	if p.bus, err = kafka.Open(busConfig); err != nil {
		return err
	}
	defer p.bus.Close()
	if p.models, err = openModels(ctx, c, log); err != nil {
		return stopped(ctx, err)
	}
	defer func() { err = errors.Join(err, closeModels(p.models)) }()
	if err := p.openRunner(); err != nil {
		return err
	}

	s := newService("projector")
	follower := cqrs.NewFollower(p.bus, c.Names(), p.levels, log)
	s.task("follow levels", follower.Run)
	s.task("project", p.runner.Run)
	for _, m := range p.models {
		s.task("prepare view "+m.Name(), func(ctx context.Context) error { return p.prepare(ctx, m) })
	}
	if err := p.openCaptures(s); err != nil {
		return err
	}
	s.endpoints.probes = p.probes()
	s.endpoints.metrics.MustRegister(p.metrics())
	s.endpoints.ready.when(p.unready)
	return s.run(ctx, c, http, log)
}

// prepare tries until it works: a view of an empty table can be read too, and its store may be away when the process starts.
func (p *projector) prepare(ctx context.Context, m readModel) error {
	for failed := false; ; failed = true {
		err := m.Prepare(ctx)
		if err == nil || ctx.Err() != nil {
			return stopped(ctx, err)
		}
		if !failed { // /health repeats it
			p.log.Warn("cannot prepare a view; trying again until it works", "view", m.Name(), "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(modelRetry):
		}
	}
}

// stopped is nil when ctx ended: then err came of it.
func stopped(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// openRunner makes the runner of all views.
func (p *projector) openRunner() (err error) {
	var views []cqrs.Projection
	for i, v := range p.c.Views {
		schema, name := config.SplitTable(v.From)
		projection := cqrs.Projection{ViewID: cqrs.ViewID{Name: v.Name, Generation: generation}, Tables: []cqrs.Table{{Schema: schema, Name: name}}, Projector: p.models[i]}
		p.levels.Track(projection.Tracked(p.c.Names(), p.c.ViewShards(v)))
		views = append(views, projection)
	}
	p.runner, err = cqrs.NewRunner(p.bus, cqrs.RunnerConfig{Names: p.c.Names(), Partitions: p.c.Kafka.Partitions, Levels: p.levels, Log: p.log}, views...)
	return err
}

// generation of every view: there is one until views can be rebuilt beside themselves.
const generation = 1

// openCaptures makes a capture and a publisher for each shard that has captured tables, and the tasks that run them.
func (p *projector) openCaptures(s *service) error {
	for _, shard := range p.c.Shards {
		cfg, some := p.c.CaptureOf(shard)
		if !some {
			continue
		}
		captured, err := replication.New(cfg, p.log)
		if err != nil {
			return err
		}
		pc := p.c.Publisher(shard, p.log)
		pc.Acked = func(l lsn.LSN) { captured.Acked(l) }
		publisher, err := cqrs.NewPublisher(p.bus, pc)
		if err != nil {
			return err
		}
		s.task("publish shard "+shard.Name, publisher.Run)
		s.task("capture", func(ctx context.Context) error { return captured.Run(ctx, publisher) })
		p.captures = append(p.captures, capture{shard, captured, publisher})
	}
	return nil
}

// unready names a shard that is neither published by this process nor waiting for another one's end.
func (p *projector) unready() string {
	for _, c := range p.captures {
		switch status := c.Status(); status.State {
		case replication.Waiting, replication.Snapshotting, replication.Streaming:
		default:
			return fmt.Sprintf("capture of shard %s is %s", c.shard.Name, status.State)
		}
	}
	return ""
}

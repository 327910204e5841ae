package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"

	"github.com/tidemarkdb/tidemark/internal/config"
)

// service is a process that runs until it is told to stop: proxy or projector.
type service struct {
	name      string
	endpoints endpoints
	// tasks run side by side. When one returns an error, or ctx ends, the context of all ends.
	tasks []func(ctx context.Context) error
}

// newService has the metrics that every process has.
func newService(name string) *service {
	metrics := prometheus.NewRegistry()
	metrics.MustRegister(
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "tidemark_build_info", Help: "1, with the version and what this process is.",
			ConstLabels: prometheus.Labels{"version": version(), "process": name},
		}, func() float64 { return 1 }),
	)
	return &service{name: name, endpoints: endpoints{ready: newReadiness(), metrics: metrics}}
}

// task adds something to run.
func (s *service) task(what string, run func(ctx context.Context) error) {
	s.tasks = append(s.tasks, func(ctx context.Context) error {
		if err := run(ctx); err != nil && !(ctx.Err() != nil && errors.Is(err, context.Canceled)) {
			return fmt.Errorf("%s: %w", what, err)
		}
		return nil
	})
}

// stopMargin is what stopping may take beyond drain_timeout before the process gives up on it.
const stopMargin = 5 * time.Second

// run serves HTTP on the address, runs the tasks, and returns when all have ended: nil after a stop that was asked for.
func (s *service) run(ctx context.Context, c *config.Config, http string, log *slog.Logger) error {
	eg, ctx := errgroup.WithContext(ctx)
	serve, err := serveHTTP(ctx, http, s.endpoints.handler(), log)
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() {
		s.endpoints.ready.not("stopping")
		log.Info("stopping", "why", stopReason(ctx))
		time.AfterFunc(c.DrainTimeout+stopMargin, func() {
			log.Error("stopping takes too long; giving up", "after", c.DrainTimeout+stopMargin)
			os.Exit(exitFailure)
		})
	})
	eg.Go(serve)
	for _, task := range s.tasks {
		eg.Go(func() error { return task(ctx) })
	}
	log.Info("started", "process", s.name, "version", version(), "config", c.File)
	if err := eg.Wait(); err != nil {
		return err
	}
	log.Info("stopped", "process", s.name)
	return nil
}

func stopReason(ctx context.Context) string {
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, errLeash):
		return cause.Error()
	case errors.Is(cause, context.Canceled):
		return "signal"
	default:
		return cause.Error()
	}
}

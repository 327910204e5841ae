package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
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

	listen       func(ctx context.Context, address string) (net.Listener, error) // for HTTP
	opened       func()                                                          // called once all sockets are open; nil: nobody wants to know
	drainTimeout func() time.Duration                                            // nil: the configuration's
	handedOver   error                                                           // the cause of a stop after which another process serves HTTP on the same socket
	hold         <-chan struct{}                                                 // HTTP is left to the process before until this is closed; nil: there is none
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
	return &service{name: name, listen: new(sockets).listenHTTP, endpoints: endpoints{ready: newReadiness(), metrics: metrics}}
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
	whole, ctx := errgroup.WithContext(ctx)
	// HTTP outlives the drain, so that /ready says what is going on; not where another process has taken it over.
	web, stopHTTP := context.WithCancel(context.WithoutCancel(ctx))
	defer stopHTTP()
	serve, err := serveHTTP(web, s.listen, http, s.endpoints.handler(), log)
	if err != nil {
		return err
	}
	if s.opened != nil {
		s.opened()
	}
	drainTimeout := s.drainTimeout
	if drainTimeout == nil {
		drainTimeout = func() time.Duration { return c.DrainTimeout }
	}
	context.AfterFunc(ctx, func() {
		if s.handedOver != nil && errors.Is(context.Cause(ctx), s.handedOver) {
			stopHTTP() // who asks now means the other process
		} else {
			s.endpoints.ready.not("stopping")
		}
		log.Info("stopping", "why", stopReason(ctx))
		most := drainTimeout() + stopMargin
		time.AfterFunc(most, func() {
			log.Error("stopping takes too long; giving up", "after", most)
			os.Exit(exitFailure)
		})
	})
	whole.Go(func() error {
		if s.hold != nil {
			select {
			case <-s.hold:
			case <-web.Done():
			}
		}
		return serve()
	})
	whole.Go(func() error {
		defer stopHTTP()
		tasks, ctx := errgroup.WithContext(ctx)
		for _, task := range s.tasks {
			tasks.Go(func() error { return task(ctx) })
		}
		return tasks.Wait()
	})
	log.Info("started", "process", s.name, "version", version(), "config", c.File)
	if err := whole.Wait(); err != nil {
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

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// httpShutdown bounds how long requests in flight may take when the process stops.
const httpShutdown = 2 * time.Second

// endpoints is the HTTP side of a process.
type endpoints struct {
	probes  []probe
	ready   *readiness
	metrics *prometheus.Registry
}

func (e endpoints) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /health", serveHealth(e.probes))
	mux.Handle("GET /ready", e.ready)
	mux.Handle("GET /metrics", promhttp.HandlerFor(e.metrics, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintf(w, "tidemark %s\n\n/health   every check, as JSON; 200 or 503\n/ready    whether new work should be sent here\n/metrics  for Prometheus\n", version())
	})
	return mux
}

// serveHTTP serves until ctx ends. An empty address serves nothing. The listener is opened before it returns, so that a port in use
// is an error of the start; wait returns when the server has ended.
func serveHTTP(ctx context.Context, listen func(ctx context.Context, address string) (net.Listener, error), address string, h http.Handler, log *slog.Logger) (wait func() error, err error) {
	if address == "" {
		return func() error { return nil }, nil
	}
	l, err := listen(ctx, address)
	if err != nil {
		return nil, fmt.Errorf("listen for HTTP: %w; choose another address with http: or --http", err)
	}
	server := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	log.Info("serving HTTP", "address", l.Addr().String())
	return func() error {
		stopped := make(chan error, 1)
		stop := context.AfterFunc(ctx, func() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), httpShutdown)
			defer cancel()
			stopped <- server.Shutdown(ctx)
		})
		defer stop()
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve HTTP: %w", err)
		}
		if err := <-stopped; err != nil && !errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("stop HTTP: %w", err)
		}
		return nil
	}, nil
}

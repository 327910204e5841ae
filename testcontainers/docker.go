package testcontainers

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
	tc "github.com/testcontainers/testcontainers-go"
	"github.com/testcontainers/testcontainers-go/log"
	tcnetwork "github.com/testcontainers/testcontainers-go/network"
	"golang.org/x/sync/errgroup"
)

// Limits of the Docker path.
const (
	engineTimeout = 5 * time.Second       // for an engine to answer at all
	readyTimeout  = 5 * time.Minute       // from a container's start until its service answers
	pollInterval  = 50 * time.Millisecond // between two looks at readiness
	stopTimeout   = 20 * time.Second      // for a clean shutdown
)

// askEngine returns nil when a Docker engine can be reached, else why not. testcontainers-go says by a panic that it finds none, and waits without
// end for one that takes connections and is silent: then its goroutine stays behind.
func askEngine(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, engineTimeout)
	defer cancel()
	answer := make(chan error, 1)
	go func() {
		defer func() {
			if r := recover(); r != nil {
				answer <- fmt.Errorf("%v", r)
			}
		}()
		provider, err := tc.NewDockerProvider(tc.WithLogger(log.NewNoopLogger()))
		if err != nil {
			answer <- err
			return
		}
		answer <- errors.Join(provider.Health(ctx), provider.Close())
	}()
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// dockerConfigured looks for what testcontainers-go would use. Without any sign of an engine it is not asked: that can take seconds.
func dockerConfigured() bool {
	if os.Getenv("DOCKER_HOST") != "" {
		return true
	}
	places := []string{"/var/run/docker.sock"}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		places = append(places, filepath.Join(dir, "docker.sock"))
	}
	if home, err := os.UserHomeDir(); err == nil {
		places = append(places, filepath.Join(home, ".testcontainers.properties"), filepath.Join(home, ".docker/run/docker.sock"), filepath.Join(home, ".docker/desktop/docker.sock"))
	}
	for _, path := range places {
		if _, err := os.Stat(path); err == nil {
			return true
		}
	}
	return false
}

// docker starts the containers of one cluster.
type docker struct {
	spec    Spec
	begun   time.Time
	host    string // where published ports are reached
	network *tc.DockerNetwork
	engine  *tc.DockerClient

	mu         sync.Mutex // guards what follows, and Spec.Progress
	containers []*dockerService
}

// startDocker starts the cluster in containers on a network of its own.
func startDocker(ctx context.Context, spec Spec) (*Cluster, error) {
	if err := askEngine(ctx); err != nil {
		return nil, fmt.Errorf("testcontainers: no Docker engine answers: %w", err)
	}
	d := &docker{spec: spec, begun: time.Now()}
	var err error
	if d.engine, err = tc.NewDockerClientWithOpts(ctx); err != nil {
		return nil, fmt.Errorf("testcontainers: %w", err)
	}
	provider, err := tc.NewDockerProvider(tc.WithLogger(log.NewNoopLogger()))
	if err != nil {
		return nil, fmt.Errorf("testcontainers: %w", err)
	}
	if d.host, err = provider.DaemonHost(ctx); err != nil {
		return nil, fmt.Errorf("testcontainers: %w", err)
	}
	if d.host == "localhost" {
		d.host = "127.0.0.1" // published there only, and localhost may mean ::1
	}
	if d.network, err = tcnetwork.New(ctx); err != nil {
		return nil, fmt.Errorf("testcontainers: make a Docker network: %w", err)
	}
	c := &Cluster{stop: d.stop}
	g, ctx := errgroup.WithContext(ctx)
	for i := range spec.Shards {
		shard := &Shard{Name: shardName(i), Replicas: make([]*Server, spec.Replicas)}
		c.Shards = append(c.Shards, shard)
		g.Go(func() error { return d.postgres(ctx, shard) })
	}
	if spec.Kafka {
		g.Go(func() (err error) { c.Kafka, err = d.kafka(ctx); return err })
	}
	if spec.Elasticsearch {
		g.Go(func() (err error) { c.Elasticsearch, err = d.elasticsearch(ctx); return err })
	}
	if spec.Redis {
		g.Go(func() (err error) { c.Redis, err = d.redis(ctx); return err })
	}
	if err := g.Wait(); err != nil {
		return nil, errors.Join(err, d.stop())
	}
	return c, nil
}

// stop removes all containers, then their network.
func (d *docker) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var g errgroup.Group
	for _, s := range d.containers {
		g.Go(func() error { return s.container.Terminate(ctx, tc.StopTimeout(0)) })
	}
	return errors.Join(g.Wait(), d.network.Remove(ctx), d.engine.Close())
}

func (d *docker) report(service, what string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.spec.Progress(fmt.Sprintf("%5.1fs %s %s", time.Since(d.begun).Seconds(), service, what))
}

// dockerService is one container.
type dockerService struct {
	name      string
	docker    *docker
	container *tc.DockerContainer
	ready     func(context.Context) error
}

// run starts a container whose inner port is published on a host port that stays the same for the container's life, and waits for ready.
func (d *docker) run(ctx context.Context, name, image string, inner, published int, ready func(context.Context) error, options ...tc.ContainerCustomizer) (*dockerService, error) {
	d.report(name, "starting from image "+image)
	port, err := network.ParsePort(strconv.Itoa(inner) + "/tcp")
	if err != nil {
		return nil, err
	}
	// An engine on another machine, or outside of the container that the tests run in, is not reached by the loopback interface.
	publish := netip.IPv4Unspecified()
	if addr, err := netip.ParseAddr(d.host); err == nil && addr.IsLoopback() {
		publish = addr
	}
	options = append(options,
		tc.WithLogger(log.NewNoopLogger()),
		tc.WithExposedPorts(port.String()),
		tc.WithHostConfigModifier(func(h *container.HostConfig) {
			h.PortBindings = network.PortMap{port: {{HostIP: publish, HostPort: strconv.Itoa(published)}}}
		}),
		tcnetwork.WithNetwork([]string{name}, d.network))
	// Another service's failure must not end the call in the middle: the engine would make a container that nobody knows, and stop would miss it.
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	create, cancel := context.WithTimeout(context.WithoutCancel(ctx), startTimeout)
	defer cancel()
	c, err := tc.Run(create, image, options...)
	s := &dockerService{name: name, docker: d, container: c, ready: ready}
	if c != nil {
		d.mu.Lock()
		d.containers = append(d.containers, s)
		d.mu.Unlock()
	}
	if err != nil {
		return nil, fmt.Errorf("testcontainers: %s from image %s: %w", name, image, err)
	}
	if err := s.waitReady(ctx); err != nil {
		return nil, err
	}
	d.report(name, "ready")
	return s, nil
}

// hostPort finds a port for a container to be published on. Docker would choose another one at each start.
func hostPort() (int, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("testcontainers: %w", err)
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
}

func (s *dockerService) Name() string { return s.name }

func (s *dockerService) Start(ctx context.Context) error {
	if _, err := s.docker.engine.ContainerStart(ctx, s.container.GetContainerID(), client.ContainerStartOptions{}); err != nil {
		return fmt.Errorf("testcontainers: start %s: %w", s.name, err)
	}
	return s.waitReady(ctx)
}

func (s *dockerService) Stop(ctx context.Context) error {
	seconds := int(stopTimeout / time.Second)
	if _, err := s.docker.engine.ContainerStop(ctx, s.container.GetContainerID(), client.ContainerStopOptions{Timeout: &seconds}); err != nil {
		return fmt.Errorf("testcontainers: stop %s: %w", s.name, err)
	}
	return nil
}

func (s *dockerService) Kill() error {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	if _, err := s.docker.engine.ContainerKill(ctx, s.container.GetContainerID(), client.ContainerKillOptions{Signal: "KILL"}); err != nil {
		return fmt.Errorf("testcontainers: kill %s: %w", s.name, err)
	}
	for {
		state, err := s.container.State(ctx)
		if err != nil {
			return fmt.Errorf("testcontainers: kill %s: %w", s.name, err)
		}
		if !state.Running {
			return nil
		}
		time.Sleep(pollInterval)
	}
}

func (s *dockerService) Pause() error {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	if _, err := s.docker.engine.ContainerPause(ctx, s.container.GetContainerID(), client.ContainerPauseOptions{}); err != nil {
		return fmt.Errorf("testcontainers: pause %s: %w", s.name, err)
	}
	return nil
}

func (s *dockerService) Resume() error {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	if _, err := s.docker.engine.ContainerUnpause(ctx, s.container.GetContainerID(), client.ContainerUnpauseOptions{}); err != nil {
		return fmt.Errorf("testcontainers: resume %s: %w", s.name, err)
	}
	return nil
}

// waitReady looks until the service answers or its container has ended.
func (s *dockerService) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	for {
		last := s.ready(ctx)
		if last == nil {
			return nil
		}
		state, err := s.container.State(ctx)
		if err == nil && !state.Running {
			return fmt.Errorf("testcontainers: %s ended while starting, exit code %d: %s", s.name, state.ExitCode, s.logTail(ctx))
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("testcontainers: %s does not answer: %w: %s", s.name, last, s.logTail(context.WithoutCancel(ctx)))
		case <-time.After(pollInterval):
		}
	}
}

package localstack

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

// Host is where every service listens.
const Host = "127.0.0.1"

// Spec says what to start. The zero Spec starts nothing.
type Spec struct {
	Shards        []PostgresSpec
	Kafka         bool
	Elasticsearch bool
	Redis         bool

	// Dir holds data, configuration and logs. A folder that an earlier stack kept is started again with its data. Empty means a temporary folder.
	// When this process is root the unprivileged user of the services must be able to enter every folder above (testing.T.TempDir is closed to it).
	Dir string
	// Memory puts the temporary folder on a file system in memory where there is one with several gigabytes free. Making the thousand files of
	// each PostgreSQL server takes a fraction of the time there.
	Memory bool
	// Keep leaves Dir in place when the stack stops, and stops every service cleanly. Otherwise services are stopped the quickest way
	// and Dir is removed.
	Keep bool
	// Durable has PostgreSQL wait for the disk at each commit (fsync). Without it data survives a crash of a process, not of the machine.
	Durable bool
	// Progress is called as things happen, by one goroutine at a time; nil means silence.
	Progress func(Event)
}

// State is what an Event tells about a service.
type State string

// States, in the order in which a service passes through them.
const (
	Fetching State = "fetching" // its program is being downloaded or installed
	Starting State = "starting"
	Ready    State = "ready"
	Stopped  State = "stopped"
)

// Event is one step of progress.
type Event struct {
	Service string // as Service.Name, or a distribution such as "postgres-18"
	State   State
	Detail  string        // one line for people; may be empty
	Elapsed time.Duration // since Start was called
}

func (e Event) String() string {
	s := fmt.Sprintf("%5.1fs %s %s", e.Elapsed.Seconds(), e.Service, e.State)
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	return s
}

// Stack is a set of running services.
type Stack struct {
	Dir      string
	Postgres []*Postgres // in the order of Spec.Shards
	Kafka    *Kafka      // nil when not asked for
	Elastic  *Elastic    // nil when not asked for
	Redis    *Redis      // nil when not asked for

	spec    Spec
	account *account
	nursery *nursery
	ports   ports
	lock    *os.File
	begun   time.Time
	saved   map[string]int // ports by service name, as in ports.json
	all     []*Service

	ctx      context.Context         // of what starts; its cause is the first error
	cancel   context.CancelCauseFunc // nil when nothing has been started
	parts    []*part
	postgres *part // one of parts

	progress sync.Mutex // held while Spec.Progress runs
	stopOnce sync.Once
	stopErr  error
}

// Start starts everything in spec, in parallel, and returns when all of it answers. When anything fails the rest is stopped.
// Missing programs are fetched first, which can take minutes on a new machine: give ctx the patience for it.
func Start(ctx context.Context, spec Spec) (*Stack, error) {
	s, err := Begin(ctx, spec)
	if err != nil {
		return nil, err
	}
	if err := s.Wait(ctx); err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	return s, nil
}

// Begin is a Start that does not wait: every address of the stack is known when it returns, and its services come up behind it, until ctx ends.
// WaitPostgres and Wait wait for them. Stop must be called, also when these fail.
func Begin(ctx context.Context, spec Spec) (*Stack, error) {
	if err := spec.check(); err != nil {
		return nil, err
	}
	a, err := unprivileged()
	if err != nil {
		return nil, err
	}
	s := &Stack{spec: spec, account: a, begun: time.Now(), nursery: newNursery()}
	if err := s.openDir(); err != nil {
		s.nursery.close()
		return nil, err
	}
	err = s.reservePorts()
	if err == nil {
		err = s.savePorts()
	}
	if err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	s.start(ctx)
	return s, nil
}

func (spec Spec) check() error {
	seen := map[string]bool{}
	for _, p := range spec.Shards {
		if err := p.check(); err != nil {
			return err
		}
		if seen[p.Name] {
			return fmt.Errorf("localstack: two shards are named %q", p.Name)
		}
		seen[p.Name] = true
	}
	return nil
}

// start starts every part in a goroutine of its own; Wait and Stop wait for them. The first that fails ends the others.
func (s *Stack) start(ctx context.Context) {
	s.ctx, s.cancel = context.WithCancelCause(ctx)
	begin := func(start func(context.Context) error) *part {
		p := &part{done: make(chan struct{})}
		s.parts = append(s.parts, p)
		go func() {
			defer close(p.done)
			if p.err = start(s.ctx); p.err != nil {
				s.cancel(p.err)
			}
		}()
		return p
	}
	s.postgres = begin(s.startPostgres)
	if s.Kafka != nil {
		begin(s.Kafka.prepareAndStart)
	}
	if s.Elastic != nil {
		begin(s.Elastic.prepareAndStart)
	}
	if s.Redis != nil {
		begin(s.Redis.prepareAndStart)
	}
}

// part is what starts by itself: all of PostgreSQL, or one of the others.
type part struct {
	done chan struct{} // closed when err is valid
	err  error
}

// WaitPostgres returns when every PostgreSQL server answers, or with the first error of anything that starts.
func (s *Stack) WaitPostgres(ctx context.Context) error { return s.waitFor(ctx, s.postgres) }

// Wait returns when everything answers, or with the first error of anything that starts.
func (s *Stack) Wait(ctx context.Context) error { return s.waitFor(ctx, s.parts...) }

func (s *Stack) waitFor(ctx context.Context, parts ...*part) error {
	for _, p := range parts {
		select {
		case <-p.done:
		case <-s.ctx.Done():
		case <-ctx.Done():
		}
		select {
		case <-p.done:
			if p.err != nil {
				return context.Cause(s.ctx) // the first error: p's may have come of it
			}
		default:
			return cmp.Or(context.Cause(ctx), context.Cause(s.ctx))
		}
	}
	return nil
}

// reservePorts lays out the services of the spec and gives each its port, the one of last time where that is free.
func (s *Stack) reservePorts() error {
	if b, err := os.ReadFile(filepath.Join(s.Dir, "ports.json")); err == nil {
		if err := json.Unmarshal(b, &s.saved); err != nil {
			return fmt.Errorf("localstack: %s: %w", filepath.Join(s.Dir, "ports.json"), err)
		}
	}
	ports := map[string]int{}
	var failed error
	port := func(name string) int {
		p, err := s.ports.reserve(s.saved[name])
		if err != nil {
			failed = errors.Join(failed, err)
		}
		ports[name] = p
		return p
	}
	for _, spec := range s.spec.Shards {
		s.Postgres = append(s.Postgres, newPostgres(s, spec, port))
	}
	if s.spec.Kafka {
		s.Kafka = newKafka(s, port("kafka"), port("kafka-controller"))
	}
	if s.spec.Elasticsearch {
		s.Elastic = newElastic(s, port("elasticsearch"))
	}
	if s.spec.Redis {
		s.Redis = newRedis(s, port("redis"))
	}
	s.saved = ports
	return failed
}

func (s *Stack) savePorts() error {
	b, err := json.MarshalIndent(s.saved, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(s.Dir, "ports.json"), append(b, '\n'), 0o644)
}

// service makes the Service of one process and notes it for Stop.
func (s *Stack) service(name string) *Service {
	svc := s.process(name, filepath.Join(s.Dir, "logs", name+".log"))
	s.all = append(s.all, svc)
	return svc
}

// process makes a Service that its maker stops.
func (s *Stack) process(name, logFile string) *Service {
	return &Service{name: name, stack: s, logFile: logFile, polite: syscall.SIGTERM, death: syscall.SIGKILL}
}

// Services lists all processes of the stack.
func (s *Stack) Services() []*Service { return s.all }

// Stop stops everything and, unless Spec.Keep, removes the stack's folder. Further calls return what the first returned.
func (s *Stack) Stop() error {
	s.stopOnce.Do(func() { s.stopErr = s.stopAll() })
	return s.stopErr
}

func (s *Stack) stopAll() error {
	if s.cancel != nil {
		s.cancel(errors.New("localstack: the stack is being stopped"))
		for _, p := range s.parts {
			<-p.done
		}
	}
	var g errgroup.Group
	for _, svc := range s.all {
		g.Go(func() error {
			if !svc.Running() {
				return nil
			}
			var err error
			if s.spec.Keep {
				err = svc.Stop(context.Background())
			} else {
				err = svc.abort()
			}
			s.report(svc.name, Stopped, "")
			return err
		})
	}
	err := g.Wait()
	s.nursery.close()
	s.ports.release()
	return errors.Join(err, s.closeDir())
}

func (s *Stack) report(service string, state State, detail string) {
	if s.spec.Progress == nil {
		return
	}
	s.progress.Lock()
	defer s.progress.Unlock()
	s.spec.Progress(Event{Service: service, State: state, Detail: detail, Elapsed: time.Since(s.begun)})
}

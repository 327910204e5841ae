package backend

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/tidemarkdb/tidemark/internal/lsn"
	"github.com/tidemarkdb/tidemark/internal/wire"
)

// Shard is one PostgreSQL cluster: a primary and its replicas. It is safe for concurrent use.
type Shard struct {
	name      string
	endpoints []*Endpoint

	mu   sync.Mutex // orders refreshes of view
	view atomic.Pointer[view]
	turn atomic.Uint32

	params      atomic.Pointer[serverParams]
	paramsKnown chan struct{} // closed once params is set
	paramsOnce  sync.Once
}

// view is what Pick looks at: made anew whenever a role or a breaker changes, never changed in place.
type view struct {
	primary    *Endpoint
	primaryErr *wire.Error // why there is no primary
	rota       []*Endpoint // healthy replicas, each as often as its weight says, evenly spread
}

type serverParams struct {
	values      map[string]string
	fromPrimary bool
}

func newShard(b *Backend, cfg ShardConfig) (*Shard, error) {
	s := &Shard{name: cfg.Name, paramsKnown: make(chan struct{})}
	for _, ec := range cfg.Endpoints {
		e, err := newEndpoint(b, s, cfg.Database, ec)
		if err != nil {
			return nil, fmt.Errorf("endpoint %s:%d: %w", ec.Host, ec.Port, err)
		}
		s.endpoints = append(s.endpoints, e)
	}
	s.refresh()
	return s, nil
}

// Name is the shard's name in the configuration and in tokens.
func (s *Shard) Name() string { return s.name }

// Replicated says whether a replica of the shard is healthy: else Pick makes no difference between reads and writes.
func (s *Shard) Replicated() bool { return len(s.view.Load().rota) > 0 }

// Endpoints returns all servers of the shard. The slice must not be changed.
func (s *Shard) Endpoints() []*Endpoint { return s.endpoints }

// Pick chooses where a statement runs. A Write goes to the primary. A Read goes, in turn and by weight, to the healthy
// replicas whose known replay level has reached min (0: any), and to the primary when there is none. It neither blocks
// nor allocates, and promises nothing about the endpoint's next moment: Acquire finds out.
//
// The error is a *wire.Error of code 57P03: the shard has no primary, or more than one.
func (s *Shard) Pick(access Access, min lsn.LSN) (*Endpoint, error) {
	v := s.view.Load()
	if access == Read && len(v.rota) > 0 {
		first := s.turn.Add(1)
		for i := range v.rota {
			e := v.rota[(int(first)+i)%len(v.rota)]
			if e.Level() >= min {
				return e, nil
			}
			e.Nudge()
		}
	}
	if v.primary == nil {
		return nil, v.primaryErr
	}
	return v.primary, nil
}

// Primary is the endpoint that takes writes, or Pick's error.
func (s *Shard) Primary() (*Endpoint, error) { return s.Pick(Write, 0) }

// ServerParams are the settings that a server of this shard reports to a client that logs in, the primary's rather than
// a replica's. It waits for the first health check or connection; the error is a *wire.Error. The map must not be changed.
func (s *Shard) ServerParams(ctx context.Context) (map[string]string, error) {
	if known := s.params.Load(); known != nil { // also when ctx has ended
		return known.values, nil
	}
	select {
	case <-s.paramsKnown:
		return s.params.Load().values, nil
	case <-ctx.Done():
		return nil, wire.Errorf(wire.CannotConnectNow, "no server of shard %q has answered so far: %w", s.name, ctx.Err()).
			WithHint("Look at the health of %s.", s.endpointNames())
	}
}

// Params are the ServerParams as far as they are known.
func (s *Shard) Params() (values map[string]string, ok bool) {
	p := s.params.Load()
	if p == nil {
		return nil, false
	}
	return p.values, true
}

func (s *Shard) setParams(values map[string]string, fromPrimary bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.params.Load(); old != nil && old.fromPrimary && !fromPrimary {
		return
	}
	s.params.Store(&serverParams{values, fromPrimary})
	s.paramsOnce.Do(func() { close(s.paramsKnown) })
}

// refresh makes the view anew from what is known of the endpoints.
func (s *Shard) refresh() {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := &view{}
	var up, down []*Endpoint // endpoints that said they are primary, by whether they answer
	for _, e := range s.endpoints {
		switch e.Role() {
		case RolePrimary:
			if e.breaker.current() == breakerOpen {
				down = append(down, e)
			} else {
				up = append(up, e)
			}
		case RoleReplica, RoleAuto:
		}
	}
	switch {
	case len(up) == 1:
		v.primary = up[0]
	case len(up) > 1:
		v.primaryErr = wire.Errorf(wire.CannotConnectNow, "shard %q has %d primaries: %s", s.name, len(up), names(up)).
			WithHint("Both take writes: stop one of them, or make it a replica. Nothing is written until then.")
	case len(down) == 1:
		v.primary = down[0] // its breaker says why it cannot be used
	default:
		v.primaryErr = wire.Errorf(wire.CannotConnectNow, "shard %q has no known primary among %s", s.name, s.endpointNames()).
			WithHint("Is the primary running, or is a failover under way?")
	}
	v.rota = s.rota(v.primary)
	s.view.Store(v)
}

// rota spreads the healthy replicas by weight (the smooth weighted round robin of nginx: each turn everybody gains its
// weight, and the richest pays the total).
func (s *Shard) rota(primary *Endpoint) []*Endpoint {
	var replicas []*Endpoint
	total, unit := 0, 0
	for _, e := range s.endpoints {
		if e.Role() != RoleReplica || e.breaker.current() != breakerClosed || !e.sameSystem(primary) {
			continue
		}
		replicas = append(replicas, e)
		unit = gcd(unit, e.cfg.Weight)
	}
	for _, e := range replicas {
		total += e.cfg.Weight / unit
	}
	credit := make([]int, len(replicas))
	rota := make([]*Endpoint, 0, total)
	for range total {
		best := 0
		for i, e := range replicas {
			credit[i] += e.cfg.Weight / unit
			if credit[i] > credit[best] {
				best = i
			}
		}
		credit[best] -= total
		rota = append(rota, replicas[best])
	}
	return rota
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

func (s *Shard) endpointNames() string { return names(s.endpoints) }

func names(es []*Endpoint) string {
	list := make([]string, len(es))
	for i, e := range es {
		list[i] = e.Name()
	}
	return strings.Join(list, ", ")
}

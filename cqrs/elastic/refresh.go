package elastic

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
)

// Refresh implements cqrs.View. Callers share refreshes: each waits for one that began after its call, so however
// many wait, at most one is running and one is to come.
func (m *Model) Refresh(ctx context.Context) error {
	if err := m.refresh.wait(ctx); err != nil {
		return fmt.Errorf("elasticsearch read model %s: refresh: %w", m.cfg.Name, err)
	}
	return nil
}

// refreshIndex has its own deadline (the request's), for it serves all who wait.
func (m *Model) refreshIndex(name string) error {
	body, err := m.do(context.Background(), http.MethodPost, "/"+name+"/_refresh", nil)
	if err != nil {
		return err
	}
	var res struct {
		Shards shards `json:"_shards"`
	}
	if err := json.Unmarshal(body, &res); err != nil {
		return err
	}
	return res.Shards.whole()
}

type refresher struct {
	run func() error

	mu      sync.Mutex
	current *flight // running; guarded by mu
	next    *flight // begins when current ends; guarded by mu
}

type flight struct {
	done chan struct{}
	err  error // after done
}

func (r *refresher) wait(ctx context.Context) error {
	f := r.join()
	select {
	case <-f.done:
		return f.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// join returns a refresh that has not begun, or begins it.
func (r *refresher) join() *flight {
	r.mu.Lock()
	defer r.mu.Unlock()
	f := &flight{done: make(chan struct{})}
	switch {
	case r.current == nil:
		r.current = f
		go r.fly(f)
	case r.next == nil:
		r.next = f
	default:
		f = r.next
	}
	return f
}

// fly runs refreshes until nobody waits for another.
func (r *refresher) fly(f *flight) {
	for f != nil {
		f.err = r.run()
		close(f.done)
		r.mu.Lock()
		r.current, r.next = r.next, nil
		f = r.current
		r.mu.Unlock()
	}
}

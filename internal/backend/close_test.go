package backend

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidemarkdb/tidemark/internal/loop"
)

// Close does not wait for a server that does not answer what nobody waits for any more: the cleaning of a connection, a cancel request.
func TestCloseWaitsForNoServer(t *testing.T) {
	for name, begin := range map[string]func(c *Conn) (ended chan error){
		"cleaning": func(c *Conn) chan error {
			c.Dirty = true
			c.Release()
			return nil
		},
		"cancelling": func(c *Conn) chan error {
			ended := make(chan error, 1)
			key := c.CancelKey()
			go func() { ended <- key.Cancel(context.Background()) }()
			until(t, "the request is under way", func() bool {
				c.pool.mu.Lock()
				defer c.pool.mu.Unlock()
				return c.cancels > 0
			})
			c.Release()
			return ended
		},
	} {
		t.Run(name, func(t *testing.T) {
			bothEngines(t, func(t *testing.T, eng loop.Engine) {
				heard := make(chan struct{}, 10)
				var came atomic.Int32
				server := serveFake(t, func(f *fakeServer) {
					if came.Add(1) == 1 { // others are cancel requests, which are answered by the end
						f.welcome()
					}
					for f.hear() {
						heard <- struct{}{}
					}
				})
				b := open(t, eng, Config{
					User: "u", Database: "d", SSLMode: "disable", ResetTimeout: time.Hour, ConnectTimeout: time.Hour,
					Shards: []ShardConfig{{Name: "s", Endpoints: []EndpointConfig{server}}},
				})
				var ended chan error
				inTask(t, eng, func(task *loop.Task) error {
					c, err := b.Shards()[0].Endpoints()[0].Acquire(task, nil, nil, time.Now().Add(patience))
					if err == nil {
						task.Await(func() { ended = begin(c) })
					}
					return err
				})
				if ended == nil {
					<-heard // DISCARD ALL
				}
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				defer cancel()
				if err := b.Close(ctx); err != nil {
					t.Error(err)
				}
				if ended != nil {
					t.Log("the login:", <-ended) // whatever it says
				}
			})
		})
	}
}

// A task that the engine ends while it queues for a connection leaves the queue: else a connection would be given to it, and be lost.
func TestKilledTaskLeavesTheQueue(t *testing.T) {
	eng, err := loop.New(loop.Config{Engine: "epoll", Epoll: loop.EpollConfig{Loops: 1}})
	if err != nil {
		t.Skip(err)
	}
	server := serveFake(t, func(f *fakeServer) {
		f.welcome()
		for f.hear() {
		}
	})
	b, err := New(Config{
		User: "u", Database: "d", SSLMode: "disable", PoolSize: 1, AcquireTimeout: time.Hour, ConnectTimeout: time.Hour,
		Shards: []ShardConfig{{Name: "s", Endpoints: []EndpointConfig{server}}},
	}, eng, nil)
	if err != nil {
		t.Fatal(err)
	}
	endpoint := b.Shards()[0].Endpoints()[0]
	var holder *loop.Task
	var pool *pool
	held, stands, goOn := make(chan error, 1), make(chan struct{}), make(chan struct{})
	eng.Go(func(task *loop.Task) {
		c, err := endpoint.Acquire(task, nil, nil, time.Time{})
		if err == nil {
			holder, pool = task, c.pool
		}
		held <- err
		if err == nil {
			task.Wait(time.Time{})
			close(stands)
			<-goOn // the loop stands still: the other task, which Close wakes, has no turn before it is killed
		}
	})
	if err := <-held; err != nil {
		t.Fatal(err)
	}
	left := make(chan struct{})
	eng.Go(func(task *loop.Task) {
		defer close(left)
		_, err := endpoint.Acquire(task, nil, nil, time.Time{})
		t.Error("the task has gone on:", err)
	})
	waiting := func() int {
		pool.mu.Lock()
		defer pool.mu.Unlock()
		return pool.waiters.n
	}
	until(t, "the other task queues", func() bool { return waiting() == 1 })
	holder.Wake()
	<-stands
	over, cancel := context.WithCancel(context.Background())
	cancel()
	if err := eng.Close(over); err == nil {
		t.Error("the engine has closed in good order")
	}
	close(goOn)
	<-left
	if n := waiting(); n != 0 {
		t.Errorf("%d tasks are in the queue, want none", n)
	}
}

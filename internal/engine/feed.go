package engine

import (
	"context"
	"sync"
	"time"
)

// Feed streams rows that an ordinary goroutine produces to the client: a read model's answer. produce calls row with one
// whole message at a time and may block; it is held up while the client is slow, and its context ends when the client
// leaves. Feed returns the number of rows.
func (r *Relay) Feed(ctx context.Context, produce func(ctx context.Context, row func([]byte) error) error) (rows uint64, err error) {
	ctx, stop := context.WithCancel(ctx)
	f := &feed{space: make(chan struct{}, 1)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		err := produce(ctx, func(b []byte) error { return f.put(ctx, b, r.Task.Wake) })
		f.mu.Lock()
		f.ended, f.err = true, err
		f.mu.Unlock()
		r.Task.Wake()
	}()
	defer func() {
		stop()
		r.Task.Await(func() { <-done }) // the goroutine ends before the task goes on: it must not wake what comes after
	}()
	for {
		b, n, ended, err := f.take()
		rows += n
		r.Reply(b)
		if ended {
			return rows, err
		}
		if len(b) > 0 {
			if err := r.Flush(chunkSize); err != nil {
				return rows, err
			}
			continue
		}
		if err := r.Step(time.Time{}); err != nil {
			return rows, err
		}
		if r.gone {
			return rows, ErrClientGone
		}
	}
}

// feed is what lies between the producing goroutine and the task: at most feedBytes, give or take one row.
type feed struct {
	mu    sync.Mutex
	buf   []byte
	rows  uint64
	ended bool
	err   error
	space chan struct{} // has a token when the task has taken something
}

const feedBytes = 64 << 10

func (f *feed) put(ctx context.Context, b []byte, wake func()) error {
	for {
		f.mu.Lock()
		if len(f.buf) < feedBytes {
			first := len(f.buf) == 0
			f.buf = append(f.buf, b...)
			f.rows++
			f.mu.Unlock()
			if first {
				wake()
			}
			return nil
		}
		f.mu.Unlock()
		select {
		case <-f.space:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (f *feed) take() (b []byte, rows uint64, ended bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	b, rows, ended, err = f.buf, f.rows, f.ended, f.err
	f.buf, f.rows = nil, 0
	select {
	case f.space <- struct{}{}:
	default:
	}
	return b, rows, ended, err
}

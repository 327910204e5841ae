package cqrs

import (
	"context"
	"fmt"

	"github.com/tidemarkdb/tidemark/internal/lsn"
)

// ErrDeadLettered wraps ErrStale: waiting longer does not help, since an event that the read depends on lies in the
// dead-letter queue.
var ErrDeadLettered = fmt.Errorf("an event that this read depends on is in the dead-letter queue: %w", ErrStale)

// ErrTooManyWaiters wraps ErrStale: the bound on waiting sessions is reached.
var ErrTooManyWaiters = fmt.Errorf("too many sessions wait for read models: %w", ErrStale)

// waiter is one session that waits for one shard of one view.
type waiter struct {
	view  *viewLevel
	shard string
	mark  lsn.Mark
	woken chan struct{}
}

// wake is called with the lock held, once: it takes the waiter off the list.
func (w *waiter) wake() {
	delete(w.view.waiters, w)
	close(w.woken)
}

// Wait returns nil as soon as the view has everything that the token asks for, so that a read of key (KeyJSON; empty: a
// scan) that begins then sees it. The caller calls View.Refresh before a scan.
//
// It fails with an error that wraps ErrStale when ctx ends before (give it the session's wait timeout), and at once when
// an exception concerns the read, since waiting would not help (ErrDeadLettered).
func (l *Levels) Wait(ctx context.Context, view string, token lsn.Token, key string) error {
	for {
		w, err := l.enlist(view, token, key)
		if err != nil || w == nil {
			return err
		}
		select {
		case <-w.woken:
			l.leave(w)
		case <-ctx.Done():
			l.leave(w)
			return l.late(ctx, view, w)
		}
	}
}

// Covers says without waiting whether the view has everything that the token asks for. Its error wraps
// ErrDeadLettered when no waiting will help.
func (l *Levels) Covers(view string, token lsn.Token, key string) (bool, error) {
	if len(token) == 0 {
		return true, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	_, shard, err := l.missing(view, token, key)
	return shard == "" && err == nil, err
}

// enlist returns a waiter for the first shard whose mark is not reached, nil when all are.
func (l *Levels) enlist(view string, token lsn.Token, key string) (*waiter, error) {
	if len(token) == 0 {
		return nil, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	v, shard, err := l.missing(view, token, key)
	switch {
	case err != nil:
		return nil, err
	case shard == "":
		return nil, nil
	case l.waits >= l.limits.Waiters:
		return nil, ErrTooManyWaiters
	}
	w := &waiter{view: v, shard: shard, mark: token[shard], woken: make(chan struct{})}
	v.waiters[w] = struct{}{}
	l.waits++
	return w, nil
}

func (l *Levels) leave(w *waiter) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(w.view.waiters, w)
	l.waits--
}

// missing is called with the lock held: it finds a shard whose mark the view has not reached, "" if there is none.
func (l *Levels) missing(view string, token lsn.Token, key string) (*viewLevel, string, error) {
	v := l.views[view]
	if v == nil {
		return nil, "", fmt.Errorf("view %s is not followed here: %w", view, ErrStale)
	}
	missing := ""
	x := l.except[v.ViewID]
	for shard, mark := range token {
		if !v.fedBy(shard) {
			continue
		}
		if x != nil {
			if err := x.concerns(shard, mark, key); err != nil {
				return v, "", fmt.Errorf("view %s: %w", view, err)
			}
		}
		if level, ok := v.levels[shard]; !ok || !mark.ReachedBy(level) {
			missing = shard
		}
	}
	return v, missing, nil
}

// late is the error of a wait that ctx ended: it says how far the view is and how far it should be.
func (l *Levels) late(ctx context.Context, view string, w *waiter) error {
	level, ok := l.Level(view, w.shard)
	if !ok {
		return fmt.Errorf("view %s: nothing has been heard of shard %s: is its capture running, and a projector for the view? %w: %w",
			view, w.shard, ErrStale, context.Cause(ctx))
	}
	return fmt.Errorf("view %s: shard %s is at %d:%s, the session's mark at %d:%s: %w: %w", view, w.shard,
		level.Epoch, level.LSN, w.mark.Epoch, w.mark.LSN, ErrStale, context.Cause(ctx))
}

// fedBy says whether events of a shard reach the view.
func (v *viewLevel) fedBy(shard string) bool {
	if v.Shards == nil {
		return true
	}
	for _, s := range v.Shards {
		if s == shard {
			return true
		}
	}
	return false
}

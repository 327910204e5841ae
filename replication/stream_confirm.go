package replication

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/tidemarkdb/tidemark/internal/lsn"
)

// confirm sends positions to the server: regularly, and when it asks. Each asks for an answer, which keeps both sides sure that
// the other lives, and carries the level on.
func (s *stream) confirm(ctx context.Context, ctl *control) error {
	tick := time.NewTicker(s.c.cfg.StatusInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		case <-s.replies:
		}
		l, err := s.c.confirmable(ctx, ctl)
		if err != nil {
			return err
		}
		if err := s.ws.confirm(l, time.Now(), true); err != nil {
			return fmt.Errorf("confirm %s: %w", l, err)
		}
	}
}

// confirmable returns the acknowledged position, after recording every epoch that began before it.
func (c *Capture) confirmable(ctx context.Context, ctl *control) (lsn.LSN, error) {
	c.mu.Lock()
	l := c.acked
	var unseen []history
	for _, h := range c.histories {
		if h.from <= l && !h.seen {
			unseen = append(unseen, h)
		}
	}
	c.mu.Unlock()
	for _, h := range unseen {
		err := ctl.do(ctx, func(ctx context.Context, conn *pgx.Conn) error { return markSeen(ctx, conn, h.epoch, h.from) })
		if err != nil {
			return 0, err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var keep []history // the one that l lies in, and those that begin behind it
	for i, h := range c.histories {
		if i+1 < len(c.histories) && c.histories[i+1].from <= l {
			continue
		}
		h.seen = h.seen || h.from <= l
		keep = append(keep, h)
	}
	c.histories = keep
	return l, nil
}

// watch looks for WAL that was written and not flushed, which the walsender cannot send: a short while after commits, when
// readers wait for the level of a mark behind them, and now and then on an idle stream. It also answers Nudge.
func (s *stream) watch(ctx context.Context, ctl *control) error {
	heartbeat := time.NewTicker(s.c.cfg.Heartbeat)
	defer heartbeat.Stop()
	settle := time.NewTimer(time.Hour)
	defer settle.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case req := <-s.c.nudges:
			if err := s.nudge(ctx, ctl, req); err != nil {
				return err
			}
			continue
		case <-s.commits:
			settle.Reset(s.c.cfg.Settle) // put off while commits come: each of them flushes
			continue
		case <-settle.C:
		case <-heartbeat.C:
		}
		inserted, flushed, err := ctl.positions(ctx)
		if err != nil {
			return err
		}
		if flushed < inserted && inserted > s.c.Status().Handed {
			if err := ctl.nudge(ctx); err != nil {
				return err
			}
		}
	}
}

// nudge answers a request and all others that have come meanwhile.
func (s *stream) nudge(ctx context.Context, ctl *control, first chan<- error) error {
	waiting := []chan<- error{first}
	for more := true; more; {
		select {
		case req := <-s.c.nudges:
			waiting = append(waiting, req)
		default:
			more = false
		}
	}
	err := ctl.nudge(ctx)
	for _, w := range waiting {
		w <- err
	}
	return err
}

// leave confirms for the last time and ends the stream in an orderly way, so that the slot is free at once.
func (s *stream) leave(ctl *control) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	l, err := s.c.confirmable(ctx, ctl)
	if err == nil {
		err = s.ws.leave(l)
	}
	if err != nil && !errors.Is(err, net.ErrClosed) {
		s.c.log.Warn("last confirmation failed; what it covers will be repeated", "error", err)
	}
}

package main

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	catchUpLimit = 3 * time.Minute
	catchUpPoll  = 250 * time.Millisecond
)

// catchUp waits until the read models hold what conn has loaded. It asks in the way of any session: under session consistency, a read of
// a read model waits for the session's own writes; the proxy does the waiting, and other reads show how far it is.
func (d *demo) catchUp(ctx context.Context, conn *pgx.Conn) error {
	ctx, cancel := context.WithTimeoutCause(ctx, catchUpLimit, fmt.Errorf("it takes longer than %v", catchUpLimit))
	defer cancel()
	step := d.p.start("read models")
	begun := time.Now()
	if _, err := conn.Exec(ctx, "SET tidemark.consistency = 'eventual'"); err != nil {
		step.failed()
		return fmt.Errorf("watch the read models: %w", err)
	}
	for {
		n, err := countOrders(ctx, conn)
		switch {
		case err == nil && n >= d.shop.Orders:
			step.done(fmt.Sprintf("caught up with %s orders, %.1f s after the last row", thousands(n), time.Since(begun).Seconds()))
			return nil
		case err == nil:
			step.update(thousands(n) + " of " + thousands(d.shop.Orders) + " orders")
		}
		select {
		case <-ctx.Done():
			step.failed()
			if err == nil {
				err = context.Cause(ctx)
			}
			return fmt.Errorf("wait for the read models, which have %s of %s orders: %w", thousands(n), thousands(d.shop.Orders), err)
		case <-time.After(catchUpPoll):
		}
	}
}

func countOrders(ctx context.Context, conn *pgx.Conn) (n int, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	err = conn.QueryRow(ctx, "SELECT count(*) FROM order_search").Scan(&n)
	return n, err
}

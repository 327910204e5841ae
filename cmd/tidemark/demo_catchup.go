package main

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	catchUpLimit = 10 * time.Minute
	catchUpPoll  = 500 * time.Millisecond
	countLimit   = 70 * time.Second // of one count; longer than the wait_timeout below
)

// catchUp waits until the read models hold what was loaded through conn: it looks, without waiting for anything, until all
// orders are there, and then counts every read model as any session would that wrote what this one did.
func (d *demo) catchUp(ctx context.Context, conn *pgx.Conn) error {
	ctx, cancel := context.WithTimeoutCause(ctx, catchUpLimit, fmt.Errorf("it takes longer than %v", catchUpLimit))
	defer cancel()
	step := d.p.start("read models")
	begun := time.Now()
	err := d.watchOrders(ctx, conn, step)
	if err == nil {
		err = d.verify(ctx, conn)
	}
	if err != nil {
		step.failed()
		return fmt.Errorf("wait for the read models: %w", err)
	}
	step.done(fmt.Sprintf("%s orders can be searched, %.1f s after the last row", thousands(d.shop.Orders), time.Since(begun).Seconds()))
	return nil
}

// watchOrders returns when order_search has all orders. The index may not even exist in the beginning, so errors are told only
// when the time is over.
func (d *demo) watchOrders(ctx context.Context, conn *pgx.Conn, step *step) error {
	if _, err := conn.Exec(ctx, "SET tidemark.consistency = 'eventual'"); err != nil {
		return err
	}
	for {
		n, err := count(ctx, conn, "order_search")
		if err == nil && n >= d.shop.Orders {
			return nil
		}
		step.update(thousands(n) + " of " + thousands(d.shop.Orders) + " orders")
		select {
		case <-ctx.Done():
			if err == nil {
				err = context.Cause(ctx)
			}
			return fmt.Errorf("%s of %s orders are there: %w", thousands(n), thousands(d.shop.Orders), err)
		case <-time.After(catchUpPoll):
		}
	}
}

// verify counts under session consistency: each read waits for the session's own rows.
func (d *demo) verify(ctx context.Context, conn *pgx.Conn) error {
	for _, setting := range []string{"SET tidemark.consistency = 'session'", "SET tidemark.wait_timeout = '60s'"} {
		if _, err := conn.Exec(ctx, setting); err != nil {
			return err
		}
	}
	for _, view := range []struct {
		name string
		rows int
	}{{"order_search", d.shop.Orders}, {"product_search", d.shop.Products}, {"customer_cache", d.shop.Customers}, {"product_cache", d.shop.Products}} {
		n, err := count(ctx, conn, view.name)
		switch {
		case err != nil:
			return err
		case n != view.rows:
			return fmt.Errorf("%s has %s rows, expected %s", view.name, thousands(n), thousands(view.rows))
		}
	}
	return nil
}

func count(ctx context.Context, conn *pgx.Conn, view string) (n int, err error) {
	ctx, cancel := context.WithTimeout(ctx, countLimit)
	defer cancel()
	err = conn.QueryRow(ctx, "SELECT count(*) FROM "+view).Scan(&n)
	return n, err
}

package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// workload has clients that insert, update, delete and change keys through the proxy, each on customers of its own, and that know what must
// be there in the end. They retry as an application would: every write may be made twice.
type workload struct {
	url    string
	writes atomic.Int64 // acknowledged
	tries  atomic.Int64 // repeated after an error
	at     map[int64]chan<- struct{}
}

// line is a key of the table lines, sharded by its customer.
type line struct{ customer, id int64 }

// writer is one client. state is what it knows to be committed: the revision of each of its lines.
type writer struct {
	w     *workload
	r     *rand.Rand
	conn  *pgx.Conn
	first int64 // of its customers
	state map[line]int64
	keys  []line // of state, for picking; may hold some that are gone
	next  int64  // id of the next new line
	rev   int64
}

const (
	customersPerWriter = 40
	retryFor           = patience
)

const linesTable = `CREATE TABLE lines (customer_id bigint, id bigint, rev bigint NOT NULL, title text NOT NULL, price numeric(12,2), tags text[], at timestamptz, note text,
	PRIMARY KEY (customer_id, id))`

const upsertLine = `INSERT INTO lines VALUES ($1, $2, $3::bigint, 'line ' || $3::bigint, $3::bigint / 7.0, ARRAY['t' || $3::bigint, NULL], timestamptz '2024-01-01 UTC' + $3::bigint * interval '1 second', NULL)
	ON CONFLICT (customer_id, id) DO UPDATE SET rev = excluded.rev, title = excluded.title, price = excluded.price, tags = excluded.tags, at = excluded.at, note = 'again'`

const (
	updateLine = "UPDATE lines SET rev = $3::bigint, note = 'updated ' || $3::bigint WHERE customer_id = $1 AND id = $2"
	deleteLine = "DELETE FROM lines WHERE customer_id = $1 AND id = $2"
	moveLine   = "UPDATE lines SET id = $3 WHERE customer_id = $1 AND id = $2"
)

func (w *workload) writer(r *rand.Rand, number int) *writer {
	return &writer{
		w: w, r: rand.New(rand.NewPCG(r.Uint64(), uint64(number))), first: int64(number * customersPerWriter), state: map[line]int64{},
	}
}

// write makes n writes.
func (c *writer) write(ctx context.Context, n int) error {
	defer func() {
		if c.conn != nil {
			_ = c.conn.Close(context.WithoutCancel(ctx))
		}
	}()
	for made := 0; made < n; {
		steps := c.plan(n - made)
		if err := c.make(ctx, steps); err != nil {
			return err
		}
		for _, s := range steps {
			s.commit()
			if ch := c.w.at[c.w.writes.Add(1)]; ch != nil {
				ch <- struct{}{} // has room
			}
		}
		made += len(steps)
	}
	return nil
}

// step is one statement, and what it means for the client's state.
type step struct {
	sql    string
	args   []any
	commit func()
}

// plan is one write, or several of one customer in a transaction. A transaction made twice has the same effect.
func (c *writer) plan(atMost int) []step {
	customer := c.first + c.r.Int64N(customersPerWriter)
	switch n := c.r.IntN(100); {
	case n < 10 && atMost >= 4: // one key changes twice in it: only the last is an effect
		created := c.fresh(customer)
		steps := []step{c.upsert(created), c.update(created), c.upsert(c.fresh(customer))}
		if old, ok := c.pick(); ok && old.customer == customer {
			return append(steps, c.delete(old))
		}
		return append(steps, c.update(created))
	case n < 45:
		return []step{c.upsert(c.fresh(customer))}
	}
	old, ok := c.pick()
	if !ok {
		return []step{c.upsert(c.fresh(customer))}
	}
	switch n := c.r.IntN(55); {
	case n < 25:
		return []step{c.update(old)}
	case n < 43:
		return []step{c.delete(old)}
	case n < 46: // a key comes back
		return []step{c.upsert(old)}
	default:
		return []step{c.move(old)}
	}
}

// pick is one of the lines that are there.
func (c *writer) pick() (line, bool) {
	for len(c.keys) > 0 {
		i := c.r.IntN(len(c.keys))
		l := c.keys[i]
		if _, there := c.state[l]; there {
			return l, true
		}
		c.keys[i] = c.keys[len(c.keys)-1]
		c.keys = c.keys[:len(c.keys)-1]
	}
	return line{}, false
}

func (c *writer) fresh(customer int64) line {
	c.next++
	return line{customer, c.next}
}

func (c *writer) upsert(l line) step {
	c.rev++
	rev := c.rev
	return step{upsertLine, []any{l.customer, l.id, rev}, func() {
		if _, there := c.state[l]; !there {
			c.keys = append(c.keys, l)
		}
		c.state[l] = rev
	}}
}

func (c *writer) update(l line) step {
	c.rev++
	rev := c.rev
	return step{updateLine, []any{l.customer, l.id, rev}, func() { c.state[l] = rev }}
}

func (c *writer) delete(l line) step {
	return step{deleteLine, []any{l.customer, l.id}, func() { delete(c.state, l) }}
}

// move changes the primary key: readers see a delete and a create.
func (c *writer) move(l line) step {
	to := c.fresh(l.customer)
	return step{moveLine, []any{l.customer, l.id, to.id}, func() {
		c.state[to] = c.state[l]
		c.keys = append(c.keys, to)
		delete(c.state, l)
	}}
}

// make makes a write until it is acknowledged.
func (c *writer) make(ctx context.Context, steps []step) error {
	deadline := time.Now().Add(retryFor)
	for {
		err := c.attempt(ctx, steps)
		if err == nil {
			return nil
		}
		if c.conn != nil {
			_ = c.conn.Close(ctx)
			c.conn = nil
		}
		if !worthRetrying(err) || time.Now().After(deadline) || ctx.Err() != nil {
			return fmt.Errorf("%w, in %s", err, steps[0].sql)
		}
		c.w.tries.Add(1)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Duration(20+c.r.IntN(60)) * time.Millisecond): // what an application would do
		}
	}
}

func (c *writer) attempt(ctx context.Context, steps []step) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var err error
	if c.conn == nil {
		if c.conn, err = pgx.Connect(ctx, c.w.url); err != nil {
			return err
		}
	}
	if len(steps) == 1 {
		_, err = c.conn.Exec(ctx, steps[0].sql, steps[0].args...)
		return err
	}
	return pgx.BeginFunc(ctx, c.conn, func(tx pgx.Tx) error {
		for _, s := range steps {
			if _, err := tx.Exec(ctx, s.sql, s.args...); err != nil {
				return err
			}
		}
		return nil
	})
}

// worthRetrying tells trouble on the way from a statement that is wrong: by SQLSTATE class, or because there is none.
func worthRetrying(err error) bool {
	var e *pgconn.PgError
	if !errors.As(err, &e) {
		return true
	}
	switch e.Code[:2] {
	case "08", "40", "53", "57", "58":
		return true
	}
	return false
}

// expected is what all clients know to be committed.
func expected(writers []*writer) rows {
	var r rows
	for _, c := range writers {
		for l, rev := range c.state {
			r = append(r, fmt.Sprintf("\x1f%q\x1f%q\x1f%q", fmt.Sprint(l.customer), fmt.Sprint(l.id), fmt.Sprint(rev)))
		}
	}
	return sorted(r)
}

// touchEveryShard writes to all shards in a session, so that what it reads from read models then holds all that was written before. The
// writes are to a table's customers below zero, of which some are on each shard.
func (s *system) touchEveryShard(conn *pgx.Conn) {
	s.t.Helper()
	must(s.t, conn, waits)
	seen := map[string]bool{}
	for id := int64(-1); len(seen) < len(s.cluster.Shards); id-- {
		must(s.t, conn, upsertLine, id, int64(1), int64(1))
		route := s.route(conn)
		for _, shard := range s.cluster.Shards {
			if strings.Contains(route, " "+shard.Name+" ") {
				seen[shard.Name] = true
			}
		}
		if id < -200 {
			s.t.Fatalf("200 customers are on %v only; the last went to %s", seen, route)
		}
	}
}

// route is where a session's last statement went.
func (s *system) route(conn *pgx.Conn) string {
	s.t.Helper()
	var route string
	if err := conn.QueryRow(within(s.t, patience), "SHOW tidemark.route").Scan(&route); err != nil {
		s.t.Fatal(err)
	}
	return route
}

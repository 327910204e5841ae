package cqrs

import (
	"errors"
	"fmt"
	"math"
	"sort"
	"strconv"
)

// ErrEnough is returned by Collector.Take when no further row is needed.
var ErrEnough = errors.New("enough rows")

// Collector finishes a query in memory: it sorts, skips, limits, counts and projects the rows that match, for stores
// that cannot. Its memory is bounded: with a LIMIT it holds about twice LIMIT + OFFSET rows, and never more than its
// byte limit. It is not safe for concurrent use.
type Collector struct {
	query     Query
	order     *Ordering
	output    []int // columns to emit, by index
	emit      func([][]byte) error
	sortBytes int64

	seen  int64 // rows taken
	rows  []collected
	bytes int64 // held in rows
}

type collected struct {
	at   Position
	out  [][]byte
	size int64
}

// sortSlack is how many rows beyond LIMIT + OFFSET are gathered before the surplus is cut.
const sortSlack = 500

// NewCollector prepares for rows that hold cols in order. sortBytes is what ORDER BY may hold.
func NewCollector(cols []Column, q Query, sortBytes int64, emit func([][]byte) error) (*Collector, error) {
	c := &Collector{query: q, emit: emit, sortBytes: sortBytes}
	if q.Limit > math.MaxInt64/4-q.Offset {
		c.query.Limit = -1
	}
	var err error
	if c.order, err = NewOrdering(cols, q.Order); err != nil {
		return nil, err
	}
	for _, name := range q.Columns {
		i := columnIndex(cols, name)
		if i < 0 {
			return nil, fmt.Errorf("read model has no column %q", name)
		}
		c.output = append(c.output, i)
	}
	return c, nil
}

// Done says that no row at all is needed.
func (c *Collector) Done() bool { return c.query.Limit == 0 && !c.query.Count }

// Take counts, emits or keeps a row that matches. The row's values are kept, not copied.
func (c *Collector) Take(row [][]byte) error {
	c.seen++
	switch {
	case c.query.Count:
		return nil
	case len(c.query.Order) > 0:
		return c.keep(row)
	case c.seen <= c.query.Offset:
		return nil
	}
	if err := c.emit(c.project(row)); err != nil {
		return err
	}
	if c.query.Limit >= 0 && c.seen >= c.query.Offset+c.query.Limit {
		return ErrEnough
	}
	return nil
}

// Add counts rows that need not be looked at.
func (c *Collector) Add(n int64) { c.seen += n }

func (c *Collector) project(row [][]byte) [][]byte {
	out := make([][]byte, len(c.output))
	for i, f := range c.output {
		out[i] = row[f]
	}
	return out
}

func (c *Collector) keep(row [][]byte) error {
	at, err := c.order.Of(row)
	if err != nil {
		return err
	}
	r := collected{at: at, out: c.project(row), size: int64(64 * (len(at) + 1))}
	for _, v := range r.out {
		r.size += int64(len(v)) + 24
	}
	for _, p := range at {
		r.size += int64(len(p.key.S))
	}
	c.rows = append(c.rows, r)
	c.bytes += r.size
	if most := c.query.Limit + c.query.Offset; c.query.Limit >= 0 && int64(len(c.rows)) >= 2*most+sortSlack {
		c.sort()
		for _, cut := range c.rows[most:] {
			c.bytes -= cut.size
		}
		clear(c.rows[most:])
		c.rows = c.rows[:most]
	}
	if c.bytes > c.sortBytes {
		return fmt.Errorf("%w: ORDER BY over more than %d bytes of rows (sort_bytes): add a filter or a LIMIT", ErrUnsupported, c.sortBytes)
	}
	return nil
}

func (c *Collector) sort() {
	sort.SliceStable(c.rows, func(i, j int) bool { return c.order.Compare(c.rows[i].at, c.rows[j].at) < 0 })
}

// Finish emits what could not be emitted on the way: the count, or the sorted rows.
func (c *Collector) Finish() error {
	if c.query.Count {
		return c.emit([][]byte{strconv.AppendInt(nil, c.seen, 10)})
	}
	c.sort()
	for i, r := range c.rows {
		switch n := int64(i); {
		case n < c.query.Offset:
			continue
		case c.query.Limit >= 0 && n >= c.query.Offset+c.query.Limit:
			return nil
		}
		if err := c.emit(r.out); err != nil {
			return err
		}
	}
	return nil
}

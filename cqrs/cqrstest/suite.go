// Package cqrstest is the conformance suite that every store of read models passes, on the real service: what a
// cqrs.Projector applied, and only that, is what the cqrs.View of it answers, as PostgreSQL would.
package cqrstest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tidemarkdb/tidemark/cqrs"
	"github.com/tidemarkdb/tidemark/internal/lsn"
	"github.com/tidemarkdb/tidemark/replication"
)

// Store is a read model's both sides.
type Store interface {
	cqrs.Projector
	cqrs.View
	Check(ctx context.Context) error
	Close() error
}

// Suite is what a store gives to be tested.
type Suite struct {
	Addr string // host:port of the service
	// Open makes a store for a read model of that name in the service at addr.
	Open func(t *testing.T, name string, cols []cqrs.Column, addr string) Store
	// FullText says that the store answers Match.
	FullText bool
	// Unindexed are the types of which the store decides nothing but NULL, besides the whole key.
	Unindexed []uint32
}

// patience is the deadline of a whole test; a store's own timeouts are shorter.
const patience = 3 * time.Minute

// Run runs the suite. Models have names of their own, so several suites can share a service.
func (s Suite) Run(t *testing.T) {
	for _, tc := range []struct {
		name string
		run  func(*testing.T, Suite)
	}{
		{"versions", testVersions},
		{"shuffled", testShuffled},
		{"snapshot", testSnapshot},
		{"sweep", testSweep},
		{"memory of partitions", testRemember},
		{"truncate", testTruncate},
		{"types", testTypes},
		{"keys", testKeys},
		{"predicates", testPredicates},
		{"order", testOrder},
		{"long values", testLong},
		{"full text", testFullText},
		{"refused", testRefused},
		{"poison", testPoison},
		{"pages", testPages},
		{"outage", testOutage},
	} {
		t.Run(tc.name, func(t *testing.T) { tc.run(t, s) })
	}
}

// bench is one store under test with its columns.
type bench struct {
	Store
	t     *testing.T
	ctx   context.Context
	cols  []cqrs.Column
	table string
}

func (s Suite) bench(t *testing.T, cols ...cqrs.Column) *bench {
	return s.benchAt(t, s.Addr, cols...)
}

func (s Suite) benchAt(t *testing.T, addr string, cols ...cqrs.Column) *bench {
	t.Helper()
	name := strings.ToLower(strings.NewReplacer("/", "-", " ", "-", "_", "-").Replace(t.Name()))
	store := s.Open(t, name, cols, addr)
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return &bench{Store: store, t: t, ctx: ctx, cols: cols, table: "t"}
}

// event makes a change of the row whose columns have these texts; nil is NULL.
func (b *bench) event(op replication.Op, version lsn.Version, shard string, texts ...any) cqrs.Event {
	b.t.Helper()
	e := cqrs.Event{
		Op: op, Schema: "public", Table: b.table, Version: version, Last: true,
		Source: cqrs.Source{Shard: shard, Epoch: version.Epoch(), Commit: version.LSN()},
	}
	if op.WholeTable() {
		return e
	}
	var row cqrs.Row
	for i, c := range b.cols {
		v := replication.Value{}
		if i < len(texts) && texts[i] != nil {
			v.Bytes = []byte(texts[i].(string))
		}
		raw, err := replication.JSON(replication.Column{Name: c.Name, TypeOID: c.OID}, v)
		if err != nil {
			b.t.Fatal(err)
		}
		f := cqrs.Field{Name: c.Name, Value: raw}
		row = append(row, f)
		if c.Key {
			e.Key = append(e.Key, f)
		}
	}
	if op == replication.Delete {
		e.Before = row
	} else {
		e.After = row
	}
	return e
}

func (b *bench) put(version lsn.Version, texts ...any) cqrs.Event {
	b.t.Helper()
	return b.event(replication.Update, version, "s1", texts...)
}

func (b *bench) del(version lsn.Version, texts ...any) cqrs.Event {
	b.t.Helper()
	return b.event(replication.Delete, version, "s1", texts...)
}

// apply applies events of which none may fail, and makes them visible.
func (b *bench) apply(events ...cqrs.Event) {
	b.t.Helper()
	for i, err := range b.Apply(b.ctx, events) {
		if err != nil {
			b.t.Fatalf("event %d: %v", i, err)
		}
	}
	b.visible()
}

func (b *bench) visible() {
	b.t.Helper()
	if err := b.Refresh(b.ctx); err != nil {
		b.t.Fatal(err)
	}
}

// null stands for NULL in results, where texts are compared.
const null = "<NULL>"

// rows runs a query; each row is its values with "|" between.
func (b *bench) rows(q cqrs.Query) []string {
	b.t.Helper()
	out, err := b.try(q)
	if err != nil {
		b.t.Fatalf("%s: %v", describe(q), err)
	}
	return out
}

func (b *bench) try(q cqrs.Query) ([]string, error) {
	if q.Columns == nil && !q.Count {
		for _, c := range b.cols {
			q.Columns = append(q.Columns, c.Name)
		}
	}
	var out []string
	err := b.Scan(b.ctx, q, func(row [][]byte) error {
		texts := make([]string, len(row))
		for i, v := range row {
			if texts[i] = string(v); v == nil {
				texts[i] = null
			}
		}
		out = append(out, strings.Join(texts, "|"))
		return nil
	})
	return out, err
}

// all is the whole table, by key.
func (b *bench) all() []string {
	b.t.Helper()
	return b.rows(cqrs.Query{Limit: -1, Order: []cqrs.Order{{Column: b.cols[0].Name}}})
}

func (b *bench) wantAll(want ...string) {
	b.t.Helper()
	if d := cmp.Diff(want, b.all()); d != "" {
		b.t.Errorf("rows (-want +got):\n%s", d)
	}
}

func (b *bench) wantUnsupported(q cqrs.Query) {
	b.t.Helper()
	if _, err := b.try(q); !errors.Is(err, cqrs.ErrUnsupported) {
		b.t.Errorf("%s: got %v, want ErrUnsupported", describe(q), err)
	}
}

func describe(q cqrs.Query) string {
	ops := [...]string{"=", "<>", "<", "<=", ">", ">=", "IN", "IS NULL", "IS NOT NULL", "LIKE", "@@"}
	var b strings.Builder
	if q.Count {
		b.WriteString("count(*)")
	} else {
		b.WriteString(strings.Join(q.Columns, ", "))
	}
	for i, p := range q.Where {
		fmt.Fprintf(&b, "%s %s %s %.200q", map[bool]string{true: " WHERE", false: " AND"}[i == 0], p.Column, ops[p.Op], p.Values)
	}
	for _, o := range q.Order {
		fmt.Fprintf(&b, " ORDER BY %s desc=%v nullsfirst=%v", o.Column, o.Desc, o.NullsFirst)
	}
	fmt.Fprintf(&b, " LIMIT %d OFFSET %d", q.Limit, q.Offset)
	return b.String()
}

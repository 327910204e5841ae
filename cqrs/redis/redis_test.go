package redis_test

import (
	"context"
	"errors"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgtype"
	goredis "github.com/redis/go-redis/v9"

	"github.com/tidemarkdb/tidemark/cqrs"
	"github.com/tidemarkdb/tidemark/cqrs/cqrstest"
	"github.com/tidemarkdb/tidemark/cqrs/redis"
	"github.com/tidemarkdb/tidemark/internal/lsn"
	"github.com/tidemarkdb/tidemark/replication"
	"github.com/tidemarkdb/tidemark/testcontainers"
)

func TestConformance(t *testing.T) {
	for name, base := range map[string]redis.Config{
		"hash":   {Mode: redis.Hash},
		"json":   {Mode: redis.JSON},
		"slices": {Mode: redis.Hash, Slices: 5, Prefix: "other:"},
	} {
		t.Run(name, func(t *testing.T) { suite(server(t), base).Run(t) })
	}
}

func suite(addr string, base redis.Config) cqrstest.Suite {
	return cqrstest.Suite{Addr: addr, Open: func(t *testing.T, name string, cols []cqrs.Column, addr string) cqrstest.Store {
		cfg := base
		cfg.Name, cfg.Columns, cfg.URL = name, cols, "redis://"+addr
		cfg.Timeout = 30 * time.Second // a batch of thousands on a busy machine
		return open(t, cfg)
	}}
}

func open(t *testing.T, cfg redis.Config) *redis.Model {
	t.Helper()
	m, err := redis.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

var columns = []cqrs.Column{{Name: "id", OID: pgtype.Int8OID, Key: true}, {Name: "note", OID: pgtype.TextOID}, {Name: "paid", OID: pgtype.BoolOID}}

func row(op replication.Op, version lsn.Version, id int, note string) cqrs.Event {
	key := cqrs.Field{Name: "id", Value: []byte(strconv.Itoa(id))}
	e := cqrs.Event{Op: op, Schema: "public", Table: "t", Version: version, Last: true, Key: cqrs.Row{key}, Source: cqrs.Source{Shard: "s1"}}
	if op != replication.Delete {
		e.After = cqrs.Row{key, {Name: "note", Value: []byte(strconv.Quote(note))}, {Name: "paid", Value: []byte("null")}}
	}
	return e
}

// raw is a plain client of the server that the tests share.
func raw(t *testing.T) *goredis.Client {
	t.Helper()
	c := goredis.NewClient(&goredis.Options{Addr: server(t)})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func model(t *testing.T, cfg redis.Config) *redis.Model {
	t.Helper()
	cfg.URL, cfg.Columns = "redis://"+server(t), columns
	m := open(t, cfg)
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

func mustApply(t *testing.T, m *redis.Model, events ...cqrs.Event) {
	t.Helper()
	if errs := m.Apply(t.Context(), events); errs != nil {
		t.Fatal(errs)
	}
}

// What other programs see in Redis is as the package says.
func TestKeysAreAsDocumented(t *testing.T) {
	ctx, c := t.Context(), raw(t)
	m := model(t, redis.Config{Name: "orders", Prefix: "doc:"})
	mustApply(t, m, row(replication.Create, 7, 1, "first"), row(replication.Create, 7, 2, "second"), row(replication.Delete, 8, 2, ""))
	if d := cmp.Diff(map[string]string{"id": "1", "note": "first"}, c.HGetAll(ctx, "doc:{orders}:1").Val()); d != "" {
		t.Error(d)
	}
	if n := c.Exists(ctx, "doc:{orders}:2").Val(); n != 0 {
		t.Error("a deleted row has a key")
	}
	if d := cmp.Diff(map[string]string{"1": "0000000000000000007+public.t/s1/0", "2": "0000000000000000008-public.t/s1/0"}, c.HGetAll(ctx, "doc:{orders}#versions").Val()); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"1"}, c.ZRange(ctx, "doc:{orders}#index", 0, -1).Val()); d != "" {
		t.Error(d)
	}
	j := model(t, redis.Config{Name: "orders", Prefix: "docj:", Mode: redis.JSON})
	mustApply(t, j, row(replication.Create, 7, 1, "first"))
	if d := cmp.Diff(`{"id":1,"note":"first","paid":null}`, c.Get(ctx, "docj:{orders}:1").Val()); d != "" {
		t.Error(d)
	}
}

func TestSlicesAreForEver(t *testing.T) {
	mustApply(t, model(t, redis.Config{Name: "sliced", Slices: 4}), row(replication.Create, 7, 1, "x"))
	errs := model(t, redis.Config{Name: "sliced", Slices: 8}).Apply(t.Context(), []cqrs.Event{row(replication.Create, 8, 1, "y")})
	if len(errs) != 1 || errs[0] == nil || !strings.Contains(errs[0].Error(), "slices = 4") {
		t.Errorf("got %v, want an error that names the model's own number of slices", errs)
	}
}

// The server's troubles are transient, said with a hint, and over when they are over.
func TestTroublesOfTheServer(t *testing.T) {
	ctx, c := t.Context(), raw(t)
	for _, tc := range []struct {
		name       string
		begin, end func() error
		want       string
		deletes    bool // fail too; they free memory
	}{
		{
			"key of another type",
			func() error { return c.Set(ctx, "{trouble}#index", "x", 0).Err() },
			func() error { return c.Del(ctx, "{trouble}#index").Err() }, "WRONGTYPE", true,
		},
		{
			"out of memory",
			func() error {
				return errors.Join(c.ConfigSet(ctx, "maxmemory-policy", "noeviction").Err(), c.ConfigSet(ctx, "maxmemory", "1").Err())
			},
			func() error { return c.ConfigSet(ctx, "maxmemory", "0").Err() }, "maxmemory", false,
		},
		{
			"too few replicas",
			func() error { return c.ConfigSet(ctx, "min-replicas-to-write", "3").Err() },
			func() error { return c.ConfigSet(ctx, "min-replicas-to-write", "0").Err() }, "NOREPLICAS", true,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := model(t, redis.Config{Name: "trouble"})
			if err := m.Check(ctx); err != nil {
				t.Fatal(err)
			}
			version := lsn.Version(time.Now().UnixNano())
			if err := tc.begin(); err != nil {
				t.Fatal(err)
			}
			events := []cqrs.Event{row(replication.Create, version, 1, "x"), row(replication.Delete, version, 2, "")}
			errs := m.Apply(ctx, events)
			if err := tc.end(); err != nil {
				t.Fatal(err)
			}
			if len(errs) != 2 {
				t.Fatalf("got %v, want two errors", errs)
			}
			for i, err := range errs {
				if i == 1 && !tc.deletes {
					continue
				}
				if err == nil || errors.Is(err, cqrs.ErrPermanent) || !strings.Contains(err.Error(), tc.want) {
					t.Errorf("got %v, want a transient error that says %s", err, tc.want)
				}
			}
			mustApply(t, m, events...)
			if n := c.ZCard(ctx, "{trouble}#index").Val(); n != 1 {
				t.Errorf("%d live rows after the trouble, want 1", n)
			}
		})
	}
}

// A server that forgot its scripts (restart, failover) gets them again.
func TestScriptsForgotten(t *testing.T) {
	m := model(t, redis.Config{Name: "scripts"})
	mustApply(t, m, row(replication.Create, 7, 1, "a"))
	if err := raw(t).ScriptFlush(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	mustApply(t, m, row(replication.Update, 8, 1, "b"), row(replication.Update, 9, 1, "c"), row(replication.Create, 9, 2, "d"))
	if got := raw(t).HGet(t.Context(), "{scripts}:1", "note").Val(); got != "c" {
		t.Errorf("got %q, want c", got)
	}
}

func TestSortIsBounded(t *testing.T) {
	m := model(t, redis.Config{Name: "bounded", SortBytes: 4000})
	var events []cqrs.Event
	for i := range 100 {
		events = append(events, row(replication.Create, 7, i, strings.Repeat("x", 50)))
	}
	mustApply(t, m, events...)
	err := m.Scan(t.Context(), cqrs.Query{Columns: []string{"id"}, Order: []cqrs.Order{{Column: "note"}}, Limit: -1}, func([][]byte) error { return nil })
	if !errors.Is(err, cqrs.ErrUnsupported) || !strings.Contains(err.Error(), "sort_bytes") {
		t.Errorf("got %v, want an error that names the limit", err)
	}
}

// All keys that a script uses are in one slot, and slices lie in different ones: a real server in cluster mode checks.
func TestCluster(t *testing.T) {
	addr := clusterNode(t)
	s := suite(addr, redis.Config{Slices: 7, Cluster: true})
	m := s.Open(t, "clustered", columns, addr)
	defer func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}()
	var events []cqrs.Event
	for i := range 200 {
		events = append(events, row(replication.Create, 7, i, "x"))
	}
	events = append(events, row(replication.Delete, 9, 0, ""))
	if errs := m.Apply(t.Context(), events); errs != nil {
		t.Fatal(errs)
	}
	count := func() string {
		t.Helper()
		var n string
		if err := m.Scan(t.Context(), cqrs.Query{Count: true, Where: []cqrs.Predicate{{Column: "note", Op: cqrs.Eq, Values: []string{"x"}}}}, func(r [][]byte) error {
			n = string(r[0])
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if got := count(); got != "199" {
		t.Errorf("count %s, want 199", got)
	}
	if errs := m.Apply(t.Context(), []cqrs.Event{{Op: replication.Truncate, Schema: "public", Table: "t", Version: 20, Last: true, Source: cqrs.Source{Shard: "s1"}}}); errs != nil {
		t.Fatal(errs)
	}
	if got := count(); got != "0" {
		t.Errorf("count after TRUNCATE %s, want 0", got)
	}
}

// clusterNode starts a cluster of one node, which owns every slot.
func clusterNode(t *testing.T) string {
	t.Helper()
	addr, bus := testcontainers.FreeAddress(t), testcontainers.FreeAddress(t)
	port := func(addr string) string { return addr[strings.LastIndexByte(addr, ':')+1:] }
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, "redis-server", "--bind", "127.0.0.1", "--port", port(addr), "--cluster-enabled", "yes",
		"--cluster-port", port(bus), "--dir", t.TempDir(), "--save", "", "--cluster-announce-ip", "127.0.0.1")
	if err := cmd.Start(); err != nil {
		cancel()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait() // killed
	})
	c := goredis.NewClient(&goredis.Options{Addr: addr})
	defer func() { _ = c.Close() }()
	deadline := time.Now().Add(30 * time.Second)
	for assigned := false; ; {
		if !assigned {
			assigned = c.Do(ctx, "CLUSTER", "ADDSLOTSRANGE", 0, 16383).Err() == nil
		}
		if info, err := c.ClusterInfo(ctx).Result(); err == nil && strings.Contains(info, "cluster_state:ok") {
			return addr
		}
		if time.Now().After(deadline) {
			t.Fatal("the cluster did not come up")
		}
		time.Sleep(50 * time.Millisecond)
	}
}

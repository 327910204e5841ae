package router

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tidemarkdb/tidemark/sharding"
)

func shopRouter(t testing.TB) (*Router, *Session) {
	t.Helper()
	r, err := New(Config{Map: shop(t, 2), Catalog: shopCatalog()})
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewSession("alice", "", "UTF8", true)
	if err != nil {
		t.Fatal(err)
	}
	return r, s
}

// wantShard is where a bigint key belongs, computed without the router.
func wantShard(t testing.TB, r *Router, key int64) int {
	t.Helper()
	m := r.Map()
	return m.ShardOf(m.Bucket(sharding.HashInt(key)))
}

func TestKeysReachTheirShards(t *testing.T) {
	r, s := shopRouter(t)
	var sc Scratch
	tmpl := r.Template(&sc, s, []byte("SELECT * FROM customers WHERE id = $1"), []uint32{20})
	seen := map[int]bool{}
	for key := int64(-100); key < 100; key++ {
		want := wantShard(t, r, key)
		seen[want] = true
		for _, sql := range []string{
			"SELECT * FROM customers WHERE id = %d", "SELECT * FROM customers WHERE id = '%d'", "UPDATE orders SET total = 5 WHERE customer_id = %d AND id = 3",
			"INSERT INTO orders (id, customer_id) VALUES (8, %d)", "DELETE FROM orders WHERE 4 = id AND customer_id IN (%d)",
		} {
			p := r.Plan(&sc, s, fmt.Appendf(nil, sql, key))[0].Plan
			if p.Kind != Route || p.Shards[0] != want {
				t.Fatalf("%s of %d: %s, want shard %d", sql, key, p, want)
			}
		}
		var bin [8]byte
		for i := range bin {
			bin[i] = byte(uint64(key) >> (56 - 8*i))
		}
		for _, p := range []*Plan{tmpl.Bind([][]byte{bin[:]}, []int16{1}), tmpl.Bind([][]byte{fmt.Append(nil, key)}, nil)} {
			if p.Kind != Route || p.Shards[0] != want {
				t.Fatalf("bind of %d: %s, want shard %d", key, p, want)
			}
		}
	}
	if len(seen) != 2 {
		t.Errorf("keys reach %d shards of 2", len(seen))
	}
}

func TestOneShapeOneEntry(t *testing.T) {
	r, s := shopRouter(t)
	var sc Scratch
	for i := range 100 {
		r.Plan(&sc, s, fmt.Appendf(nil, "SELECT * FROM customers WHERE id = %d -- request %d", i, i))
	}
	if n := r.CacheStats().Entries; n != 1 {
		t.Errorf("100 texts of one shape take %d entries", n)
	}
}

// A literal that decides what a statement means must not be taken from another statement of the same shape.
func TestStructuralLiterals(t *testing.T) {
	r, s := shopRouter(t)
	var sc Scratch
	for range 2 {
		for i, want := range []string{"id", "price"} {
			p := r.Plan(&sc, s, fmt.Appendf(nil, "SELECT id, price FROM product_search WHERE id = 5 ORDER BY %d LIMIT 3", i+1))[0].Plan
			if p.Kind != ViewScan || p.Scan.Order[0].Column != want {
				t.Errorf("ORDER BY %d: %s", i+1, p)
			}
		}
		for i, want := range []Flags{Flags(0), Writes} {
			p := r.Plan(&sc, s, fmt.Appendf(nil, "EXPLAIN (ANALYZE %d) DELETE FROM orders WHERE customer_id = 7", i))[0].Plan
			if p.Flags&Writes != want {
				t.Errorf("ANALYZE %d: %s", i, p)
			}
		}
		for _, name := range []string{"a.b", "c.d"} {
			p := r.Plan(&sc, s, fmt.Appendf(nil, "SELECT set_config('%s', 'x', false)", name))[0].Plan
			if p.Setting == nil || p.Setting.Name != name {
				t.Errorf("set_config(%s): %s", name, p)
			}
		}
	}
}

func TestSessionsDoNotShareMeaning(t *testing.T) {
	r, s := shopRouter(t)
	app, err := NewSession("alice", `app, "$user", public`, "UTF8", true)
	if err != nil {
		t.Fatal(err)
	}
	var sc Scratch
	query := []byte("SELECT * FROM orders WHERE customer_id = 7")
	for range 2 {
		if p := r.Plan(&sc, s, query)[0].Plan; p.Kind != Route || p.Reason != "key public.orders.customer_id" {
			t.Errorf("public: %s", p)
		}
		if p := r.Plan(&sc, app, query)[0].Plan; p.Reason != "app.orders lives on shard s1" {
			t.Errorf("app: %s", p)
		}
	}
	latin, err := NewSession("alice", "", "LATIN1", true)
	if err != nil {
		t.Fatal(err)
	}
	if p := r.Plan(&sc, latin, []byte("UPDATE accounts SET name = 'x' WHERE email = 'm\xfcller'"))[0].Plan; p.Kind != Refuse {
		t.Errorf("a key in LATIN1 is placed by its bytes: %s", p)
	}
}

func TestNewSession(t *testing.T) {
	for _, c := range []struct {
		path string
		want []string
	}{
		{"", []string{"bob", "public"}},
		{`"$user", public`, []string{"bob", "public"}},
		{`App,"App" , "a""b"`, []string{"app", "App", `a"b`}},
		{`""`, nil},
		{`pg_catalog`, []string{"pg_catalog"}},
	} {
		s, err := NewSession("bob", c.path, "UTF8", true)
		if err != nil {
			t.Errorf("%s: %v", c.path, err)
			continue
		}
		if d := cmp.Diff(c.want, s.path); d != "" {
			t.Errorf("%s: %s", c.path, d)
		}
	}
	for _, c := range []struct {
		path, encoding string
		code           string
	}{
		{`a,,b`, "UTF8", "22023"},
		{`"a`, "UTF8", "22023"},
		{`a,`, "UTF8", "22023"},
		{`a b`, "UTF8", "22023"},
		{``, "SJIS", "0A000"},
		{``, "big5", "0A000"},
		{``, "GB18030", "0A000"},
		{``, "shift_jis_2004", "0A000"},
	} {
		_, err := NewSession("bob", c.path, c.encoding, true)
		var ref *Refusal
		if !errors.As(err, &ref) || ref.Code != c.code {
			t.Errorf("%q %s: %v, want SQLSTATE %s", c.path, c.encoding, err, c.code)
		}
	}
}

func TestCacheIsBounded(t *testing.T) {
	const limit = 64 << 10
	r, err := New(Config{Map: shop(t, 2), Catalog: shopCatalog(), CacheBytes: limit})
	if err != nil {
		t.Fatal(err)
	}
	_, s := shopRouter(t)
	var sc Scratch
	hot := []byte("SELECT * FROM customers WHERE id = 1")
	r.Plan(&sc, s, hot)
	for i := range 500 {
		r.Plan(&sc, s, fmt.Appendf(nil, "SELECT c%d FROM customers WHERE id = 1", i))
		r.Template(&sc, s, fmt.Appendf(nil, "SELECT %d, id FROM customers WHERE id = $1", i), nil)
		if _, ok := r.Cached(&sc, s, hot); !ok {
			t.Fatalf("a statement in use was dropped after %d others", i)
		}
		if st := r.CacheStats(); st.Bytes > limit {
			t.Fatalf("the cache takes %d bytes", st.Bytes)
		}
	}
	if st := r.CacheStats(); st.Entries < 20 {
		t.Errorf("%d entries in %d bytes", st.Entries, st.Bytes)
	}
	before := r.CacheStats().Entries
	long := []byte("SELECT " + strings.Repeat("a, ", 4000) + "b FROM customers WHERE id = 1")
	if p := r.Plan(&sc, s, long)[0].Plan; p.Kind != Route {
		t.Errorf("%s", p)
	}
	if _, ok := r.Cached(&sc, s, long); ok || r.CacheStats().Entries != before {
		t.Error("one statement took the cache")
	}
}

func TestTooLong(t *testing.T) {
	r, s := shopRouter(t)
	var sc Scratch
	p := r.Plan(&sc, s, []byte("SELECT "+strings.Repeat("a,", MaxShapeBytes/2)+"b"))[0].Plan
	if p.Kind != Refuse || p.Refusal.Code != "54000" {
		t.Errorf("%.200s", p)
	}
	// A long literal costs nothing.
	p = r.Plan(&sc, s, []byte("INSERT INTO customers (id, name) VALUES (7, '"+strings.Repeat("x", 2*MaxShapeBytes)+"')"))[0].Plan
	if p.Kind != Route {
		t.Errorf("%.200s", p)
	}
}

// What a long statement was planned in is not kept, nor is the buffer that it stands in, whatever of it belongs to its shape.
func TestScratchOfALongStatementIsLarge(t *testing.T) {
	r, s := shopRouter(t)
	for _, sql := range []string{"SELECT 'x" + strings.Repeat("x", 1<<20) + "'", "SELECT x" + strings.Repeat("x", 300<<10), "SELECT 1" + strings.Repeat(",1", 20_000)} {
		for range 2 { // the second time from the cache
			var sc Scratch
			if r.Plan(&sc, s, []byte(sql)); !sc.Large() {
				t.Errorf("%.20s... of %d bytes leaves nothing", sql, len(sql))
			}
		}
	}
	var sc Scratch
	if r.Plan(&sc, s, []byte("SELECT 1")); sc.Large() {
		t.Error("a short statement leaves much")
	}
}

func TestPlansAreShared(t *testing.T) {
	r, s := shopRouter(t)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			var sc Scratch
			for i := range 200 {
				key := int64(i*8 + g)
				p := r.Plan(&sc, s, fmt.Appendf(nil, "SELECT c%d FROM customers WHERE id = %d", i%20, key))[0].Plan
				if p.Kind != Route || p.Shards[0] != wantShard(t, r, key) {
					t.Errorf("key %d: %s", key, p)
				}
			}
		})
	}
	wg.Wait()
}

func TestCopyRow(t *testing.T) {
	var c Copy
	for _, x := range []struct {
		data string
		want int
	}{{"a\tb\nc", 4}, {"", 0}, {"ab", 0}, {"\n", 1}, {"a\\\nb\nc", 5}, {"a\\\\\nb", 4}, {"a\\\n", 0}} {
		if got := c.Row([]byte(x.data)); got != x.want {
			t.Errorf("%q: %d, want %d", x.data, got, x.want)
		}
	}
}

func TestHitAllocatesNothing(t *testing.T) {
	r, s := shopRouter(t)
	var sc Scratch
	for _, query := range []string{
		"SELECT name FROM customers WHERE id = 1234567", "UPDATE orders SET state = 'paid' WHERE customer_id = '1234567' AND id = 5;", "BEGIN", "SELECT 1",
		"INSERT INTO orders (customer_id, id, state) VALUES (7, 1, 'a'), (7, 2, 'b')", "BEGIN; DELETE FROM orders WHERE customer_id = 7; COMMIT", "SELECT * FROM devices WHERE id = 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'",
		"SELECT * FROM accounts WHERE email = 'a@b.c'", "SELECT * FROM customers WHERE id = -7",
	} {
		q := []byte(query)
		r.Plan(&sc, s, q)
		if n := testing.AllocsPerRun(100, func() {
			if _, ok := r.Cached(&sc, s, q); !ok {
				t.Fatal("not cached")
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", query, n)
		}
	}
	text := []byte("SELECT name FROM customers WHERE id = $1")
	r.Template(&sc, s, text, nil)
	values, formats := [][]byte{[]byte("42")}, []int16{0}
	if n := testing.AllocsPerRun(100, func() {
		tmpl, ok := r.CachedTemplate(&sc, s, text, nil)
		if !ok || tmpl.Bind(values, formats).Kind != Route {
			t.Fatal("not routed")
		}
	}); n != 0 {
		t.Errorf("Bind: %v allocations", n)
	}
}

// FuzzPlan: no statement makes the planner panic, and the cache gives what planning gives.
func FuzzPlan(f *testing.F) {
	for _, s := range []string{
		"SELECT * FROM customers WHERE id = 1", "INSERT INTO orders VALUES (1, 2), (3, 4)", "WITH a AS (DELETE FROM orders RETURNING *) SELECT * FROM a", "SELECT 1; SELECT 2",
		"SELECT id FROM product_search WHERE search @@ 'a' ORDER BY 1 LIMIT 2", "COPY orders FROM STDIN", "EXPLAIN (ANALYZE 1) SELECT 1", "SELECT set_config('a', 'b', true)", "MERGE INTO orders USING products ON true WHEN MATCHED THEN DELETE",
		"SELECT * FROM customers WHERE id IN (1, 2, NULL)", "UPDATE customers SET (a, b) = (1, 2) WHERE id = - 5", "SELECT * FROM (a JOIN b USING (c)) AS x", "CREATE TABLE a AS SELECT 1", "DECLARE a CURSOR FOR SELECT 1",
	} {
		f.Add(s)
	}
	r, s := shopRouter(f)
	f.Fuzz(func(t *testing.T, query string) {
		if len(query) > 10000 {
			return
		}
		cold, err := New(Config{Map: r.m, CacheBytes: 8})
		if err != nil {
			t.Fatal(err)
		}
		cold.names = r.names
		var a, b Scratch
		q := []byte(query)
		r.Plan(&a, s, q)
		want := cold.Plan(&b, s, q)
		got := r.Plan(&a, s, q)
		if len(got) != len(want) {
			t.Fatalf("%q: %d statements from the cache, %d without", query, len(got), len(want))
		}
		for i := range got {
			if g, w := got[i].Plan.String(), want[i].Plan.String(); g != w || got[i].Start != want[i].Start || got[i].End != want[i].End {
				t.Fatalf("%q:\nfrom the cache %s %d-%d\nwithout it     %s %d-%d", query, g, got[i].Start, got[i].End, w, want[i].Start, want[i].End)
			}
		}
		r.Template(&a, s, q, nil).Bind([][]byte{[]byte("7"), nil}, nil)
	})
}

func BenchmarkHit(b *testing.B) {
	r, s := shopRouter(b)
	var sc Scratch
	b.Run("simple", func(b *testing.B) {
		q := []byte("SELECT name FROM customers WHERE id = 1234567;")
		r.Plan(&sc, s, q)
		b.ReportAllocs()
		for b.Loop() {
			if _, ok := r.Cached(&sc, s, q); !ok {
				b.Fatal("not cached")
			}
		}
	})
	b.Run("bind", func(b *testing.B) {
		tmpl := r.Template(&sc, s, []byte("SELECT name FROM customers WHERE id = $1"), []uint32{20})
		values, formats := [][]byte{{0, 0, 0, 0, 0, 0, 0, 42}}, []int16{1}
		b.ReportAllocs()
		for b.Loop() {
			tmpl.Bind(values, formats)
		}
	})
	b.Run("miss", func(b *testing.B) {
		cold, err := New(Config{Map: r.m, Catalog: shopCatalog(), CacheBytes: 8})
		if err != nil {
			b.Fatal(err)
		}
		q := []byte("SELECT name FROM customers WHERE id = 1234567;")
		for b.Loop() {
			cold.Plan(&sc, s, q)
		}
	})
}

package sharding

import (
	"errors"
	"strings"
	"testing"
)

func TestNewRefuses(t *testing.T) {
	whole := []Shard{{Name: "a", Buckets: []Range{{0, 4095}}}}
	for _, c := range []struct {
		name string
		def  Definition
		want string
	}{
		{"no shard", Definition{}, "names no shard"},
		{"odd bucket count", Definition{Buckets: 1000, Shards: whole}, "bucket count 1000 is not a power of two"},
		{"too many buckets", Definition{Buckets: 1 << 17, Shards: whole}, "is not a power of two between 1 and 65536"},
		{"gap", Definition{Shards: []Shard{{Name: "a", Buckets: []Range{{0, 99}, {200, 4095}}}}}, "bucket 100-199 belongs to no shard"},
		{"overlap", Definition{Shards: []Shard{{Name: "a", Buckets: []Range{{0, 4095}}}, {Name: "b", Buckets: []Range{{7, 9}}}}}, `bucket 7-9 belongs to both "a" and "b"`},
		{"outside", Definition{Shards: []Shard{{Name: "a", Buckets: []Range{{0, 4096}}}}}, "bucket range 0-4096 is not within 0-4095"},
		{"backwards", Definition{Shards: []Shard{{Name: "a", Buckets: []Range{{0, 4095}, {9, 3}}}}}, "bucket range 9-3 is not within"},
		{"same name", Definition{Shards: []Shard{whole[0], {Name: "a"}}}, `two shards are named "a"`},
		{"no name", Definition{Shards: []Shard{{Buckets: []Range{{0, 4095}}}}}, "shard 1 has no name"},
		{"default", Definition{Shards: whole, Default: "z"}, `default shard "z" is not one of the shards (a)`},
		{"local", Definition{Shards: whole, Tables: []Table{{Name: "t", Shard: "z"}}}, `table public.t: shard "z" is not one of the shards (a)`},
		{"no key", Definition{Shards: whole, Tables: []Table{{Name: "t", Kind: Sharded, Type: Int8}}}, "needs a key column"},
		{"no type", Definition{Shards: whole, Tables: []Table{{Name: "t", Kind: Sharded, Column: "id"}}}, `key column "id" needs a type; one of smallint, integer`},
		{"reference with key", Definition{Shards: whole, Tables: []Table{{Name: "t", Kind: Reference, Column: "id"}}}, "neither a key column nor a shard"},
		{"twice", Definition{Shards: whole, Tables: []Table{{Name: "t"}, {Schema: "public", Name: "t"}}}, "table public.t: the map names it twice"},
	} {
		_, err := New(c.def)
		if !errors.Is(err, ErrInvalidMap) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
}

func TestLookup(t *testing.T) {
	m, err := New(Definition{
		Version: 3, Buckets: 8, Default: "b",
		Shards: []Shard{{Name: "a", Buckets: []Range{{0, 1}, {6, 6}}}, {Name: "b", Buckets: []Range{{2, 5}}}, {Name: "c", Buckets: []Range{{7, 7}}}, {Name: "idle"}},
		Tables: []Table{{Name: "orders", Kind: Sharded, Column: "customer_id", Type: Int8}, {Schema: "app", Name: "note"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for b := range m.Buckets() {
		got.WriteString(m.Shards()[m.ShardOf(b)].Name)
	}
	if want := "aabbbbac"; got.String() != want {
		t.Errorf("owners %s, want %s", got.String(), want)
	}
	if m.Default() != 1 || m.Version() != 3 {
		t.Errorf("default %d, version %d", m.Default(), m.Version())
	}
	if table, ok := m.Table("app", "note"); !ok || table.Shard != "b" || table.Kind != Local {
		t.Errorf("app.note is %+v, %v", table, ok)
	}
	if table, ok := m.Table("public", "orders"); !ok || table.Column != "customer_id" {
		t.Errorf("public.orders is %+v, %v", table, ok)
	}
	if _, ok := m.Table("public", "note"); ok {
		t.Error("public.note is in the map")
	}
}

func TestKeyTypeNames(t *testing.T) {
	for typ := Int2; typ.Valid(); typ++ {
		if got, err := ParseKeyType(typ.String()); err != nil || got != typ {
			t.Errorf("%s reads as %s, %v", typ, got, err)
		}
		if got, ok := KeyTypeByOID(typ.OID()); !ok || got != typ {
			t.Errorf("OID %d of %s is %s, %v", typ.OID(), typ, got, ok)
		}
	}
	for name, want := range map[string]KeyType{"BIGINT": Int8, "character  varying": Text, "varchar": Text, "int": Int4, "timestamptz": Timestamptz} {
		if got, err := ParseKeyType(name); err != nil || got != want {
			t.Errorf("%s reads as %s, %v", name, got, err)
		}
	}
	if _, err := ParseKeyType("json"); err == nil {
		t.Error("json is a key type")
	}
}

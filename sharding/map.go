// Package sharding says which shard a row belongs to. It is pure: a versioned map of virtual buckets to shards, the
// tables that are split by key, and hash functions that agree bit for bit with PostgreSQL's hash partitioning.
package sharding

import (
	"errors"
	"fmt"
	"strings"
)

// DefaultBuckets is the number of virtual buckets when a definition names none. It is fixed for the life of a cluster.
const DefaultBuckets = 4096

// MaxBuckets bounds the lookup table of a map (two bytes for each bucket).
const MaxBuckets = 1 << 16

// ErrInvalidMap is wrapped by every error about a shard map that cannot be used.
var ErrInvalidMap = errors.New("invalid shard map")

// Kind says how a table's rows are spread over shards.
type Kind uint8

// The kinds of tables.
const (
	Local     Kind = iota // lives on one shard
	Sharded               // split by key
	Reference             // copied to every shard
)

func (k Kind) String() string {
	switch k {
	case Sharded:
		return "sharded"
	case Reference:
		return "reference"
	}
	return "local"
}

// Range is a run of buckets, both ends included.
type Range struct {
	First, Last int
}

func (r Range) String() string {
	if r.First == r.Last {
		return fmt.Sprintf("%d", r.First)
	}
	return fmt.Sprintf("%d-%d", r.First, r.Last)
}

// Shard is a PostgreSQL cluster by name and the buckets that it owns. A shard may own none.
type Shard struct {
	Name    string
	Buckets []Range
}

// Table is a table's place in the map.
type Table struct {
	Schema string // "public" when empty
	Name   string
	Kind   Kind
	Column string  // Sharded: the key column
	Type   KeyType // Sharded: the key column's type
	Shard  string  // Local: the shard that it lives on; the default shard when empty
}

// Definition is a shard map as it is written down. New validates it.
type Definition struct {
	Version uint64
	Buckets int // a power of two up to MaxBuckets; 0 means DefaultBuckets
	Shards  []Shard
	Tables  []Table
	Default string // the shard of tables that the map does not name; the first shard when empty
}

// Map is a valid shard map: immutable, and safe for concurrent use.
type Map struct {
	version  uint64
	shards   []Shard
	owner    []uint16 // bucket -> index into shards
	tables   map[tableName]Table
	order    []Table
	fallback int
}

type tableName struct{ schema, name string }

// New validates a definition: bucket count, unique names, every bucket owned by exactly one shard, key columns and
// types of sharded tables, known shards of local ones. The error lists everything that is wrong.
func New(d Definition) (*Map, error) {
	buckets := d.Buckets
	if buckets == 0 {
		buckets = DefaultBuckets
	}
	var problems []error
	bad := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	if buckets < 1 || buckets > MaxBuckets || buckets&(buckets-1) != 0 {
		return nil, fmt.Errorf("%w: bucket count %d is not a power of two between 1 and %d", ErrInvalidMap, buckets, MaxBuckets)
	}
	if len(d.Shards) == 0 {
		return nil, fmt.Errorf("%w: it names no shard", ErrInvalidMap)
	}
	m := &Map{
		version: d.Version, shards: make([]Shard, len(d.Shards)),
		owner: make([]uint16, buckets), tables: make(map[tableName]Table, len(d.Tables)),
	}
	for i, s := range d.Shards {
		m.shards[i] = Shard{Name: s.Name, Buckets: append([]Range(nil), s.Buckets...)}
		if s.Name == "" {
			bad("shard %d has no name", i+1)
		}
		if first := m.Index(s.Name); first != i && first >= 0 && s.Name != "" {
			bad("two shards are named %q", s.Name)
		}
	}
	problems = append(problems, m.own()...)
	if d.Default != "" {
		if m.fallback = m.Index(d.Default); m.fallback < 0 {
			bad("default shard %q is not one of the shards (%s)", d.Default, m.names())
		}
	}
	for _, t := range d.Tables {
		if t.Schema == "" {
			t.Schema = "public"
		}
		if t.Kind == Local && t.Shard == "" && m.fallback >= 0 {
			t.Shard = m.shards[m.fallback].Name
		}
		if err := m.check(t); err != nil {
			problems = append(problems, fmt.Errorf("table %s.%s: %w", t.Schema, t.Name, err))
			continue
		}
		m.tables[tableName{t.Schema, t.Name}] = t
		m.order = append(m.order, t)
	}
	if len(problems) > 0 {
		return nil, fmt.Errorf("%w: %w", ErrInvalidMap, errors.Join(problems...))
	}
	return m, nil
}

// own fills the lookup table; each bucket must get exactly one owner.
func (m *Map) own() (problems []error) {
	const nobody = int(^uint(0) >> 1)
	owner := make([]int, len(m.owner))
	for b := range owner {
		owner[b] = nobody
	}
	for i, s := range m.shards {
		for _, r := range s.Buckets {
			if r.First < 0 || r.Last < r.First || r.Last >= len(owner) {
				problems = append(problems, fmt.Errorf("shard %q: bucket range %s is not within 0-%d", s.Name, r, len(owner)-1))
				continue
			}
			for b := r.First; b <= r.Last; b++ {
				if o := owner[b]; o != nobody {
					end := b
					for end < r.Last && owner[end+1] == o {
						end++
					}
					problems = append(problems, fmt.Errorf("bucket %s belongs to both %q and %q", Range{b, end}, m.shards[o].Name, s.Name))
					b = end
					continue
				}
				owner[b] = i
				m.owner[b] = uint16(i)
			}
		}
	}
	for b := 0; b < len(owner); b++ {
		if owner[b] != nobody {
			continue
		}
		end := b
		for end+1 < len(owner) && owner[end+1] == nobody {
			end++
		}
		problems = append(problems, fmt.Errorf("bucket %s belongs to no shard", Range{b, end}))
		b = end
	}
	return problems
}

func (m *Map) check(t Table) error {
	if t.Name == "" {
		return errors.New("it has no name")
	}
	if _, ok := m.tables[tableName{t.Schema, t.Name}]; ok {
		return errors.New("the map names it twice")
	}
	switch t.Kind {
	case Sharded:
		if t.Column == "" {
			return errors.New("a sharded table needs a key column")
		}
		if !t.Type.Valid() {
			return fmt.Errorf("key column %q needs a type; one of %s", t.Column, strings.Join(KeyTypeNames(), ", "))
		}
	case Reference:
		if t.Column != "" || t.Shard != "" {
			return errors.New("a reference table has neither a key column nor a shard")
		}
	case Local:
		if m.Index(t.Shard) < 0 {
			return fmt.Errorf("shard %q is not one of the shards (%s)", t.Shard, m.names())
		}
	default:
		return fmt.Errorf("unknown kind %d", t.Kind)
	}
	return nil
}

func (m *Map) names() string {
	n := make([]string, len(m.shards))
	for i, s := range m.shards {
		n[i] = s.Name
	}
	return strings.Join(n, ", ")
}

// Version is the number that its writer gave the map; a later map has a greater one.
func (m *Map) Version() uint64 { return m.version }

// Buckets is the number of virtual buckets.
func (m *Map) Buckets() int { return len(m.owner) }

// Shards are the shards in the order of the definition; everything else refers to them by index. Not to be changed.
func (m *Map) Shards() []Shard { return m.shards }

// Tables are the tables that the map names, in the order of the definition. Not to be changed.
func (m *Map) Tables() []Table { return m.order }

// Default is the index of the shard that holds tables outside the map.
func (m *Map) Default() int { return m.fallback }

// Index finds a shard by name, -1 when there is none.
func (m *Map) Index(name string) int {
	for i := range m.shards {
		if m.shards[i].Name == name {
			return i
		}
	}
	return -1
}

// Table finds a table; ok is false for tables outside the map.
func (m *Map) Table(schema, name string) (t Table, ok bool) {
	t, ok = m.tables[tableName{schema, name}]
	return t, ok
}

// Bucket is the virtual bucket of a hash: the remainder as satisfies_hash_partition takes it, with the bucket count as modulus.
func (m *Map) Bucket(hash uint64) int { return int(hash & uint64(len(m.owner)-1)) }

// ShardOf is the index of the shard that owns a bucket.
func (m *Map) ShardOf(bucket int) int { return int(m.owner[bucket]) }

// Place is the index of the shard that owns a key value's bucket. See Hash for value, format and errors.
func (m *Map) Place(t KeyType, value []byte, format Format) (int, error) {
	h, err := Hash(t, value, format)
	if err != nil {
		return 0, err
	}
	return m.ShardOf(m.Bucket(h)), nil
}

// Package redis keeps a read model in Redis: one hash or one JSON string for each row, written by an atomic script
// that compares versions, and queried like a table.
//
// The keys of a model named orders with the prefix "shop:" (Slices = 1):
//
//	shop:{orders}:42         the row with primary key 42: a hash of column → PostgreSQL text (NULLs absent), or a
//	                         string with the row's JSON; deleted rows have no such key
//	shop:{orders}#index      sorted set of the ids of live rows, in order of their bytes
//	shop:{orders}#versions   hash of id → version (19 digits), "+" live or "-" tombstone, origin (schema.table/shard/partition)
//	shop:{orders}#floors     hash of origin → version (19 digits) of its last TRUNCATE
//	shop:{orders}#partitions set of the topics' partitions that were applied from their beginning: shop.public.orders/3
//
// All keys of a slice have one hash tag, so that the script is legal in Redis Cluster; with Slices = n the tags are
// {orders/0} to {orders/n-1}, and an id belongs to slice FNV-1a-32(id) mod n. Writes are as durable as the server's
// own persistence (appendonly) makes them.
package redis

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"strconv"
	"strings"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/tidemarkdb/tidemark/cqrs"
)

// Mode is the form of a row in Redis.
type Mode string

// The modes.
const (
	Hash Mode = "hash" // column → PostgreSQL's text form; NULL columns are absent
	JSON Mode = "json" // a string: the row as a JSON object, values as in docs/events.md
)

// Config of one read model.
type Config struct {
	Name     string        // of the view in SQL and in the keys
	URL      string        // redis://host:6379/0, rediss:// with TLS, unix:///path
	Cluster  bool          // URL is one node of a Redis Cluster
	Username string        // instead of the URL's
	Password string        // instead of the URL's
	Prefix   string        // before every key
	Mode     Mode          // default Hash
	Slices   int           // number of hash tags the model is spread over, for ever; default 1
	Columns  []cqrs.Column // at least one with Key
	Timeout  time.Duration // of one round trip; default 5 s

	SortBytes int64 // memory that one ORDER BY may hold; default 64 MB
}

const (
	defaultTimeout   = 5 * time.Second
	defaultSortBytes = 64 << 20
	maxSlices        = 4096
)

// Model is a read model in Redis: a cqrs.Projector and a cqrs.View. It is safe for concurrent use.
type Model struct {
	cfg    Config
	client goredis.UniversalClient

	mu    sync.Mutex
	ready bool // guarded by mu: the store was made with the same number of slices
}

var (
	_ cqrs.Projector = (*Model)(nil)
	_ cqrs.View      = (*Model)(nil)
)

// New checks the configuration; it does not connect, so that a process starts while Redis is away.
func New(cfg Config) (*Model, error) {
	if cfg.Mode == "" {
		cfg.Mode = Hash
	}
	if cfg.Slices == 0 {
		cfg.Slices = 1
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = defaultTimeout
	}
	if cfg.SortBytes == 0 {
		cfg.SortBytes = defaultSortBytes
	}
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("redis read model %q: %w", cfg.Name, err)
	}
	client, err := cfg.connect()
	if err != nil {
		return nil, fmt.Errorf("redis read model %q: %w", cfg.Name, err)
	}
	return &Model{cfg: cfg, client: client}, nil
}

func (cfg Config) check() error {
	switch {
	case cfg.Name == "" || strings.ContainsAny(cfg.Name, "{}"):
		return errors.New("the name is empty or has a brace")
	case strings.ContainsAny(cfg.Prefix, "{}"):
		return fmt.Errorf("prefix %q has a brace, which would be a cluster hash tag", cfg.Prefix)
	case cfg.Mode != Hash && cfg.Mode != JSON:
		return fmt.Errorf("mode %q: want hash or json", cfg.Mode)
	case cfg.Slices < 1 || cfg.Slices > maxSlices:
		return fmt.Errorf("slices %d: want 1 to %d", cfg.Slices, maxSlices)
	}
	seen, keys := map[string]bool{}, 0
	for _, c := range cfg.Columns {
		if c.Name == "" || seen[c.Name] {
			return fmt.Errorf("column %q is unnamed or named twice", c.Name)
		}
		seen[c.Name] = true
		if c.Key {
			keys++
		}
	}
	if keys == 0 {
		return errors.New("no column is a primary key column")
	}
	return nil
}

func (cfg Config) connect() (goredis.UniversalClient, error) {
	if cfg.Cluster {
		o, err := goredis.ParseClusterURL(cfg.URL)
		if err != nil {
			return nil, fmt.Errorf("url: %w", err)
		}
		o.ContextTimeoutEnabled, o.DialerRetries = true, 1
		o.DialTimeout, o.ReadTimeout, o.WriteTimeout, o.PoolTimeout = cfg.Timeout, cfg.Timeout, cfg.Timeout, cfg.Timeout
		if cfg.Username != "" {
			o.Username = cfg.Username
		}
		if cfg.Password != "" {
			o.Password = cfg.Password
		}
		return goredis.NewClusterClient(o), nil
	}
	o, err := goredis.ParseURL(cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("url: %w", err)
	}
	// One dial for each attempt: the attempts have their own back-off, and readers are told why there is no connection before the
	// timeout leaves nothing but itself to tell.
	o.ContextTimeoutEnabled, o.DialerRetries = true, 1
	o.DialTimeout, o.ReadTimeout, o.WriteTimeout, o.PoolTimeout = cfg.Timeout, cfg.Timeout, cfg.Timeout, cfg.Timeout
	if cfg.Username != "" {
		o.Username = cfg.Username
	}
	if cfg.Password != "" {
		o.Password = cfg.Password
	}
	return goredis.NewClient(o), nil
}

// Close releases the connections.
func (m *Model) Close() error { return m.client.Close() }

// Name of the view.
func (m *Model) Name() string { return m.cfg.Name }

// Columns of the view.
func (m *Model) Columns() []cqrs.Column { return m.cfg.Columns }

// Refresh does nothing: what the script wrote is visible.
func (m *Model) Refresh(context.Context) error { return nil }

// Check says whether Redis answers and holds this model with these settings.
func (m *Model) Check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, m.cfg.Timeout)
	defer cancel()
	if err := m.client.Ping(ctx).Err(); err != nil {
		return fmt.Errorf("redis read model %s: ping: %w", m.cfg.Name, err)
	}
	return m.Prepare(ctx)
}

// Prepare makes the view known to Redis before its first event, and makes sure, once, that the keys in Redis were spread over as many slices as are configured now: with
// another number a row would be looked for, and written, in two places.
func (m *Model) Prepare(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ready {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, m.cfg.Timeout)
	defer cancel()
	key, want := m.cfg.Prefix+"{"+m.cfg.Name+"}#slices", strconv.Itoa(m.cfg.Slices)
	have, err := m.client.Get(ctx, key).Result()
	if errors.Is(err, goredis.Nil) {
		if err = m.client.SetNX(ctx, key, want, 0).Err(); err == nil {
			have, err = m.client.Get(ctx, key).Result()
		}
	}
	if err != nil {
		return fmt.Errorf("redis read model %s: %w", m.cfg.Name, err)
	}
	if have != want {
		return fmt.Errorf("redis read model %s was made with slices = %s (key %s), not %s: set it back, or rebuild the model under another prefix",
			m.cfg.Name, have, key, want)
	}
	m.ready = true
	return nil
}

// slice is one hash tag's keys.
type slice struct {
	row, index, versions, floors, partitions string
}

func (m *Model) slice(n int) slice {
	tag := m.cfg.Prefix + "{" + m.cfg.Name
	if m.cfg.Slices > 1 {
		tag += "/" + strconv.Itoa(n)
	}
	tag += "}"
	return slice{row: tag + ":", index: tag + "#index", versions: tag + "#versions", floors: tag + "#floors", partitions: tag + "#partitions"}
}

func (m *Model) sliceOf(id string) slice {
	if m.cfg.Slices == 1 {
		return m.slice(0)
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(id)) // a hash.Hash never fails
	return m.slice(int(h.Sum32() % uint32(m.cfg.Slices)))
}

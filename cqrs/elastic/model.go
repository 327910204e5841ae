// Package elastic keeps a read model in Elasticsearch: one document for each row, written with external versions, and
// queried like a table, by full text too.
//
// The read model orders of generation 1 is the index orders-1 with two aliases: orders, which queries use and a
// rebuild moves, and orders-1.write, which only that generation's projector uses; taking it away fences the projector
// off. A document holds the row's columns in the JSON form of docs/events.md (NULLs absent) and one object more:
//
//	"_tidemark": {
//	  "id":      "42",               the primary key; also the document's _id
//	  "origin":  "public.orders/s1/3", schema.table/shard/partition: what a TRUNCATE reaches
//	  "version": 2251799813685249,   also the document's _version
//	  "null":    ["note"],           columns that are NULL
//	  "exact":   {"total": "..."},   what decides comparisons where Elasticsearch's own type would round or refuse
//	  "inexact": ["body"],           columns whose value is too long for the index, so that queries look at it themselves
//	  "deleted": true                only in tombstones, which queries leave out
//	}
//
// No scripts, reindexing or other optional modules are needed.
package elastic

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/elastic/go-elasticsearch/v8"

	"github.com/tidemarkdb/tidemark/cqrs"
)

// Config of one read model.
type Config struct {
	Name       string   // of the view in SQL
	Index      string   // alias and beginning of the index's name; default Name
	Generation int      // default 1
	Addresses  []string // http://host:9200
	Username   string
	Password   string
	APIKey     string // base64, instead of user and password
	CACert     []byte // PEM, for https with a private authority

	Columns  []cqrs.Column  // at least one with Key
	Mapping  map[string]any // by column: merged over the field mapping derived from its type
	Settings map[string]any // merged over the index's settings (analysis and so on)
	Shards   int            // default 1
	Replicas int            // default 0
	Refresh  time.Duration  // index.refresh_interval; default 1 s

	BulkBytes int64         // of one bulk request; default 5 MB
	Timeout   time.Duration // of one request; default 30 s
	PageBytes int64         // wanted size of one page of a large result; default 4 MB
	SortBytes int64         // memory of ORDER BY over rows looked up by key; default 64 MB
}

const (
	defaultRefresh   = time.Second
	defaultBulkBytes = 5 << 20
	defaultTimeout   = 30 * time.Second
	defaultPageBytes = 4 << 20
	defaultSortBytes = 64 << 20
)

// Model is a read model in Elasticsearch: a cqrs.Projector and a cqrs.View. It is safe for concurrent use.
type Model struct {
	cfg     Config
	fields  []field // as Config.Columns
	client  *elasticsearch.Client
	refresh refresher

	mu      sync.Mutex
	written bool // guarded by mu: the index of this generation is there and fits
	read    bool // guarded by mu: the alias leads to an index that fits
}

var (
	_ cqrs.Projector = (*Model)(nil)
	_ cqrs.View      = (*Model)(nil)
)

// New checks the configuration; it does not connect, so that a process starts while Elasticsearch is away.
func New(cfg Config) (*Model, error) {
	if cfg.Index == "" {
		cfg.Index = cfg.Name
	}
	setDefault(&cfg.Generation, 1)
	setDefault(&cfg.Shards, 1)
	setDefault(&cfg.Refresh, defaultRefresh)
	setDefault(&cfg.BulkBytes, defaultBulkBytes)
	setDefault(&cfg.Timeout, defaultTimeout)
	setDefault(&cfg.PageBytes, defaultPageBytes)
	setDefault(&cfg.SortBytes, defaultSortBytes)
	m := &Model{cfg: cfg}
	if err := m.configure(); err != nil {
		return nil, fmt.Errorf("elasticsearch read model %q: %w", cfg.Name, err)
	}
	m.refresh.run = func() error { return m.refreshIndex(m.cfg.Index) }
	return m, nil
}

func setDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

func (m *Model) configure() error {
	cfg := &m.cfg
	if err := checkIndexName(cfg.Index); err != nil {
		return err
	}
	if len(cfg.Addresses) == 0 {
		return errors.New("no address: want one such as http://127.0.0.1:9200")
	}
	var err error
	if m.fields, err = deriveFields(cfg.Columns, cfg.Mapping); err != nil {
		return err
	}
	m.client, err = elasticsearch.NewClient(elasticsearch.Config{
		Addresses: cfg.Addresses, Username: cfg.Username, Password: cfg.Password, APIKey: cfg.APIKey, CACert: cfg.CACert,
		// Whoever applies an event or asks a query retries or not; here a failure is only reported.
		DisableRetry: true,
	})
	if err != nil {
		return fmt.Errorf("client: %w", err)
	}
	return nil
}

// checkIndexName follows the create-index API's rules.
func checkIndexName(s string) error {
	const most = 200 // of 255, for the generation and .write
	if s == "" || len(s) > most || strings.ToLower(s) != s || strings.ContainsAny(s, "\\/*?\"<>| ,#:") || strings.ContainsRune("-_+.", rune(s[0])) {
		return fmt.Errorf(`index name %q: want up to %d lower case letters, digits, "-", "_" and ".", with a letter or digit first`, s, most)
	}
	return nil
}

// Close releases idle connections.
func (m *Model) Close() error { return m.client.Close(context.Background()) }

// Name of the view.
func (m *Model) Name() string { return m.cfg.Name }

// Columns of the view.
func (m *Model) Columns() []cqrs.Column { return m.cfg.Columns }

// Check says whether Elasticsearch answers and has every primary shard of the model's index.
func (m *Model) Check(ctx context.Context) error {
	body, err := m.do(ctx, http.MethodGet, "/_cluster/health/"+m.cfg.Index+"?timeout=1s&level=indices", nil)
	if err != nil {
		return fmt.Errorf("elasticsearch read model %s: health: %w", m.cfg.Name, err)
	}
	var health struct {
		Indices map[string]struct {
			Status string `json:"status"`
		} `json:"indices"`
	}
	if err := json.Unmarshal(body, &health); err != nil {
		return fmt.Errorf("elasticsearch read model %s: health: %w", m.cfg.Name, err)
	}
	for name, i := range health.Indices {
		if i.Status == "red" {
			return fmt.Errorf("elasticsearch read model %s: index %s is red: a primary shard is missing", m.cfg.Name, name)
		}
	}
	return m.prepareRead(ctx)
}

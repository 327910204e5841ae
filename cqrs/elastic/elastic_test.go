package elastic_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgtype"
	"golang.org/x/sync/errgroup"

	"github.com/tidemarkdb/tidemark/cqrs"
	"github.com/tidemarkdb/tidemark/cqrs/cqrstest"
	"github.com/tidemarkdb/tidemark/cqrs/elastic"
	"github.com/tidemarkdb/tidemark/internal/lsn"
	"github.com/tidemarkdb/tidemark/replication"
)

func open(t *testing.T, cfg elastic.Config) *elastic.Model {
	t.Helper()
	m, err := elastic.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestConformance(t *testing.T) {
	cqrstest.Suite{
		Addr: server(t), FullText: true, Unindexed: []uint32{pgtype.ByteaOID},
		Open: func(t *testing.T, name string, cols []cqrs.Column, addr string) cqrstest.Store {
			return open(t, elastic.Config{
				Name: name, Addresses: []string{"http://" + addr}, Columns: cols, Shards: 2,
				PageBytes: 200 << 10, BulkBytes: 256 << 10, // so that there are many of both
			})
		},
	}.Run(t)
}

var columns = []cqrs.Column{{Name: "id", OID: pgtype.Int8OID, Key: true}, {Name: "title", OID: pgtype.TextOID}, {Name: "n", OID: pgtype.Int4OID}}

func model(t *testing.T, cfg elastic.Config) *elastic.Model {
	t.Helper()
	if cfg.Columns == nil {
		cfg.Columns = columns
	}
	cfg.Addresses = []string{"http://" + server(t)}
	m := open(t, cfg)
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

func row(version lsn.Version, id int, title, n string) cqrs.Event {
	key := cqrs.Field{Name: "id", Value: []byte(strconv.Itoa(id))}
	return cqrs.Event{
		Op: replication.Create, Schema: "public", Table: "t", Version: version, Last: true, Source: cqrs.Source{Shard: "s1"},
		Key: cqrs.Row{key}, After: cqrs.Row{key, {Name: "title", Value: []byte(strconv.Quote(title))}, {Name: "n", Value: []byte(n)}},
	}
}

func mustApply(t *testing.T, m *elastic.Model, events ...cqrs.Event) {
	t.Helper()
	if errs := m.Apply(t.Context(), events); errs != nil {
		t.Fatal(errs)
	}
	if err := m.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func ids(t *testing.T, m *elastic.Model, where ...cqrs.Predicate) (out []string) {
	t.Helper()
	err := m.Scan(t.Context(), cqrs.Query{Columns: []string{"id"}, Where: where, Order: []cqrs.Order{{Column: "id"}}, Limit: -1}, func(r [][]byte) error {
		out = append(out, string(r[0]))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// call is a plain request to the server.
func call(t *testing.T, method, path, body string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+server(t)+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode >= 300 {
		t.Fatalf("%s %s: %d %s %v", method, path, res.StatusCode, b, err)
	}
	return string(b)
}

// A document that Elasticsearch refuses fails alone and for good, with Elasticsearch's reason.
func TestPoisonOfTheMapping(t *testing.T) {
	m := model(t, elastic.Config{Name: "poison"})
	errs := m.Apply(t.Context(), []cqrs.Event{row(1, 1, "good", "1"), row(1, 2, "bad", "3000000000"), row(1, 3, "good", "2")})
	if len(errs) != 3 || errs[0] != nil || errs[2] != nil {
		t.Fatalf("got %v, want one error", errs)
	}
	if !errors.Is(errs[1], cqrs.ErrPermanent) || !strings.Contains(errs[1].Error(), "out of range") {
		t.Errorf("got %v, want a permanent error with the reason", errs[1])
	}
	if err := m.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"1", "3"}, ids(t, m)); d != "" {
		t.Error(d)
	}
}

// An index of others, or of other columns, is never written to.
func TestIndexThatDoesNotFit(t *testing.T) {
	call(t, http.MethodPut, "/foreign-1", `{"aliases": {"foreign": {}}}`)
	errs := model(t, elastic.Config{Name: "foreign"}).Apply(t.Context(), []cqrs.Event{row(1, 1, "x", "1")})
	if len(errs) != 1 || errs[0] == nil || !strings.Contains(errs[0].Error(), "not made by Tidemark") {
		t.Errorf("got %v, want an error about the foreign index", errs)
	}

	mustApply(t, model(t, elastic.Config{Name: "evolving"}), row(1, 1, "x", "1"))
	other := []cqrs.Column{columns[0], columns[1], {Name: "n", OID: pgtype.NumericOID}, {Name: "added", OID: pgtype.TextOID}}
	changed := model(t, elastic.Config{Name: "evolving", Columns: other})
	errs = changed.Apply(t.Context(), []cqrs.Event{row(2, 1, "x", "1")})
	for _, want := range []string{"column added", "column n", "another index"} {
		if len(errs) != 1 || errs[0] == nil || !strings.Contains(errs[0].Error(), want) || errors.Is(errs[0], cqrs.ErrPermanent) {
			t.Errorf("got %v, want a transient error that names %q", errs, want)
		}
	}
	if err := changed.Scan(t.Context(), cqrs.Query{Columns: []string{"id"}, Limit: -1}, nil); err == nil || !strings.Contains(err.Error(), "column added") {
		t.Errorf("a scan with other columns: got %v", err)
	}
	// The next generation fills an index of its own; readers stay where they are.
	mustApply(t, model(t, elastic.Config{Name: "evolving", Columns: other, Generation: 2}), row(3, 2, "x", "1"))
	if d := cmp.Diff([]string{"1"}, ids(t, model(t, elastic.Config{Name: "evolving"}))); d != "" {
		t.Error(d)
	}
}

// A projector whose write alias was taken away writes nothing, and an index that someone deleted does not come back by itself.
func TestFenced(t *testing.T) {
	m := model(t, elastic.Config{Name: "fenced"})
	mustApply(t, m, row(1, 1, "x", "1"))
	call(t, http.MethodDelete, "/fenced-1/_alias/fenced-1.write", "")
	for range 2 {
		errs := m.Apply(t.Context(), []cqrs.Event{row(2, 1, "y", "1")})
		if len(errs) != 1 || errs[0] == nil || errors.Is(errs[0], cqrs.ErrPermanent) || !strings.Contains(errs[0].Error(), "alias") {
			t.Errorf("got %v, want a transient error that names the alias", errs)
		}
	}
	call(t, http.MethodDelete, "/fenced-1", "")
	if errs := m.Apply(t.Context(), []cqrs.Event{row(2, 1, "y", "1")}); len(errs) != 1 || errs[0] == nil || errors.Is(errs[0], cqrs.ErrPermanent) {
		t.Errorf("got %v, want a transient error", errs)
	}
	if got := call(t, http.MethodGet, "/_cat/indices/fenced*?h=index", ""); got != "" {
		t.Errorf("the index came back: %s", got)
	}
}

func TestViewBeforeItsIndex(t *testing.T) {
	m := model(t, elastic.Config{Name: "early"})
	if err := m.Scan(t.Context(), cqrs.Query{Columns: []string{"id"}, Limit: -1}, nil); !errors.Is(err, cqrs.ErrStale) || !strings.Contains(err.Error(), "projector") {
		t.Errorf("got %v, want ErrStale that asks for a projector", err)
	}
	mustApply(t, m, row(1, 1, "x", "1"))
	if d := cmp.Diff([]string{"1"}, ids(t, m)); d != "" {
		t.Error(d)
	}
}

// Several projectors that start at once make one index.
func TestCreatedOnce(t *testing.T) {
	var g errgroup.Group
	for i := range 4 {
		m := model(t, elastic.Config{Name: "race"})
		g.Go(func() error {
			for deadline := time.Now().Add(time.Minute); ; {
				errs := m.Apply(t.Context(), []cqrs.Event{row(1, i, "x", "1")})
				if errs == nil {
					return nil
				}
				// The index of the fastest may still be starting: transient, and so tried again.
				if errors.Is(errs[0], cqrs.ErrPermanent) || time.Now().After(deadline) {
					return errs[0]
				}
				time.Sleep(50 * time.Millisecond)
			}
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	m := model(t, elastic.Config{Name: "race"})
	if err := m.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"0", "1", "2", "3"}, ids(t, m)); d != "" {
		t.Error(d)
	}
}

// A user's mapping changes how a column is searched, never how it compares.
func TestMappingOverride(t *testing.T) {
	m := model(t, elastic.Config{
		Name: "override",
		Mapping: map[string]any{
			"title": map[string]any{"type": "text", "analyzer": "exact_case", "fields": map[string]any{"raw": map[string]any{"type": "keyword"}}},
			"n":     map[string]any{"type": "keyword"},
		},
		Settings: map[string]any{"analysis": map[string]any{"analyzer": map[string]any{"exact_case": map[string]any{"type": "custom", "tokenizer": "standard"}}}},
	})
	mustApply(t, m, row(1, 1, "Red Shoes", "10"), row(1, 2, "red shoes", "9"), row(1, 3, "red", "100"))
	for _, tc := range []struct {
		p    cqrs.Predicate
		want []string
	}{
		{cqrs.Predicate{Column: "title", Op: cqrs.Match, Values: []string{"Red"}}, []string{"1"}},
		{cqrs.Predicate{Column: "title", Op: cqrs.Eq, Values: []string{"Red Shoes"}}, []string{"1"}},
		{cqrs.Predicate{Column: "title", Op: cqrs.Prefix, Values: []string{"red"}}, []string{"2", "3"}},
		{cqrs.Predicate{Column: "n", Op: cqrs.Gt, Values: []string{"9"}}, []string{"1", "3"}},
	} {
		if d := cmp.Diff(tc.want, ids(t, m, tc.p)); d != "" {
			t.Errorf("%v: %s", tc.p, d)
		}
	}
	if _, err := elastic.New(elastic.Config{Name: "x", Addresses: []string{"http://h"}, Columns: columns, Mapping: map[string]any{"nope": map[string]any{}}}); err == nil {
		t.Error("a mapping of no column is accepted")
	}
}

// A mapping of another type does not inherit the parameters of the derived one, which Elasticsearch would refuse.
func TestMappingOfAnotherType(t *testing.T) {
	m := model(t, elastic.Config{Name: "othertype", Mapping: map[string]any{"title": map[string]any{"type": "integer"}}})
	mustApply(t, m, row(1, 1, "7", "1"))
	if errs := m.Apply(t.Context(), []cqrs.Event{row(2, 2, "seven", "1")}); len(errs) != 1 || !errors.Is(errs[0], cqrs.ErrPermanent) {
		t.Errorf("a value that the mapping refuses: %v, want a permanent error", errs)
	}
}

// Full-text results without ORDER BY come best first.
func TestRelevance(t *testing.T) {
	m := model(t, elastic.Config{Name: "relevance"})
	mustApply(t, m, row(1, 1, "a long title in which the word tide is one among many others", "1"), row(1, 2, "tide", "1"), row(1, 3, "tide and tide again", "1"))
	var got []string
	if err := m.Scan(t.Context(), cqrs.Query{Columns: []string{"id"}, Where: []cqrs.Predicate{{Column: "search", Op: cqrs.Match, Values: []string{"tide"}}}, Limit: -1}, func(r [][]byte) error {
		got = append(got, string(r[0]))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if len(got) != 3 || got[2] != "1" {
		t.Errorf("got %v, want the long title last", got)
	}
}

// A server that refuses a request as too large gets it in parts; one document that is too large by itself is poison.
// One that asks to slow down is transient.
func TestBulkOfAFakeServer(t *testing.T) {
	const most = 2000
	var mu sync.Mutex
	status, largest, stored := http.StatusOK, 0, map[string]bool{}
	fake := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		w.Header().Set("X-Elastic-Product", "Elasticsearch")
		w.Header().Set("Content-Type", "application/json")
		body, _ := io.ReadAll(r.Body)
		switch {
		case strings.HasSuffix(r.URL.Path, "/_mapping"):
			if _, err := io.WriteString(w, mappingOf(t)); err != nil {
				t.Error(err)
			}
		case strings.HasSuffix(r.URL.Path, "/_mget"):
			_, _ = io.WriteString(w, `{"docs":[{"found":false}]}`)
		case status != http.StatusOK:
			w.WriteHeader(status)
			_, _ = io.WriteString(w, `{"error":{"type":"es_rejected_execution_exception","reason":"queue is full"},"status":429}`)
		case len(body) > most:
			w.WriteHeader(http.StatusRequestEntityTooLarge)
		default:
			largest = max(largest, len(body))
			var items []string
			for _, line := range bytes.Split(body, []byte("\n")) {
				var action struct {
					Index *struct {
						ID string `json:"_id"`
					} `json:"index"`
				}
				if json.Unmarshal(line, &action) == nil && action.Index != nil {
					stored[action.Index.ID] = true
					items = append(items, `{"index":{"status":201}}`)
				}
			}
			_, _ = fmt.Fprintf(w, `{"errors":false,"items":[%s]}`, strings.Join(items, ","))
		}
	}))
	defer fake.Close()
	m := open(t, elastic.Config{Name: "fake", Addresses: []string{fake.URL}, Columns: columns})
	defer func() { _ = m.Close() }()
	var events []cqrs.Event
	for i := range 50 {
		title := "short"
		if i == 33 {
			title = strings.Repeat("x", 3*most)
		}
		events = append(events, row(1, i, title, "1"))
	}
	errs := m.Apply(t.Context(), events)
	if len(errs) != len(events) {
		t.Fatalf("%d errors for %d events", len(errs), len(events))
	}
	for i, err := range errs {
		if (i == 33) != errors.Is(err, cqrs.ErrPermanent) || i != 33 && err != nil {
			t.Errorf("event %d: %v", i, err)
		}
	}
	if len(stored) != 49 || largest > most {
		t.Errorf("%d documents stored, the largest request has %d bytes", len(stored), largest)
	}
	mu.Lock()
	status = http.StatusTooManyRequests
	mu.Unlock()
	errs = m.Apply(t.Context(), events[:2])
	if len(errs) != 2 || errs[0] == nil || errs[1] == nil || errors.Is(errs[0], cqrs.ErrPermanent) || !strings.Contains(errs[0].Error(), "queue is full") {
		t.Errorf("got %v, want transient errors with the reason", errs)
	}
}

// mappingOf is what the real server says of an index with these columns.
func mappingOf(t *testing.T) string {
	if errs := model(t, elastic.Config{Name: "mapped"}).Apply(t.Context(), []cqrs.Event{row(1, 1, "x", "1")}); errs != nil {
		t.Fatal(errs)
	}
	return call(t, http.MethodGet, "/mapped-1/_mapping", "")
}

package elastic

import (
	"bytes"
	"io"
	"math/rand"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/elastic/go-elasticsearch/v8"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/tidemarkdb/tidemark/cqrs"
	"github.com/tidemarkdb/tidemark/replication"
)

// answer gives the same one to every request.
type answer struct {
	status int
	body   []byte
}

func (a answer) RoundTrip(*http.Request) (*http.Response, error) {
	return &http.Response{
		StatusCode: a.status, Body: io.NopCloser(bytes.NewReader(a.body)),
		Header: http.Header{"X-Elastic-Product": {"Elasticsearch"}, "Content-Type": {"application/json"}},
	}, nil
}

// Whatever a server answers, queries and writes end, without a panic; and a write that was not acknowledged is not taken for one
// that was. (No fuzz target: with its instruments the hundreds of packages of the client take minutes to build.)
func TestAnswersOfAnyKind(t *testing.T) {
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewSource(seed))
	answers := []string{
		`{"_shards":{"total":1,"successful":1,"failed":0},"id":"p","hits":{"total":{"value":1},"hits":[{"_id":"1","_source":{"id":1,"title":"x","at":"2024-02-29 12:00:00+00","tags":"{a}"},"sort":[1]}]}}`,
		`{"errors":false,"items":[{"index":{"status":201}}]}`,
		`{"errors":true,"items":[{"index":{"status":409,"error":{"type":"version_conflict_engine_exception","reason":"r"}}}]}`,
		`{"error":{"type":"search_phase_execution_exception","reason":"all shards failed","caused_by":{"type":"x"}},"status":503}`,
		`{"docs":[{"_id":"1","found":true,"_version":3,"_source":{"id":"7","_tidemark":{"deleted":true,"inexact":["title"]}}}]}`,
		`{"_shards":{"failed":1,"failures":[{}]}}`, `{"hits":{"hits":[null]}}`, `[]`, ``,
	}
	cols := []cqrs.Column{
		{Name: "id", OID: pgtype.Int8OID, Key: true}, {Name: "title", OID: pgtype.TextOID}, {Name: "at", OID: pgtype.TimestamptzOID}, {Name: "tags", OID: pgtype.TextArrayOID},
	}
	m, err := New(Config{Name: "m", Addresses: []string{"http://127.0.0.1:1"}, Columns: cols})
	if err != nil {
		t.Fatal(err)
	}
	key := cqrs.Row{{Name: "id", Value: []byte("1")}}
	event := cqrs.Event{Op: replication.Create, Schema: "public", Table: "t", Version: 5, Last: true, Key: key, After: key, Source: cqrs.Source{Shard: "s1"}}
	try := func(status int, body []byte) {
		if m.client, err = elasticsearch.NewClient(elasticsearch.Config{Transport: answer{status, body}, DisableRetry: true}); err != nil {
			t.Fatal(err)
		}
		m.read, m.written = true, true
		for _, q := range []cqrs.Query{
			{Columns: []string{"id", "title", "at", "tags"}, Order: []cqrs.Order{{Column: "title"}}, Limit: 10},
			{Columns: []string{"title"}, Where: []cqrs.Predicate{{Column: "id", Op: cqrs.Eq, Values: []string{"1"}}}, Limit: -1},
			{Count: true, Where: []cqrs.Predicate{{Column: "title", Op: cqrs.Prefix, Values: []string{"x"}}}, Limit: -1},
		} {
			_ = m.Scan(t.Context(), q, func([][]byte) error { return nil })
		}
		m.written = true
		if errs := m.Apply(t.Context(), []cqrs.Event{event}); errs == nil && (status > 299 || !bytes.Contains(body, []byte("status"))) {
			t.Errorf("%d %s was taken for an acknowledgement", status, body)
		}
		_ = m.refreshIndex("m")
	}
	for _, a := range answers {
		try(http.StatusOK, []byte(a))
		try(http.StatusServiceUnavailable, []byte(a))
	}
	for range 3000 {
		b := []byte(answers[rnd.Intn(len(answers))])
		for range 1 + rnd.Intn(3) {
			switch at := rnd.Intn(len(b) + 1); rnd.Intn(3) {
			case 0: // a piece of another
				other := answers[rnd.Intn(len(answers))]
				b = slices.Concat(b[:at], []byte(other[rnd.Intn(len(other)+1):]))
			case 1:
				b = slices.Concat(b[:at], []byte([]string{"null", "-1", "1e99", "{}", "[]", `""`, "true", "\x00"}[rnd.Intn(8)]), b[min(len(b), at+rnd.Intn(4)):])
			case 2:
				b = b[:at]
			}
		}
		try([]int{200, 201, 400, 404, 409, 429, 503}[rnd.Intn(7)], b)
	}
}

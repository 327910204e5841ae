package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/segmentio/kafka-go"
)

// TestPoisonedEvents has a value that the index refuses, because of an override in the file, and a record that somebody put on the topic by hand.
// Both go to the dead-letter queue with their cause while other keys go on; sessions are not given silent old values; once the cause is
// mended, the event is replayed.
func TestPoisonedEvents(t *testing.T) {
	s := start(t, spec{
		tables: "{parcels: {key: id}}",
		views: `  parcel_search: {from: parcels, elastic: {index: INDEX_parcels, mapping: {weight: {type: integer}}}}
  parcel_cache: {from: parcels, redis: {prefix: "PREFIX"}}
`,
		projectors: 1, sql: []string{"CREATE TABLE parcels (id bigint PRIMARY KEY, weight text, note text)"},
	})
	conn := s.connect()
	must(t, conn, waits)
	insert := func(id int, weight string) {
		t.Helper()
		must(t, conn, "INSERT INTO parcels VALUES ($1, $2, 'first') ON CONFLICT (id) DO UPDATE SET weight = excluded.weight, note = 'again'", id, weight)
	}
	weight := func(view string, id int) (string, error) {
		var w string
		err := conn.QueryRow(within(t, patience), fmt.Sprintf("SELECT weight FROM %s WHERE id = %d", view, id)).Scan(&w)
		return w, err
	}
	reads := func(view string, id int, want string) {
		t.Helper()
		if got, err := weight(view, id); err != nil || got != want {
			t.Errorf("%s %d: %q, %v, want %q", view, id, got, err, want)
		}
	}

	insert(1, "10")
	reads("parcel_search", 1, "10")
	insert(1, "heavy") // an integer for Elasticsearch, says the file
	insert(2, "20")
	reads("parcel_cache", 1, "heavy") // the other view has no trouble
	refused(t, conn, "SELECT weight FROM parcel_search WHERE id = 1", "55000", "dead-letter queue")
	refused(t, conn, "SELECT count(*) FROM parcel_search", "55000", "dead-letter queue")
	reads("parcel_search", 2, "20")

	letter := s.letter(t, "parcel_search")
	if !strings.Contains(letter.Cause, "weight") || letter.Key == "" {
		t.Errorf("the dead letter has key %s and cause %s, want one that names weight", letter.Key, letter.Cause)
	}
	code, out := s.run("dlq", "show", letter.ID)
	if code != 0 || !strings.Contains(out, `"weight": "heavy"`) || !strings.Contains(out, `"cause"`) {
		t.Errorf("dlq show: exit code %d\n%s", code, out)
	}
	var lag int
	if err := conn.QueryRow(within(t, patience), "SELECT dead_letters FROM tidemark.lag WHERE view = 'parcel_search' LIMIT 1").Scan(&lag); err != nil || lag != 1 {
		t.Errorf("tidemark.lag shows %d dead letters, %v, want 1", lag, err)
	}

	// As long as the cause is there a replay fails, and the event stays.
	if code, out := s.run("dlq", "replay", letter.ID); code != 1 || !strings.Contains(out, "1 of 1 event failed") {
		t.Errorf("dlq replay: exit code %d\n%s", code, out)
	}
	s.elastic(t, http.MethodPut, "/"+s.database+"_parcels/_mapping", `{"properties": {"weight": {"type": "integer", "ignore_malformed": true}}}`)
	if code, out := s.run("dlq", "replay", "--view", "parcel_search"); code != 0 {
		t.Errorf("dlq replay: exit code %d\n%s", code, out)
	}
	if code, out := s.run("dlq", "list"); code != 0 || !strings.Contains(out, "is empty") {
		t.Errorf("dlq list after the replay: exit code %d\n%s", code, out)
	}
	eventually(t, patience, func(context.Context) error { // the proxy hears of it a little later
		got, err := weight("parcel_search", 1)
		if err == nil && got != "heavy" {
			t.Fatalf("the replayed row has weight %q", got)
		}
		return err
	})

	// What is no event at all concerns both views, and nobody can say which key; the partition goes on.
	s.produce(t, `{"id":1}`, "this is no event")
	for _, view := range []string{"parcel_search", "parcel_cache"} {
		letter := s.letter(t, view)
		if code, out := s.run("dlq", "replay", letter.ID); code != 1 {
			t.Errorf("dlq replay of garbage: exit code %d\n%s", code, out)
		}
		if code, out := s.run("dlq", "discard", letter.ID); code != 0 {
			t.Errorf("dlq discard: exit code %d\n%s", code, out)
		}
	}
	insert(1, "11")
	eventually(t, patience, func(context.Context) error {
		got, err := weight("parcel_search", 1)
		if err == nil && got != "11" {
			t.Fatalf("weight %q, want 11", got)
		}
		return err
	})
	for id := range 16 { // every shard
		insert(100+id, "1")
	}
	s.compareViews(conn, "*", map[string]string{"parcel_search": "parcels", "parcel_cache": "parcels"})
}

// deadLetter is a line of `tidemark dlq list --json`.
type deadLetter struct{ ID, Key, Cause string }

// letter waits for the one dead letter of a view.
func (s *system) letter(t *testing.T, view string) (d deadLetter) {
	t.Helper()
	eventually(t, patience, func(context.Context) error {
		code, out := s.run("dlq", "list", "--view", view, "--json")
		if code != 0 || strings.Count(out, "\n") != 1 {
			return fmt.Errorf("dlq list: exit code %d\n%s", code, out)
		}
		var raw struct {
			ID, Cause string
			Key       json.RawMessage
		}
		err := json.Unmarshal([]byte(out), &raw)
		d = deadLetter{raw.ID, string(raw.Key), raw.Cause}
		return err
	})
	return d
}

// elastic sends one request to Elasticsearch itself.
func (s *system) elastic(t *testing.T, method, path, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(within(t, patience), method, s.cluster.Elasticsearch.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if b, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s %s: %s %s %v", method, path, resp.Status, b, err)
	}
}

// produce puts a record on the topic of the table parcels.
func (s *system) produce(t *testing.T, key, value string) {
	t.Helper()
	w := &kafka.Writer{Addr: kafka.TCP(s.cluster.Kafka.Brokers...), Topic: s.database + "." + s.database + ".public.parcels", RequiredAcks: kafka.RequireAll, BatchSize: 1}
	if err := w.WriteMessages(within(t, patience), kafka.Message{Key: []byte(key), Value: []byte(value)}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

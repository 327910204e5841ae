package e2e

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tidemarkdb/tidemark/testcontainers"
)

// TestCheck runs `tidemark check`: what is right, what is wrong in the file, and what is wrong with the services; and the HTTP endpoints of a
// proxy and a projector that are well.
func TestCheck(t *testing.T) {
	s := start(t, linesSpec)
	text, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	good := string(text)
	primary := fmt.Sprintf("primary: {host: %s, port: %d}", s.cluster.Shards[0].Primary.Host, s.cluster.Shards[0].Primary.Port)
	replica := fmt.Sprintf("- {host: %s, port: %d}", s.cluster.Shards[0].Replicas[0].Host, s.cluster.Shards[0].Replicas[0].Port)
	elastic := "addresses: [" + s.cluster.Elasticsearch.URL + "]"
	nobody := testcontainers.FreeAddress(t)
	for _, test := range []struct {
		name     string
		old, new string // replaced in the file
		online   bool
		code     int
		want     []string
	}{
		{"a good file", "", "", false, 0, []string{"✓", "2 shards, 4 servers, 1 table, 1 captured, 2 views, 1 user"}},
		{"everything answers", "", "", true, 0, []string{"primary 15", "replica 15", "1 table can be captured", "1 broker", "cluster ", "version 7", "all well: 9 checks"}},
		{"an unknown key", "sharding:", "shardign:", false, 2, []string{"tidemark.yaml:", "shardign", "sharding"}},
		{"a missing variable", "E2E_APP_PASSWORD", "E2E_NO_SUCH", false, 2, []string{"E2E_NO_SUCH"}},
		{"a wrong unit", "drain_timeout: 3s", "drain_timeout: 3 parsecs", false, 2, []string{":3:", "drain_timeout", "parsecs"}},
		{"a view of nothing", "from: lines, elastic", "from: , elastic", false, 2, []string{"line_search", "from"}},
		{"a wrong password", `"${E2E_OWNER_PASSWORD}"`, `"${E2E_OWNER_PASSWORD}x"`, true, 1, []string{"the server refused it", "→ check database.user and database.password", "✓ Kafka"}},
		{"a database that is not there", "database: {name: " + s.database, "database: {server_name: nowhere_at_all, name: " + s.database, true, 1, []string{"nowhere_at_all does not exist", "CREATE DATABASE"}},
		{"roles the wrong way round", primary + "\n    replicas:\n      " + replica, "primary:" + strings.TrimPrefix(replica, "-") + "\n    replicas:\n      - " + strings.TrimPrefix(primary, "primary: "), true, 1, []string{"it is a replica, while the file calls it a primary"}},
		{"a primary key without the shard key", "lines: {key: customer_id}", "lines: {key: title}", true, 1, []string{"does not contain the shard key title", `ADD PRIMARY KEY ("title", "customer_id", "id")`}},
		{"Kafka is not there", "brokers: [" + s.cluster.Kafka.Brokers[0], "brokers: [" + nobody, true, 1, []string{"✗ Kafka " + nobody}},
		{"Elasticsearch is something else", elastic, "addresses: [http://" + s.proxy.http + "], password: \"${E2E_OWNER_PASSWORD}\", user: x", true, 1, []string{"does not say that it is Elasticsearch"}},
		{"Redis wants another password", "redis: {address:", `redis: {user: nobody, password: "${E2E_APP_PASSWORD}", address:`, true, 1, []string{"redis.password"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			changed := strings.Replace(good, test.old, test.new, 1)
			if test.old != "" && changed == good {
				t.Fatalf("the file has no %q:\n%s", test.old, good)
			}
			file := filepath.Join(t.TempDir(), "tidemark.yaml")
			if err := os.WriteFile(file, []byte(changed), 0o600); err != nil {
				t.Fatal(err)
			}
			args := []string{"check", file}
			if test.online {
				args = append(args, "--online", "--timeout", "30s") // on a busy machine
			}
			code, out := run(t, args...)
			if code != test.code {
				t.Errorf("exit code %d, want %d", code, test.code)
			}
			for _, w := range test.want {
				if !strings.Contains(out, w) {
					t.Errorf("no %q", w)
				}
			}
			if t.Failed() {
				t.Log(out)
			}
		})
	}
	t.Run("endpoints", func(t *testing.T) { s.checkEndpoints(t) })
	t.Run("stop", func(t *testing.T) {
		for _, p := range append([]*process{s.proxy}, s.projectors...) {
			if code, err := p.stop(within(t, patience)); err != nil || code != 0 {
				t.Errorf("%s after SIGTERM: exit code %d, %v", p.name, code, err)
			}
		}
	})
}

// well waits until /health of a process has nothing to complain about: views that no event has reached yet are made behind the start.
func (s *system) well(t *testing.T, p *process) (checks map[string]string) {
	t.Helper()
	eventually(t, patience, func(ctx context.Context) error {
		code, status, all, err := p.health(ctx)
		if err == nil && (code != http.StatusOK || status != "ok") {
			err = fmt.Errorf("%s: %d %s %v", p.name, code, status, all)
		}
		checks = all
		return err
	})
	return checks
}

// checkEndpoints asks processes that are well.
func (s *system) checkEndpoints(t *testing.T) {
	ctx := within(t, patience)
	for _, p := range append([]*process{s.proxy}, s.projectors...) {
		checks := s.well(t, p)
		want := []string{"kafka", "view line_search", "view line_cache", "capture shard0", "capture shard1"}
		if p == s.proxy {
			want = []string{"kafka", "view line_search", "view line_cache", "shard shard0", "shard shard1", "replicas of shard0"}
		}
		for _, name := range want {
			if _, there := checks[name]; !there {
				t.Errorf("%s: /health has no check %q: %v", p.name, name, checks)
			}
		}
		if code, body, err := p.get(ctx, "/ready"); err != nil || code != http.StatusOK {
			t.Errorf("%s: /ready %d %s %v", p.name, code, body, err)
		}
		for path, text := range map[string]string{"/health": "", "/metrics": "", "/": ""} {
			_, body, err := p.get(ctx, path)
			if err != nil || !strings.Contains(body, text) {
				t.Errorf("%s: %s: %v", p.name, path, err)
			}
			noSecrets(t, p.name+path, body)
		}
	}
	conn := s.connect()
	must(t, conn, waits)
	must(t, conn, upsertLine, int64(1), int64(1), int64(1))
	must(t, conn, "SELECT * FROM line_cache WHERE customer_id = 1 AND id = 1")
	for _, m := range []struct {
		name   string
		labels []string
		least  float64
	}{
		{"tidemark_clients", nil, 1},
		{"tidemark_logins_total", nil, 1},
		{"tidemark_statements_total", nil, 3},
		{"tidemark_endpoint_healthy", []string{`role="primary"`}, 2},
		{"tidemark_endpoint_healthy", []string{`role="replica"`}, 2},
		{"tidemark_build_info", []string{`process="proxy"`}, 1},
	} {
		if v, found, err := s.proxy.metric(ctx, m.name, m.labels...); err != nil || !found || v < m.least {
			t.Errorf("the proxy's %s%v is %v (%v, %v), want at least %v", m.name, m.labels, v, found, err, m.least)
		}
	}
	eventually(t, patience, func(ctx context.Context) error {
		events, streaming := 0.0, 0.0
		for _, p := range s.projectors {
			n, _, err := p.metric(ctx, "tidemark_projection_events_total")
			if err != nil {
				return err
			}
			events += n
			if n, _, err = p.metric(ctx, "tidemark_capture_state", `state="streaming"`); err != nil {
				return err
			}
			streaming += n
		}
		if events < 2 || streaming != 2 {
			return fmt.Errorf("the projectors have applied %v events and stream %v shards, want 2 of each at least", events, streaming)
		}
		return nil
	})
}

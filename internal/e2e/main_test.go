package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidemarkdb/tidemark/testcontainers"
)

// Secrets of the tests: none of them may ever be in a log or an output.
const (
	ownerUser     = "e2e_owner" // owns the databases; what Tidemark logs in with
	ownerPassword = "owner-secret-7Qf2"
	appUser       = "app" // what clients log in with
	appPassword   = "client-secret-9Xk4"
)

var secrets = []string{ownerPassword, appPassword}

// fixture is what all tests share; each part is made when it is first asked for.
var fixture struct {
	cluster     *testcontainers.Cluster
	clusterOnce sync.Once
	clusterErr  error

	binary     string
	binaryOnce sync.Once
	binaryErr  error
}

func TestMain(m *testing.M) {
	code := m.Run()
	var err error
	if fixture.cluster != nil {
		err = fixture.cluster.Stop()
	}
	if fixture.binary != "" {
		err = errors.Join(err, os.RemoveAll(filepath.Dir(fixture.binary)))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// binary builds the program.
func binary(t *testing.T) string {
	t.Helper()
	fixture.binaryOnce.Do(func() {
		dir, err := os.MkdirTemp("", "tidemark-e2e-")
		if err != nil {
			fixture.binaryErr = err
			return
		}
		fixture.binary = filepath.Join(dir, "tidemark")
		if out, err := exec.Command("go", "build", "-o", fixture.binary, "github.com/tidemarkdb/tidemark/cmd/tidemark").CombinedOutput(); err != nil {
			fixture.binaryErr = fmt.Errorf("%w\n%s", err, out)
		}
	})
	if fixture.binaryErr != nil {
		t.Fatalf("build the program: %v", fixture.binaryErr)
	}
	return fixture.binary
}

// cluster starts the services.
func cluster(t *testing.T) *testcontainers.Cluster {
	t.Helper()
	fixture.clusterOnce.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
		defer cancel()
		fixture.cluster, fixture.clusterErr = testcontainers.Start(ctx, testcontainers.Spec{
			Shards: 2, Replicas: 1, PostgresVersion: "15", Kafka: true, Elasticsearch: true, Redis: true, Progress: func(line string) { t.Log(line) },
		})
		if fixture.clusterErr != nil {
			return
		}
		for _, s := range fixture.cluster.Shards {
			fixture.clusterErr = errors.Join(fixture.clusterErr, execOn(ctx, s.Primary.DSN("postgres"),
				"CREATE ROLE "+ownerUser+" LOGIN REPLICATION CREATEDB PASSWORD '"+ownerPassword+"' IN ROLE pg_monitor"))
		}
	})
	if fixture.clusterErr != nil {
		t.Fatal(fixture.clusterErr)
	}
	return fixture.cluster
}

// patience bounds what must happen sooner or later: only a failure takes that long, and a machine with much else to do is no failure. Statements
// wait as long for read models (waits).
const (
	patience = 4 * time.Minute
	waits    = "SET tidemark.wait_timeout = '180s'"
)

// within is a context that ends after d, or with the test.
func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

const pollEvery = 25 * time.Millisecond

// eventually asks check until it returns nil, and fails the test with its last error when d is over.
func eventually(t *testing.T, d time.Duration, check func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	if err := poll(ctx, check); err != nil {
		t.Fatal(err)
	}
}

// poll is eventually for goroutines.
func poll(ctx context.Context, check func(ctx context.Context) error) error {
	for {
		err := check(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		case <-time.After(pollEvery):
		}
	}
}

// seeded is a source of random numbers whose seed is in the test's log.
func seeded(t *testing.T) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("TIDEMARK_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("seed: TIDEMARK_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// execOn runs statements on one server.
func execOn(ctx context.Context, dsn string, statements ...string) error {
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	for _, s := range statements {
		if _, err := conn.Exec(ctx, s); err != nil {
			return fmt.Errorf("%w, in %s", err, s)
		}
	}
	return nil
}

package testcontainers

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"testing"
)

// shared holds the clusters that Shared started in this process, by their spec.
var shared = struct {
	sync.Mutex
	clusters map[string]*sharedCluster
}{clusters: map[string]*sharedCluster{}}

type sharedCluster struct {
	once    sync.Once
	cluster *Cluster
	err     error
}

// Shared returns the cluster of spec that all tests of this binary share: the first call starts it, Main stops it. A test binary
// without Main leaves that to the end of its process, which local processes and containers follow.
//
// Tests keep apart by Cluster.Database, by topics, indexes and key prefixes of their own; a test that breaks services should take New.
func Shared(t testing.TB, spec Spec) *Cluster {
	t.Helper()
	key, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	shared.Lock()
	s := shared.clusters[string(key)]
	if s == nil {
		s = &sharedCluster{}
		shared.clusters[string(key)] = s
	}
	shared.Unlock()
	s.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
		defer cancel()
		s.cluster, s.err = Start(ctx, spec)
	})
	if s.err != nil {
		t.Fatal(s.err)
	}
	return s.cluster
}

// Main runs a package's tests, stops what Shared started, and exits:
//
//	func TestMain(m *testing.M) { testcontainers.Main(m) }
func Main(m *testing.M) {
	code := m.Run()
	shared.Lock()
	defer shared.Unlock()
	for _, s := range shared.clusters {
		if s.cluster == nil {
			continue
		}
		if err := s.cluster.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, "testcontainers:", err)
			code = max(code, 1)
		}
	}
	os.Exit(code)
}

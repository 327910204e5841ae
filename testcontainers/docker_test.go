package testcontainers_test

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/moby/client"
	tc "github.com/testcontainers/testcontainers-go"

	"github.com/tidemarkdb/tidemark/testcontainers"
)

// A cluster of which one service cannot be started leaves no container behind, made or half made, and no network.
func TestFailedStartLeavesNothing(t *testing.T) {
	if !testcontainers.EngineAnswers(ctx(t)) {
		t.Skip("no Docker engine answers")
	}
	t.Setenv("TIDEMARK_TEST_STACK", "docker")
	t.Setenv("TIDEMARK_IMAGE_REDIS", "localhost:1/none")
	engine, err := tc.NewDockerClientWithOpts(ctx(t))
	if err != nil {
		t.Fatal(err)
	}
	defer engine.Close() //nolint:errcheck // only read
	left := func() (ids []string) {
		own := client.Filters{}.Add("label", "org.testcontainers.sessionId="+tc.SessionID())
		containers, err := engine.ContainerList(ctx(t), client.ContainerListOptions{All: true, Filters: own})
		if err != nil {
			t.Fatal(err)
		}
		networks, err := engine.NetworkList(ctx(t), client.NetworkListOptions{Filters: own})
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range containers.Items {
			if c.Labels["org.testcontainers.ryuk"] == "" {
				ids = append(ids, c.Image+" "+c.ID)
			}
		}
		for _, n := range networks.Items {
			ids = append(ids, "network "+n.ID)
		}
		return ids
	}
	before := len(left())
	for range 3 {
		if _, err := testcontainers.Start(ctx(t), spec); err == nil || !strings.Contains(err.Error(), "localhost:1/none") {
			t.Fatalf("got %v, want an error that names the image", err)
		}
	}
	if after := left(); len(after) != before {
		t.Errorf("%d containers and networks before, afterwards %v", before, after)
	}
}

// An engine that takes connections and never answers is no engine, and is not waited for. The example runs in a process of its own, because
// testcontainers-go looks for an engine once in a process.
func TestSilentEngine(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "docker.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() }) // nothing is lost with it
	for stack, want := range map[string]string{"docker": "no Docker engine answers", "auto": "PASS"} {
		t.Run(stack, func(t *testing.T) {
			t.Parallel()
			cmd := exec.CommandContext(ctx(t), os.Args[0], "-test.run=^Example$")
			cmd.Env = append(os.Environ(), "DOCKER_HOST=unix://"+socket, "TIDEMARK_TEST_STACK="+stack)
			if out, err := cmd.CombinedOutput(); !strings.Contains(string(out), want) {
				t.Errorf("%v: %s, want %q", err, out, want)
			}
		})
	}
}

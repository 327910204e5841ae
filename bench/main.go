// Command bench compares direct PostgreSQL, PgBouncer and Tidemark in one run: pgbench's select-only script, simple and
// prepared, at several numbers of clients. Every point is measured in interleaved rounds and reported by its median, so
// that a machine whose speed drifts does it to all alike: trust ratios within a run, not times between runs.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/tidemarkdb/tidemark/internal/localstack"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	rounds := flag.Int("rounds", 3, "interleaved rounds of each point")
	seconds := flag.Int("seconds", 5, "seconds of each round")
	clients := flag.String("clients", "1,8,64", "numbers of clients")
	out := flag.String("out", filepath.Join("bench", "results"), "folder for the report")
	scale := flag.Int("scale", 5, "pgbench scale: 100,000 accounts each")
	other := flag.String("other", "", "a second tidemark binary to compare with, as peer tidemark-other")
	only := flag.String("only", "", "peers to run, comma-separated (default: all)")
	flag.Parse()

	var counts []int
	for _, s := range strings.Split(*clients, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(s))
		if err != nil || n < 1 {
			return fmt.Errorf("-clients %s: want numbers separated by commas", *clients)
		}
		counts = append(counts, n)
	}
	dir, err := os.MkdirTemp("", "tidemark-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}

	say("starting two PostgreSQL servers")
	stack, err := localstack.Start(ctx, localstack.Spec{
		Shards: []localstack.PostgresSpec{{Name: "s1", Version: "15"}, {Name: "s2", Version: "15"}},
		Memory: true,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stack.Stop()) }()
	if err := load(ctx, stack, *scale); err != nil {
		return err
	}
	peers, err := startPeers(ctx, stack, dir, *only, *other)
	if err != nil {
		return err
	}
	defer func() {
		for _, p := range peers {
			err = errors.Join(err, p.stop())
		}
	}()

	var points []*point
	for _, mode := range []string{"simple", "prepared"} {
		for _, n := range counts {
			pt := &point{mode: mode, clients: n, samples: make([][]sample, len(peers))}
			points = append(points, pt)
			for round := range *rounds {
				for i, p := range peers {
					s, err := p.measure(ctx, dir, mode, n, *seconds)
					if err != nil {
						return fmt.Errorf("%s, %s, %d clients: %w", p.name, mode, n, err)
					}
					pt.samples[i] = append(pt.samples[i], s)
					say("%s, %d clients, round %d of %d: %-24s %8.0f tps, %5.1f µs of CPU per transaction", mode, n, round+1, *rounds, p.name, s.tps, s.cpu)
				}
			}
		}
	}
	report := render(peers, points, *rounds, *seconds)
	fmt.Print("\n", report)
	if err := os.MkdirAll(*out, 0o755); err != nil {
		return err
	}
	file := filepath.Join(*out, "select-only.md")
	say("written to %s", file)
	return os.WriteFile(file, []byte(report), 0o644)
}

var begun = time.Now()

func say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%6.1fs  %s\n", time.Since(begun).Seconds(), fmt.Sprintf(format, args...))
}

// load fills both servers with all accounts, so that either can answer for any: what is measured is the way there.
func load(ctx context.Context, stack *localstack.Stack, scale int) error {
	for _, pg := range stack.Postgres {
		say("loading %s", pg.Name)
		for _, sql := range []string{
			"CREATE ROLE bench LOGIN SUPERUSER PASSWORD 'bench'", "CREATE DATABASE bench OWNER bench",
		} {
			if err := command(ctx, "psql", "-qX", "-v", "ON_ERROR_STOP=1", "-c", sql, pg.Primary.DSN("postgres")); err != nil {
				return err
			}
		}
		if err := command(ctx, "pgbench", "-i", "-q", "-s", strconv.Itoa(scale), pg.Primary.DSNAs("bench", "bench", "bench")); err != nil {
			return err
		}
	}
	return nil
}

func command(ctx context.Context, name string, args ...string) error {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", name, err, out)
	}
	return nil
}

func machine() string {
	model := "unknown processor"
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for _, line := range strings.Split(string(b), "\n") {
			if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
				model = strings.TrimSpace(v)
				break
			}
		}
	}
	return fmt.Sprintf("%s, %d cores, %s, %s", model, runtime.NumCPU(), runtime.Version(), time.Now().UTC().Format("2006-01-02"))
}

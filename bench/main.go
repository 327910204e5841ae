// Command bench compares direct PostgreSQL, PgBouncer and Tidemark in one run, scenario by scenario: transactions of several
// kinds, logins, large results, idle clients, overload. Every point is measured in interleaved rounds and reported by its
// median, so that a machine whose speed drifts does it to all alike: trust ratios within a run, not times between runs.
//
//	make bench                              everything, within two hours
//	make bench ARGS=-quick                  everything at small size, in three minutes
//	make bench ARGS='-only bulk -gb 1'      one scenario
//	make bench ARGS='-only bulk -points COPY'   some of its points
//	make bench ARGS='-peers pgbouncer-new,tidemark -other /tmp/tidemark-before'
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/tidemarkdb/tidemark/internal/localstack"
)

// options are the command line.
type options struct {
	rounds, seconds, scale, idle int
	gigabytes                    float64
	clients                      []int
	scenarios, peers             []string // empty: all
	points                       string   // part of the labels of the points to run; empty: all
	other                        string   // a second tidemark binary
	out                          string   // folder
	quick                        bool
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends this process at once, and its children with it
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func parse() (o options, err error) {
	flag.BoolVar(&o.quick, "quick", false, "everything at small size; written as quick.md and quick.svg")
	flag.IntVar(&o.rounds, "rounds", 5, "interleaved rounds of each point")
	flag.IntVar(&o.seconds, "seconds", 5, "measured seconds of each round, behind one to warm up")
	flag.IntVar(&o.scale, "scale", 10, "pgbench scale: 100,000 accounts each")
	flag.IntVar(&o.idle, "idle", 10000, "idle clients")
	flag.Float64Var(&o.gigabytes, "gb", 2, "GB of a large result and of a COPY")
	flag.StringVar(&o.points, "points", "", "run only the points whose labels contain this")
	flag.StringVar(&o.other, "other", "", "a second tidemark binary to compare with, as peer tidemark-other")
	flag.StringVar(&o.out, "out", filepath.Join("bench", "results"), "folder for the report")
	clients := flag.String("clients", "1,8,64,500", "numbers of clients of select")
	only := flag.String("only", "", "scenarios to run, comma-separated (default: all of "+strings.Join(scenarioNames(), ",")+")")
	peers := flag.String("peers", "", "peers to run, comma-separated (default: all of "+strings.Join(peerNames, ",")+")")
	flag.Parse()
	if o.quick {
		small := map[string]string{"rounds": "1", "seconds": "1", "scale": "1", "idle": "1000", "gb": "0.1", "clients": "8"}
		flag.Visit(func(f *flag.Flag) { delete(small, f.Name) }) // what was said wins
		for name, value := range small {
			if err := flag.Set(name, value); err != nil {
				return o, err
			}
		}
	}
	if o.rounds < 1 || o.seconds < 1 || o.scale < 1 || o.idle < 1 || o.gigabytes <= 0 {
		return o, errors.New("-rounds, -seconds, -scale, -idle and -gb must be positive")
	}
	for s := range strings.SplitSeq(*clients, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(s))
		if err != nil || n < 1 {
			return o, fmt.Errorf("-clients %s: want numbers separated by commas", *clients)
		}
		o.clients = append(o.clients, n)
	}
	if o.scenarios, err = choice("-only", *only, scenarioNames()); err != nil {
		return o, err
	}
	o.peers, err = choice("-peers", *peers, peerNames)
	return o, err
}

func choice(option, list string, known []string) (chosen []string, err error) {
	if list == "" {
		return nil, nil
	}
	for name := range strings.SplitSeq(list, ",") {
		if !slices.Contains(known, name) {
			return nil, fmt.Errorf("%s %s: there are %s", option, name, strings.Join(known, ", "))
		}
		chosen = append(chosen, name)
	}
	return chosen, nil
}

// bench is what all scenarios share: two loaded servers, the programs to compare, a folder for their files.
type bench struct {
	options
	dir      string
	files    int // files that a process may open
	stack    *localstack.Stack
	programs map[string]program
	canned   *peer  // bench/canned, while it runs
	verifier string // user bench's SCRAM verifier, so that no peer derives keys from a password at each login
	cert     string // PEM files for peers that serve TLS
	key      string
}

func run(ctx context.Context) (err error) {
	o, err := parse()
	if err != nil {
		return err
	}
	b := &bench{options: o}
	if b.files, err = raiseFiles(); err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp("", "tidemark-bench-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	if err := os.Chmod(b.dir, 0o777); err != nil { // PgBouncer runs as nobody where we are root
		return err
	}
	if b.cert, b.key, err = certificate(b.dir); err != nil {
		return err
	}
	if err := b.findPrograms(ctx); err != nil {
		return err
	}
	say("starting two PostgreSQL servers")
	settings := map[string]string{"max_connections": "1400", "shared_buffers": "256MB"}
	b.stack, err = localstack.Start(ctx, localstack.Spec{
		Shards: []localstack.PostgresSpec{{Name: "s1", Version: "15", Settings: settings}, {Name: "s2", Version: "15", Settings: settings}},
		Memory: true,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.stack.Stop()) }()
	if err := b.load(ctx); err != nil {
		return err
	}
	var results []*result
	for _, sc := range scenarios(b) {
		if len(o.scenarios) > 0 && !slices.Contains(o.scenarios, sc.name) {
			continue
		}
		sc.points = slices.DeleteFunc(sc.points, func(pt point) bool { return !strings.Contains(strings.Join(pt.labels, ", "), o.points) })
		if len(sc.points) == 0 {
			continue
		}
		r, err := b.measure(ctx, sc)
		if err != nil {
			return fmt.Errorf("%s: %w", sc.name, err)
		}
		results = append(results, r)
		if err := b.write(results); err != nil { // after each scenario, so that an interrupted run leaves what it has
			return err
		}
	}
	for _, r := range results {
		for _, f := range r.failures {
			err = errors.Join(err, fmt.Errorf("%s: %s", r.name, f))
		}
	}
	return err
}

// load fills both servers with all accounts, so that either can answer for any: what is measured is the way there.
func (b *bench) load(ctx context.Context) error {
	for _, pg := range b.stack.Postgres {
		say("loading %s", pg.Name)
		admin := func(sql string) (string, error) {
			return output(ctx, "psql", "-qAtX", "-v", "ON_ERROR_STOP=1", "-c", sql, pg.Primary.DSN("postgres"))
		}
		if b.verifier == "" {
			if _, err := admin("CREATE ROLE bench LOGIN SUPERUSER PASSWORD 'bench'"); err != nil {
				return err
			}
			verifier, err := admin("SELECT rolpassword FROM pg_authid WHERE rolname = 'bench'")
			if err != nil {
				return err
			}
			b.verifier = strings.TrimSpace(verifier)
		} else if _, err := admin("CREATE ROLE bench LOGIN SUPERUSER PASSWORD '" + b.verifier + "'"); err != nil {
			return err
		}
		if _, err := admin("CREATE DATABASE bench OWNER bench"); err != nil {
			return err
		}
		dsn := pg.Primary.DSNAs("bench", "bench", "bench")
		if _, err := output(ctx, "pgbench", "-i", "-q", "-s", strconv.Itoa(b.scale), dsn); err != nil {
			return err
		}
		if _, err := output(ctx, "psql", "-qX", "-c", "CREATE TABLE bench_copy (id int, filler text)", dsn); err != nil {
			return err
		}
	}
	return nil
}

var begun = time.Now()

func say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%6.1fs  %s\n", time.Since(begun).Seconds(), fmt.Sprintf(format, args...))
}
